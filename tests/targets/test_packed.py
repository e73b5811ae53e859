"""The packed safetensors layout: whatever is stitched comes back bit for bit, however it is stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import torch
import zstandard
from safetensors import safe_open
from safetensors.torch import save_file

from autoprune.compress import entropy
from autoprune.compress.integers import Integers, round_nearest
from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import FLOAT_BITS
from autoprune.targets import get_target
from autoprune.targets.packed import WEIGHTS, Packed, read_packed
from autoprune.targets.target import ENTROPY, PLAIN, STORAGES
from tests.support.stored import half_of, integers_of
from tests.support.tiny import Tiny, make_tiny

WIDTHS: list[int | str] = [2, 3, 4, 6, 8, 16, "w8a8", FLOAT_BITS]
INTEGER_BITS = (2, 3, 4, 6, 8)
quick = hypothesis.settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT whose matrices are large enough for a stream to be worth its heading."""
    return make_tiny("bert", tmp_path_factory.mktemp("library"), hidden=128, ffn=512, vocab=1000)


def changed_of(stitched: Stitched) -> dict[str, Level]:
    return {name: level for name, level in stitched.levels.items if level != UNTOUCHED}


def same(one: Stitched, other: Stitched) -> bool:
    """Whether two models are equal bit for bit, integers and grids too; untouched units have no level."""
    mine, theirs = ((changed_of(m), half_of(m), m.activations) for m in (one, other))
    assert mine == theirs
    assert integers_of(one).keys() == integers_of(other).keys()
    for path, mine in integers_of(one).items():
        theirs = integers_of(other)[path]
        assert mine.bits == theirs.bits
        assert all(torch.equal(getattr(mine, x), getattr(theirs, x)) for x in ("codes", "scale", "zero"))
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


def opened(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["autoprune"])


def rewritten(folder: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"autoprune": json.dumps(about)})


def random_integers(bits: int, o: int = 64, i: int = 256) -> Integers:
    return round_nearest(torch.randn(o, i, generator=torch.manual_seed(bits)), bits=bits, group_size=64)


# ---- bit for bit --------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_brings_back_the_stitched_model_bit_for_bit(
    tiny: Tiny, tmp_path: Path, width: int | str, storage: str
) -> None:
    stitched = tiny.stitched(Level.of(0.5, width))
    Packed(storage).save(stitched, tmp_path, {})
    assert same(stitched, read_packed(tmp_path))


@pytest.mark.parametrize("width", WIDTHS)
def test_coded_storage_is_smaller_and_the_same_model(small: Tiny, tmp_path: Path, width: int | str) -> None:
    stitched, sizes = small.stitched(Level.of(0.5, width)), {}
    for storage in STORAGES:
        folder = tmp_path / storage
        folder.mkdir()
        Packed(storage).save(stitched, folder, {})
        sizes[storage] = (folder / WEIGHTS).stat().st_size
    assert same(stitched, read_packed(tmp_path / ENTROPY))
    assert sizes[ENTROPY] < 0.98 * sizes[PLAIN]
    batch = small.task.batch(small.task.validation, [0, 1, 2])
    target = get_target("packed")
    one, other = (target.load(tmp_path / storage)(batch) for storage in STORAGES)
    assert np.array_equal(one, other)


def test_mixed_levels_and_a_mixed_file_come_back(small: Tiny, tmp_path: Path) -> None:
    stitched = small.stitched_as(small.mixed)
    Packed(ENTROPY).save(stitched, tmp_path, {})
    _, about = opened(tmp_path)
    assert {layout for layout, _, _ in about["coded"].values()} >= {"places", "joined"}
    assert same(stitched, read_packed(tmp_path))


def test_a_file_from_before_activations_were_noted_has_none(small: Tiny, tmp_path: Path) -> None:
    stitched = small.stitched(Level.of(0.0, 4))
    Packed().save(stitched, tmp_path, {})
    tensors, about = opened(tmp_path)
    del about["activations"]
    rewritten(tmp_path, tensors, about)
    again = read_packed(tmp_path)
    assert again.activations == {}
    assert same(stitched, again)


# ---- the coding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", INTEGER_BITS)
def test_codes_and_zero_points_come_back_from_their_streams(bits: int) -> None:
    one = random_integers(bits)
    stream = entropy.code_codes(one, one.codes.numel() * bits // 8)
    assert stream is not None
    zero = one.zero.numpy()
    codes = entropy.read_codes(stream.data, stream.layout, bits, tuple(one.codes.shape), zero)
    assert np.array_equal(codes, one.codes.numpy())
    zeros = entropy.code_joined(zero, bits, 10**6)
    assert zeros is not None
    assert np.array_equal(entropy.read_joined(zeros.data, bits, zero.shape), zero)


@quick
@hypothesis.given(bits=some.sampled_from(INTEGER_BITS), o=some.integers(1, 5), g=some.integers(1, 3),
                  s=some.integers(1, 9), seed=some.integers(0, 99))  # fmt: skip
def test_any_codes_of_any_shape_come_back(bits: int, o: int, g: int, s: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, zero = (rng.integers(0, 2**bits, shape, np.uint8) for shape in ((o, g * s), (o, g)))
    scale = torch.ones(o, g, dtype=torch.float16)
    one = Integers(torch.from_numpy(codes), scale, torch.from_numpy(zero), bits)
    stream = entropy.code_codes(one, 10**6)
    assert stream is not None
    assert np.array_equal(entropy.read_codes(stream.data, stream.layout, bits, codes.shape, zero), codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (3000,), (40, 50)])
def test_tensors_of_any_type_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.ones(shape) * 7).to(dtype)
    stream = entropy.code_tensor(tensor)
    if stream is None:
        assert tensor.numel() == 1
        return
    again = entropy.read_tensor(stream.data, str(dtype).removeprefix("torch."), shape)
    assert again.dtype == dtype
    assert torch.equal(again, tensor)


def test_what_does_not_shrink_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, 5000, np.uint8))
    assert entropy.code_tensor(noise) is None
    flat = torch.from_numpy(rng.integers(0, 16, (64, 64), np.uint8))
    one = Integers(flat, torch.ones(64, 1).half(), torch.zeros(64, 1, dtype=torch.uint8), 4)
    assert entropy.code_codes(one, flat.numel() // 2) is None


@pytest.mark.parametrize("bits", INTEGER_BITS)
def test_codes_take_little_more_than_their_entropy(bits: int) -> None:
    """Huffman codes of few symbols lose up to a bit each; several codes to a byte keep that small."""
    one = random_integers(bits, 256, 1024)
    stream = entropy.code_codes(one, one.codes.numel())
    assert stream is not None
    share = np.bincount(one.codes.reshape(-1).numpy()) / one.codes.numel()
    bound = float(-(share[share > 0] * np.log2(share[share > 0])).sum()) * one.codes.numel() / 8
    assert len(stream.data) <= 1.03 * bound


# ---- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def coded(small: Tiny, tmp_path: Path) -> Path:
    Packed(ENTROPY).save(small.stitched(Level.of(0.5, 4)), tmp_path, {})
    return tmp_path


QUERY = "bert.encoder.layer.0.attention.self.query.weight"
Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


def stream_of(name: str, data: bytes) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        tensors[name] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())

    return change


def flipped(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        tensors[name][len(tensors[name]) // 2] ^= 1

    return change


def cut(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        tensors[name] = tensors[name][:-9].clone()

    return change


def claimed(name: str, entry: Any) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        about["coded"][name] = entry

    return change


def claimed_shape(shape: list[int]) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        about["coded"][f"{QUERY}.codes"][2] = shape
        about["integers"][QUERY.removesuffix(".weight")]["shape"] = shape

    return change


def of_zeros(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """A stream of a few thousand bytes that holds a hundred million."""
    stream_of(f"{QUERY}.codes", zstandard.ZstdCompressor().compress(bytes(10**8)))(tensors, about)


def header_of(size: int) -> bytes:
    """A stream whose heading promises `size` bytes, and nothing in it (RFC 8878, section 3.1.1)."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + size.to_bytes(8, "little") + b"\x01\x00\x00"


HOSTILE: dict[str, Change] = {
    "one flipped bit": flipped(f"{QUERY}.codes"),
    "a flipped bit in the scales": flipped("bert.embeddings.word_embeddings.weight.scale"),
    "cut short": cut(f"{QUERY}.codes"),
    "no stream": stream_of(f"{QUERY}.codes", b"no stream at all"),
    "empty": stream_of(f"{QUERY}.codes", b""),
    "a hundred million zeros": of_zeros,
    "a heading that promises a terabyte": stream_of(f"{QUERY}.codes", header_of(2**40)),
    "a shape of a terabyte": claimed_shape([2**20, 2**20]),
    "a shape that wraps around": claimed_shape([2**33, 2**31]),
    "a shape below zero": claimed_shape([-64, -64]),
    "scales of a terabyte": claimed(f"{QUERY}.scale", ["places", "float16", [2**20, 2**20]]),
    "scales of another type": claimed(f"{QUERY}.scale", ["places", "complex128", [64, 2]]),
    "no layout": claimed(f"{QUERY}.codes", []),
    "a description that is none": claimed(f"{QUERY}.codes", "joined"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_damaged_or_hostile_stream_is_one_clear_error(coded: Path, change: Change) -> None:
    tensors, about = opened(coded)
    change(tensors, about)
    rewritten(coded, tensors, about)
    with pytest.raises(AutopruneError) as caught:
        read_packed(coded)
    assert str(coded / WEIGHTS) in str(caught.value)
    assert "fit" in str(caught.value)


def test_a_hostile_size_allocates_nothing(coded: Path) -> None:
    """Memory of reading a stream of a hundred million bytes stays that of reading the model."""
    import tracemalloc

    tensors, about = opened(coded)
    of_zeros(tensors, about)
    rewritten(coded, tensors, about)
    tracemalloc.start()
    with pytest.raises(AutopruneError):
        read_packed(coded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("bits", [0, 1, 5, 7, 9, "4", None])
def test_bits_that_are_none_are_refused(coded: Path, bits: Any) -> None:
    tensors, about = opened(coded)
    about["integers"][QUERY.removesuffix(".weight")]["bits"] = bits
    rewritten(coded, tensors, about)
    with pytest.raises(AutopruneError, match="do not fit"):
        read_packed(coded)


def test_a_missing_package_is_named_with_its_command(
    coded: Path, small: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)  # an import of it fails now
    for action in (
        lambda: read_packed(coded),
        lambda: Packed(ENTROPY).save(small.stitched(Level.of(0.0, 8)), tmp_path, {}),
    ):
        with pytest.raises(AutopruneError, match=r"pip install 'autoprune\[entropy\]'"):
            action()
