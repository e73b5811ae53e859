"""Whatever a space file holds: it is refused by an AutopruneError, or all that it says is heeded."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from tests.support.made_spaces import check_space_file, made_spaces

many = hypothesis.settings(
    deadline=None, max_examples=300, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


def test_every_space_file_is_heeded_or_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("space")

    @hypothesis.given(data=made_spaces())
    @many
    def check(data: bytes) -> None:
        hypothesis.event(check_space_file(data, folder))

    check()
