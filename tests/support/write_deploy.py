"""Writes the files of deploy/ that are rendered: python -m tests.support.write_deploy."""

from __future__ import annotations

from autoprune.jobs.renders import render
from tests.jobs.test_renders import DEPLOYED, EXAMPLE, ROOT

if __name__ == "__main__":
    for kind, name in DEPLOYED.items():
        (ROOT / "deploy" / name).write_text(render(kind, EXAMPLE), encoding="utf-8")
