"""Shell completion: the words that are offered are those that are taken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from autoprune.cli import completion
from autoprune.cli.main import main
from autoprune.jobs.renders import KINDS as RENDERS
from autoprune.strategy.samplers import SAMPLERS
from autoprune.targets import NAMES
from autoprune.tasks.kinds import KINDS
from autoprune.tasks.metrics import METRICS
from tests.support.paths import ROOT


def offered(*line: str) -> list[tuple[str, str]]:
    """Type and value of what is offered in the place of the last word of a command line."""
    *before, begun = line
    items = ShellComplete(main, {}, "autoprune", "_AUTOPRUNE_COMPLETE").get_completions(before, begun)
    return [(item.type, item.value) for item in items]


def names(*line: str) -> list[str]:
    return [value for kind, value in offered(*line) if kind == "plain"]


def test_names_that_are_offered_are_those_that_exist() -> None:
    assert completion.TARGETS == NAMES
    assert completion.SAMPLER_NAMES == SAMPLERS
    assert set(completion.RENDERS) == set(RENDERS)
    spaces = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))
    for line, expected in (
        (("search", "--target", ""), list(NAMES)),
        (("inspect", "--target", "o"), ["openvino", "onnx"]),
        (("export", "runs/x", "--target", "gg"), ["gguf"]),
        (("search", "--sampler", ""), list(SAMPLERS)),
        (("submit", "search", "--space", ""), ["auto", *spaces]),
        (("search", "--task", ""), [*map(str, KINDS)]),
        (("search", "--metric", ""), [*METRICS]),
        (("export", "runs/x", "--trial", ""), ["best", "accurate", "small", "fast", "knee"]),
        (("export", "runs/x", "--storage", "e"), ["entropy"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ):
        assert names(*line) == expected, line
    assert set(names("submit", "--render", "")) == set(RENDERS)


def test_every_command_and_flag_is_offered() -> None:
    assert set(names("")) == {*main.commands}
    assert {"--budget", "--config", "--dry-run"} <= set(names("search", "--"))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (("search", "./my"), "dir"),
        (("resume", ""), "dir"),
        (("status", "ru"), "dir"),
        (("bench", ""), "dir"),
        (("search", "--dataset", "rows"), "file"),
        (("search", "--config", ""), "file"),
        (("search", "--weights", ""), "file"),
        (("search", "--space", "./mine"), "file"),
    ],
)
def test_paths_are_completed_by_the_shell(line: tuple[str, ...], kind: str) -> None:
    assert offered(*line) == [(kind, line[-1])]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_of_a_shell_asks_the_command(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"_AUTOPRUNE_COMPLETE={shell}_complete" in result.stdout
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_bash_completes_a_target(tmp_path: Path) -> None:
    """In a shell: its script, then what TAB calls."""
    program = tmp_path / "autoprune"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m autoprune "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(autoprune completion bash)"; COMP_WORDS=(autoprune search --target op); COMP_CWORD=3; '
        '_autoprune_completion autoprune; echo "${COMPREPLY[@]}"; complete -p autoprune'
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "openvino", done.stderr
    assert "_autoprune_completion" in lines[1]
