"""Whatever damage a run folder has: a command refuses it by one line, or does its work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from tests.support.made_runs import MadeRun, RunDamage, check_run, new_run, old_run, run_damages

many = hypothesis.settings(
    deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("make", [new_run, lambda folder: old_run()], ids=["new", "old"])
def test_every_damaged_run_is_refused_or_does_its_work(
    tmp_path: Path, make: Callable[[Path], MadeRun]
) -> None:
    run = make(tmp_path / "made")
    assert check_run(run, RunDamage(), tmp_path / "whole") == "accepted"

    @hypothesis.given(data=some.data())
    @many
    def check(data: some.DataObject) -> None:
        hypothesis.event(check_run(run, data.draw(run_damages(run)), tmp_path / "damaged"))

    check()
