"""A run folder of a tiny random model with real data, tokenizer and records, made without a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from autoprune.compress.library import Library
from autoprune.compress.statistics import calibrate
from autoprune.compress.stitch import stitch
from autoprune.evaluation.measure import logits_of
from autoprune.models.split_embedding import parts_of
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.run.config import Config
from autoprune.space.levels import Candidate, Level
from autoprune.targets.packed import torch_runner, write_packed
from autoprune.tasks.scoring import accuracy
from tests.support.tiny import random_model

LABELS = ("bad", "fair", "good")
TRIAL = 3
VOCABULARY = 4000


def write_model(folder: Path) -> None:
    """A random BERT of three classes with a tokenizer that knows the words w0, w1, ..."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{k}" for k in range(VOCABULARY - len(words))]
    model = random_model("bert", hidden=128, layers=2, heads=2, ffn=512, vocab=VOCABULARY)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_rows(path: Path, *, rows: int = 400, labels: tuple[str, ...] = LABELS, seed: int = 0) -> None:
    """A csv of random words."""
    rng = np.random.default_rng(seed)
    lines = ["text,label"]
    for _ in range(rows):
        words = rng.integers(0, VOCABULARY - 5, rng.integers(3, 10))
        lines.append(" ".join(f"w{k}" for k in words) + f",{rng.choice(labels)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def levels_of(inputs: Inputs) -> Candidate:
    """Integers of several widths, half floats, a unit left alone, heads and neurons gone."""
    picked = [
        Level.of(0.0, 4),
        Level.of(0.0, 16),
        Level.of(0.5, 8),
        Level.of(0.25, 4),
        Level.of(0.0, 2),
        Level.of(0.5, 6),
    ]
    levels = inputs.space.untouched()
    for unit, level in zip(inputs.space.units, picked, strict=False):
        levels = levels.with_level(unit.unit, unit.nearest(level))
    return levels


def levels_of_front(inputs: Inputs) -> dict[int, Candidate]:
    """Seven candidates from hardly to hardly anything left, which share some variants."""
    space = inputs.space
    mixed = levels_of(inputs)
    names = [unit.unit for unit in space.units]
    levels = {
        1: space.uniform(Level.of(0.0, 8)),
        2: space.uniform(Level.of(0.0, 4)),
        TRIAL: mixed,
        4: space.uniform(Level.of(0.5, 8)),
        5: space.uniform(Level.of(0.5, 3)),
        6: space.uniform(Level.of(0.0, 2)),
    }
    return levels | {7: levels[2].with_level(names[0], levels[1][names[0]])}


def make_run(folder: Path) -> Path:
    """A run for target packed with one trial, whose records say what is true of it."""
    return _made(folder, lambda inputs: {TRIAL: levels_of(inputs)})


def make_front_run(folder: Path) -> Path:
    """A run for target packed that keeps the seven models of its front."""
    return _made(folder, levels_of_front)


def _made(folder: Path, candidates: Callable[[Inputs], dict[int, Candidate]]) -> Path:
    model, rows, run = folder / "model", folder / "rows.csv", folder / "run"
    model.mkdir(parents=True)
    write_model(model)
    write_rows(rows)
    config = Config.of(
        model=str(model), dataset=str(rows), target="packed", max_length=16, sequence=16, budget=("1MB",)
    )
    inputs = read_inputs(config)
    task = inputs.task
    paths = [weight.path for unit in inputs.units for weight in unit.weights]
    statistics = calibrate(inputs.loaded.model, paths, task, task.train, rows=64, seed=0)
    library = Library(folder / "library", inputs.loaded.model, statistics, key="made")
    trials = []
    for number, levels in candidates(inputs).items():
        stitched = stitch(inputs.loaded.model, inputs.units, levels, library)
        artifact = run / "trials" / f"{number:04d}"
        artifact.mkdir(parents=True)
        write_packed(stitched, artifact / "model.safetensors")
        (artifact / "config.json").write_text(inputs.loaded.model.config.to_json_string(use_diff=False))
        score = accuracy(
            logits_of(torch_runner(stitched.model), task, task.validation), task.validation.labels
        )
        size = (artifact / "model.safetensors").stat().st_size
        trials.append(trial_of(levels, inputs.sizes.size_bytes(levels), size, score, number))
    inputs.loaded.tokenizer.save_pretrained(run / "tokenizer")
    facts = facts_of(inputs, config)
    write(run / "run.json", {"version": 1, "config": config.as_json(), "facts": facts, "library_key": "made",
                             "original_ms": 2.0})  # fmt: skip
    write(run / "front.json", {"run": facts, "trials": trials, "best": TRIAL, "knee": TRIAL})
    return run


def facts_of(inputs: Inputs, config: Config) -> dict[str, Any]:
    return {
        "name": "made", "folder": "runs/made", "model": config.model.name, "dataset": inputs.dataset,
        "budget_text": "1.0 MB", "validation_rows": len(inputs.task.validation), "protocol": "As was done.",
        "versions": {"autoprune": "0.1.0"}, "recipe": {"steps": 12}, "model_hash": "0" * 64,
        "data_hash": inputs.data_hash, "labels": list(inputs.task.label_names),
        "parts": parts_of(inputs.loaded.model),
        "command": f"autoprune search {config.model.name} --dataset {config.data.dataset} --budget 1MB",
    }  # fmt: skip


def trial_of(
    levels: Candidate, predicted: int, size: int, score: float, number: int = TRIAL
) -> dict[str, Any]:
    return {
        "number": number, "name": None, "failure": None, "rung": 1, "size_bytes": size,
        "levels": {u: {"ratio": lv.ratio, "bits": lv.storage.written} for u, lv in levels.items},
        "predicted_size_bytes": predicted, "latency_ms": 1.0, "latency_low_ms": 0.9, "latency_high_ms": 1.2,
        "accuracy": score, "kl": 0.1, "test_accuracy": 33.0,
    }  # fmt: skip


def write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")
