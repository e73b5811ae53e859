"""Which options of ONNX Runtime's dynamic quantization keep a model's answers, and what do they take?

    python -m benchmarks.dynamic [--model NAME] [--rounds N]

Signed weights (the first is the tool's own default) with and without a scale for each output, of 8 bits and
of 7 (`reduce_range`), and unsigned ones; each after the runtime's own folding of constants. All are timed in
turn with the original, one thread.
`cut` says how far the answers are from those of a session that cuts no sum at 16 bits
(`session.x64quantprecision`): the largest difference of a logit, of the spread of all.
Docs: docs/decisions/045-dynamic-8-bit.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.compress.stitch import Stitched
from autoprune.core.processors import usable_processors
from autoprune.evaluation.measure import logits_of, time_together
from autoprune.models.split_embedding import whole as whole_of
from autoprune.targets.onnx.dynamic import quantize_dynamically
from autoprune.targets.onnx.target import GRAPH, Onnx
from autoprune.tasks.answers import divergence
from benchmarks.finetune.opened import NAMES, Opened

OPTIONS = ((True, False, False), (True, True, False), (True, True, True), (False, True, False))
"""Whether weights are signed, whether each output has a scale, and whether weights have 7 bits."""


def exact_answers(path: Path, batch: dict[str, Any]) -> Any:
    """Logits of a session whose sums of products are not cut off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: batch[node.name] for node in session.get_inputs()})[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamic")
    parser.add_argument("--model", choices=NAMES, default="reviews")
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    bench = Opened.of(given.model, None).worker.workbench
    task, setting, target = bench.task, bench.setting, Onnx()
    batch = task.timing_batch(1, setting.sequence)
    rows = task.batch(task.validation, list(range(16)))
    with tempfile.TemporaryDirectory() as name:
        (whole := Path(name) / "original").mkdir()
        target.save(Stitched.plain(whole_of(bench.teacher), setting.architecture), whole, batch)
        original = target.load(whole)
        made: dict[str, tuple[Path, float]] = {}
        for signed, channels, reduced in OPTIONS:
            kind = "QInt8" if signed else "QUInt8"
            words = ", ".join([kind, *["per channel"] * channels, *["reduced"] * reduced])
            (folder := Path(name) / words).mkdir()
            begun = time.perf_counter()
            quantize_dynamically(
                whole / GRAPH, folder / GRAPH, signed=signed, per_channel=channels, reduce_range=reduced
            )
            made[words] = folder, time.perf_counter() - begun
        runs = {words: target.load(folder) for words, (folder, _) in made.items()}
        timed = time_together([*runs.values()], original, batch, rounds=given.rounds)
        print(f"original {(whole / GRAPH).stat().st_size / 1e6:.2f} MB, {timed[0].original_ms:.1f} ms; "
              f"{usable_processors()} processors")  # fmt: skip
        for (words, (folder, seconds)), timing in zip(made.items(), timed, strict=True):
            run, path = runs[words], folder / GRAPH
            answers = logits_of(run, task, task.validation, watched=setting.validation_answers.watched)
            exact = exact_answers(path, rows)
            test = logits_of(run, task, task.test)
            print(
                f"{words}: {path.stat().st_size / 1e6:.2f} MB, {timing.ratio:.3f} of the original's time, "
                f"validation {task.score(task.validation, answers, setting.validation_answers):.2f}, "
                f"test {task.score(task.test, test):.2f}, "
                f"KL {divergence(answers, setting.validation_answers):.5f}, "
                f"cut {np.abs(run(rows) - exact).max() / exact.std():.4f}, made in {seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
