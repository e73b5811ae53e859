"""A revision is of the hub: where a model lies elsewhere, it is refused and not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.pipeline.hub_commits import with_commits
from autoprune.run.config import Config


@pytest.mark.parametrize("name", [None, "here", "mine:build"])
def test_a_revision_of_what_is_not_on_the_hub_is_refused(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    told = f"--revision v2 is of a model on the hub; {name or 'the demo'} is none"
    with pytest.raises(AutopruneError, match=told):
        with_commits(Config.of(model=name, revision="v2"))
