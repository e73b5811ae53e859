"""A report of 500 trials is within its limit of bytes; of what a browser takes the benchmark tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.report import write_report
from benchmarks.report import MOST_BYTES, claims
from tests.report.test_progress import timed
from tests.report.test_report import climbed, synthetic


@pytest.mark.slow
def test_five_hundred_trials_with_times_of_workers_fit(tmp_path: Path) -> None:
    write_report(timed(climbed(synthetic(500, 38)), workers=8), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size <= MOST_BYTES


def test_a_claim_fails_where_a_limit_does_not_hold() -> None:
    good = {"candidates": 500, "bytes": 10**6, "seconds": {"loaded": 9.0, "worked": 1.0}, "requests": 0}
    assert all(claim.holds for claim in claims([good]))
    bad = {**good, "bytes": 2 * 10**6, "seconds": {"loaded": 9.0, "worked": 3.0}, "requests": 1}
    assert not any(claim.holds for claim in claims([bad]))
