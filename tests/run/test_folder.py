"""The run folder: its lock, its files whole or absent, and the record that the report reads."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core import errors
from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash, read_json, write_json, written_whole
from autoprune.core.progress import Progress
from autoprune.run.config import (
    Config,
    ModelSource,
    SearchSettings,
    TaskSettings,
    TimingSettings,
    TrainingSettings,
    WorkerSettings,
)
from autoprune.run.folder import FRONT, RUN, STATUS, RunFolder, read_record
from autoprune.run.front_record import front_record
from autoprune.run.front_schema import Front, TrialRow, checked_front
from autoprune.run.kept_models import kept_artifact
from autoprune.run.run_record import RunFacts, RunRecord
from autoprune.run.short_rows import NUMBERS
from autoprune.run.standing import standing
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.hypervolume import KL_FLOOR, ByteRange
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.metrics import METRICS

quick = hypothesis.settings(deadline=None, max_examples=40)
HOLD = """
import sys, time
from pathlib import Path
from autoprune.run.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
CUT = """
import os, sys
from pathlib import Path
from autoprune.core.files import written_whole
with written_whole(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os._exit(9)
"""


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, hidden ones too, with the content of files."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    one = RunFolder.create(tmp_path / "run", Config.of(budget=("20MB",)), "autoprune search")
    yield one
    one.close()


# ---- a new run ----------------------------------------------------------------------------------


def test_a_new_run_reads_back_what_was_asked(run: RunFolder) -> None:
    assert run.config() == Config.of(budget=("20MB",))
    assert run.config().limits() == Budget(20_000_000)
    assert run.about().command == "autoprune search"
    run.note(facts={"seed": 3}, original_ms=1.5)
    run.note(original_ms=2.5)
    assert (run.about().facts, run.about().original_ms) == (RunFacts(seed=3), 2.5)
    assert run.config() == Config.of(budget=("20MB",))


@pytest.mark.parametrize(("name", "hint"), [("thesis.tex", False), (".hidden", False), (RUN, True)])
def test_a_folder_that_holds_anything_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str, hint: bool
) -> None:
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(AutopruneError, match="already exists and is kept as it is") as caught:
        RunFolder.create(tmp_path, Config(), "")
    assert (f"autoprune resume {tmp_path}" in str(caught.value)) == hint
    assert tree(tmp_path) == before


def test_a_folder_with_a_space_is_quoted_where_it_is_to_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "my digits"
    RunFolder.create(path, Config(), "").close()
    with pytest.raises(AutopruneError) as caught:
        RunFolder.create(path, Config(), "")
    assert f"go on with it: autoprune resume '{path}'. Or give another -o" in str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(AutopruneError, match="already exists"):
        RunFolder.create(path, Config(), "")
    assert path.read_text() == "mine"


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, Config(), "").close()
    RunFolder.create(tmp_path / "a" / "b", Config(), "").close()
    assert (tmp_path / "a" / "b" / RUN).is_file()


def test_what_is_no_run_is_not_opened_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(AutopruneError, match="is no run folder"):
        RunFolder.open(tmp_path)
    assert tree(tmp_path) == {}


def test_status_says_the_state_and_who(run: RunFolder) -> None:
    run.status("running", trials=3)
    said = read_record(run.path / STATUS)
    assert said["state"] == "running"
    assert said["trials"] == 3
    assert (said["pid"], said["host"]) == (os.getpid(), socket.gethostname())
    assert abs(said["updated"] - time.time()) < 60


# ---- the lock -----------------------------------------------------------------------------------


@pytest.fixture
def held(run: RunFolder) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A run whose lock another process has, after this one had it and wrote a status."""
    run.status("stopped")
    run.close()
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield run.path, holder
        holder.kill()


def test_a_held_run_is_refused_soon_and_the_holder_named(
    held: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, holder = held
    before, start = tree(path), time.monotonic()
    with pytest.raises(AutopruneError) as caught:
        RunFolder.open(path)
    assert time.monotonic() - start < 3.0
    assert f"run {path} is being worked on by process {holder.pid} on " in str(caught.value)
    assert tree(path) == before


def test_a_killed_holder_frees_the_run(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, holder = held
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    RunFolder.open(path).close()


def test_one_process_opens_a_run_once_until_it_is_closed(run: RunFolder) -> None:
    with pytest.raises(AutopruneError, match=f"by process {os.getpid()} "):
        RunFolder.open(run.path)
    run.close()
    RunFolder.open(run.path).close()


# ---- settings -----------------------------------------------------------------------------------

words = some.none() | some.text(max_size=8)
configs = some.builds(
    Config.of,
    model=words,
    text_columns=some.lists(some.text(max_size=5), max_size=2).map(tuple),
    budget=some.lists(some.sampled_from(["20MB", "5ms"]), max_size=2).map(tuple),
    timeout_s=some.none() | some.floats(0, 1e6),
    seed=some.integers(0, 2**32),
    trust_remote_code=some.booleans(),
)


@quick
@hypothesis.given(configs)
def test_a_config_reads_back_the_same_from_json(config: Config) -> None:
    assert Config.from_json(json.loads(json.dumps(config.as_json()))) == config


FLAT = {
    "model": "tiny", "dataset": "rows.csv", "task": "text-pairs", "metric": "f1", "weights": "a.safetensors",
    "image_size": 32, "text_columns": ["a", "b"], "image_column": "image", "limit_rows": [64, 20, 10],
    "label_column": "label", "group_by": "film", "budget": ["20MB", "5ms"], "space": "bert",
    "target": "packed", "trials": 7, "timeout_s": 9.5, "patience": 3, "sampler": "tpe", "seed": 4,
    "finetune_steps": 6, "teacher_epochs": 0.5, "teacher_rate": 0.01, "batch": 2, "sequence": 16,
    "max_length": 24, "calibration_rows": 32, "workers": 5, "gpus_per_trial": 0.5, "cpus_per_trial": 2.0,
    "address": "auto", "latency_node": "quiet", "storage": "sqlite:///a.db", "revision": "v2",
    "trust_remote_code": True,
}  # fmt: skip
"""Every setting, as `run.json` has had them since before they were in parts."""


def test_a_run_s_record_keeps_what_it_had_and_has_nothing_more(run: RunFolder) -> None:
    metric = {"name": "f1", "higher_is_better": True, "unit": "%"}
    facts = {
        "labels": ["a", "\udc80"],
        "folder": "no UTF-8: \udcff",
        "task": "token-classification",
        "metric": metric,
        "later": [1, 2],
    }
    now = read_json(run.path / RUN) | {"facts": facts, "colour": {"red": 1}}
    write_json(run.path / RUN, now)
    run.note(seconds=3.5)
    assert read_json(run.path / RUN) == now | {"seconds": 3.5}
    assert run.about().facts.metric == METRICS["f1"]
    assert run.about().facts.task.name == "token-classification"


def test_a_run_s_record_with_a_wrong_field_names_it(run: RunFolder) -> None:
    write_json(run.path / RUN, read_json(run.path / RUN) | {"original_ms": "fast", "facts": {"labels": 3}})
    with pytest.raises(AutopruneError, match=r"cannot be read:\s+original_ms: .*\s+facts\.labels: "):
        run.about()


def test_settings_keep_their_flat_names_in_run_json() -> None:
    config = Config.from_json(FLAT)
    assert config.model == ModelSource("tiny", "a.safetensors", "v2", trust_remote_code=True, image_size=32)
    columns = {"image_column": "image", "label_column": "label", "group_by": "film"}
    assert config.data == DataSource("rows.csv", ("a", "b"), limit_rows=(64, 20, 10), **columns)
    assert config.data.limits == {"train": 64, "validation": 20, "test": 10}
    assert config.task == TaskSettings("text-pairs", "f1", 24)
    limits = {"timeout_s": 9.5, "patience": 3}
    assert config.search == SearchSettings(
        ("20MB", "5ms"), "bert", "packed", 7, sampler="tpe", seed=4, storage="sqlite:///a.db", **limits
    )
    assert config.training == TrainingSettings(6, 0.5, 0.01, 32)
    assert config.timing == TimingSettings(2, 16)
    assert config.workers == WorkerSettings(5, 0.5, 2.0, "auto", "quiet")
    assert json.loads(json.dumps(config.as_json())) == FLAT
    assert all(value != FLAT[name] for name, value in Config().as_json().items())


def test_a_secret_in_any_setting_is_refused() -> None:
    secret = "https://me:pa55word@host.example/a"
    for name in (name for name, value in Config().as_json().items() if value is None and name != "storage"):
        with pytest.raises(AutopruneError, match=f"^{name} .* holds a password or token"):
            Config.of(**{name: secret}).check_secrets()
    Config.of(storage=secret).check_secrets()


def test_settings_that_are_not_there_keep_their_defaults() -> None:
    assert Config.from_json({"seed": 7}) == Config.of(seed=7)
    assert Config.from_json({}) == Config()


def test_settings_of_another_version_are_named() -> None:
    with pytest.raises(AutopruneError, match=r"does not know: \['colour', 'speed'\]"):
        Config.from_json({"speed": 1, "seed": 2, "colour": 3})


# ---- damaged files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [RUN, FRONT, STATUS])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged (not JSON)"),
        (b'{"version": 1, "trials": [', "is damaged (not JSON)"),
        (b"\xff\xfe\x00", "is damaged (not JSON)"),
        (b"[1, 2]", "is damaged: an object is needed"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(
    run: RunFolder, name: str, content: bytes | None, words: str
) -> None:
    path = run.path / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AutopruneError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path} {words}")


@pytest.mark.parametrize("content", ["{", "{}", '{"config": null}', '{"config": [1]}'])
def test_a_damaged_run_json_is_told_by_config(run: RunFolder, content: str) -> None:
    (run.path / RUN).write_text(content)
    with pytest.raises(AutopruneError, match="is damaged") as caught:
        run.config()
    assert str(run.path / RUN) in str(caught.value)


def test_every_error_has_an_exit_code_of_its_own() -> None:
    kinds = [AutopruneError, errors.BudgetError, errors.FailedTrialsError, errors.StoppedError]
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 75]
    assert all(issubclass(kind, ValueError) for kind in kinds)


# ---- whole or absent ----------------------------------------------------------------------------


def half_written(path: Path, error: BaseException, whole: Path | None = None) -> None:
    """Fail in the middle of a file, or of a file of the folder `whole`."""
    with written_whole(whole or path) as temporary:
        if whole is not None:
            temporary.mkdir()
            temporary /= path.name
        temporary.write_text("half")
        raise error


def test_a_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    for error in (OSError("disk full"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            half_written(path, error)
    assert read_json(path) == {"a": 2}
    assert list(tree(tmp_path)) == ["deep", "deep/one.json"]


def test_a_new_file_that_fails_is_absent(tmp_path: Path) -> None:
    for value in (math.nan, math.inf, object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "one.json", {"a": value})
    assert tree(tmp_path) == {}


def test_a_file_is_as_it_was_when_its_writer_dies(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", CUT, str(path)], check=False).returncode == 9
    assert path.read_text() == "old"


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(OSError, match="disk full"):
        half_written(path / "weights", OSError("disk full"), whole=path)
    assert tree(tmp_path) == {}
    with written_whole(path) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("whole")
        assert not path.exists()
    assert tree(tmp_path) == {"model": None, "model/weights": b"whole"}


def test_the_first_of_two_writers_of_a_folder_wins(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with written_whole(path) as slow:
        slow.mkdir()
        (slow / "weights").write_text("slow")
        with written_whole(path) as fast:
            fast.mkdir()
            (fast / "weights").write_text("fast")
    assert tree(tmp_path) == {"model": None, "model/weights": b"fast"}


def test_a_folder_that_cannot_take_its_place_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("a file")
    with pytest.raises(NotADirectoryError), written_whole(path) as temporary:
        temporary.mkdir()
    assert tree(tmp_path) == {"model": b"a file"}


def test_an_artifact_is_kept_under_its_number(run: RunFolder) -> None:
    run.keep_artifact(17, b"weights", {"units": ["é"]})
    assert run.artifact(17).name == "0017"
    assert (run.artifact(17) / "model.safetensors").read_bytes() == b"weights"
    assert read_json(run.artifact(17) / "config.json") == {"units": ["é"]}
    assert kept_artifact(run.path, 17) == run.artifact(17)
    assert kept_artifact(run.path, 18) is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("content", [b"weightz", None])
def test_an_artifact_that_is_not_what_was_written_is_named(
    run: RunFolder, name: str, content: bytes | None
) -> None:
    """But of an earlier version, which noted no hashes."""
    run.keep_artifact(17, b"weights", {"units": 1})
    path = run.artifact(17) / name
    path.unlink() if content is None else path.write_bytes(content)
    if (name, content) == ("model.safetensors", None):
        assert kept_artifact(run.path, 17) is None
        return
    with pytest.raises(AutopruneError, match=f"{name} is not the file that the run wrote .* is made again"):
        kept_artifact(run.path, 17)
    (run.artifact(17) / "sha256.json").unlink()
    assert kept_artifact(run.path, 17) == run.artifact(17)


def test_names_made_from_contents_depend_on_contents_alone(tmp_path: Path) -> None:
    assert content_key({"a": 1, "b": 2}, "x") == content_key({"b": 2, "a": 1}, "x")
    assert len({content_key("a", "b"), content_key("b", "a"), content_key("ab"), content_key()}) == 4
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert file_hash(tmp_path / "abc") == known


# ---- the record ---------------------------------------------------------------------------------

SMALL = Level.of(0.5, 4)
COSTS = Costs(
    1000,
    {
        "embeddings": {UNTOUCHED: Cost(8000), Level.of(0.0, 8): Cost(2100, 0.01)},
        "layer.0": {UNTOUCHED: Cost(4000), SMALL: Cost(300, 0.2)},
    },
)
FACTS: dict[str, Any] = {
    "name": "demo",
    "seed": 0,
    "budget": {"size_bytes": 9000, "latency_ms": None},
    "recipe": {"steps": 30},
}
RUN_RECORD = RunRecord(
    facts=RunFacts(**FACTS),
    kinds={"embeddings": "embedding", "layer.0": "heads"},
    started="2026-01-01T00:00:00+00:00",
    command="autoprune search",
    seconds=12.5,
)
REFERENCE = Measurement(13_000, 10.0, 50.0)
SIZES = ByteRange(1_000.0, 13_000.0)


def trial(number: int, embeddings: Level, layer: Level, m: Measurement | None, **more: Any) -> Trial:
    one = Candidate((("embeddings", embeddings), ("layer.0", layer)))
    return Trial(number, one, m, predicted_size_bytes=COSTS.size_bytes(one), **more)


TRIALS = [
    trial(0, UNTOUCHED, UNTOUCHED, Measurement(13_000, 10.0, 90.0, 0.0), name="original"),
    trial(1, Level.of(0.0, 8), UNTOUCHED, Measurement(7_100, 9.0, 89.0, 0.01, 8.5, 9.5, 8.8, 9.9), rung=0),
    trial(2, UNTOUCHED, SMALL, Measurement(9_300, 9.5, 80.0), rung=0),
    trial(3, Level.of(0.0, 8), SMALL, None, failure="out of memory", parts={"stitch": 0.5}, rung=0),
    trial(4, Level.of(0.0, 8), SMALL, Measurement(3_400, 5.0, 85.0, math.inf), test_accuracy=84.0),
]


def record() -> dict[str, Any]:
    budget = Budget(9000)
    now = standing(TRIALS, budget, REFERENCE, answers=10_000)
    return front_record(RUN_RECORD, COSTS, now, budget, byte_range=SIZES, state="finished")


def test_the_record_has_the_documented_keys_and_is_strict_json() -> None:
    found = record()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    where_any = {"lines", "class_scores", "robustness", "folds", "answer_changes", "ties"}
    assert set(Front.model_fields) - where_any | {"version"} == set(found)
    more = {"levels", "unit_bytes", "parts", "raw_latency_ms", "raw_original_ms"}
    for trial in found["trials"]:
        assert set(trial) == (set(TrialRow.model_fields) | more) - {NUMBERS}  # of short rows
    measured = {field.name for field in fields(Measurement)}
    assert measured <= set(found["trials"][0])
    run = {"state", "started", "command", "seconds"}
    assert set(found["run"]) == set(FACTS) | run


def test_the_bytes_of_the_units_and_the_fixed_ones_are_the_predicted_size() -> None:
    for trial in record()["trials"]:
        assert sum(trial["unit_bytes"].values()) + COSTS.fixed_bytes == trial["predicted_size_bytes"]
    whole = record()["units"]
    assert whole == [
        {"name": "embeddings", "kind": "embedding", "size_bytes": 8000},
        {"name": "layer.0", "kind": "heads", "size_bytes": 4000},
    ]


def test_the_record_says_who_is_on_the_front_in_the_budget_and_chosen() -> None:
    found = record()
    assert found["front"] == [4, 1, 0]
    assert [trial["on_front"] for trial in found["trials"]] == [True, True, False, False, True]
    assert [trial["within_budget"] for trial in found["trials"]] == [False, True, False, False, True]
    assert [trial["state"] for trial in found["trials"]] == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE"]
    assert (found["best"], found["knee"]) == (1, 4)  # of two on the line the smaller is the knee
    assert found["hypervolume_reference"] == {"size_bytes": 13_000, "latency_ms": 10, "accuracy": 50}


def test_the_record_says_what_each_rung_did_and_how_ranks_agree() -> None:
    """Damage 0.01 and 0.2 were predicted of the two units; candidate k of three has k times that."""
    levels = [(Level.of(0.0, 8), UNTOUCHED), (UNTOUCHED, SMALL), (Level.of(0.0, 8), SMALL)]
    untrained = [
        trial(k, *one, Measurement(5000 + k, 5.0, 80.0, kl), rung=0, seconds=2.0)
        for k, (one, kl) in enumerate(zip(levels, (0.1, 0.2, 0.3), strict=True))
    ]
    trained = [
        trial(3 + k, *one, Measurement(5000 + k, 5.0, 80.0, kl), rung=1, seconds=8.0)
        for k, (one, kl) in enumerate(zip(levels, (0.03, 0.01, 0.02), strict=True))  # ranks 3 1 2
    ]
    longer = trial(6, *levels[1], Measurement(5001, 5.0, 81.0, 0.005), rung=2, seconds=31.0)
    plain = trial(7, UNTOUCHED, UNTOUCHED, Measurement(5002, 5.0, 81.0, 0.5), rung=1, name="uniform 4-bit")
    trials = [*untrained, *trained, longer, plain]
    now = standing(trials, Budget(), REFERENCE, answers=100)
    found = front_record(RUN_RECORD, COSTS, now, Budget(), byte_range=SIZES, state="running")
    left = pytest.approx((0.03 / 0.1 + 0.01 / 0.2 + 0.02 / 0.3) / 3)
    assert found["rungs"] == [
        {"rung": 0, "steps": 0, "trials": 3, "mean_seconds": 2.0, "kept": None, "left": None},
        {"rung": 1, "steps": 30, "trials": 3, "mean_seconds": 8.0, "kept": 3, "left": left},
        {"rung": 2, "steps": 120, "trials": 1, "mean_seconds": 31.0, "kept": 1, "left": pytest.approx(0.5)},
    ]
    tau, few = found["agreement"]
    assert tau == {
        "lower": 0, "upper": 1, "kendall_tau": pytest.approx(-1 / 3), "pairs": 3, "low": False,
        "trained": 3, "left": left,
    }  # fmt: skip
    assert (few["lower"], few["upper"], few["kendall_tau"], few["pairs"]) == (1, 2, None, 1)
    assert [trial["promoted_from"] for trial in found["trials"]] == [None] * 3 + [0, 1, 2, 4, None]
    assert [trial["predicted_kl"] for trial in found["trials"][:3]] == pytest.approx([0.01, 0.2, 0.21])
    assert found["sensitivity"]["spearman"] == pytest.approx(1.0)
    assert found["sensitivity"]["pairs"] == 3
    assert ["layer.0", 0.5, 4, 300, 0.2, 0.0] in found["sensitivity"]["levels"]
    assert len(found["sensitivity"]["levels"]) == 4
    depth = math.log(0.005) / math.log(KL_FLOOR)  # of the box of 1,000 to 13,000 bytes
    assert found["kl_hypervolume"] == pytest.approx((13_000 - 5_001) / 12_000 * depth, rel=1e-3)


def test_one_candidate_trained_twice_as_long_comes_from_its_nearest_rung() -> None:
    one = (Level.of(0.0, 8), SMALL)
    m = Measurement(5000, 5.0, 80.0, 0.1)
    trials = [trial(0, *one, m, rung=0), trial(1, *one, m, rung=2), trial(2, *one, m, rung=1)]
    now = standing(trials, Budget(), REFERENCE, answers=100)
    found = front_record(RUN_RECORD, COSTS, now, Budget(), byte_range=SIZES, state="running")
    assert [row["promoted_from"] for row in found["trials"]] == [None, 2, 0]
    assert found["sensitivity"]["spearman"] is None
    assert found["agreement"][0]["kendall_tau"] is None


def test_what_is_unknown_is_null() -> None:
    failed, endless = record()["trials"][3:]
    assert failed["failure"] == "out of memory"
    assert all(failed[key] is None for key in ("size_bytes", "latency_ms", "accuracy", "kl"))
    assert endless["kl"] is endless["latency_low_ms"] is None
    assert endless["test_accuracy"] == 84.0


def test_levels_in_the_record_read_back_to_the_candidates() -> None:
    for row, trial in zip(record()["trials"], TRIALS, strict=True):
        levels = tuple(
            (unit, Level.of(level["ratio"], level["bits"])) for unit, level in row["levels"].items()
        )
        assert Candidate(levels) == trial.candidate


def test_the_report_reads_the_record() -> None:
    found = checked_front(json.loads(json.dumps(record())))
    assert found.original is not None
    assert (found.original.number, found.best, found.front) == (0, 1, (4, 1, 0))
    assert [trial.number for trial in found.searched] == [1, 2, 3, 4]


def test_a_record_without_trials_is_read_too() -> None:
    now = standing([], Budget(), REFERENCE, answers=0)
    found = checked_front(front_record(RUN_RECORD, COSTS, now, Budget(), byte_range=SIZES, state="running"))
    assert (found.best, found.knee, found.front, found.hypervolume) == (None, None, (), 0.0)


def test_knee_and_best_are_of_the_search_not_of_the_baselines() -> None:
    now = standing(TRIALS[:1], Budget(), REFERENCE, answers=100)
    assert [trial.number for trial in now.front] == [0]
    assert now.best is now.knee is None
    assert now.hypervolume == 0.0  # as large and as slow as the reference


# ---- progress and imports -----------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_line_a_job_and_quiet_is_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in (False, True):
        progress = Progress(quiet=quiet)
        with progress.bar("Search", 4) as update:
            update(2, "half")
            update(3, "more", 6)
        progress.line("done")
    out, said = capsys.readouterr()
    assert (out, said) == ("", "Search: 0 s\ndone\n")


def test_a_bar_on_a_terminal_shows_how_far_and_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress().bar("Search", 4) as update:
        time.sleep(0.2)  # a bar is drawn ten times a second at most
        update(3, "front 2", 6)
    assert "3/6" in screen.getvalue()
    assert "front 2" in screen.getvalue()


def test_the_run_folder_and_the_task_import_no_torch() -> None:
    code = "import sys, autoprune.run, autoprune.tasks.task; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
