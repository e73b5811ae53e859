"""Tiny random models with their units, data, calibration statistics and library.

Random weights show shapes, bytes and arithmetic, never accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

import autoprune.targets.openvino.target  # noqa: F401  before OpenVINO itself, to keep its reports off
from autoprune.compress.library import Library
from autoprune.compress.statistics import Statistics, calibrate
from autoprune.compress.stitch import Stitched, stitch
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, search_space
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.levels import UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.space.space_file import read_space
from autoprune.space.storage import storages_of, widest_first
from autoprune.targets import Target
from autoprune.tasks.task import Batch, Encoded, Task
from tests.support.paths import SPACES

torch.set_num_threads(1)

FAMILIES = ("bert", "distilbert")


@dataclass(frozen=True)
class Tiny:
    """A random model and all that is made from it."""

    model: nn.Module
    units: tuple[Unit, ...]
    space: SearchSpace
    task: Task
    statistics: dict[str, Statistics]
    library: Library
    architecture: Architecture | None = None

    def unit(self, kind: str) -> Unit:
        """The first unit of a kind."""
        return next(unit for unit in self.units if unit.kind == kind)

    def stitched(self, level: Level) -> Stitched:
        """Every unit at the level nearest to `level`."""
        return self.stitched_as(self.space.uniform(level))

    def stitched_as(self, candidate: Candidate) -> Stitched:
        """The model with a candidate's levels."""
        return stitch(self.model, self.units, candidate, self.library, self.architecture)

    def space_for(self, target: Target) -> SearchSpace:
        """What a target offers, and 8-bit activations wherever it can hold them."""
        return search_space(
            self.units,
            lambda unit, level: (
                target.offers(unit, level)
                or (level.storage.rounds_inputs and level.storage in target.storages)
            ),
        )

    def predicted_bytes(self, target: Target, levels: Candidate, original: int) -> int:
        """The original's bytes and what each unit's level changes, as the search predicts them."""
        return original + sum(
            target.size_bytes(unit, levels[unit.name]) - target.size_bytes(unit, UNTOUCHED)
            for unit in self.units
        )

    def offered(self, target: Target, candidate: Candidate) -> Candidate:
        """The nearest candidate that a target can hold."""
        levels = dict(candidate.items)
        return Candidate(
            tuple((unit.unit, unit.nearest(levels[unit.unit])) for unit in self.space_for(target).units)
        )

    def with_levels(self, **levels: Level) -> Candidate:
        """All units untouched but the first of each kind that is named."""
        candidate = self.space.untouched()
        for kind, level in levels.items():
            candidate = candidate.with_level(self.unit(kind).name, level)
        return candidate

    @property
    def mixed(self) -> Candidate:
        """Integers of several widths, half floats, floats, heads and neurons gone, all at once."""
        return self.with_levels(
            word_embeddings=Level.of(0.0, 4),
            position_embeddings=Level.of(0.0, 16),
            attention=Level.of(0.5, 3),
            feed_forward=Level.of(0.5, 8),
        ).with_level(self.units[-1].name, Level.of(0.0, 6))


def random_model(
    family: str, *, hidden: int = 64, layers: int = 2, heads: int = 4, ffn: int = 256, vocab: int = 200
) -> nn.Module:
    """A classifier whose logits depend on every weight: no bias is zero and no norm is one."""
    common = {"vocab_size": vocab, "max_position_embeddings": 32, "num_labels": 3}
    spread = {"initializer_range": hidden**-0.5}
    if family == "bert":
        config: transformers.PreTrainedConfig = transformers.BertConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=ffn,
            **common, **spread,
        )  # fmt: skip
    else:
        config = transformers.DistilBertConfig(
            dim=hidden, n_layers=layers, n_heads=heads, hidden_dim=ffn, **common, **spread
        )
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_task(inputs: tuple[str, ...], *, vocab: int, rows: int = 24) -> Task:
    """Three equal splits of random tokens, 3 to 17 a row."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 18, rows)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1, vocab, starts[-1]).astype(np.int32)
    data = Encoded(ids, np.zeros(len(ids), np.uint8), starts, rng.integers(0, 3, rows))
    return Task(data, data, data, ("a", "b", "c"), inputs, pad_id=0)


def make_tiny(family: str, folder: Path, *, also: tuple[str, ...] = (), **sizes: int) -> Tiny:
    """A random model of a family with its units from `search_spaces/`.

    also: names of storages that each unit offers beside those of the file.
    """
    model = random_model(family, **sizes)
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = names if family == "bert" else (names[0], names[2])
    task = random_task(inputs, vocab=sizes.get("vocab", 200))
    units = find_units(model, read_space(SPACES / f"{family}.yaml"), source=f"{family}.yaml")
    units = tuple(
        replace(unit, storages=widest_first([*unit.storages, *storages_of(also)])) for unit in units
    )
    paths = [weight.path for unit in units for weight in unit.weights]
    statistics = calibrate(model, paths, task, task.train, rows=24, seed=0)
    library = Library(folder, model, statistics, key=family)
    return Tiny(model, units, search_space(units, lambda unit, level: True), task, statistics, library)


def logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Logits [b k] of a torch model."""
    with torch.no_grad():
        out: torch.Tensor = model(**{k: torch.from_numpy(x) for k, x in batch.items()}).logits
    return out


def assert_same_scores(one: Sensitivity, other: Sensitivity) -> None:
    """Both have every level of every unit, with scores equal but for rounding."""
    assert set(one.scores) == set(other.scores)
    for unit, table in other.scores.items():
        assert list(one.scores[unit]) == list(table)
        for level, score in table.items():
            scale = float(np.abs(score).max())
            np.testing.assert_allclose(one.scores[unit][level], score, rtol=1e-3, atol=1e-4 * scale)
