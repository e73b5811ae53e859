"""Storages that a space file offers by name, in the packed layout: bytes, values, coding, a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of
from autoprune.export.artifact import write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.space.levels import Level
from autoprune.space.storage import OPTIONAL, GroupedIntegers, Storage, storages_of
from autoprune.targets import IN_TORCH, kept_at
from autoprune.targets.packed import WEIGHTS, Packed, read_packed, torch_runner
from autoprune.targets.target import ENTROPY, PLAIN, STORAGES
from autoprune.tasks.answers import Answers
from tests.support.targets import TARGETS
from tests.support.tiny import Tiny, make_tiny

TRIED = storages_of(
    [
        "codebook16",
        "codebook4",
        "shared8",
        "vector2x64",
        "vector4x256",
        "2g32",
        "3row",
        "ternary",
        "2of4x3",
        "32of64x4",
        "rank25",
        "2r8",
        "nf4",
        "mxfp4",
        "3sym",
    ]
)
"""One or two of each sort in `OPTIONAL`."""

each = pytest.mark.parametrize("storage", TRIED, ids=lambda storage: storage.name)
OTHERS = [storage for storage in TRIED if not isinstance(storage, GroupedIntegers)]
described = pytest.mark.parametrize("storage", OTHERS, ids=lambda storage: storage.name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT whose matrices are large enough for a stream to be worth its heading."""
    also = tuple(storage.name for storage in TRIED)
    return make_tiny(
        "bert", tmp_path_factory.mktemp("library"), also=also, hidden=64, ffn=256, vocab=600, layers=1
    )


def plain(storage: Storage) -> Storage:
    """What a weight says of itself, whose group size is seen by its scales."""
    return GroupedIntegers(storage.bits) if isinstance(storage, GroupedIntegers) else storage


def test_each_sort_of_storage_is_tried() -> None:
    assert {type(storage) for storage in TRIED} == {type(storage) for storage in OPTIONAL}


def saved(stitched: Stitched, folder: Path, coding: str = PLAIN) -> int:
    folder.mkdir(exist_ok=True)
    Packed(coding).save(stitched, folder, {})
    return (folder / WEIGHTS).stat().st_size


def opened(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["autoprune"])


def same(one: Stitched, other: Stitched) -> bool:
    """Whether two models store and compute the same, bit for bit."""
    assert one.stored.keys() == other.stored.keys()
    for path, weight in one.stored.items():
        assert weight.storage == other.stored[path].storage
        mine, theirs = weight.tensors(), other.stored[path].tensors()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[part], theirs[part]) for part in mine)
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


@each
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_it_comes_back_bit_for_bit_and_coding_saves_bytes(
    small: Tiny, tmp_path: Path, storage: Storage, ratio: float
) -> None:
    stitched = small.stitched(Level(ratio, storage))
    assert {weight.storage for weight in stitched.stored.values()} == {plain(storage)}
    sizes = {coding: saved(stitched, tmp_path / coding, coding) for coding in STORAGES}
    assert sizes[ENTROPY] < sizes[PLAIN]
    for coding in STORAGES:
        assert same(stitched, read_packed(tmp_path / coding))


@each
def test_a_weight_takes_the_bytes_that_its_storage_says(
    small: Tiny, tmp_path: Path, storage: Storage
) -> None:
    stitched = small.stitched(Level(0.0, storage))
    saved(stitched, tmp_path)
    tensors, _ = opened(tmp_path)
    groups = {weight.path: unit.group_size for unit in small.units for weight in unit.weights}
    for path, weight in stitched.stored.items():
        taken = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith(f"{path}.weight."))
        assert taken == storage.size_bytes(*weight.shape, group_size=groups[path])


@each
def test_bytes_of_the_file_are_the_predicted_ones(small: Tiny, tmp_path: Path, storage: Storage) -> None:
    original = saved(small.stitched_as(small.space.untouched()), tmp_path / "original")
    candidate = small.space.uniform(Level(0.0, storage))
    size = saved(small.stitched_as(candidate), tmp_path / "small")
    assert abs(small.predicted_bytes(Packed(), candidate, original) - size) <= 0.005 * size


def test_a_fresh_process_answers_the_same(small: Tiny, tmp_path: Path) -> None:
    batch = small.task.batch(small.task.validation, [0, 1, 2])
    np.savez(tmp_path / "batch.npz", **batch)
    wanted = {}
    for storage in TRIED:
        stitched = small.stitched(Level(0.0, storage))
        saved(stitched, tmp_path / storage.name, ENTROPY)
        wanted[storage.name] = torch_runner(stitched.model)(batch)
    program = (
        "import sys, numpy as np; from autoprune.targets import get_target; from pathlib import Path\n"
        "root = Path(sys.argv[1]); batch = dict(np.load(root / 'batch.npz'))\n"
        "for folder in filter(Path.is_dir, root.iterdir()):\n"
        "    np.save(folder / 'logits.npy', get_target('packed').load(folder)(batch))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    for name, logits in wanted.items():
        assert np.array_equal(np.load(tmp_path / name / "logits.npy"), logits)


@each
def test_a_fine_tune_keeps_it_in_its_storage(small: Tiny, tmp_path: Path, storage: Storage) -> None:
    task = small.task
    answers = Answers.plain(logits_of(torch_runner(small.model), task, task.train))
    stitched = small.stitched(Level(0.5, storage))
    trained = finetune(
        stitched, Lesson(task, task.train, answers), Recipe(6, 8, 1e-4), seed=0, teacher=small.model
    )
    assert {weight.storage for weight in trained.stored.values()} == {plain(storage)}
    for path, weight in trained.stored.items():
        assert {part: x.shape for part, x in weight.tensors().items()} == {
            part: x.shape for part, x in stitched.stored[path].tensors().items()
        }
    state = trained.model.state_dict()
    for path, weight in trained.stored.items():
        assert torch.equal(state[f"{path}.weight"].flatten(1), weight.dequantize())
    saved(trained, tmp_path)
    assert same(trained, read_packed(tmp_path))


@each
def test_other_targets_offer_it_not_and_refuse_it_by_name(
    small: Tiny, tmp_path: Path, storage: Storage
) -> None:
    level = Level(0.0, storage)
    stitched = small.stitched(level)
    batch = small.task.batch(small.task.validation, [0, 1])
    words = tmp_path / "words"
    words.mkdir()
    for name, target in TARGETS.items():
        if storage in target.storages:
            assert name in IN_TORCH or (name, storage.name) == ("gguf", "mxfp4")
            continue
        assert not any(target.offers(unit, level) for unit in small.units)
        assert kept_at(target, level) is None
        about = ExportRecord(target=name)
        with pytest.raises(AutopruneError, match=f"target {name} cannot store weights of .*{storage.name}"):
            write_artifact(stitched, tmp_path / "out", about=about, tokenizer=words, example=batch)
        assert not (tmp_path / "out").exists()


# ---- what is refused ------------------------------------------------------------------------------

QUERY = "bert.encoder.layer.0.attention.self.query"
Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


def told(**entry: Any) -> Change:
    return lambda tensors, about: about["integers"][QUERY].update(entry)


def without(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{QUERY}.weight.")][1:]:
        del tensors[name]


def cut(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{QUERY}.weight.")]:
        tensors[name] = tensors[name].flatten()[:-1].clone()


def of_another_type(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{QUERY}.weight.")]:
        if tensors[name].dtype == torch.half or name.endswith(".scale"):
            tensors[name] = tensors[name].double()


HOSTILE: dict[str, Change] = {
    "no storage": told(storage="codebook3"),
    "floats": told(storage="16"),
    "a list": told(storage=[4]),
    "another storage": told(storage="w8a8"),
    "a shape of a terabyte": told(shape=[2**20, 2**20]),
    "a shape below zero": told(shape=[-64, -64]),
    "another shape": told(shape=[32, 128]),
    "tensors missing": without,
    "tensors cut": cut,
    "tensors of another type": of_another_type,
}


@described
@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_does_not_fit_its_description_is_one_clear_error(
    small: Tiny, tmp_path: Path, storage: Storage, change: Change
) -> None:
    saved(small.stitched(Level(0.0, storage)), tmp_path)
    tensors, about = opened(tmp_path)
    change(tensors, about)
    save_file(tensors, tmp_path / WEIGHTS, metadata={"autoprune": json.dumps(about)})
    with pytest.raises(AutopruneError, match="fit"):
        read_packed(tmp_path)
