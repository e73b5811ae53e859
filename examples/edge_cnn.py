"""A convolutional network on an edge CPU: a limit in milliseconds, set once the device has been timed.

    python -m examples.edge_cnn [--full]

Shows: a model that a function builds, a space that autoprune drafts for it, a first search that times the
original and uniform models on this machine with one thread, and `resume --budget` with a limit below the
original's time. For another device than this machine see `--latency-node` in docs/cluster.md. Small is a
network of three convolutions, fitted here to the 1,797 digits of scikit-learn; full is EfficientNet-lite0
fine-tuned on photographs of solar cells, whose packages benchmarks/zoo_requirements.txt names.
"""

from __future__ import annotations

import re

from safetensors.torch import save_file

import autoprune
from autoprune.core.files import read_json
from examples.commands import Example, call, example, sizes
from examples.digits import SIDE, fitted

BITS = re.compile(r"bits: \[[^]]*\]")
"""In a drafted space; at small size two of them are left, so that few models are timed."""

FIRST_MS = 1000
"""The limit of the first search, which all meet."""

SHARE = 0.8
"""Of the original's time: the limit that is searched for."""


def words_of_search(asked: Example) -> list[object]:
    """What the first search is told: a limit that all meet."""
    if not asked.small:
        from benchmarks.harness import models

        words: list[object] = ["benchmarks.harness.models:efficientnet_lite0"]
        words += ["--dataset", models.cell_images()]
        words += [
            "--weights",
            models.efficientnet() / "model.safetensors",
            "--image-size",
            models.CELL_PIXELS,
        ]
        return [*words, "--finetune-steps", 10, "--trials", 1, "--budget", f"{FIRST_MS}ms"]
    weights, space = asked.work / "digits.safetensors", asked.work / "digits.yaml"
    if not weights.exists():
        save_file(fitted().state_dict(), weights)
    model = "examples.digits:build"
    if not space.exists():
        call("inspect", model, "--image-size", SIDE, "--write-space", space)
        draft = space.read_text(encoding="utf-8")
        space.write_text(BITS.sub("bits: [4, 8]", draft), encoding="utf-8")
    words = [model, "--weights", weights, "--dataset", "examples.digits:pictures", "--image-size", SIDE]
    words += ["--task", "image-classification", "--space", space, "--workers", 0, "--calibration-rows", 128]
    return [*words, "--finetune-steps", 10, "--trials", 1, "--budget", f"{FIRST_MS}ms"]


def main() -> None:
    """Time the original, search below its time, export, and measure the export again."""
    asked = example(__doc__, "edge-cnn")
    run = asked.work / "run"
    front = asked.search("run", *words_of_search(asked))
    if read_json(run / "front.json")["run"]["budget"]["latency_ms"] == FIRST_MS:
        limit_ms = SHARE * (front.original.latency_ms or 0)
        call("resume", run, "--budget", f"{limit_ms:.4f}ms", "--trials", "+2" if asked.small else "+24")
        front = autoprune.open_run(run)
    folder = asked.export("run", "model")
    print(sizes(front))
    call("bench", folder)


if __name__ == "__main__":
    main()
