"""`autoprune inspect`: what it says of a library, a model and a run is what is really there.

And the lines that a search prints of its limits.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from autoprune.api.terminal import plan_lines, summary_lines
from autoprune.cli import main
from autoprune.compress import library_folder
from autoprune.compress.library import Library
from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.inspection.records import library_record, lines_of, record_of
from autoprune.inspection.survey import survey
from autoprune.models.unit import FLOAT_BYTES
from autoprune.models.units import search_space
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RUN, UNITS, RunFolder
from autoprune.run.standing import Summary, standing
from autoprune.space.levels import Candidate, Level
from autoprune.space.space_file import read_space
from autoprune.space.storage import STATIC8
from autoprune.space.trial import Measurement, Trial
from autoprune.targets import NAMES, get_target, size_on_disk
from autoprune.targets.packed import write_packed
from tests.support.paths import SPACES
from tests.support.tiny import Tiny, random_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(library_folder.LIMIT_VARIABLE, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with a head for three labels, saved with a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "small"
    random_model("bert").save_pretrained(folder)  # type: ignore[operator]
    vocab = folder.parent / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]))
    transformers.BertTokenizerFast(str(vocab)).save_pretrained(folder)
    return folder


def inspected(*arguments: object) -> Any:
    """What `inspect --json` prints."""
    result = run("inspect", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main.main, [*map(str, arguments)])


def text_of(*arguments: object) -> str:
    result = run("inspect", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


# ---- the library --------------------------------------------------------------------------------


def filled(tiny: Tiny, folder: Path, keys: Sequence[str]) -> dict[str, list[Path]]:
    """A library with the first attention and pooler of a model under several keys; files by key."""
    made = {}
    for key in keys:
        library = Library(folder, tiny.model, tiny.statistics, key=key)
        parts = [(tiny.unit("attention"), 0.0), (tiny.unit("attention"), 0.5), (tiny.unit("pooler"), 0.0)]
        for unit, ratio in parts:
            library.build(unit, ratio)
        made[key] = [library.path(unit, ratio) for unit, ratio in parts]
    return made


def test_the_listing_is_what_lies_on_the_disk(tiny_bert: Tiny, cache: Path) -> None:
    made = filled(tiny_bert, cache / "library", ["first", "second"])
    made["second"].pop().unlink()
    for age, key in enumerate(made):
        for path in made[key]:
            os.utime(path, (5000 + age, 5000 + age))
    widths = {kind: len(tiny_bert.unit(kind).levels(0.0)) for kind in ("attention", "pooler")}
    found = inspected()
    assert found["folder"] == str(cache / "library")
    assert found["limit_bytes"] == 20 * 10**9
    assert found["size_bytes"] == sum(path.stat().st_size for path in (cache / "library").iterdir())
    assert found["files"] == 5
    assert [model["key"] for model in found["models"]] == ["second", "first"]  # last used first
    for model, units, variants in zip(
        found["models"],
        (1, 2),
        (2 * widths["attention"], 2 * widths["attention"] + widths["pooler"]),
        strict=True,
    ):
        paths = made[model["key"]]
        assert (model["units"], model["variants"], model["files"]) == (units, variants, len(paths))
        assert model["size_bytes"] == sum(path.stat().st_size for path in paths)
        assert model["used"] == paths[0].stat().st_mtime


def test_every_file_is_counted_once_as_current_outdated_or_unreadable(tiny_bert: Tiny, cache: Path) -> None:
    folder = cache / "library"
    made = filled(tiny_bert, folder, ["key"])["key"]
    os.truncate(made[0], made[0].stat().st_size - 1)
    save_file({}, folder / f"{1:024x}.safetensors", metadata={"damage": "{}"})  # as before version 3
    note = library_folder.Note(3, "key", "u", "u", 0.0, (4,), 0.0, {})
    said = json.dumps(asdict(note) | {"damage": {"4": 0.5}})  # as in version 3
    metadata = {"autoprune": said, "crc32": str(zlib.crc32(said.encode()))}
    save_file({}, folder / f"{2:024x}.safetensors", metadata=metadata)
    (folder / f".{3:024x}.safetensors.abc").mkdir()
    (folder / f".{3:024x}.safetensors.abc" / "half").write_bytes(b"12345")
    (folder / "stranger.txt").write_text("not ours")
    found = inspected()
    assert found["files"] == 5
    assert found["files"] == sum(
        [model["files"] for model in found["models"]]
        + [found["other_versions"]["files"], len(found["unreadable"])]
    )
    assert found["size_bytes"] == sum(path.stat().st_size for path in folder.glob("[0-9a-f]*.safetensors"))
    assert found["other_versions"]["files"] == 2
    assert [model["file"] for model in found["unreadable"]] == [made[0].name]
    assert (found["unfinished"]["files"], found["unfinished"]["size_bytes"]) == (1, 5)
    text = text_of()
    assert f"Unreadable  {made[0].name}" in text
    assert "Outdated  2 files" in text
    assert "Unfinished  1 files, 0.0 kB" in text


def test_an_unreadable_file_is_listed_no_more_once_it_is_made_again(tiny_bert: Tiny, cache: Path) -> None:
    (path, *_) = filled(tiny_bert, cache / "library", ["key"])["key"]
    path.write_bytes(b"")
    assert len(inspected()["unreadable"]) == 1
    library = Library(cache / "library", tiny_bert.model, tiny_bert.statistics, key="key")
    library.variants(tiny_bert.unit("attention"), Level.of(0.0, 4))
    assert not inspected()["unreadable"]


def test_looking_is_not_using(tiny_bert: Tiny, cache: Path) -> None:
    paths = filled(tiny_bert, cache / "library", ["key"])["key"]
    before = [path.stat().st_mtime_ns for path in paths]
    time.sleep(0.02)
    text_of()
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_an_empty_library_and_its_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library_folder.LIMIT_VARIABLE, "500MB")
    assert inspected()["limit_bytes"] == 500_000_000
    assert "0.0 kB in 0 files; limit 500.00 MB" in text_of()
    assert not cache.exists()
    monkeypatch.setenv(library_folder.LIMIT_VARIABLE, "much")
    assert "AUTOPRUNE_LIBRARY_LIMIT='much' is no size" in refused()


def test_the_library_is_listed_without_torch(tiny_bert: Tiny, cache: Path) -> None:
    filled(tiny_bert, cache / "library", ["key"])
    code = (
        "import sys; from autoprune.cli.main import main\n"
        "try: main(['inspect'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'optuna', 'ray', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "key " in done.stdout


# ---- a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "slack"),
    [("packed", 0), ("openvino", 200)],  # OpenVINO numbers operations on through a process: more digits
)
def test_bytes_of_a_model_are_those_of_its_files(
    target: str, slack: int, tiny_bert: Tiny, model_folder: Path, tmp_path: Path
) -> None:
    found = inspected(model_folder, "--target", target)
    runtime = get_target(target)
    example = tiny_bert.task.batch(tiny_bert.task.validation, [0, 1])
    untouched = Stitched(tiny_bert.model, {}, Candidate(()))
    runtime.save(untouched, tmp_path, example)
    assert abs(found["original_bytes"] - size_on_disk(runtime, tmp_path)) <= slack
    kept = sum(unit["levels"][0]["size_bytes"] for unit in found["units"])
    assert found["original_bytes"] == found["fixed_bytes"] + kept
    left_alone = sum(tensor["size_bytes"] for tensor in found["left_alone"])
    floats = FLOAT_BYTES * sum(p.numel() for p in tiny_bert.model.parameters())
    assert kept + left_alone == floats
    assert 0 < found["fixed_bytes"] - left_alone < 300_000  # graph and headers


def test_the_smallest_model_is_the_sum_of_the_smallest_levels_and_can_be_saved(
    tiny_bert: Tiny, model_folder: Path, tmp_path: Path
) -> None:
    found = inspected(model_folder, "--target", "packed")
    smallest = sum(min(lv["size_bytes"] for lv in unit["levels"]) for unit in found["units"])
    assert found["smallest_bytes"] == found["fixed_bytes"] + smallest
    named = {unit["name"]: unit["smallest"] for unit in found["units"]}
    candidate = tiny_bert.space.untouched()
    for choices in tiny_bert.space.units:
        (level,) = [level for level in choices.levels() if str(level) == named[choices.unit]]
        candidate = candidate.with_level(choices.unit, level)
    write_packed(tiny_bert.stitched_as(candidate), tmp_path / "model.safetensors")
    saved = (tmp_path / "model.safetensors").stat().st_size
    assert saved == pytest.approx(found["smallest_bytes"], rel=0.1)  # text of headers, of a tiny model


@pytest.mark.parametrize(("target", "integer"), [("packed", False), ("openvino", True)])
def test_units_and_levels_are_those_a_search_would_find(
    target: str, integer: bool, tiny_bert: Tiny, model_folder: Path
) -> None:
    found = inspected(model_folder, "--target", target)
    space = search_space(tiny_bert.units, get_target(target).offers)
    assert any(STATIC8 in unit.storages for unit in space.units) is integer
    assert found["labels"] == 3
    assert found["has_head"]
    assert [unit["name"] for unit in found["units"]] == [unit.name for unit in tiny_bert.units]
    for unit, choices in zip(found["units"], space.units, strict=True):
        assert [(lv["ratio"], lv["bits"]) for lv in unit["levels"]] == [
            (lv.ratio, lv.storage.written) for lv in choices.levels()
        ]


@pytest.mark.parametrize("target", ["packed", "openvino"])
def test_every_width_is_fast_or_saves_bytes_alone(target: str, model_folder: Path) -> None:
    found = inspected(model_folder, "--target", target)
    runtime = get_target(target)
    widths = {lv["bits"] for unit in found["units"] for lv in unit["levels"]} - {32}
    fast = set(widths) & {storage.written for storage in runtime.fast}
    assert set(found["fast"]) == fast
    assert set(found["bytes_alone"]) == widths - fast
    for part in (found["fast"], found["bytes_alone"]):
        assert part == [value for value in (16, 8, "w8a8", 6, 4, 3, 2) if value in part]


def test_widths_and_what_they_save_in_text(model_folder: Path) -> None:
    lines = text_of(model_folder, "--target", "openvino").splitlines()
    assert "Fast      8, w8a8, 4, 2: computed faster than floats on openvino" in lines
    assert "Slow      16, 6, 3: bytes are saved, but no time" in lines
    assert sum("w8a8 is 8-bit weights and activations" in line for line in lines) == 1
    heads = [line.replace(" bits", "").split()[1:] for line in lines if line.startswith("  ratio")]
    ordered = ["32", "16", "8", "w8a8", "6", "4", "3", "2"]
    assert ordered in heads
    assert all(head == [value for value in ordered if value in head] for head in heads)
    plain = text_of(model_folder, "--target", "packed")
    assert "Fast      no width is computed faster than floats on packed" in plain
    assert "w8a8" not in plain


def test_a_column_has_the_bytes_of_its_width(model_folder: Path) -> None:
    found = inspected(model_folder, "--target", "openvino")
    unit = next(unit for unit in found["units"] if unit["kind"] == "attention")
    lines = lines_of(found)
    first = next(k for k, line in enumerate(lines) if line.startswith("encoder.layer.*.attention"))
    heads = lines[first + 1].replace(" bits", "").split()[1:]
    by_level = {(lv["ratio"], str(lv["bits"])): lv["size_bytes"] for lv in unit["levels"]}
    for row in lines[first + 2 : first + 2 + len({ratio for ratio, _ in by_level})]:
        ratio, *cells = row.split()
        said = [float(cell) for cell in cells[::2]]
        assert set(cells[1::2]) == {"kB"}
        assert said == [round(by_level[float(ratio), head] / 1e3, 1) for head in heads]


def test_modules_left_alone_are_named_and_in_no_unit(tiny_bert: Tiny, model_folder: Path) -> None:
    left = survey(str(model_folder), space="auto", target="packed").left_alone
    taken = {weight.path for unit in tiny_bert.units for weight in unit.weights}
    assert not taken & set(left)
    assert left["classifier"] == FLOAT_BYTES * (3 * 64 + 3)
    assert left["bert.encoder.layer.1.output.LayerNorm"] == FLOAT_BYTES * 2 * 64


def test_a_model_in_text_names_all_units_once(model_folder: Path) -> None:
    text = text_of(model_folder, "--target", "packed")
    assert "7 units" in text.splitlines()[1]
    assert "encoder.layer.*.attention x2" in text
    assert "pooler.dense" in text
    assert "(3 labels)" in text
    assert "bert.encoder.layer.*.output.LayerNorm x2" in text


def test_a_space_file_of_ones_own_is_used(model_folder: Path, tmp_path: Path) -> None:
    space = tmp_path / "two.yaml"
    text = (SPACES / "bert.yaml").read_text(encoding="utf-8")
    space.write_text(re.sub(r"by: head, ratios: \[[^]]*\]", "by: head, ratios: [0.0, 0.5]", text))
    assert read_space(space) != read_space(SPACES / "bert.yaml")
    found = inspected(model_folder, "--space", space, "--target", "packed")
    ratios = {lv["ratio"] for unit in found["units"] if unit["kind"] == "attention" for lv in unit["levels"]}
    assert ratios == {0.0, 0.5}
    assert found["space"] == "two.yaml"
    assert found["importance"] == ""


def test_an_importance_is_told_and_one_that_does_not_exist_is_refused(
    model_folder: Path, tmp_path: Path
) -> None:
    space = tmp_path / "two.yaml"
    text = (SPACES / "bert.yaml").read_text(encoding="utf-8")
    space.write_text(text.replace("by: head,", "by: head, importance: [taylor, obs],"))
    found = inspected(model_folder, "--space", space, "--target", "packed")
    assert found["importance"] == "attention by taylor or obs"
    assert "Removed   attention by taylor or obs" in lines_of(found)
    space.write_text(text.replace("by: head,", "by: head, importance: tailor,"))
    with pytest.raises(AutopruneError, match=r"importance\.0: input should be 'l1', .* got 'tailor'"):
        record_of(str(model_folder), space=str(space), target="packed")


# ---- a run --------------------------------------------------------------------------------------


def run_folder(path: Path, model_folder: Path, target: str = "packed", **facts: object) -> Path:
    """A run as far as its library."""
    folder = RunFolder.create(path, Config(), "autoprune search")
    found = survey(str(model_folder), space="auto", target=target)
    runtime = get_target(target)
    about = {"model": "small", "target": target, "space": "bert.yaml"}
    plain = sorted(storage.bits for storage in runtime.fast - {STATIC8})
    about |= {"fast_bits": plain, "integer": STATIC8 in runtime.fast}
    folder.note(facts=about, kinds=dict(found.kinds), **facts)
    (path / UNITS).write_text(json.dumps(found.sizes.as_json()), encoding="utf-8")
    folder.close()
    return path


SAME = ("original_bytes", "smallest_bytes", "fixed_bytes", "units", "target", "space", "fast", "bytes_alone")


@pytest.mark.parametrize("target", ["packed", "openvino"])
def test_a_run_weighs_what_its_model_does(target: str, model_folder: Path, tmp_path: Path) -> None:
    found = inspected(run_folder(tmp_path / "run", model_folder, target))
    model = inspected(model_folder, "--target", target)
    for name in SAME:
        assert found[name] == model[name], name
    assert found["library"] is None
    assert found["latency"] is None
    assert "does not say which variants" in text_of(tmp_path / "run")


def test_a_run_of_before_says_nothing_of_speed(model_folder: Path, tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", model_folder)
    about = json.loads((path / RUN).read_text(encoding="utf-8"))
    for name in ("fast_bits", "integer"):
        del about["facts"][name]
    (path / RUN).write_text(json.dumps(about), encoding="utf-8")
    assert inspected(path)["fast"] is None
    assert not re.search("^(Fast|Slow)", text_of(path), re.MULTILINE)


def test_how_good_the_predicted_milliseconds_of_a_run_are(model_folder: Path, tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", model_folder)
    latency = {"predicted error": 0.0312, "pairs": 24, "bias": 0.004}
    front = {"version": 1, "run": {}, "latency": latency}
    (path / FRONT).write_text(json.dumps(front), encoding="utf-8")
    assert inspected(path)["latency"] == latency
    line = "Latency   predicted 3.1 % off on average over 24 trials, 0.4 % too high in the mean"
    assert line in text_of(path).splitlines()
    (path / FRONT).write_text(json.dumps(front | {"latency": {"pairs": 24}}), encoding="utf-8")
    result = run("inspect", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "latency.predicted error" in result.stderr


def test_what_the_library_holds_for_a_run(
    tiny_bert: Tiny, model_folder: Path, tmp_path: Path, cache: Path
) -> None:
    made = filled(tiny_bert, cache / "library", ["mine", "other"])["mine"]
    held = inspected(run_folder(tmp_path / "run", model_folder, library_key="mine"))["library"]
    assert (held["units"], held["files"]) == (2, len(made))
    assert held["size_bytes"] == sum(path.stat().st_size for path in made)
    assert "of 2 units" in text_of(tmp_path / "run")


def test_a_run_without_units_or_with_damaged_ones_is_refused(model_folder: Path, tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", model_folder)
    (path / UNITS).write_text('{"fixed_bytes": 3}', encoding="utf-8")
    assert "damaged, or of another version" in refused(path)
    (path / UNITS).unlink()
    assert "has no units.json yet" in refused(path)
    assert "--space and --target are for a model" in refused(path, "--target", "packed")


# ---- neither ------------------------------------------------------------------------------------


def refused(*arguments: object) -> str:
    """The one error of an `inspect` that must end with 2 and print nothing on stdout."""
    result = run("inspect", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_what_is_none_of_these_is_refused_with_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for what in (tmp_path, tmp_path / "notes.txt", tmp_path / "absent", "./absent", "a/b/c"):
        message = refused(what)
        assert f"{str(what)!r} is no run folder (with run.json), no model folder" in message


def test_an_unknown_target_or_space_lists_those_that_exist(model_folder: Path) -> None:
    assert f"choose one of {', '.join(NAMES)}" in refused(model_folder, "--target", "abacus")
    assert "shipped: bert" in refused(model_folder, "--space", "no-such")
    assert "--space and --target are for a model" in refused("--space", "bert")


def test_every_record_is_json_and_its_lines_come_from_it_alone(model_folder: Path, tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", model_folder)
    for record in (
        library_record(tmp_path / "none", limit_bytes=1),
        record_of(str(path)),
        record_of(str(model_folder), target="packed"),
        record_of(str(model_folder), target="openvino"),
    ):
        assert lines_of(json.loads(json.dumps(record))) == lines_of(record)


# ---- a plan and a result ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "planned", "best"),
    [
        (("5ms",), "smallest 4.39 MB; budget 5 ms", "Best within 5 ms"),
        (("20MB", "5ms"), "smallest 4.39 MB; budget 20.0 MB and 5 ms", "Best within 20.0 MB and 5 ms"),
        ((), "smallest 4.39 MB; no budget", "Best, no limit set"),
    ],
)
def test_limits_read_well_in_a_plan_and_a_result(
    budget: tuple[str, ...], planned: str, best: str, tmp_path: Path
) -> None:
    splits = SimpleNamespace(train=[0], validation=[0], test=[0], label_names=("a", "b"))
    inputs: Any = SimpleNamespace(
        teacher=None,
        task=splits,
        original_bytes=91_080_000,
        coded_original=None,
        dataset="reviews",
        space_name="bert.yaml",
        units=(),
        notes=(),
    )
    config = Config.of(model="small", dataset="reviews", budget=budget)
    plan = plan_lines(config, inputs, 4_390_000)
    assert plan[2] == f"Space     bert.yaml  0 units; {planned}"
    reference = Measurement(91_080_000, 29.0, 50.0)
    done = Trial(4, Candidate(()), Measurement(4_390_000, 4.5, 80.0))
    now = standing([done], config.limits(), reference, answers=100)
    lines = summary_lines(Summary(tmp_path, "finished", now, config.limits()))
    assert best in lines
    row, names = lines[lines.index(best) + 1].split("  also ")
    assert row.split() == ["#4", "best", "4.39", "MB", "4.50", "ms", "80.0"]
    assert names == "most accurate, smallest, fastest and knee"
    assert lines[lines.index(best) + 2].startswith("Front ")


@pytest.mark.demo
def test_the_demos_model_can_be_inspected() -> None:
    found = inspected("demo", "--target", "packed")
    assert len(found["units"]) == 16  # as in a search: the vocabulary in two parts
    assert found["smallest_bytes"] < found["original_bytes"] / 20


@pytest.mark.demo
def test_inspect_and_search_name_the_same_smallest_size_and_units_of_the_demo() -> None:
    found = inspected("demo")
    plan = CliRunner().invoke(main.main, ["search", "--budget", "20MB", "--dry-run"]).stderr
    assert f"{len(found['units'])} units; smallest {found['smallest_bytes'] / 1e6:.2f} MB;" in plan
