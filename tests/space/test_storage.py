"""How a weight is stored: the names in files, which must not change, the order, and the bytes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from autoprune.core.cache import content_key
from autoprune.evaluation.seeds import candidate_seed
from autoprune.models.unit import Unit, Weight
from autoprune.space.costs import Cost, Costs
from autoprune.space.fixed_grid_storages import MicroscalingFloats, NormalFloats, SymmetricIntegers
from autoprune.space.levels import Candidate, Level
from autoprune.space.low_rank_storages import Corrected, LowRank
from autoprune.space.named_storages import Codebook, Sparse, Ternary, Vectors
from autoprune.space.storage import (
    FLOAT16,
    FLOAT32,
    OPTIONAL,
    STATIC8,
    WHOLE_ROW,
    Floats,
    GroupedIntegers,
    Storage,
    storage_of,
    storages_of,
    widest_first,
)

WRITTEN: dict[Storage, int | str] = {
    FLOAT32: 32,
    FLOAT16: 16,
    GroupedIntegers(8): 8,
    STATIC8: "w8a8",
    GroupedIntegers(6): 6,
    GroupedIntegers(4): 4,
    GroupedIntegers(3): 3,
    GroupedIntegers(2): 2,
}
"""What files and studies hold of each storage, the widest first. Old runs are read by these."""

OF_NAMES: dict[Storage, str] = {
    Codebook(2): "codebook4",
    Codebook(3): "codebook8",
    Codebook(4): "codebook16",
    Codebook(2, is_shared=True): "shared4",
    Codebook(3, is_shared=True): "shared8",
    Codebook(4, is_shared=True): "shared16",
    Codebook(8, is_shared=True): "shared256",
    Vectors.of(2, 16): "vector2x16",
    Vectors.of(2, 64): "vector2x64",
    Vectors.of(2, 256): "vector2x256",
    Vectors.of(4, 256): "vector4x256",
    **{GroupedIntegers(b, group): f"{b}g{group}" for b in (2, 3, 4) for group in (32, 64, 128)},
    **{GroupedIntegers(b, WHOLE_ROW): f"{b}row" for b in (2, 3, 4)},
    Ternary(): "ternary",
    **{Sparse.of_kept(b, 2, 4): f"2of4x{b}" for b in (3, 4, 6)},
    **{Sparse.of_kept(b, 32, 64): f"32of64x{b}" for b in (3, 4, 6)},
    **{LowRank.of_percent(p): f"rank{p}" for p in (12, 25, 50)},
    **{Corrected(b, r): f"{b}r{r}" for b in (2, 3) for r in (4, 8)},
    NormalFloats(): "nf4",
    MicroscalingFloats(): "mxfp4",
    **{SymmetricIntegers(b): f"{b}sym" for b in (2, 3, 4, 6, 8)},
}
"""The same of those that a space file offers by name."""

LEVELS = [*(Level.of(0.5, bits) for bits in (2, 3, 4, 6, 8, 16, 32)), Level.of(0.25, "w8a8")]
CANDIDATE = Candidate(tuple((f"u{k}", level) for k, level in enumerate(LEVELS)))
UNIT = Unit(
    "a.feed_forward",
    "feed_forward",
    (Weight("a.up", 64, 16, True),),
    (Weight("a.down", 16, 64, False),),
    64,
    16,
    16,
    (0.0, 0.5),
    storages_of((2, 4, 8, 16, 32, "w8a8")),
)

each = pytest.mark.parametrize("storage", WRITTEN, ids=lambda storage: storage.name)
named = pytest.mark.parametrize("storage", OPTIONAL, ids=lambda storage: storage.name)


# ---- what files hold ------------------------------------------------------------------------------


@each
def test_files_hold_the_same_as_ever_and_are_read_back(storage: Storage) -> None:
    assert storage.written == WRITTEN[storage]
    assert type(storage.written) is type(WRITTEN[storage])
    assert storage.name == str(WRITTEN[storage])
    for written in (storage.written, storage.name):
        assert storage_of(written) == storage


@pytest.mark.parametrize("wrong", ["w4a4", "", None, "4 bits", [4], "nf3", "mxfp6", "5sym", "sym4"])
def test_what_is_no_storage_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="is no storage; a number of bits is one, and 'w8a8', 'codebook4'"):
        storage_of(wrong)


def test_levels_and_parameters_are_written_as_ever() -> None:
    names = ["0.5x2b", "0.5x3b", "0.5x4b", "0.5x6b", "0.5x8b", "0.5x16b", "0.5x32b", "0.25xw8a8"]
    assert [str(level) for level in LEVELS] == names
    params = CANDIDATE.params()
    assert [params[f"u{k}.bits"] for k in range(8)] == [2, 3, 4, 6, 8, 16, 32, "w8a8"]
    assert Candidate.from_params(params) == CANDIDATE


def test_a_table_of_costs_is_written_as_ever() -> None:
    costs = Costs(5, {"u": {level: Cost(1, 0.5, 0.25) for level in LEVELS[-2:]}})
    rows = [[0.5, 32, 1, 0.5, 0.25], [0.25, "w8a8", 1, 0.5, 0.25]]
    assert costs.as_json()["levels [ratio, bits, size_bytes, damage, latency_ms]"] == {"u": rows}
    assert Costs.from_json(costs.as_json()) == costs


def test_the_seed_of_a_trial_is_as_ever() -> None:
    assert candidate_seed(7, CANDIDATE) == 1116035708
    assert candidate_seed(0, Candidate((("a", Level.of(0.5, "w8a8")),))) == 3369318279


def test_a_unit_has_the_same_key_in_caches_as_ever() -> None:
    assert content_key(6, "k", UNIT.described(), 0.5) == "c00a0f919817988ef63b6af0"


# ---- what a storage is ----------------------------------------------------------------------------


def test_storages_go_from_wide_to_narrow() -> None:
    assert widest_first(reversed(WRITTEN)) == tuple(WRITTEN)
    assert storages_of([*WRITTEN.values(), 4]) == tuple(WRITTEN)
    assert sorted(LEVELS)[0] == LEVELS[-1]


@each
def test_a_storage_is_the_same_in_another_process(storage: Storage) -> None:
    back = pickle.loads(pickle.dumps(storage))
    assert (back, hash(back)) == (storage, hash(storage))


def test_only_static_integers_round_inputs_and_only_floats_are_floats() -> None:
    assert [storage for storage in WRITTEN if storage.rounds_inputs] == [STATIC8]
    assert [storage for storage in WRITTEN if storage.is_float] == [FLOAT32, FLOAT16]
    assert Floats(8) != GroupedIntegers(8) != STATIC8


@each
def test_a_wider_storage_holds_the_same_integers(storage: Storage) -> None:
    plain = {GroupedIntegers(bits) for bits in (2, 3, 4, 6, 8)}
    wider = {other for other in plain if storage in plain and other.bits > storage.bits}
    assert {other for other in WRITTEN if storage.fits_into(other)} == wider


def test_bytes_are_codes_scales_and_zero_points() -> None:
    found = [UNIT.size_bytes(level) for level in LEVELS]
    assert found == [528, 664, 800, 1072, 1344, 2176, 4224, 1920]


# ---- storages that a space file offers by name ------------------------------------------------------


def test_their_names_are_those_that_files_hold() -> None:
    assert {storage: storage.written for storage in OPTIONAL} == OF_NAMES


@named
def test_a_named_storage_is_read_back_from_what_is_written(storage: Storage) -> None:
    assert storage_of(storage.written) == storage
    assert Level.of(0.5, storage.written) == Level(0.5, storage)
    candidate = Candidate((("a", Level(0.5, storage)), ("b", Level())))
    assert Candidate.from_params(candidate.params()) == candidate
    assert pickle.loads(pickle.dumps(storage)) == storage


@named
def test_its_signs_are_its_own(storage: Storage) -> None:
    others = [*WRITTEN, *(other for other in OPTIONAL if other != storage)]
    for field in ("name", "label", "sign", "words"):
        assert getattr(storage, field) not in {getattr(other, field) for other in others}
    assert len(storage.sign) <= 3


@named
def test_its_bytes_are_the_sum_of_its_parts(storage: Storage) -> None:
    parts = storage.parts(48, 64, group_size=32)
    assert storage.size_bytes(48, 64, group_size=32) == sum(part.size_bytes for part in parts.values())
    assert storage.size_bytes(48, 64, group_size=32) < FLOAT16.size_bytes(48, 64, group_size=32)


def test_the_key_of_a_unit_names_them() -> None:
    plain = content_key(UNIT.described())
    keys = {content_key(replace(UNIT, storages=(*UNIT.storages, one)).described()) for one in OPTIONAL}
    assert len(keys | {plain}) == len(OPTIONAL) + 1


def test_a_group_of_its_own_does_not_depend_on_the_unit() -> None:
    sizes = {GroupedIntegers(4, group).size_bytes(8, 384, group_size=8) for group in (32, 64, 128, WHOLE_ROW)}
    assert len(sizes) == 4
    for group in (32, 64, 128):
        own, unit = GroupedIntegers(4, group), GroupedIntegers(4)
        assert own.size_bytes(8, 384, group_size=8) == unit.size_bytes(8, 384, group_size=group)
        assert not own.fits_into(GroupedIntegers(8))
    assert max(storages_of(["ternary", 2])) == GroupedIntegers(2)
