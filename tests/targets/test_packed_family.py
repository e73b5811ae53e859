"""Families of packed models: every member's file comes out byte for byte, whatever they share."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Candidate, Level
from autoprune.targets.packed import Packed
from autoprune.targets.packed_family import FAMILY, FamilyFile, from_places, to_places
from autoprune.targets.packed_family_writer import all_names, write_family
from tests.support.tiny import Tiny, make_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny("bert", tmp_path_factory.mktemp("tiny"))


def candidates(tiny: Tiny) -> dict[str, Candidate]:
    """Finer and coarser, whole and pruned, equal but for one unit, floats, half floats, 8-bit activations."""
    four = tiny.space.uniform(Level.of(0.0, 4))
    return {
        "eight": tiny.space.uniform(Level.of(0.0, 8)),
        "four": four,
        "nearly four": four.with_level(tiny.units[0].name, Level.of(0.0, 8)),
        "half gone": tiny.space.uniform(Level.of(0.5, 8)),
        "half of three": tiny.space.uniform(Level.of(0.5, 3)),
        "mixed": tiny.mixed.with_level("encoder.layer.1.feed_forward", Level.of(0.5, "w8a8")),
        "untouched": tiny.space.untouched(),
    }


@pytest.fixture(scope="module")
def members(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("members")
    for name, candidate in candidates(tiny).items():
        (root / name).mkdir()
        offered = tiny.offered(Packed(), candidate) if name != "mixed" else candidate
        Packed().save(tiny.stitched_as(offered), root / name, {})
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture(scope="module")
def family(members: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("family") / FAMILY
    write_family(members, path)
    return path


def test_every_member_comes_out_byte_for_byte(members: dict[str, Path], family: Path, tmp_path: Path) -> None:
    opened = FamilyFile.open(family)
    assert list(opened.members) == list(members)
    for name, folder in members.items():
        (tmp_path / name).mkdir()
        opened.write_member(name, tmp_path / name)
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / name / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("some_of", [("four", "nearly four"), ("untouched",), ("half gone", "eight")])
def test_order_and_company_change_nothing(
    members: dict[str, Path], tmp_path: Path, some_of: tuple[str, ...]
) -> None:
    for names in (some_of, some_of[::-1]):
        write_family({name: members[name] for name in names}, tmp_path / FAMILY)
        opened = FamilyFile.open(tmp_path / FAMILY)
        for name in names:
            assert opened.packed_file(name) == (members[name] / "model.safetensors").read_bytes()


def test_the_same_model_twice_costs_hardly_more_than_once(members: dict[str, Path], tmp_path: Path) -> None:
    once = write_family({"a": members["four"]}, tmp_path / "once")
    twice = write_family({"a": members["four"], "b": members["four"]}, tmp_path / "twice")
    tensors = load_file(members["four"] / "model.safetensors")
    assert twice.equal == sum(tensor.nbytes for tensor in tensors.values())
    assert twice.file < once.file + 1500
    assert twice.file == (tmp_path / "twice").stat().st_size
    assert twice.ratio < 0.6


def test_equal_units_are_stored_once_and_like_ones_as_deltas(
    members: dict[str, Path], tmp_path: Path
) -> None:
    both = write_family({name: members[name] for name in ("four", "nearly four")}, tmp_path / "both")
    alone = write_family({"four": members["four"]}, tmp_path / "alone")
    finer = write_family({"eight": members["eight"]}, tmp_path / "finer")
    pair = write_family({name: members[name] for name in ("eight", "four")}, tmp_path / "pair")
    assert both.equal > 0
    assert pair.file < finer.file + 0.75 * alone.file
    assert pair.members == {
        name: (members[name] / "model.safetensors").stat().st_size for name in pair.members
    }


def test_progress_is_told_name_by_name(members: dict[str, Path], tmp_path: Path) -> None:
    told: list[int] = []
    two = {name: members[name] for name in ("four", "mixed")}
    write_family(two, tmp_path / FAMILY, advance=lambda done, name: told.append(done))
    assert told == list(range(1, all_names(two) + 1))


def test_coded_files_are_no_members(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "coded").mkdir()
    candidate = tiny.space.uniform(Level.of(0.0, 4))
    Packed("entropy").save(tiny.stitched_as(candidate), tmp_path / "coded", {})
    with pytest.raises(ValueError, match="stored plainly"):
        write_family({"coded": tmp_path / "coded"}, tmp_path / FAMILY)


# ---- what is damaged ----------------------------------------------------------------------------


def changed(family: Path, out: Path, change: Any) -> FamilyFile:
    """The family with another description."""
    arrays = load_file(family)
    about = json.loads(zlib.decompress(arrays["description"].tobytes()))
    change(about)
    text = zlib.compress(json.dumps(about).encode())
    save_file({**arrays, "description": np.frombuffer(text, np.uint8)}, out)
    return FamilyFile.open(out)


def test_a_member_that_is_not_there_is_named(family: Path) -> None:
    with pytest.raises(AutopruneError, match="has no member 'none'; it has eight, four"):
        FamilyFile.open(family).packed_file("none")


def test_no_family_is_refused(tmp_path: Path, members: dict[str, Path]) -> None:
    for path in (tmp_path / "nothing", members["four"] / "model.safetensors"):
        with pytest.raises(AutopruneError, match="is no family of models"):
            FamilyFile.open(path)


def test_claims_of_much_memory_and_items_without_end_are_refused(family: Path, tmp_path: Path) -> None:
    def huge(about: Any) -> None:
        about["members"][0][1] = 10**15

    def circular(about: Any) -> None:
        for number, item in enumerate(about["items"]):
            item["like"] = number

    def wide(about: Any) -> None:
        for item in about["items"]:
            if "bits" in item:
                item["shape"] = [10**7, 10**7]

    for change in (huge, circular, wide):
        opened = changed(family, tmp_path / FAMILY, change)
        with pytest.raises(AutopruneError, match="is damaged"):
            opened.packed_file(next(iter(opened.members)))


@hypothesis.given(data=some.data())
@hypothesis.settings(
    deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_whatever_is_damaged_is_refused_or_comes_out_whole(
    family: Path, members: dict[str, Path], tmp_path: Path, data: some.DataObject
) -> None:
    raw = bytearray(family.read_bytes())
    begin = data.draw(some.sampled_from([0, 8, 200, len(raw) // 2, len(raw) - 2000]))
    for _ in range(data.draw(some.integers(1, 3))):
        raw[begin + data.draw(some.integers(0, 1999))] = data.draw(some.integers(0, 255))
    (tmp_path / FAMILY).write_bytes(raw)
    name = data.draw(some.sampled_from(sorted(members)))
    try:
        out = FamilyFile.open(tmp_path / FAMILY).packed_file(name)
    except AutopruneError:
        return
    assert out == (members[name] / "model.safetensors").read_bytes()


@hypothesis.given(
    data=some.binary(min_size=0, max_size=400),
    width=some.sampled_from([1, 2, 4, 8]),
    seed=some.integers(0, 9),
)
def test_places_come_back(data: bytes, width: int, seed: int) -> None:
    data = data[: len(data) // width * width]
    like = np.random.default_rng(seed).integers(0, 256, len(data)).astype(np.uint8).tobytes()
    for other in (None, like):
        assert from_places(to_places(data, width, other), len(data), width, other) == data


def test_the_config_travels_with_the_member(family: Path, members: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(family, tmp_path / FAMILY)
    opened = FamilyFile.open(tmp_path / FAMILY)
    for name, folder in members.items():
        assert opened.members[name].config == (folder / "config.json").read_text()
