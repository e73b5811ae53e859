"""Modules of the user are imported when a worker starts; one that cannot be is told with its node."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from autoprune.jobs.setup_hook import IMPORTS_VARIABLE, import_named


def test_named_modules_are_imported_and_a_failure_names_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_for_the_hook.py").write_text("VALUE = 3\n")
    (tmp_path / "broken_for_the_hook.py").write_text("raise OSError('no weights here')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(IMPORTS_VARIABLE, raising=False)
    import_named()
    monkeypatch.setenv(IMPORTS_VARIABLE, "json,made_for_the_hook")
    import_named()
    assert sys.modules.pop("made_for_the_hook").VALUE == 3
    monkeypatch.setenv(IMPORTS_VARIABLE, "broken_for_the_hook")
    with pytest.raises(ImportError) as caught:
        import_named()
    assert str(caught.value) == (
        f"module 'broken_for_the_hook' cannot be imported on node {socket.gethostname()}: "
        "OSError: no weights here"
    )
