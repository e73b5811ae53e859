"""Ensembles of a real small run: what they answer, what their folder says, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import autoprune
from autoprune.export.artifact import ABOUT, CARD, read_about
from autoprune.run.folder import FRONT
from autoprune.targets import get_target
from tests.support.commands import invoke, refused
from tests.support.made_run import make_front_run


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this file's own; processes that are started find it too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_front_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module", params=["packed", "openvino"])
def exported(
    request: pytest.FixtureRequest, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("exports") / "three"
    arguments = ["--ensemble", 3, "--average", "weighted", "--budget", "2.2MB", "--target", request.param]
    done = invoke("export", run, *arguments, "-o", folder, "-q")
    assert done.exit_code == 0, done.output + done.stderr
    return folder, done.stdout


def tokens(rows: int = 5) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 4000, (rows, 8))
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}


def test_it_answers_with_the_weighted_mean_of_what_its_members_answer(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    about = read_about(folder)
    assert about.ensemble is not None
    target, batch = get_target(about.target), tokens()
    by_hand = np.zeros((5, 3))
    for member in about.ensemble.members:
        logits = target.load(folder / member.name)(batch).astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        by_hand += (member.weight or 0.0) * shares
    answers = autoprune.load(folder)(**batch).logits
    assert np.allclose(np.exp(answers), by_hand, atol=1e-6)


def test_its_members_are_different_trials_within_the_limit_together(
    run: Path, exported: tuple[Path, str]
) -> None:
    folder, printed = exported
    about = read_about(folder)
    ensemble = about.ensemble
    assert ensemble is not None
    assert len({member.trial for member in ensemble.members}) == 3
    sizes = [member.size_bytes for member in ensemble.members]
    assert sum(sizes) <= 2_200_000
    target = get_target(about.target)
    on_disk = [
        sum(file.stat().st_size for file in target.files(folder / member.name)) for member in ensemble.members
    ]
    assert on_disk == sizes
    assert about.validated is not None
    assert about.validated.passed
    assert about.validated.size_bytes == sum(sizes)
    scores = ensemble.weighted
    assert about.validated.accuracy == pytest.approx(scores.accuracy, abs=1e-9)
    assert {check.name: check.passed for check in about.validated.checks}["logits"] is True
    assert "the weighted average of trials" in printed


def test_its_latency_is_that_of_all_members_one_after_another(exported: tuple[Path, str]) -> None:
    about = read_about(exported[0])
    assert about.validated is not None
    assert about.validated.latency.median_ms > 0
    assert about.measured.latency_ms == pytest.approx(3.0)  # each trial of the run took 1 ms by its record


def test_the_single_model_it_is_compared_with_has_no_more_bytes_and_is_the_best(
    run: Path, exported: tuple[Path, str]
) -> None:
    about = read_about(exported[0])
    assert about.ensemble is not None
    single = about.ensemble.single
    assert single is not None
    room = sum(member.size_bytes for member in about.ensemble.members)
    assert single.size_bytes <= room
    if about.target == "packed":
        trials = json.loads((run / FRONT).read_text())["trials"]
        best = max(trial["accuracy"] for trial in trials if trial["size_bytes"] <= room)
        assert single.accuracy == pytest.approx(best)


def test_the_card_names_members_and_the_single_model_and_its_python_runs(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    card, about = (folder / CARD).read_text(), read_about(folder)
    assert about.ensemble is not None
    assert about.ensemble.single is not None
    for member in (*about.ensemble.members, about.ensemble.single):
        assert f"| {member.trial} | {member.size_bytes} |" in card
    assert "best single model of no more bytes" in card
    blocks = card.split("```python\n")[1:]
    assert len(blocks) == 1
    monkeypatch.chdir(folder.parent)
    names: dict[str, object] = {}
    exec(blocks[0].partition("\n```")[0], names)
    assert np.shape(names["logits"]) == (1, 3)


def test_bench_measures_all_members_again_and_a_changed_member_is_refused(
    exported: tuple[Path, str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported[0], tmp_path / "copy"))
    done = invoke("bench", folder)
    assert done.exit_code == 0, done.output
    assert "the weighted average of trials" in done.stdout
    weights = next(
        file for file in sorted((folder / "member-2").iterdir()) if file.suffix in (".bin", ".safetensors")
    )
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "its SHA-256 differs" in refused("bench", folder, code=5)
    weights.unlink()
    assert "is missing" in refused("bench", folder, code=5)


@pytest.mark.parametrize("name", ["../model.safetensors", "a/../b", "/etc/passwd", "a/b/c", "member-1//x"])
def test_a_record_cannot_name_files_elsewhere(exported: tuple[Path, str], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(exported[0], tmp_path / "copy"))
    record = json.loads((folder / ABOUT).read_text())
    record["sha256"][name] = "0" * 64
    (folder / ABOUT).write_text(json.dumps(record))
    assert "is missing" in refused("bench", folder, code=5)


def test_earlier_versions_cannot_take_it_for_one_model(exported: tuple[Path, str]) -> None:
    assert json.loads((exported[0] / ABOUT).read_text())["version"] == 2


# ---- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--ensemble", 3, "--trial", 3], 2, "leave out --trial 3"),
        (["--average", "simple"], 2, "give --ensemble N with it"),
        (["--ensemble", 8], 2, "keeps 7 models of its front; give --ensemble 7 at most"),
        (["--ensemble", 3, "--budget", "1kB"], 3, "the 3 smallest kept models of the front have"),
        (["--ensemble", 3, "--budget", "2ms"], 3, "the 3 fastest take 3.00 ms one after another"),
        (["--ensemble", 3, "--target", "none"], 2, "target 'none' does not exist"),
    ],
)
def test_wrong_wishes_are_refused_in_one_line_before_anything_is_written(
    run: Path, tmp_path: Path, arguments: list[object], code: int, words: str
) -> None:
    assert words in refused("export", run, *arguments, "-o", tmp_path / "out", code=code)
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_of_one_is_a_wrong_flag(run: Path, tmp_path: Path) -> None:
    result = invoke("export", run, "--ensemble", 1, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "2<=x<=8" in result.stderr


def test_a_language_model_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((copy / FRONT).read_text())
    record["run"]["task"] = "causal-lm"
    (copy / FRONT).write_text(json.dumps(record))
    message = refused("export", copy, "--ensemble", 3, "-o", tmp_path / "out")
    assert "--ensemble is not for a language model" in message
    assert os.listdir(tmp_path) == ["run"]
