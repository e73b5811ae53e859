"""The driver keeps up: a small search of the benchmark, with the limits that do not depend on its size.

Times are of the process alone, so that a busy neighbour makes no difference.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale.__main__ import LIMITS, exponent, measure


@pytest.mark.slow
def test_a_small_search_is_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    found = measure(tmp_path / "run", workers=30, trials=120, seconds=60.0)
    parts = found["parts"]
    assert found["trials"] > 150  # some were trained
    assert found["busy_share"] > 0.9
    assert parts["ask"]["mean_ms"] <= 1e3 * LIMITS["ask"]
    assert parts["tell"]["mean_ms"] <= 1e3 * LIMITS["tell"]
    assert found["report_seconds"] <= LIMITS["report"]
    assert 0 < found["models_sent"] < found["trials"]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_exponent_is_the_power_of_the_total(power: float) -> None:
    seconds = np.arange(1.0, 20_001.0) ** power
    assert exponent(seconds) == pytest.approx(1.0 + power, abs=0.01)
