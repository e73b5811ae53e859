"""One contract, kept by every target: sizes predicted, levels real, logits those of the torch model."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny, logits, make_tiny

from autoprune.errors import AutopruneError
from autoprune.measure import Timing, logits_of, time_interleaved
from autoprune.space import UNTOUCHED, Candidate, Level
from autoprune.stitch import Stitched
from autoprune.targets import NAMES, Runner, Target, get_target, size_on_disk
from autoprune.targets.packed import read_packed, torch_runner
from autoprune.task import Batch, Encoded

NEEDED_BESIDE = {"openvino": (), "packed": ("config.json",)}
SIZE_TOLERANCE = 0.005
EXACT = 1e-4
"""Of the logits' spread, where nothing is rounded at run time: order of summation alone."""

UNIFORM = tuple(str(bits) for bits in (2, 3, 4, 6, 8, 16, 32))
MIXED = ("mixed", "pruned")
every_level = pytest.mark.parametrize("name", UNIFORM)
every_candidate = pytest.mark.parametrize("name", UNIFORM + MIXED)


@dataclass(frozen=True)
class Saved:
    """A candidate's model, the folder a target saved it in, and what it loads from there."""

    stitched: Stitched
    folder: Path
    run: Runner


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT large enough that its weights, not its file's headings, are its size."""
    return make_tiny("bert", tmp_path_factory.mktemp("library"), hidden=256, layers=4, ffn=512, vocab=8000)


@pytest.fixture(scope="module")
def save(small: Tiny, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Saves a candidate by name, once."""
    done: dict[str, Saved] = {}

    def saved(name: str) -> Saved:
        if name not in done:
            folder = tmp_path_factory.mktemp(f"{target.name}-{name}-")
            stitched = small.stitched_as(candidate(small, name))
            target.save(stitched, folder, small.task.batch(small.task.validation, [0, 1]))
            done[name] = Saved(stitched, folder, target.load(folder))
        return done[name]

    return saved


@pytest.fixture(scope="module", params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return get_target(request.param)


def candidate(small: Tiny, name: str) -> Candidate:
    if name == "mixed":
        return small.mixed
    if name == "pruned":
        return small.space.uniform(Level(0.5, 3))
    return small.space.uniform(Level(0.0, int(name)))


def predicted_bytes(small: Tiny, target: Target, levels: Candidate, original: int) -> int:
    """The original's bytes and what each unit's level changes, as the search predicts them."""
    change = 0
    for unit in small.units:
        level = levels[unit.name]
        change += unit.size_bytes(level) - unit.size_bytes(UNTOUCHED)
        change += len(unit.weights) * (target.overhead_bytes(level.bits) - target.overhead_bytes(32))
    return original + change


class TestContract:
    def test_it_names_itself_and_stores_floats(self, target: Target) -> None:
        assert get_target(target.name).name == target.name
        assert 32 in target.bits
        assert target.fast_bits <= target.bits
        assert {str(bits) for bits in target.bits} == set(UNIFORM)
        assert target.overhead_bytes(32) == 0

    @every_candidate
    def test_the_predicted_size_is_that_of_the_files(
        self, small: Tiny, target: Target, save: Callable[[str], Saved], name: str
    ) -> None:
        original = size_on_disk(target, save("32").folder)
        saved = save(name)
        predicted = predicted_bytes(small, target, saved.stitched.levels, original)
        assert predicted == pytest.approx(size_on_disk(target, saved.folder), rel=SIZE_TOLERANCE)

    def test_the_original_weighs_its_parameters_and_little_more(
        self, small: Tiny, target: Target, save: Callable[[str], Saved]
    ) -> None:
        parameters = sum(4 * p.numel() for p in small.model.parameters())
        assert parameters < size_on_disk(target, save("32").folder) < 1.02 * parameters

    @every_candidate
    def test_logits_are_those_of_the_stitched_model(
        self, small: Tiny, target: Target, save: Callable[[str], Saved], name: str
    ) -> None:
        saved = save(name)
        data = small.task.validation
        wanted = logits_of(torch_runner(saved.stitched.model), small.task, data)
        got = logits_of(saved.run, small.task, data)
        assert got.dtype == np.float32
        share = float(np.abs(got - wanted).max() / wanted.std())
        assert share <= target.tolerance
        if not {one.bits for one in saved.stitched.integers.values()} & target.fast_bits:
            assert share <= EXACT

    @pytest.mark.parametrize("name", ["32", "mixed"])
    @pytest.mark.parametrize("shape", [(1, 5), (3, 17), (2, 1)])
    def test_batch_and_sequence_may_have_any_length(
        self, small: Tiny, target: Target, save: Callable[[str], Saved], name: str, shape: tuple[int, int]
    ) -> None:
        saved = save(name)
        batch = small.task.timing_batch(*shape)
        wanted = logits(saved.stitched.model, batch).numpy()
        got = saved.run(batch)
        assert got.shape == (shape[0], 3)
        assert np.abs(got - wanted).max() <= target.tolerance

    def test_its_files_are_all_that_it_needs(
        self, small: Tiny, target: Target, save: Callable[[str], Saved], tmp_path: Path
    ) -> None:
        saved = save("mixed")
        batch = small.task.batch(small.task.validation, [0, 1])
        wanted = saved.run(batch)
        files = list(target.files(saved.folder))
        assert files
        for file in [*files, *(saved.folder / name for name in NEEDED_BESIDE[target.name])]:
            shutil.copy(file, tmp_path)
        assert np.array_equal(target.load(tmp_path)(batch), wanted)

    def test_what_a_runner_returned_is_not_written_over(
        self, small: Tiny, target: Target, save: Callable[[str], Saved]
    ) -> None:
        run = save("4").run
        one, other = (small.task.batch(small.task.validation, rows) for rows in ([0, 1], [2, 3]))
        first = run(one)
        kept = first.copy()
        assert not np.array_equal(run(other), kept)
        assert np.array_equal(first, kept)
        assert np.array_equal(run(one), kept)

    def test_saving_leaves_the_model_as_it_is(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, example: Batch
    ) -> None:
        stitched = tiny_bert.stitched_as(tiny_bert.mixed)
        state = copy.deepcopy(stitched.model.state_dict())
        integers = copy.deepcopy(stitched.integers)
        target.save(stitched, tmp_path, example)
        after = stitched.model.state_dict()
        assert after.keys() == state.keys()
        assert all(torch.equal(after[name], x) for name, x in state.items())
        assert all(torch.equal(stitched.integers[p].codes, one.codes) for p, one in integers.items())

    def test_a_folder_without_a_model_is_refused_by_name(self, target: Target, tmp_path: Path) -> None:
        with pytest.raises(AutopruneError) as caught:
            target.load(tmp_path)
        assert str(target.files(tmp_path)[0]) in str(caught.value)

    def test_a_damaged_file_is_refused(
        self, target: Target, save: Callable[[str], Saved], tmp_path: Path
    ) -> None:
        shutil.copytree(save("4").folder, tmp_path, dirs_exist_ok=True)
        first = target.files(tmp_path)[0]
        first.write_bytes(first.read_bytes()[:200])
        with pytest.raises(AutopruneError, match=first.name):
            target.load(tmp_path)


def test_an_unknown_target_names_those_that_exist() -> None:
    with pytest.raises(AutopruneError, match="'onnx' does not exist; choose one of openvino, packed"):
        get_target("onnx")


@pytest.mark.parametrize("name", UNIFORM)
def test_packed_brings_back_the_stitched_model_bit_for_bit(tiny: Tiny, tmp_path: Path, name: str) -> None:
    stitched = tiny.stitched(Level(0.5, int(name)))
    packed = get_target("packed")
    packed.save(stitched, tmp_path, {})
    again = read_packed(tmp_path)
    assert again.levels == stitched.levels
    assert again.half == stitched.half
    assert again.integers.keys() == stitched.integers.keys()
    for path, one in stitched.integers.items():
        assert again.integers[path].bits == one.bits
        for field in ("codes", "scale", "zero"):
            assert torch.equal(getattr(again.integers[path], field), getattr(one, field))
    mine, theirs = stitched.model.state_dict(), again.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_takes_the_other_family_too(name: str, tmp_path: Path) -> None:
    tiny, target = make_tiny("distilbert", tmp_path / "library"), get_target(name)
    stitched = tiny.stitched(Level(0.5, 6))
    batch = tiny.task.batch(tiny.task.validation, [0, 1, 2])
    target.save(stitched, tmp_path, batch)
    got, wanted = target.load(tmp_path)(batch), logits(stitched.model, batch).numpy()
    assert np.abs(got - wanted).max() <= EXACT * wanted.std()


def test_openvino_reports_nothing_over_the_network() -> None:
    code = (
        "import sys; from autoprune.targets import get_target; get_target('openvino'); import openvino;"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_openvino_refuses_a_weight_that_its_graph_lacks(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched = tiny_bert.stitched(Level(0.0, 4))
    lost = {"bert.nowhere": next(iter(stitched.integers.values()))}
    broken = Stitched(stitched.model, lost, frozenset(), {}, stitched.levels)
    with pytest.raises(AutopruneError, match=r"no weight self\.bert\.nowhere\.weight"):
        get_target("openvino").save(broken, tmp_path, tiny_bert.task.batch(tiny_bert.task.test, [0]))


# ---- measuring ----------------------------------------------------------------------------------


def test_logits_come_in_the_order_of_the_rows(tiny_bert: Tiny) -> None:
    data = tiny_bert.task.validation
    together = logits_of(torch_runner(tiny_bert.model), tiny_bert.task, data)
    for row in range(len(data)):
        alone = logits(tiny_bert.model, tiny_bert.task.batch(data, [row])).numpy()[0]
        assert np.abs(together[row] - alone).max() <= 1e-5


def test_no_rows_are_an_error(tiny_bert: Tiny) -> None:
    none = Encoded(np.empty(0, np.int32), np.empty(0, np.uint8), np.zeros(1, np.int64), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="no rows to evaluate"):
        logits_of(torch_runner(tiny_bert.model), tiny_bert.task, none)


def test_timing_takes_turns_and_tells_the_slower_from_the_faster(example: Batch) -> None:
    calls: list[str] = []

    def runner(name: str, seconds: float) -> Runner:
        def run(batch: Batch) -> np.ndarray[Any, Any]:
            calls.append(name)
            time.sleep(seconds)
            return np.zeros((2, 3), np.float32)

        return run

    timing = time_interleaved(runner("slow", 0.02), runner("fast", 0.005), example, pairs=6, warm_up=1)
    assert calls[2:] == ["fast", "slow", "slow", "fast"] * 3
    assert 20 <= timing.low_ms <= timing.median_ms <= timing.high_ms
    assert 5 <= timing.original_ms < timing.median_ms


def test_a_scaled_time_is_as_if_the_original_took_the_reference() -> None:
    assert Timing(10.0, 8.0, 12.0, 20.0).scaled(40.0) == (20.0, 16.0, 24.0)
