"""Logits of a task's rows in their order, and times that both models took by turns."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from autoprune.evaluation.measure import Timing, logits_of, time_interleaved, time_together
from autoprune.space.trial import Measurement
from autoprune.targets import Runner
from autoprune.targets.packed import torch_runner
from autoprune.tasks.task import Batch, Encoded
from tests.support.tiny import Tiny, logits


def test_logits_come_in_the_order_of_the_rows(tiny_bert: Tiny) -> None:
    data = tiny_bert.task.validation
    together = logits_of(torch_runner(tiny_bert.model), tiny_bert.task, data)
    for row in range(len(data)):
        alone = logits(tiny_bert.model, tiny_bert.task.batch(data, [row])).numpy()[0]
        assert np.abs(together[row] - alone).max() <= 1e-5


def test_no_rows_are_an_error(tiny_bert: Tiny) -> None:
    none = Encoded(np.empty(0, np.int32), np.empty(0, np.uint8), np.zeros(1, np.int64), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="no rows to evaluate"):
        logits_of(torch_runner(tiny_bert.model), tiny_bert.task, none)


def test_timing_takes_turns_and_tells_the_slower_from_the_faster(example: Batch) -> None:
    calls: list[str] = []

    def runner(name: str, seconds: float) -> Runner:
        def run(batch: Batch) -> np.ndarray[Any, Any]:
            calls.append(name)
            time.sleep(seconds)
            return np.zeros((2, 3), np.float32)

        return run

    timing = time_interleaved(runner("slow", 0.02), runner("fast", 0.005), example, pairs=6, warm_up=1)
    assert calls[2:] == ["fast", "slow", "slow", "fast"] * 3
    assert 20 <= timing.low_ms <= timing.median_ms <= timing.high_ms
    assert 5 <= timing.original_ms < timing.median_ms


def test_models_timed_together_meet_the_same_machine(example: Batch) -> None:
    """A machine that gets three times as slow meanwhile moves no model's share of the original's time."""
    calls: list[str] = []

    def runner(name: str, seconds: float) -> Runner:
        def run(batch: Batch) -> np.ndarray[Any, Any]:
            calls.append(name)
            time.sleep(seconds * (1 + 2 * len(calls) / 36))
            return np.zeros((2, 3), np.float32)

        return run

    models = [runner("half", 0.01), runner("same", 0.02)]
    half, same = time_together(models, runner("original", 0.02), example, rounds=12, warm_up=0)
    rounds = [calls[k : k + 3] for k in range(0, 36, 3)]
    assert all(sorted(round_) == ["half", "original", "same"] for round_ in rounds)
    assert [round_[0] for round_ in rounds[:4]] == ["original", "half", "same", "original"]
    assert half.ratio == pytest.approx(0.5, abs=0.1)
    assert same.ratio == pytest.approx(1.0, abs=0.1)
    assert set(half.fields(10.0)) < {field.name for field in dataclasses.fields(Measurement)}
    assert half.fields(10.0)["latency_ms"] == 10.0 * half.ratio


def test_a_scaled_time_is_as_if_the_original_took_the_reference() -> None:
    assert Timing(10.0, 8.0, 12.0, 20.0, 0.5, 0.5).scaled(40.0) == (20.0, 16.0, 24.0)
    assert Timing(10.0, 8.0, 12.0, 20.0, 0.7, 0.7).scaled(40.0) == (28.0, 16.0, 28.0)
