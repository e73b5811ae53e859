"""The results as a page of the documentation: a table of what works, and what is refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autoprune.core.files import read_json
from autoprune.inspection.draft import MIXED
from benchmarks.architectures.measure import REFUSED, SHIPPED, TARGETS, Row

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "architectures.json", ROOT / "docs" / "architectures.md"

HEAD = """# Architectures

What goes through the whole pipe, each on a tiny model with random weights. Random weights show structure,
bytes and arithmetic, never accuracy. Made by

    python -m benchmarks.architectures

which writes this page and [the figures behind it](../benchmarks/results/architectures.json).

- **space**: shipped with autoprune, or drafted by `autoprune inspect MODEL --write-space my.yaml`.
- **removed**: units that lose parts, by what they lose. All other units are stored in fewer bits alone.
- **masked**: how far the model without half of these parts is from the one in which they are masked, of the
  largest answer. Sums of float32 in another order give some 1e-7.
- **bytes**: of a file with levels of every sort (2 to 16 bits, 8-bit activations, parts removed), as a search
  predicts them, and in brackets what `stat` has more. A good part of so small a model's file is the text of
  its graph, the only thing that is guessed: of a model of real size it is a thousandth.
- **off**: the largest difference of an answer of the file, read again, from the compressed model in torch, in
  standard deviations of the answers, on rows of other lengths than what was traced. The first figure is with
  half floats and half of the parts removed, which no runtime rounds; the second with levels of every sort,
  whose integer kernels round what they multiply.
"""


OTHERS = "only Linear, Conv2d and Embedding layers are compressed"
"""What is said of modules of all other types."""


def read_results() -> list[Row]:
    """The rows of the results file."""
    return [Row.from_json(row) for row in read_json(RESULTS)["rows"]]


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    return (
        "\n".join([HEAD, *_table(rows), "", *_kept(rows), "", *_unremoved(rows), "", *_refused(rows)]) + "\n"
    )


def _table(rows: Sequence[Row]) -> list[str]:
    names = [f"{target}: {what}" for target in TARGETS for what in ("bytes", "off")]
    head = ["architecture", "task", "space", "units", "removed", "masked", *names]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + [_line(row) for row in rows if row.status != REFUSED]


def _line(row: Row) -> str:
    cells = [
        f"{row.family} ({row.model})",
        row.task,
        row.space if row.status == SHIPPED else "drafted",
        str(row.units),
        _counted(row.parts) or "nothing",
        "" if row.masked_against_removed is None else f"{row.masked_against_removed:.0e}",
    ]
    for target in TARGETS:
        saved = row.targets[target]
        if saved.refusal:
            cells += ["refused", ""]
            continue
        predicted, size = saved.predicted_bytes["mixed"], saved.saved_bytes["mixed"]
        cells += [
            f"{predicted:,} ({size - predicted:+,})",
            f"{saved.off['halved']:.0e}, {saved.off['mixed']:.0e}",
        ]
    return "| " + " | ".join(cells) + " |"


def _counted(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} of {count}" for what, count in parts.items())


def _kept(rows: Sequence[Row]) -> list[str]:
    """Layers of which a draft removes nothing though no sum or answer needs all of what they give."""
    lines = ["## Of what a draft removes nothing, and why", ""]
    lines += ["Beside layers that give the answers, or sums that go from block to block:", ""]
    for row in rows:
        some = {why: paths for why, paths in row.kept.items() if why not in (ANSWERS, MIXED)}
        some |= {FUSED: _fused(row.kept[MIXED])} if MIXED in row.kept and _fused(row.kept[MIXED]) else {}
        told = [f"{', '.join(f'`{path}`' for path in paths)}: {why}" for why, paths in some.items()]
        lines += [f"- {row.family}: {'; '.join(told)}"] if told else []
    return lines


ANSWERS = "what it gives, or sums of it, are the model's answers"
FUSED = "several layers in one: a part is no run of its rows"


def _fused(paths: Sequence[str]) -> list[str]:
    """Layers that hold several, by what transformers calls these."""
    return [path for path in paths if path.rpartition(".")[2] in ("Wqkv", "Wi", "qkv_proj", "gate_up_proj")]


def _unremoved(rows: Sequence[Row]) -> list[str]:
    """Layers that no unit of a drafted space has, norms and the like left out."""
    lines = ["## What a draft leaves as it came", "", "Beside norms and single parameters:", ""]
    for row in rows:
        reasons = [
            f"{count} layer{'s' * (count > 1)}: {why}" for why, count in row.left.items() if _is_layer(why)
        ]
        lines += [f"- {row.family}, {'; '.join(reasons)}"] if reasons else []
    return lines


def _is_layer(why: str) -> bool:
    """Whether what is left is a layer with a matrix."""
    return OTHERS not in why or why.partition(":")[0] in ("Conv1d", "ConvTranspose2d")


def _refused(rows: Sequence[Row]) -> list[str]:
    """What is refused, in the words that a user reads."""
    lines = ["## Refused, before anything is compressed", ""]
    for row in rows:
        by_line: dict[str, list[str]] = {}
        for target, saved in row.targets.items():
            if saved.refusal:
                by_line.setdefault(saved.refusal, []).append(target)
        lines += [
            f"- {row.family} ({row.model}), {', '.join(names)}: {line}" for line, names in by_line.items()
        ]
        if row.refusal:
            lines.append(f"- {row.family} ({row.model}): {row.refusal}")
    return lines
