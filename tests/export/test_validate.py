"""Exports that can be trusted: measured in a fresh process, put aside when they fail, measured again later.

Real folders, processes and runtimes; the model is random, so its accuracy is only ever compared with itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.core.errors import AutopruneError, ValidationError
from autoprune.core.files import file_hash
from autoprune.evaluation.measure import DefaultRun, Timing
from autoprune.export.artifact import ABOUT, CARD, read_about, runtime_of
from autoprune.export.checks import bench_checks, export_checks, failed
from autoprune.export.export_record import ExportRecord, LatencyRecord
from autoprune.export.fresh_process import in_fresh_process
from autoprune.export.original import original_folder
from autoprune.export.recorded_rows import recorded_rows
from autoprune.export.trial_record import PredictedBytes, recorded_bytes
from autoprune.export.validate import ExportMeasurements, Logits, Request
from autoprune.pipeline.inputs import read_inputs
from autoprune.run.config import SearchSettings
from autoprune.run.folder import FRONT, RUN, run_config
from autoprune.targets import NAMES, get_target, size_on_disk
from tests.support.commands import invoke, refused
from tests.support.hub_server import TOKEN, serving
from tests.support.made_run import LABELS, TRIAL, make_run, write_rows
from tests.support.tiny import Tiny


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this file's own; processes that are started find it too."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("AUTOPRUNE_CACHE")
    os.environ["AUTOPRUNE_CACHE"] = str(folder)
    yield folder
    os.environ.pop("AUTOPRUNE_CACHE")
    if before is not None:
        os.environ["AUTOPRUNE_CACHE"] = before


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The trial exported to a target other than the one searched on, and what was printed."""
    folder = tmp_path_factory.mktemp("exports") / "small model"
    done = invoke("export", run, "--trial", "best", "--target", "openvino", "-o", folder, "-q")
    assert done.exit_code == 0, done.output
    return folder, done.stdout


@pytest.fixture
def copied(exported: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[0], tmp_path / "copy"))


def edited(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))


# ---- an export that is what it should be --------------------------------------------------------


def test_an_export_says_what_a_fresh_process_found(run: Path, exported: tuple[Path, str]) -> None:
    folder, printed = exported
    about = read_about(folder).as_json()
    validated = about["validated"]
    assert validated["passed"] is True
    named = ["files", "bytes", "logits", "accuracy"]
    named += ["defaults"] if get_target("openvino").defaults() is not None else []
    assert {check["name"]: check["passed"] for check in validated["checks"]} == dict.fromkeys(named, True)
    assert validated["size_bytes"] == size_on_disk(get_target("openvino"), folder)
    assert validated["size_bytes"] == pytest.approx(about["predicted_size_bytes"], rel=0.005)
    recorded = json.loads((run / FRONT).read_text())["trials"][0]
    assert validated["accuracy"] == pytest.approx(recorded["accuracy"], abs=0.5)
    assert (
        validated["latency"]["low_ms"] <= validated["latency"]["median_ms"] <= validated["latency"]["high_ms"]
    )
    assert (validated["batch"], validated["sequence"], validated["threads"]) == (1, 16, 1)
    assert validated["load_seconds"] > 0
    assert "batch 1, 16 tokens, 1 thread(s), in turn with the original" in validated["protocol"]
    for words in ("bytes     ok", "logits    ok", "accuracy  ok", "latency   measured", "loads in  measured"):
        assert words in printed


def test_the_card_is_hashed_like_every_file_and_no_row_of_the_data_is_shipped(
    run: Path, exported: tuple[Path, str]
) -> None:
    folder, _ = exported
    assert {file.name for file in folder.iterdir()} - {ABOUT} == set(read_about(folder).as_json()["sha256"])
    assert CARD in read_about(folder).as_json()["sha256"]
    rows = (run.parent / "rows.csv").read_text().splitlines()[1:]
    texts = [file.read_text() for file in folder.iterdir() if file.suffix in (".json", ".md", ".xml")]
    assert not any(row.rpartition(",")[0] in text for row in rows for text in texts)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_the_card_s_python_runs_and_gives_the_same_logits(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported
    blocks = (folder / CARD).read_text().split("```python\n")[1:]
    ours, bare = (block.partition("\n```")[0] for block in blocks)
    assert "import load" in ours
    assert "autoprune" not in bare
    monkeypatch.chdir(folder.parent)
    results = []
    for code in (ours, bare):
        names: dict[str, Any] = {}
        exec(code, names)
        results.append(names["logits"])
    assert results[0].shape == (1, 3)
    assert np.allclose(results[0], results[1], atol=1e-5)


def test_coded_storage_is_checked_pushed_and_says_how_long_it_takes_to_load(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command; the hub is a small server, which gets the model once it is checked."""
    out, run = tmp_path / "coded", Path(shutil.copytree(run, tmp_path / "run"))
    edited(run / RUN, lambda about: about["config"].update(target="openvino"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serving() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        arguments = [
            "--target",
            "packed",
            "--storage",
            "entropy",
            "--push-to-hub",
            "my-org/small",
            "-q",
            "-o",
        ]
        done = invoke("export", run, *arguments, out)
        assert done.exit_code == 0, done.output
        assert hub.files["my-org/small"] == {file.name: file.read_bytes() for file in out.iterdir()}
        assert hub.visibility == {"my-org/small": "private"}
    about = read_about(out).as_json()
    assert about["storage"] == "entropy"
    assert (
        about["predicted_size_bytes"]
        == json.loads((run / FRONT).read_text())["trials"][0]["predicted_size_bytes"]
    )
    plain = run / "trials" / f"{TRIAL:04d}" / "model.safetensors"
    assert about["validated"]["size_bytes"] == (out / "model.safetensors").stat().st_size
    assert about["validated"]["size_bytes"] < 0.97 * plain.stat().st_size
    assert about["validated"]["logits"]["largest"] == 0.0
    assert "before coding" in done.stdout
    assert "loads in  measured" in done.stdout
    assert "loads in, s" in (out / CARD).read_text()
    assert "Pushed:" in done.stdout


def test_a_run_of_before_is_held_against_the_bytes_that_are_stored_now(run: Path, tmp_path: Path) -> None:
    """A target may store the same model in other bytes than when the search predicted them."""
    old = Path(shutil.copytree(run, tmp_path / "run"))
    edited(old / RUN, lambda about: about["config"].update(target="openvino"))
    edited(old / FRONT, lambda about: about["trials"][0].update(predicted_size_bytes=1000))
    done = invoke("export", old, "-o", tmp_path / "out", "-q")
    assert done.exit_code == 0, done.output
    assert "bytes     ok" in done.stdout


def test_bytes_of_emptied_layers_are_those_of_the_search_or_not_predicted() -> None:
    trial, units = {"predicted_size_bytes": 1000}, {"pooler": 10}
    same = recorded_bytes(trial, SearchSettings(target="onnx"), "onnx", units, is_same=True, unknown="")
    assert same == PredictedBytes(1000, units)
    for target, is_same, why in (("onnx", False, "as an older autoprune"), ("packed", True, "on onnx alone")):
        said = recorded_bytes(
            trial, SearchSettings(target="onnx"), target, units, is_same=is_same, unknown=""
        )
        assert (said.size, said.by_unit) == (None, units)
        assert said.missing is not None
        assert why in said.missing


def test_without_its_data_a_model_is_checked_as_far_as_it_can_be(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "empty"))
    moved = Path(shutil.copytree(run, tmp_path / "run"))
    gone = str(tmp_path / "moved-away.csv")
    edited(moved / RUN, lambda about: about["config"].update(dataset=gone))
    done = invoke("export", moved, "-o", tmp_path / "out", "-q")
    assert done.exit_code == 0, done.output
    assert "accuracy  not checked  data file" in done.stdout
    assert "moved-away.csv' does not exist" in done.stdout
    assert "made-up rows" in done.stdout
    validated = read_about(tmp_path / "out").as_json()["validated"]
    assert {check["name"]: check["passed"] for check in validated["checks"]} == {
        "files": True, "bytes": True, "logits": True, "accuracy": None
    }  # fmt: skip
    assert validated["accuracy"] is None


def test_where_the_runtime_s_own_settings_differ_they_are_measured_too_and_said(
    exported: tuple[Path, str],
) -> None:
    folder, printed = exported
    own, found = get_target("openvino").defaults(), read_about(folder).as_json()["validated"]["defaults"]
    card = (folder / CARD).read_text()
    if own is None:  # the processor has no bfloat16, so nothing differs
        assert found is None
        assert "no settings" not in printed + card
        return
    assert found["settings"] == own.words
    assert found["failure"] == ""
    assert 0.0 <= found["accuracy"] <= 100.0
    assert found["latency"]["low_ms"] <= found["latency"]["median_ms"] <= found["latency"]["high_ms"]
    assert f"defaults  ok           {found['accuracy']:.2f} % with no settings ({own.words})" in printed
    assert f"            no settings  {found['latency']['median_ms']:.2f} ms" in printed
    assert f"with no settings ({own.words})" in card


# ---- one that is not ----------------------------------------------------------------------------


def test_one_that_ends_its_runtime_where_nobody_sets_anything_fails_with_one_message(copied: Path) -> None:
    """As exports were before: 2 bits multiplied as such, which OpenVINO cannot under bfloat16."""
    import openvino

    graph = openvino.Core().read_model(copied / "model.xml")
    for node in graph.get_ops():
        if node.get_type_name() == "Convert" and node.get_output_element_type(0) == openvino.Type.u4:
            node.output(0).replace(node.input_value(0))
    openvino.save_model(graph, copied / "old.xml", compress_to_fp16=False)
    del graph, node
    for name in ("model.xml", "model.bin"):
        (copied / f"old{Path(name).suffix}").replace(copied / name)
    edited(
        copied / ABOUT,
        lambda about: about["sha256"].update(
            {name: file_hash(copied / name) for name in ("model.xml", "model.bin")}
        ),
    )
    done = invoke("bench", copied, "--json")
    found = json.loads(done.stdout)
    assert found["accuracy"] is not None
    if get_target("openvino").defaults() is None:
        assert found["defaults"] is None
        assert done.exit_code == 0 or "is not what was recorded: bytes" in done.stderr  # it was edited
        return
    assert done.exit_code == 5
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("autoprune: ")]
    assert "defaults: with no settings (bfloat16) it does not run: " in message
    assert message.endswith(found["defaults"]["failure"])


def test_an_export_that_fails_is_put_aside_not_pushed_and_ends_with_5(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((wrong / FRONT).read_text())
    record["trials"][0]["accuracy"] += 20.0
    (wrong / FRONT).write_text(json.dumps(record))
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed" / "mine.txt").write_text("keep")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        arguments = ["-o", tmp_path / "out", "-q", "--push-to-hub", "my-org/small"]
        message = refused("export", wrong, *arguments, code=5)
        assert hub.visibility == {}
    accuracy = record["trials"][0]["accuracy"]
    assert "did not validate: accuracy: " in message
    assert f"{accuracy - 20:.2f} % on 40 validation rows, {accuracy:.2f} the search recorded" in message
    assert "out.failed-2; do not ship it" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.failed", "out.failed-2", "run"]
    assert [path.name for path in (tmp_path / "out.failed").iterdir()] == ["mine.txt"]
    assert read_about(tmp_path / "out.failed-2").as_json()["validated"]["passed"] is False


def test_a_model_that_does_not_load_is_said_by_the_fresh_process(copied: Path) -> None:
    file = copied / "model.xml"
    file.write_bytes(file.read_bytes()[:500])
    edited(copied / ABOUT, lambda about: about["sha256"].update({"model.xml": file_hash(file)}))
    with pytest.raises(AutopruneError, match="cannot be loaded by OpenVINO"):
        in_fresh_process(Request(str(copied)))


def test_a_process_that_ends_unexpectedly_is_an_error_with_its_last_words(copied: Path) -> None:
    edited(copied / "config.json", lambda config: config.update(max_position_embeddings="many"))
    config_hash = file_hash(copied / "config.json")
    edited(copied / ABOUT, lambda about: about["sha256"].update({"config.json": config_hash}))
    with pytest.raises(AutopruneError, match=r"ended with 1: TypeError: '>' not supported"):
        in_fresh_process(Request(str(copied)))


def test_a_record_with_a_wrong_field_names_it(copied: Path) -> None:
    edited(copied / ABOUT, lambda about: about.update(timed_at={"batch": "many"}))
    with pytest.raises(AutopruneError, match=r"autoprune\.json cannot be read:\s+timed_at\.batch: .*integer"):
        in_fresh_process(Request(str(copied)))


def test_a_level_that_a_target_lacks_names_unit_level_and_targets_that_have_it(
    run: Path, tmp_path: Path
) -> None:
    message = refused("export", run, "--target", "compressed-tensors", "-o", tmp_path / "out")
    assert "cannot keep embeddings.word_embeddings.common at 0x4b (ratio x bits)" in message
    assert "targets that can: openvino, onnx, packed" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "abacus"], f"choose one of {', '.join(NAMES)}"),
        (["--target", "openvino", "--storage", "entropy"], "storage entropy is of target packed alone"),
        (["--storage", "zip"], "choose one of plain, entropy"),
        (["--public"], "give OWNER/NAME with it"),
        (["--push-to-hub", "a/b/c"], "OWNER/NAME"),
        (["--trial", "99"], "give best, accurate, small, fast, knee, or a number from 0 to 3"),
        (["--budget", "1MB", "--trial", "3"], "leave out --trial 3"),
        (["--budget", "1MB", "--trial", "best"], "leave out --trial best"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path, arguments: Sequence[str], words: str
) -> None:
    assert words in refused("export", run, "-o", tmp_path / "out", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_help_lists_every_target() -> None:
    text = " ".join(invoke("export", "--help").stdout.split())
    assert all(name in text for name in NAMES)


def test_storage_is_of_packed_alone() -> None:
    with pytest.raises(AutopruneError, match="storage 'zip' does not exist"):
        runtime_of("packed", "zip")
    assert runtime_of("packed", "entropy").name == "packed"


# ---- measured again -----------------------------------------------------------------------------


def test_bench_finds_what_was_recorded_without_the_run(copied: Path, run: Path) -> None:
    done = invoke("bench", copied, "--json")
    assert done.exit_code == 0, done.output
    found, about = json.loads(done.stdout), read_about(copied).as_json()
    assert found["passed"] is True
    for name in ("size_bytes", "accuracy", "rows", "batch", "sequence"):
        assert found[name] == about["validated"][name]
    assert found["recorded"]["latency"] == about["validated"]["latency"]
    assert str(run) not in json.dumps(about["validated"])


def test_bench_takes_another_batch_length_and_threads(copied: Path) -> None:
    done = invoke("bench", copied, "--batch", 2, "--sequence", 8, "--threads", 2)
    assert done.exit_code == 0, done.output
    assert "at batch 2, 8 tokens, 2 threads; the original" in done.stdout
    assert "recorded" in done.stdout
    assert "at 1 x 16 tokens, 1 thread(s)" in done.stdout


def test_bench_on_other_data_measures_and_compares_nothing(copied: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "other.csv", rows=60, seed=5)
    done = invoke("bench", copied, "--dataset", tmp_path / "other.csv")
    assert done.exit_code == 0, done.output
    assert "accuracy  not checked" in done.stdout
    assert "validation rows of other data" in done.stdout


def test_bench_on_the_recorded_data_by_name_compares(copied: Path, run: Path) -> None:
    done = invoke("bench", copied, "--dataset", run.parent / "rows.csv")
    assert done.exit_code == 0, done.output
    assert "accuracy  ok" in done.stdout


def test_bench_refuses_data_of_other_classes(copied: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "other.csv", labels=("no", "yes"))
    message = refused("bench", copied, "--dataset", tmp_path / "other.csv")
    assert "other.csv has the classes no, yes; the model tells apart bad, fair, good" in message


def test_bench_refuses_more_tokens_than_the_model_takes(copied: Path) -> None:
    assert "this model takes at most 32 tokens" in refused("bench", copied, "--sequence", 33)


def test_bench_ends_with_5_where_the_accuracy_or_the_bytes_are_not_those_recorded(copied: Path) -> None:
    edited(copied / ABOUT, lambda about: about["validated"].update(accuracy=90.0))
    message = refused("bench", copied, code=5)
    assert "90.00 recorded (2.5 point allowed)" in message
    edited(copied / ABOUT, lambda about: about["validated"].update(size_bytes=5, accuracy=None))
    assert "the export recorded 5" in refused("bench", copied, code=5)


def test_bench_ends_with_5_where_a_file_was_changed_or_is_gone(copied: Path) -> None:
    data = bytearray((copied / "model.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (copied / "model.bin").write_bytes(data)
    assert "its SHA-256 differs" in refused("bench", copied, code=5)
    (copied / "model.bin").unlink()
    assert "is missing" in refused("bench", copied, code=5)


def test_bench_refuses_what_is_no_export(tmp_path: Path) -> None:
    assert "is no exported model" in refused("bench", tmp_path)


# ---- the rows -----------------------------------------------------------------------------------


def test_rows_are_those_of_the_search_from_the_data_and_from_the_cache(
    run: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "rows-cache"))
    about = read_about(copied)
    wanted = read_inputs(run_config(run)).task
    found = [recorded_rows(copied, about), recorded_rows(copied, about)]
    (kept,) = (tmp_path / "rows-cache" / "rows").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    found.append(recorded_rows(copied, about))
    for task in found:
        for name in ("ids", "types", "starts", "labels"):
            assert np.array_equal(getattr(task.validation, name), getattr(wanted.validation, name))
        assert (task.inputs, task.pad_id, task.label_names) == (wanted.inputs, wanted.pad_id, LABELS)


def test_data_that_changed_since_the_search_are_not_taken_for_it(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "empty"))
    write_rows(tmp_path / "rows.csv", seed=1)
    edited(copied / ABOUT, lambda about: about["data"].update(dataset=str(tmp_path / "rows.csv")))
    about = read_about(copied)
    with pytest.raises(AutopruneError, match=r"rows\.csv is not what it was when the search read it"):
        recorded_rows(copied, about)


# ---- the parts ----------------------------------------------------------------------------------

FOUND = ExportMeasurements(
    size_bytes=1000, load_seconds=0.1, rows=1000, accuracy=80.0, is_recorded_data=True, missing="",
    logits=Logits(256, False, 0.05, 0.2), latency=Timing(1.0, 0.9, 1.2, 2.0, 0.5, 0.5), batch=1, sequence=128,
    threads=1, protocol="", machine="",
)  # fmt: skip
RECORD: dict[str, Any] = {
    "target": "openvino", "measured_on": "openvino", "storage": "plain", "predicted_size_bytes": 1000,
    "measured": {"accuracy": 80.0}, "sha256": {},
}  # fmt: skip


def names_that_fail(found: ExportMeasurements, **changes: Any) -> set[str]:
    checks = export_checks(found, ExportRecord(**RECORD | changes), tolerance=0.1)
    return {check.name for check in checks if check.passed is False}


def test_each_check_fails_past_its_tolerance_and_not_before() -> None:
    assert names_that_fail(FOUND) == set()
    predicted = 1_000_000
    for size, names in ((1_005_000, set()), (1_005_001, {"bytes"}), (994_999, {"bytes"})):
        assert names_that_fail(replace(FOUND, size_bytes=size), predicted_size_bytes=predicted) == names
    for size, names in ((51_000, set()), (51_001, {"bytes"}), (48_999, {"bytes"})):  # a graph's text
        assert names_that_fail(replace(FOUND, size_bytes=size), predicted_size_bytes=50_000) == names
    assert names_that_fail(replace(FOUND, accuracy=79.9)) == set()
    assert names_that_fail(replace(FOUND, accuracy=79.8)) == {"accuracy"}
    assert names_that_fail(replace(FOUND, accuracy=80.2)) == {"accuracy"}
    assert names_that_fail(replace(FOUND, logits=Logits(256, False, 0.11, 0.2))) == {"logits"}


def test_with_the_runtime_s_own_settings_it_must_run_and_may_round_more() -> None:
    timing = FOUND.latency
    for score, names in ((80.0, set()), (75.0, set()), (74.9, {"defaults"}), (None, set())):
        own = DefaultRun("bfloat16", score, timing)
        assert names_that_fail(replace(FOUND, defaults=own)) == names
    own = DefaultRun("bfloat16", failure="its process ended with -11")
    found = replace(FOUND, defaults=own)
    assert names_that_fail(found) == {"defaults"}
    said = failed(export_checks(found, ExportRecord(**RECORD), tolerance=0.1))
    assert said == "defaults: with no settings (bfloat16) it does not run: its process ended with -11"
    assert ExportMeasurements.from_json(asdict(found)) == found
    assert ExportMeasurements.from_json(
        asdict(replace(FOUND, defaults=DefaultRun("bfloat16", 80.0, timing)))
    ).defaults


def test_a_file_of_the_bytes_that_the_search_recorded_is_the_model_whatever_was_predicted() -> None:
    """What emptied layers leave behind is predicted roughly, and a search has the file's own bytes."""
    changes = {"predicted_size_bytes": 249_590, "measured": {"accuracy": 80.0, "size_bytes": 220_451}}
    for size, names in ((220_570, set()), (222_600, {"bytes"}), (249_000, set())):
        assert names_that_fail(replace(FOUND, size_bytes=size), **changes) == names
    elsewhere = names_that_fail(replace(FOUND, size_bytes=220_570), measured_on="packed", **changes)
    assert elsewhere == {"bytes"}


def test_another_target_may_differ_by_half_a_point() -> None:
    assert names_that_fail(replace(FOUND, accuracy=79.5), measured_on="packed") == set()
    assert names_that_fail(replace(FOUND, accuracy=79.4), measured_on="packed") == {"accuracy"}


def test_one_row_may_always_differ() -> None:
    assert names_that_fail(replace(FOUND, rows=40, accuracy=77.5)) == set()
    assert names_that_fail(replace(FOUND, rows=40, accuracy=75.0)) == {"accuracy"}


def test_coded_storage_may_be_smaller_than_predicted_but_not_larger() -> None:
    assert names_that_fail(replace(FOUND, size_bytes=700), storage="entropy") == set()
    assert names_that_fail(replace(FOUND, size_bytes=2100), storage="entropy") == {"bytes"}


def test_what_was_not_predicted_or_compared_is_not_checked() -> None:
    about = ExportRecord(**RECORD | {"predicted_size_bytes": None, "not_predicted": "no space file"})
    checks = export_checks(replace(FOUND, logits=None), about, tolerance=0.1)
    assert [check.passed for check in checks] == [True, None, None, True]
    assert failed(checks) == ""
    assert "no space file" in checks[1].said


def test_milliseconds_never_fail_a_bench() -> None:
    quick = dict.fromkeys(LatencyRecord.model_fields, 1e-6)
    validated = {"size_bytes": 1000, "accuracy": 80.0, "latency": quick}
    about = ExportRecord(**RECORD | {"validated": validated})
    slow = replace(FOUND, latency=Timing(1e6, 1e6, 1e6, 1.0, 1e6, 1e6))
    assert {check.name for check in bench_checks(slow, about)} == {"files", "bytes", "accuracy"}
    assert failed(bench_checks(slow, about)) == ""


def test_the_stand_in_for_the_original_has_its_bytes(tiny_bert: Tiny, tmp_path: Path) -> None:
    """Random weights must not be ones that a runtime optimizes away, as zero biases are."""
    target, example = get_target("openvino"), tiny_bert.task.batch(tiny_bert.task.validation, [0])
    tiny_bert.model.config.save_pretrained(tmp_path)  # type: ignore[union-attr, operator]
    path, which = original_folder(tmp_path, target, example)
    assert which == "its shapes, with random weights"
    target.save(tiny_bert.stitched_as(tiny_bert.space.untouched()), tmp_path, example)
    assert size_on_disk(target, path) == pytest.approx(size_on_disk(target, tmp_path), rel=0.001)
    assert original_folder(tmp_path, target, example)[0] == path


def test_a_failed_validation_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in AutopruneError.__subclasses__()]
    assert ValidationError.exit_code == 5
    assert codes.count(5) == 1
