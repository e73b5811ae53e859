"""One contract, kept by every target: sizes predicted, levels real, logits those of the torch model."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoprune
from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.measure import logits_of
from autoprune.export.artifact import write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.storage import FLOAT32, FLOAT_BITS, OPTIONAL, STATIC8, storage_of
from autoprune.targets import Runner, Target, get_target, kept_at, size_on_disk
from autoprune.targets.packed import torch_runner
from autoprune.tasks.task import Batch
from tests.support.stored import integers_of
from tests.support.targets import NOT_HERE, TARGETS
from tests.support.tiny import Tiny, logits, make_tiny

NEEDED_BESIDE: dict[str, tuple[str, ...]] = {"openvino": (), "onnx": ()}
"""Files that a target reads beside those it counts as the model's; a config where none are named."""
ROUNDING = {"openvino": {2, 4, 8}, "onnx": {2, 4, 8}, "gguf": {4}}
"""Weight-only widths whose kernels round their input as they go, or whose format rounds once more."""
SIZE_TOLERANCE = 0.005
EXACT = 1e-4
"""Of the logits' spread, where nothing is rounded at run time: order of summation alone."""

WIDTHS: tuple[int | str, ...] = (2, 3, 4, 6, 8, 16, "w8a8", FLOAT_BITS)
MIXED = ("mixed", "pruned", "pruned-w8a8")
Case = tuple[str, str]


@dataclass(frozen=True)
class Saved:
    """A candidate's model, the folder a target saved it in, and what it loads from there."""

    target: Target
    stitched: Stitched
    folder: Path
    run: Runner


def held(target: Target, *, is_held: bool = True) -> list[int | str]:
    """Widths that a target holds, or those that it lacks."""
    return [width for width in WIDTHS if (storage_of(width) in target.storages) == is_held]


def cases(*names: str) -> list[Any]:
    """Targets with the named candidates, or with all that they can hold."""
    found: list[Any] = list(NOT_HERE)
    for name, target in TARGETS.items():
        every = [str(width) for width in held(target)] + list(
            MIXED if STATIC8 in target.storages else MIXED[:2]
        )
        found += [
            pytest.param((name, target), id=f"{name}-{target}")
            for target in every
            if target in (names or every)
        ]
    return found


def candidate(tiny: Tiny, target: Target, name: str) -> Candidate:
    if name == "mixed":
        return tiny.offered(target, tiny.mixed)
    named = {"pruned": Level.of(0.5, 3), "pruned-w8a8": Level.of(0.5, "w8a8")}
    return tiny.space_for(target).uniform(named.get(name) or Level.of(0.0, name))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT large enough that its weights, not its file's headings, are its size."""
    return make_tiny("bert", tmp_path_factory.mktemp("library"), hidden=256, layers=4, ffn=512, vocab=8000)


class Folders:
    """Folders that candidates were saved to, each once."""

    def __init__(self, tiny: Tiny, root: Path) -> None:
        self._tiny, self._root = tiny, root

    def __call__(self, target: Target, name: str) -> tuple[Stitched, Path]:
        folder = self._root / f"{target.name}-{name}"
        stitched = self._tiny.stitched_as(candidate(self._tiny, target, name))
        if not folder.exists():
            folder.mkdir()
            target.save(stitched, folder, self._tiny.task.batch(self._tiny.task.validation, [0, 1]))
        return stitched, folder


@pytest.fixture(scope="module")
def folders(small: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(small, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module", params=cases())
def saved(request: pytest.FixtureRequest, folders: Folders) -> Saved:
    name, one = request.param
    stitched, folder = folders(TARGETS[name], one)
    return Saved(TARGETS[name], stitched, folder, TARGETS[name].load(folder))


@pytest.fixture(scope="module", params=[*TARGETS, *NOT_HERE])
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def only(*names: str) -> pytest.MarkDecorator:
    """The named candidates alone."""
    return pytest.mark.parametrize("saved", cases(*names), indirect=True, scope="module")


def beside(target: Target, folder: Path) -> list[Path]:
    """The model's files and those that are read beside them."""
    return [*target.files(folder), *(folder / n for n in NEEDED_BESIDE.get(target.name, ("config.json",)))]


class TestContract:
    def test_it_names_itself_and_holds_floats(self, small: Tiny, target: Target) -> None:
        assert get_target(target.name).name == target.name
        assert FLOAT32 in target.storages
        assert target.storages <= {storage_of(width) for width in WIDTHS} | set(OPTIONAL)
        assert target.fast <= target.storages
        assert all(target.offers(unit, UNTOUCHED) for unit in small.units)

    def test_a_width_that_it_lacks_is_not_offered_and_is_written_in_a_wider_one_or_not_at_all(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, example: Batch
    ) -> None:
        for width in held(target, is_held=False):
            level = Level.of(0.0, width)
            assert not any(target.offers(unit, level) for unit in tiny_bert.units)
            stitched = tiny_bert.stitched(level)
            if (kept := kept_at(target, level)) is not None:
                assert kept.storage.bits > level.storage.bits
                continue
            with pytest.raises(AutopruneError, match=f"target {target.name} cannot store .*{width}"):
                export(stitched, tmp_path / "out", target, example)
            assert not (tmp_path / "out").exists()

    def test_the_predicted_size_is_that_of_the_files(
        self, small: Tiny, folders: Folders, saved: Saved
    ) -> None:
        _, untouched = folders(saved.target, str(FLOAT_BITS))
        original = size_on_disk(saved.target, untouched)
        predicted = small.predicted_bytes(saved.target, saved.stitched.levels, original)
        assert predicted == pytest.approx(size_on_disk(saved.target, saved.folder), rel=SIZE_TOLERANCE)

    @only("32")
    def test_the_original_weighs_its_parameters_and_little_more(self, small: Tiny, saved: Saved) -> None:
        parameters = sum(4 * p.numel() for p in small.model.parameters())
        assert parameters < size_on_disk(saved.target, saved.folder) < 1.02 * parameters

    def test_logits_are_those_of_the_stitched_model(self, small: Tiny, saved: Saved) -> None:
        data = small.task.validation
        wanted = logits_of(torch_runner(saved.stitched.model), small.task, data)
        got = logits_of(saved.run, small.task, data)
        assert got.dtype == np.float32
        share = float(np.abs(got - wanted).max() / wanted.std())
        assert share <= saved.target.tolerance
        widths = {integers.bits for integers in integers_of(saved.stitched).values()}
        if not widths & ROUNDING.get(saved.target.name, set()) and not saved.stitched.activations:
            assert share <= EXACT

    @only("32", "mixed", "pruned-w8a8")
    def test_batch_and_sequence_may_have_any_length(self, small: Tiny, saved: Saved) -> None:
        for shape in [(1, 5), (3, 17), (2, 1)]:
            batch = small.task.timing_batch(*shape)
            wanted = logits(saved.stitched.model, batch).numpy()
            got = saved.run(batch)
            assert got.shape == (shape[0], 3)
            assert np.abs(got - wanted).max() <= saved.target.tolerance

    @only("mixed", "pruned-w8a8")
    def test_its_files_are_all_that_it_needs(self, small: Tiny, saved: Saved, tmp_path: Path) -> None:
        batch = small.task.batch(small.task.validation, [0, 1])
        wanted = saved.run(batch)
        for file in beside(saved.target, saved.folder):
            shutil.copy(file, tmp_path)
        assert np.array_equal(saved.target.load(tmp_path)(batch), wanted)

    @only("4", "w8a8", "32")
    def test_what_a_runner_returned_is_not_written_over(self, small: Tiny, saved: Saved) -> None:
        one, other = (small.task.batch(small.task.validation, rows) for rows in ([0, 1], [2, 3]))
        first = saved.run(one)
        kept = first.copy()
        assert not np.array_equal(saved.run(other), kept)
        assert np.array_equal(first, kept)
        assert np.array_equal(saved.run(one), kept)

    @pytest.mark.parametrize("level", [None, Level.of(0.5, "w8a8")], ids=["mixed", "w8a8"])
    def test_saving_leaves_the_model_as_it_is(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, example: Batch, level: Level | None
    ) -> None:
        wanted = tiny_bert.mixed if level is None else tiny_bert.space.uniform(level)
        stitched = tiny_bert.stitched_as(tiny_bert.offered(target, wanted))
        state = copy.deepcopy(stitched.model.state_dict())
        integers, grids = copy.deepcopy(integers_of(stitched)), dict(stitched.activations)
        before = logits(stitched.model, example)
        target.save(stitched, tmp_path, example)
        after = stitched.model.state_dict()
        assert after.keys() == state.keys()
        assert all(torch.equal(after[name], x) for name, x in state.items())
        assert all(torch.equal(integers_of(stitched)[p].codes, whole.codes) for p, whole in integers.items())
        assert stitched.activations == grids
        assert torch.equal(logits(stitched.model, example), before)

    def test_another_family_or_its_refusal(
        self, tiny_distilbert: Tiny, target: Target, tmp_path: Path
    ) -> None:
        stitched = tiny_distilbert.stitched_as(tiny_distilbert.offered(target, tiny_distilbert.mixed))
        batch = tiny_distilbert.task.batch(tiny_distilbert.task.validation, [0, 1, 2])
        if target.name == "gguf":  # llama.cpp has no such classifier
            with pytest.raises(AutopruneError, match="this model is a DistilBert"):
                target.save(stitched, tmp_path, batch)
            return
        target.save(stitched, tmp_path, batch)
        got, wanted = target.load(tmp_path)(batch), logits(stitched.model, batch).numpy()
        assert np.abs(got - wanted).max() <= target.tolerance * wanted.std()


# ---- the promise by force: what is damaged or does not fit is refused by name ------------------------


def export(stitched: Stitched, folder: Path, target: Target, example: Batch) -> Path:
    """An exported model; its tokenizer is a file of its own."""
    words = folder.with_name(f"{folder.name}-tokenizer")
    words.mkdir(exist_ok=True)
    (words / "vocab.txt").write_text("[PAD]")
    write_artifact(stitched, folder, about=ExportRecord(target=target.name), tokenizer=words, example=example)
    return folder


def exported(tiny: Tiny, folder: Path, target: Target) -> Path:
    """The model with 4-bit weights, or what is nearest there, exported."""
    stitched = tiny.stitched_as(candidate(tiny, target, "4"))
    return export(stitched, folder, target, tiny.task.batch(tiny.task.validation, [0, 1]))


def refused(load: Callable[[Path], object], folder: Path, *files: Path) -> None:
    """`load` raises one error, short, that names one of the files."""
    with pytest.raises(AutopruneError) as caught:
        load(folder)
    assert any(str(file) in str(caught.value) for file in files)
    assert len(str(caught.value)) < 4000


class TestForce:
    def test_a_folder_without_a_model(self, target: Target, tmp_path: Path) -> None:
        refused(target.load, tmp_path, *target.files(tmp_path))

    @only("4")
    @pytest.mark.parametrize("left", [0.0, 0.5, 0.9])
    def test_a_file_cut_short(self, saved: Saved, tmp_path: Path, left: float) -> None:
        for number, one in enumerate(saved.target.files(saved.folder)):
            folder = tmp_path / str(number)
            shutil.copytree(saved.folder, folder)
            data = one.read_bytes()
            file = folder / one.name
            file.write_bytes(data[: int(left * len(data))])
            refused(saved.target.load, folder, *saved.target.files(folder))

    def test_one_flipped_byte(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        folder = exported(tiny_bert, tmp_path / "model", target)
        for file in target.files(folder):
            whole = file.read_bytes()
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
            refused(autoprune.load, folder, file)
            file.write_bytes(whole)
        autoprune.load(folder)

    def test_a_file_of_a_model_of_other_shapes(
        self, tiny_bert: Tiny, smaller: Tiny, target: Target, tmp_path: Path
    ) -> None:
        folder = exported(tiny_bert, tmp_path / "model", target)
        other = exported(smaller, tmp_path / "other", target)
        file = target.files(folder)[-1]
        shutil.copy(target.files(other)[-1], file)
        refused(autoprune.load, folder, file)
        if len(beside(target, folder)) > 1:  # the file has something to disagree with
            refused(target.load, folder, *beside(target, folder))


def test_an_unknown_target_names_those_that_exist() -> None:
    with pytest.raises(AutopruneError, match="'tflite' does not exist; choose one of openvino, onnx, packed"):
        get_target("tflite")
