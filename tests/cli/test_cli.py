"""The command line as a newcomer meets it: wrong input gives one clear error and the right exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from autoprune.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    rows = [f"a film number {k} that I {'liked' if k % 2 else 'hated'},{k % 2}" for k in range(60)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(arguments: Sequence[object]) -> Result:
    """A command in this process; a search without Ray, which wrong input need not wait for."""
    alone = ["--workers", "0"] if arguments[0] == "search" else []
    return CliRunner().invoke(main.main, [*map(str, arguments), *alone])


def refused(arguments: Sequence[object], *, code: int = 2) -> str:
    """The message of a command that must end with `code`, one error and nothing on stdout."""
    result = run(arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("autoprune: ")]
    assert len(lines) == 1, result.stderr
    return result.stderr


def test_a_missing_data_file_is_named(reviews: Path) -> None:
    (reviews.parent / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (reviews.parent / "model.safetensors").touch()
    message = refused(
        ["search", reviews.parent, "--dataset", reviews.parent / "absent.csv", "--budget", "9MB"]
    )
    assert "absent.csv" in message
    assert "does not exist" in message


def test_a_missing_model_folder_is_named(reviews: Path) -> None:
    message = refused(["search", "./no-such-model", "--dataset", reviews, "--budget", "9MB"])
    assert "'./no-such-model' does not exist" in message


def test_a_text_file_as_a_model_is_refused(reviews: Path) -> None:
    message = refused(["search", reviews, "--dataset", reviews, "--budget", "9MB"])
    assert "is a file; MODEL is a folder with config.json, model.safetensors" in message


def test_text_inside_a_model_folder_is_refused(tmp_path: Path, reviews: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("this is not a model", encoding="utf-8")
    (folder / "model.safetensors").write_text("nor is this", encoding="utf-8")
    assert "cannot be loaded" in refused(["search", folder, "--dataset", reviews, "--budget", "9MB"])


def test_a_pickled_model_is_refused(tmp_path: Path, reviews: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    message = refused(["search", folder, "--dataset", reviews, "--budget", "9MB"])
    assert "no *.safetensors; only that format is read" in message


def test_a_column_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path, reviews: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    message = refused(["search", tmp_path, "--dataset", reviews, "--budget", "9MB", "--text-column", "body"])
    assert "body" in message
    assert "text" in message
    assert "label" in message


def test_a_model_without_data_is_told_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    assert "--dataset" in refused(["search", tmp_path, "--budget", "9MB"])


@pytest.mark.parametrize("budget", ["20", "MB", "0MB", "20 apples", "-3MB"])
def test_a_budget_that_is_none_is_refused_before_anything_is_loaded(budget: str) -> None:
    assert budget in refused(["search", "--budget", budget])


def test_an_unknown_sampler_target_or_space_lists_those_that_exist() -> None:
    assert "tpe" in refused(["search", "--sampler", "best", "--budget", "20MB"])
    assert "global-threshold" in refused(["search", "--allocation", "lamp", "--budget", "20MB"])
    assert "openvino, onnx, packed, compressed-tensors, torch, gguf" in refused(
        ["search", "--target", "abacus", "--budget", "20MB"]
    )
    assert "bert" in refused(["search", "--space", "no-such", "--budget", "20MB"])


def test_an_unreachable_budget_ends_with_3_and_the_smallest_reachable_size() -> None:
    message = refused(["search", "--budget", "1MB"], code=3)
    told = re.search(
        r"budget 1\.0 MB cannot be met: the smallest candidate of bert\.yaml on this model is (\S+) MB",
        message,
    )
    assert told is not None
    smallest = float(told[1])
    assert smallest == pytest.approx(
        1.405, abs=0.006
    )  # bytes of the graph differ a little from machine to machine
    planned = run(["search", "--budget", f"{smallest + 0.01:.2f}MB", "--dry-run"])
    assert planned.exit_code == 0
    assert f"smallest {smallest:.2f} MB" in planned.stderr
    assert "Raise --budget" in message


def test_three_mistakes_in_a_space_file_are_all_named_at_once(tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    text = (ROOT / "search_spaces" / "bert.yaml").read_text(encoding="utf-8")
    text = re.sub(r"by: head, ratios: \[[^]]*\]", "by: head, ratios: [0.0, 1.5]", text, count=1)
    text = text.replace("bits: [4, 6, 8, 16]", "bits: [5]", 1)
    text = re.sub(r"steps: \d+", "steps: many", text)
    space.write_text(text, encoding="utf-8")
    message = refused(["search", "--space", space, "--budget", "20MB"])
    assert "mine.yaml has 3 errors" in message
    for where in (
        "units.attention.prune.ratios",
        "units.position_embeddings.quantize.bits",
        "finetune.steps",
    ):
        assert where in message


def test_an_output_folder_that_is_in_use_is_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    message = refused(["search", "--budget", "20MB", "-o", tmp_path])
    assert "already exists and is kept as it is" in message
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_is_no_run_is_refused_by_every_command(tmp_path: Path) -> None:
    assert "no run folder" in refused(["resume", tmp_path])
    assert "no run folder" in refused(["report", tmp_path])
    assert "no run folder" in refused(["status", tmp_path])
    assert "no run folder" in refused(["export", tmp_path, "-o", tmp_path / "out"])


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "front.json").write_text('{"version": 1, "trials"', encoding="utf-8")
    message = refused(["report", tmp_path])
    assert "front.json is damaged" in message


def test_a_dry_run_prints_a_configuration_and_writes_nothing(tmp_path: Path) -> None:
    result = run(["search", "--budget", "20MB", "--dry-run", "-o", tmp_path / "run"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["budget"] == ["20MB"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["report", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from autoprune.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'optuna', 'ray', 'datasets', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option) and option.name != "help"]


def test_every_command_has_help_with_an_example_and_every_flag_is_in_the_documentation() -> None:
    """The reference has every flag; every command is also on a page that is written by hand."""
    reference = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    told = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    for name, command in main.main.commands.items():
        assert command.help
        assert f"## autoprune {name}\n" in reference
        assert f"autoprune {name}" in told, f"no page but the reference has autoprune {name}"
        for option in options(command):
            assert option.help, f"{name} {option.opts}"
            assert option.opts[-1] in reference, (
                f"docs/reference/commands.md has no {option.opts[-1]} of {name}"
            )


def test_the_shipped_spaces_are_listed_in_two_columns_without_torch() -> None:
    """No name runs into its description, and the answer comes at once."""
    code = (
        "import sys; from autoprune.cli.main import main\n"
        "main(['spaces'], standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    shipped = {path.stem: path for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert sorted(line.split("  ", 1)[0].rstrip() for line in lines) == sorted(shipped)
    starts = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}
    assert len(starts) == 1


def test_the_console_script_answers() -> None:
    script = Path(sys.executable).parent / "autoprune"
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, env=environment)
    assert "0.1.0" in done.stdout
