"""Does a better teacher than the original pay: the same fine-tunes under the answers of either.

    python -m benchmarks.teachers FOLDER [--steps N] [--seeds N]

Digits of scikit-learn (1,797 real pictures of 8 x 8, drawn at 16 x 16). The original is a ResNet of two
narrow blocks that was trained for one pass over the rows, the teacher one of four wider blocks that was
trained for many. Candidates are the original with half of its channels gone, at 4 and at 3 bits. A row is one
candidate under one teacher: mean and standard deviation over seeds of accuracy on test, and KL to the
original on validation.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.run.config import Config
from autoprune.space.levels import Candidate, Level
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence

SIDE, TRAIN, VALIDATION = 16, 900, 400
EPOCHS = {"original": 1, "teacher": 12}


def digits() -> dict[str, dict[str, list[Any]]]:
    """The pictures as RGB, in a fixed order: training, validation and test rows."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = [
        Image.fromarray(np.uint8(15 * pictures[k].reshape(8, 8))).resize((SIDE, SIDE)).convert("RGB")
        for k in order
    ]
    names = [f"digit {labels[k]}" for k in order]
    edges = {
        "train": (0, TRAIN),
        "validation": (TRAIN, TRAIN + VALIDATION),
        "test": (TRAIN + VALIDATION, None),
    }
    return {split: {"image": images[i:j], "label": names[i:j]} for split, (i, j) in edges.items()}


def resnet(widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
    """A ResNet of basic blocks, untrained."""
    names = [f"digit {k}" for k in range(10)]
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=widths[0], hidden_sizes=list(widths), depths=list(depths),
        layer_type="basic", downsample_in_first_stage=False, id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
    )  # fmt: skip
    return transformers.ResNetForImageClassification(config)


def write_models(folder: Path) -> None:
    """Train both on the training rows, from fixed seeds, unless they are there."""
    rows = digits()["train"]
    pixels = np.stack([np.asarray(image, np.float32) for image in rows["image"]]).transpose(0, 3, 1, 2)
    inputs = torch.from_numpy((pixels / 255 - 0.5) / 0.5)
    labels = torch.tensor([int(name[-1]) for name in rows["label"]])
    for name, widths, depths in (("original", (8, 16), (1, 1)), ("teacher", (24, 48), (2, 2))):
        if (folder / name / "config.json").is_file():
            continue
        torch.manual_seed(0)
        model: Any = resnet(widths, depths).train()
        steps = EPOCHS[name] * (len(labels) // 32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for step in range(steps):
            chosen = torch.randint(len(labels), (32,), generator=torch.Generator().manual_seed(step))
            model(pixel_values=inputs[chosen], labels=labels[chosen]).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        model.eval().save_pretrained(folder / name)
        side = {"height": SIDE, "width": SIDE}
        transformers.ViTImageProcessor(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
            folder / name
        )


def accuracy(model: nn.Module, prepared: Prepared) -> float:
    """Percent right on test."""
    task = prepared.setting.task
    return task.score(task.test, logits_of(torch_runner(model, task.kind), task, task.test))


def kl(model: nn.Module, prepared: Prepared) -> float:
    """Divergence from the original on validation, nats a row."""
    setting = prepared.setting
    values: NDArray[np.float32] = logits_of(
        torch_runner(model, setting.task.kind), setting.task, setting.task.validation
    )
    return divergence(values, setting.validation_answers)


def compare(prepared: Prepared, candidate: Candidate, steps: int, seeds: int, name: str) -> None:
    """Print what fine-tunes of one candidate come to under either teacher."""
    setting, bench = prepared.setting, Workbench(prepared.setting)
    untrained = bench.stitched(candidate).model
    print(
        f"{name}, untrained: {accuracy(untrained, prepared):.2f} %, {kl(untrained, prepared):.4f} nats",
        flush=True,
    )
    for whose, taught in (("the original", None), ("the teacher", setting.taught_answers)):
        lesson = Lesson(setting.task, setting.task.train, setting.train_answers, taught)
        scores, gaps = [], []
        for seed in range(seeds):
            done = finetune(
                bench.stitched(candidate), lesson, replace(prepared.recipe, steps=steps), seed=seed,
                again=lambda: bench.stitched(candidate), teacher=bench.teacher,
            )  # fmt: skip
            scores.append(accuracy(done.model, prepared))
            gaps.append(kl(done.model, prepared))
        spread = statistics.stdev(scores) if seeds > 1 else 0.0
        told = ", ".join(f"{score:.2f}" for score in scores)
        print(
            f"{name}, under {whose}: {statistics.mean(scores):.2f} +- {spread:.2f} % ({told}), "
            f"{statistics.mean(gaps):.4f} nats",
            flush=True,
        )


def main(given: Sequence[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args(given)
    torch.set_num_threads(1)
    write_models(asked.folder)
    config = Config.of(
        model=str(asked.folder / "original"), dataset="benchmarks.teachers:digits", target="packed",
        task="image-classification", teacher=str(asked.folder / "teacher"),
    )  # fmt: skip
    inputs = read_inputs(config)
    prepared = prepare(config, inputs, Progress())
    torch.set_num_threads(1)
    assert inputs.teacher is not None
    print(f"original {accuracy(prepared.model, prepared):.2f} % on test", flush=True)
    teacher = replace(prepared, setting=replace(prepared.setting, task=inputs.teacher.task))
    print(f"teacher {accuracy(inputs.teacher.model(), teacher):.2f} % on test", flush=True)
    space = inputs.space
    for bits in (4, 3):
        levels = [
            (unit.unit, unit.nearest(Level.of(0.5 if len(unit.ratios) > 1 else 0.0, bits)))
            for unit in space.units
        ]
        compare(prepared, Candidate(tuple(levels)), asked.steps, asked.seeds, f"half at {bits} bits")


if __name__ == "__main__":
    main()
