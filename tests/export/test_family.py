"""Families of a real small run: each member is the model exported alone, and can be switched to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.export.artifact import CARD, read_about
from autoprune.export.export_record import FamilyRecord
from autoprune.export.family import _named, _of_front
from autoprune.export.run_trials import RunToExport
from autoprune.space.budget import Budget
from autoprune.targets.packed_family import FAMILY, FamilyFile
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


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("exports") / "family"
    done = invoke("export", run, "--family", "--trials", "2,7,3,5", "-o", folder, "-q")
    assert done.exit_code == 0, done.output + done.stderr
    return folder, done.stdout


def family_of(folder: Path) -> FamilyRecord:
    family = read_about(folder).family
    assert family is not None
    return family


def tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 4000, (4, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1}


def test_a_member_is_the_trial_exported_alone_bit_for_bit(
    run: Path, exported: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = exported
    done = invoke("export", run, "--trial", 3, "--target", "packed", "-o", tmp_path / "alone", "-q")
    assert done.exit_code == 0, done.output
    alone = (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert FamilyFile.open(folder / FAMILY).packed_file("trial-3") == alone
    model = autoprune.load(folder)
    model.switch(member="trial-3")
    with torch.inference_mode():
        ours, theirs = model(**tokens()).logits, autoprune.load(tmp_path / "alone")(**tokens()).logits
    assert torch.equal(ours, theirs)


def test_its_bytes_beside_those_of_its_members_are_said_and_recorded(
    run: Path, exported: tuple[Path, str]
) -> None:
    folder, printed = exported
    family = family_of(folder)
    assert family.file_bytes == (folder / FAMILY).stat().st_size
    assert [member.size_bytes for member in family.members] == sorted(m.size_bytes for m in family.members)
    kept = [run / "trials" / f"{member.trial:04d}" / "model.safetensors" for member in family.members]
    assert family.sum_bytes == pytest.approx(sum(file.stat().st_size for file in kept), rel=0.01)
    assert family.equal_bytes > 0
    assert family.file_bytes < 0.8 * family.sum_bytes
    for text in (printed, (folder / CARD).read_text()):
        assert f"{family.file_bytes / family.sum_bytes:.3f} of the {family.sum_bytes} bytes" in text


def test_every_member_was_measured_in_a_fresh_process(exported: tuple[Path, str]) -> None:
    about, family = read_about(exported[0]), family_of(exported[0])
    assert about.validated is not None
    assert about.validated.passed
    assert all(member.latency_ms and member.latency_ms > 0 for member in family.members)
    assert {check.name: check.passed for check in about.validated.checks}["logits"] is True


def test_load_takes_the_most_accurate_member_within_the_limits(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    members = family_of(folder).members
    for limit in members:
        model = autoprune.load(folder, budget=f"{limit.size_bytes}B")
        fitting = [member for member in members if member.size_bytes <= limit.size_bytes]
        assert model.member.accuracy == max(member.accuracy or 0.0 for member in fitting)
        assert model.member in fitting
    slowest = max(member.latency_ms or 0.0 for member in members)
    assert autoprune.load(folder, latency=f"{slowest:.6f}ms").member.latency_ms <= slowest + 1e-6
    assert autoprune.load(folder).member.accuracy == max(member.accuracy or 0.0 for member in members)


def test_switching_while_it_runs_changes_the_answers_and_comes_back(exported: tuple[Path, str]) -> None:
    model = autoprune.load(exported[0])
    first, name = model(**tokens()).logits, model.member.name
    module = model.model
    small = model.switch(budget=f"{model.members[0].size_bytes}B")
    assert small == model.members[0] == model.member
    assert not torch.equal(model(**tokens()).logits, first)
    assert torch.equal(module(**tokens()).logits, first)  # a call that began before ends as it began
    model.switch(member=name)
    assert torch.equal(model(**tokens()).logits, first)
    assert model.config.num_labels == 3


def test_limits_that_no_member_meets_and_names_that_none_has_are_refused(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    with pytest.raises(BudgetError, match="no member of the family is within"):
        autoprune.load(folder, budget="1kB")
    with pytest.raises(AutopruneError, match="budget is a size"):
        autoprune.load(folder, budget="5ms")
    model = autoprune.load(folder)
    with pytest.raises(AutopruneError, match="has no member 'x'; it has trial-"):
        model.switch(member="x")
    with pytest.raises(AutopruneError, match="not both"):
        model.switch(member="trial-3", budget="1MB")


def test_a_folder_of_one_model_has_no_limits_to_choose_by(run: Path, tmp_path: Path) -> None:
    invoke("export", run, "--trial", 3, "--target", "packed", "-o", tmp_path / "alone", "-q")
    with pytest.raises(AutopruneError, match="holds no family of models"):
        autoprune.load(tmp_path / "alone", budget="1MB")


def test_the_card_s_python_runs_and_bench_measures_it_again(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    (block,) = (folder / CARD).read_text().split("```python\n")[1:]
    monkeypatch.chdir(folder.parent)
    names: dict[str, object] = {}
    exec(block.partition("\n```")[0], names)
    assert names["logits"].shape == (1, 3)  # type: ignore[attr-defined]
    done = invoke("bench", folder)
    assert done.exit_code == 0, done.output
    assert "the most accurate of a family of 4" in done.stdout


def test_a_changed_file_is_refused(exported: tuple[Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported[0], tmp_path / "copy"))
    data = bytearray((folder / FAMILY).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / FAMILY).write_bytes(data)
    assert "its SHA-256 differs" in refused("bench", folder, code=5)


def test_members_are_chosen_from_the_front_where_none_are_named(run: Path, tmp_path: Path) -> None:
    done = invoke("export", run, "--family", "-o", tmp_path / "family", "-q")
    assert done.exit_code == 0, done.output + done.stderr
    trials = {t["number"]: t for t in json.loads((run / "front.json").read_text())["trials"]}
    scores = [trials[member.trial]["accuracy"] for member in family_of(tmp_path / "family").members]
    assert 2 <= len(scores) <= 6
    assert scores == sorted(set(scores))


def test_members_no_better_than_guessing_are_left_out_unless_they_are_named(
    run: Path, tmp_path: Path
) -> None:
    altered = Path(shutil.copytree(run, tmp_path / "run"))
    front = json.loads((run / "front.json").read_text())
    kept = sorted(front["trials"], key=lambda trial: trial["size_bytes"])
    guess = kept[0] | {"accuracy": 34.0, "failure": None}
    front["trials"] = [guess, *(row | {"accuracy": 60.0 + k} for k, row in enumerate(kept[1:]))]
    front["hypervolume_reference"] = {"accuracy": 34.0}
    (altered / "front.json").write_text(json.dumps(front))
    chosen, said = _of_front(RunToExport.read(altered), Budget())
    assert [trial["number"] for trial in chosen] == [trial["number"] for trial in kept[1:]]
    assert said.startswith(f"Left out: trial {guess['number']} (34.0 %), no better on validation than")
    assert "\n" not in said
    front["trials"] = [row | {"accuracy": 34.0} for row in kept[:-1]] + [kept[-1] | {"accuracy": 90.0}]
    (altered / "front.json").write_text(json.dumps(front))
    assert "Left out: trial" in refused("export", altered, "--family", "-o", tmp_path / "out", code=3)
    named = [kept[0]["number"], kept[-1]["number"]]
    assert [trial["number"] for trial in _named(RunToExport.read(altered), named)] == named


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--family", "--trial", 3], 2, "leave out --trial 3; name members with --trials"),
        (["--family", "--ensemble", 3], 2, "give one of them"),
        (["--family", "--target", "openvino"], 2, "of target packed alone"),
        (["--family", "--storage", "entropy"], 2, "Leave out --storage"),
        (["--trials", "3,5"], 2, "give --family with it"),
        (["--family", "--trials", "3,5", "--budget", "1MB"], 2, "leave one of them out"),
        (["--family", "--trials", "3"], 2, "a family has two trials or more"),
        (["--family", "--trials", "3,3"], 2, "each named once"),
        (["--family", "--trials", "3;5"], 2, "give numbers with commas between them"),
        (["--family", "--trials", "3,99"], 2, "or a number from 0 to 7"),
        (["--family", "--budget", "1kB"], 3, "within 0.001 MB could be of use"),
    ],
)
def test_wrong_wishes_are_refused_in_one_line_before_anything_is_written(
    run: Path, tmp_path: Path, arguments: list[object], code: int, words: str
) -> None:
    assert words in refused("export", run, *arguments, "-o", tmp_path / "out", code=code)
    assert list(tmp_path.iterdir()) == []
