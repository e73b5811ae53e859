"""Is it one pipeline for every family? Real weights, real data, searched by the command line as a user would.

    python -m benchmarks.families [NAME...] [--work FOLDER] [--trials N] [--workers N] [-o FILE.json]

NAME is one of those that `--help` lists; without any, all. Runs lie in the work folder and are gone on with,
or read again where they are finished. Models and data are made by `harness/models.py`. Latency is the
run's own, in turn with the original: nothing else should run meanwhile. Exits 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from autoprune.core.files import read_json, write_json
from autoprune.run.config import Config
from autoprune.strategy.promotion import RUNG_STEPS
from benchmarks.families.again import agreement_of, times_of
from benchmarks.families.claims import kept, loss, mb, score, within
from benchmarks.families.uniform import measured, nearest_score
from benchmarks.harness import models as zoo
from benchmarks.harness.claim import Claim
from benchmarks.harness.commands import Bench, Run, shown
from benchmarks.harness.export_at_work import answer, generate, unseen_words

RESULTS = Path(__file__).parents[1] / "results" / "families.json"
SPACES = Path(__file__).parents[2] / "search_spaces"
LEAST_GAP, MOST_LOSS, MOST_TOKEN_LOSS, LEAST_AGREEMENT = 0.6, 1.0, 1.5, 97.0
ROUNDED = "the published weights were rounded to 4 bits (GGUF Q4_1) before anything here"
PROMPT = "The president said on Monday that"
SHARE_OF_8_BIT = 0.75
"""Of uniform 8 bits' time: what a search is given milliseconds for."""
UNIFORM = 3
"""Bits of the uniform model that a search is given the size of."""
STEPS = 24
"""Of a language model's brief fine-tune, 6 s each on a core; those to ship get four times as many."""


@dataclass(frozen=True)
class Found:
    """What a family's runs showed, for people and for the results file."""

    claims: tuple[Claim, ...]
    runs: tuple[Run, ...]
    note: str = ""


# SmolLM2


def smollm2_size(bench: Bench) -> Found:
    """Half of its 8-bit file, and text from the export."""
    probe = _smollm2_probe(bench)
    limit = int(probe.baseline("uniform 8-bit")["size_bytes"]) // 2
    words = [*_smollm2(bench), *_lean(bench)]
    run = bench.search("smollm2-half", *words, "--budget", f"{limit}B", trials=10)
    best, four = run.best, run.baseline("uniform 4-bit")
    text = generate(bench.export(run, "openvino"), PROMPT)
    claims = (
        within("SmolLM2-135M: half of its 8-bit file", run, limit_bytes=limit),
        Claim(
            "its perplexity is below that of uniform 4 bits",
            f"{shown(run, best)} at {mb(best)}, uniform 4-bit {shown(run, four)} at {mb(four)}; {ROUNDED}",
            score(best) > score(four),
        ),
        Claim(
            "the export writes text through plain OpenVINO", f"{PROMPT!r} -> {text!r}", len(text.split()) > 5
        ),
        Claim(
            "peak memory is known",
            f"{probe.peak_bytes / 1e9:.2f} GB in one process: library, sensitivities and a trial; the "
            f"float model is {mb(probe.baseline('original'))}",
            probe.peak_bytes > 0,
        ),
    )
    return Found((*claims, *kept(run)), (probe, run), ROUNDED)


def smollm2_latency(bench: Bench) -> Found:
    """Milliseconds per token: three quarters of what uniform 8 bits take in the same run.

    Memory that neighbours of the machine use moves all of them by half from one hour to the next.
    """
    run = bench.search("smollm2-ms", *_smollm2(bench), *_lean(bench), trials=1)
    asked_ms = round(SHARE_OF_8_BIT * run.baseline("uniform 8-bit")["latency_ms"], 2)
    run = bench.resumed(run, asked_ms, more=6)
    eight, four = (run.baseline(f"uniform {bits}-bit") for bits in (8, 4))
    of_eight, of_four = times_of(run, run.best, [eight, four])
    text = generate(bench.export(run, "openvino"), PROMPT)
    return Found(
        (
            within("SmolLM2-135M: a limit in milliseconds per token", run, limit_ms=run.limit_ms),
            Claim(
                "timed again, in turn with uniform 8 bits, it is as much faster as the limit asks",
                f"{of_eight:.3f} of uniform 8 bits' time ({shown(run, eight)}), where {SHARE_OF_8_BIT} is "
                f"asked; {of_four:.3f} of uniform 4 bits' ({shown(run, four)})",
                of_eight <= SHARE_OF_8_BIT,
            ),
            Claim(
                "the export writes text through plain OpenVINO",
                f"{PROMPT!r} -> {text!r}",
                len(text.split()) > 5,
            ),
            *kept(run),
        ),
        (run,),
        ROUNDED,
    )


def smollm2_gap(bench: Bench) -> Found:
    """3 bits on average: how much of what uniform rounding loses is won back in the same bytes.

    The uniform model is of the same library, each weight's rounding compensated, and not trained. Without
    training 16 % was won back, with widths alone, from 2 to 8 bits, 12 %.
    """
    words = [*_smollm2(bench, steps=STEPS), *_lean(bench)]
    uniform = measured(_config(words), UNIFORM)
    run = bench.search("smollm2-3bpw", *words, "--budget", f"{uniform.size_bytes}B", trials=8)
    trained = measured(_config(words), UNIFORM, steps=STEPS * RUNG_STEPS[run.best["rung"]])
    low, high, ours, plain, taught = (100.0 / score for score in (
        run.baseline("original")["test_accuracy"], uniform.test_accuracy, run.best["test_accuracy"],
        nearest_score(_config(words), UNIFORM), trained.test_accuracy,
    ))  # fmt: skip
    share, all_of_it = (high - ours) / (high - low), (plain - ours) / (plain - low)
    return Found(
        (
            Claim(
                f"at {UNIFORM} bits on average, {LEAST_GAP:.0%} of the gap in perplexity between uniform "
                f"{UNIFORM}-bit and the original is closed (EvoPress: 46 % on Mistral-7B)",
                f"{share:.1%}: original {low:.2f}, uniform {high:.2f} at {uniform.size_bytes / 1e6:.2f} MB, "
                f"ours {ours:.2f} at {mb(run.best)}; of the gap that rounding each weight by itself leaves "
                f"({plain:.2f}), {all_of_it:.1%}; the uniform model trained as ours is: {taught:.2f}; "
                f"{ROUNDED}",
                share >= LEAST_GAP and run.best["size_bytes"] <= uniform.size_bytes,
            ),
            *kept(run),
        ),
        (run,),
        ROUNDED,
    )


def _config(words: list[str]) -> Config:
    """The settings that a search called with these words has."""
    from click.testing import CliRunner

    from autoprune.cli.main import main

    done = CliRunner().invoke(main, ["search", *words, "--dry-run"], catch_exceptions=False)
    return Config.from_json(json.loads(done.stdout))


def _smollm2(bench: Bench, *, steps: int = 0) -> list[str]:
    """The model and at most so many articles: 50,000, 4,000 and 8,000 tokens."""
    model, data = zoo.smollm2(bench.zoo), zoo.news(bench.zoo)
    words = [str(model), "--dataset", str(data), "--task", "causal-lm", "--finetune-steps", str(steps)]
    return [*words, "--limit-rows", "205", "16", "30"]


def _lean(bench: Bench) -> list[str]:
    """The shipped space with half of its ratios and widths, which takes a third of the time to measure."""
    data = _space("llama")
    for unit in data["units"].values():
        unit["quantize"]["bits"] = [3, 4, 6, 8]
        if "prune" in unit:
            unit["prune"]["ratios"] = [0.0, 0.34] if unit["prune"]["by"] == "head" else [0.0, 0.25, 0.5]
    return ["--space", str(_written(bench.work / "lean-llama.yaml", data))]


def _smollm2_probe(bench: Bench) -> Run:
    """One trial in one process, for the baselines and for the peak of memory."""
    words = [*_smollm2(bench), *_lean(bench)]
    return bench.search("smollm2-probe", *words, "--workers", "0", trials=1)


# Images


def efficientnet(bench: Bench) -> Found:
    """A model that is not from transformers: channels removed, 8 bits, faster."""
    folder = zoo.efficientnet(bench.zoo)
    words = ["benchmarks.zoo:efficientnet_lite0", "--weights", str(folder / "model.safetensors")]
    words += ["--image-size", str(zoo.CELL_PIXELS), "--dataset", str(zoo.cell_images(bench.zoo))]
    probe = bench.search("efficientnet-probe", *words, "--finetune-steps", "0", trials=1)
    limit_ms = round(0.8 * probe.baseline("uniform w8a8")["latency_ms"], 3)
    words += ["--budget", f"{limit_ms}ms", "--finetune-steps", "10"]  # of 4 s each on one core
    run = bench.search("efficientnet-ms", *words, trials=24)
    levels = run.best["levels"].values()
    removed = sum(level["ratio"] > 0 for level in levels)
    wide = sum(level["bits"] not in (8, "w8a8") for level in levels)
    return Found(
        (
            within(
                "EfficientNet-lite0: a latency limit a fifth below uniform w8a8's", run, limit_ms=limit_ms
            ),
            Claim(
                "channels are removed", f"{removed} of {len(levels)} units; {wide} not at 8 bits", removed > 0
            ),
            loss(run, MOST_LOSS),
            *kept(run),
        ),
        (probe, run),
    )


def vit(bench: Bench) -> Found:
    """A ViT on digits at half of its 8-bit file."""
    return _digits(bench, "vit", zoo.vit(bench.zoo))


def resnet(bench: Bench) -> Found:
    """A ResNet on digits at half of its 8-bit file."""
    return _digits(bench, "resnet", zoo.resnet(bench.zoo))


def _digits(bench: Bench, name: str, model: Path) -> Found:
    words = [str(model), "--dataset", str(zoo.digit_images(bench.zoo)), "--task", "image-classification"]
    probe = bench.search(f"{name}-probe", *words, "--finetune-steps", "0", trials=1)
    limit = int(probe.baseline("uniform 8-bit")["size_bytes"]) // 2
    run = bench.search(f"{name}-half", *words, "--budget", f"{limit}B", trials=32)
    claims = (
        within(f"{name} on digits: half of its 8-bit file", run, limit_bytes=limit),
        loss(run, MOST_LOSS),
    )
    return Found((*claims, *kept(run)), (probe, run))


# MiniLM


def embeddings(bench: Bench) -> Found:
    """Sentence embeddings without a label."""
    run = bench.search("embeddings-8MB", *_sentences(bench), "--budget", "8MB", trials=6)
    best, plain = run.best, run.baseline("uniform 4-bit")
    figures = f"{score(best):.2f} % at {mb(best)}; uniform 4-bit {score(plain):.2f} % at {mb(plain)}"
    return Found((_agrees(figures, score(best), int(best["size_bytes"])), *kept(run)), (run,))


def embeddings_coded(bench: Bench) -> Found:
    """The same in a file of our own, entropy-coded: larger by a tenth before that."""
    words = [*_sentences(bench), "--budget", "8.7MB", "--target", "packed"]
    run = bench.search("embeddings-packed", *words, trials=6)
    folder = bench.export(run, "packed", "--storage", "entropy")
    size = (folder / "model.safetensors").stat().st_size
    agreement = agreement_of(run, folder)
    figures = f"{agreement:.2f} % at {size / 1e6:.2f} MB by stat, {mb(run.best)} before entropy coding"
    return Found((_agrees(figures, agreement, size), *kept(run)), (run,))


def _sentences(bench: Bench) -> list[str]:
    """All-MiniLM and sentences of reviews, whose films are in one split each."""
    return [*zoo.sentences(bench.zoo), "--finetune-steps", "100"]  # those to ship get four times as many


def _agrees(figures: str, agreement: float, size_bytes: int) -> Claim:
    return Claim(
        f"MiniLM embeddings at 8 MB: {LEAST_AGREEMENT:g} % Spearman agreement of similarities with the "
        "original's, on held-out sentences of other films",
        figures,
        agreement >= LEAST_AGREEMENT and size_bytes <= 8_000_000,
    )


def tokens(bench: Bench) -> Found:
    """The demo with words of its vocabulary removable."""
    run = bench.search("tokens-5MB", "--budget", "5MB", trials=32)
    removed = run.best["levels"]["embeddings.word_embeddings.rare"]["ratio"]
    folder = bench.export(run, "openvino")
    sentence = unseen_words(folder)
    logits = answer(folder, sentence)
    return Found(
        (
            within("MiniLM demo, tokens removable: 5 MB", run, limit_bytes=5_000_000),
            loss(run, MOST_TOKEN_LOSS),
            Claim(
                "a sentence of words that no review holds is answered",
                f"{removed:.0%} of the rare tokens are gone; {sentence!r} -> {[round(x, 3) for x in logits]}",
                removed > 0 and all(abs(x) < 1e6 for x in logits),
            ),
            *kept(run),
        ),
        (run,),
    )


# Spaces


def _space(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((SPACES / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def _written(path: Path, data: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


FAMILIES: dict[str, Callable[[Bench], Found]] = {
    family.__name__: family
    for family in (
        smollm2_size,
        smollm2_latency,
        smollm2_gap,
        efficientnet,
        vit,
        resnet,
        embeddings,
        embeddings_coded,
        tokens,
    )
}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", choices=[*FAMILIES, []], metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--work", type=Path, default=Path("runs/families"), help="where runs lie")
    parser.add_argument("--zoo", type=Path, help="where models and data lie; the cache folder if not given")
    parser.add_argument("--trials", type=int, help="of each search, instead of its own number")
    parser.add_argument("--workers", type=int, help="Ray workers; one a core if not given")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    bench = Bench(given.work.resolve(), given.zoo, given.trials, given.workers)
    claims: list[Claim] = []
    for name in given.names or FAMILIES:
        print(f"\n{name}: {FAMILIES[name].__doc__}", flush=True)
        found = FAMILIES[name](bench)
        print(*found.claims, sep="\n", flush=True)
        claims += found.claims
        _note(given.output, name, found)
    sys.exit(0 if all(claim.holds for claim in claims) else 1)


def _note(path: Path, name: str, found: Found) -> None:
    """Put one family's results into the file, the others' left as they are."""
    data = read_json(path) if path.is_file() else {"families": {}}
    data["families"][name] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, CPU",
        "versions": {package: metadata.version(package) for package in ("torch", "openvino", "transformers")},
        "note": found.note,
        "claims": [asdict(claim) for claim in found.claims],
        "runs": [run.figures() for run in found.runs],
    }
    write_json(path, data)


if __name__ == "__main__":
    main()
