"""Whatever damage an exported model has: it is refused by an AutopruneError, or answers as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import hypothesis
import hypothesis.strategies as some
import pytest

from tests.support.made_exports import check_export, damages, make_tiny_export

many = hypothesis.settings(
    deadline=None, max_examples=200, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


@pytest.mark.parametrize(("storage", "hidden"), [("plain", 16), ("entropy", 64)])
def test_every_damaged_export_is_refused_or_answers_as_it_did(
    tmp_path: Path, storage: Literal["plain", "entropy"], hidden: int
) -> None:
    export = make_tiny_export(tmp_path, storage, hidden)

    @hypothesis.given(data=some.data())
    @many
    def check(data: some.DataObject) -> None:
        hypothesis.event(check_export(export, data.draw(damages(export)), tmp_path / "damaged"))

    check()
