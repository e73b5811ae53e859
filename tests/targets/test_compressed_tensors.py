"""compressed-tensors: what is saved is ours bit for bit, and plain transformers gives our logits."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.models.units import search_space
from autoprune.space.levels import Candidate, Level
from autoprune.targets import Target, get_target, size_on_disk
from autoprune.targets.packed import torch_runner
from tests.support.families import make_case
from tests.support.stored import integers_of
from tests.support.tiny import Tiny, logits, make_tiny

pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")

WIDTHS: tuple[int | str, ...] = (2, 3, 4, 6, 8, "w8a8", 16, 32)

PLAIN = """
import sys
import numpy as np, torch, transformers
folder, batch, out = sys.argv[1:]
model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
inputs = {name: torch.from_numpy(x) for name, x in np.load(batch).items()}
with torch.no_grad():
    np.save(out, model(**inputs).logits.numpy())
assert not any(name.split(".")[0] == "autoprune" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def target() -> Target:
    return get_target("compressed-tensors")


def uniform(tiny: Tiny, target: Target, width: int | str) -> Candidate:
    """Every unit at the width nearest to this that is offered."""
    return tiny.space_for(target).uniform(Level.of(0.0, width))


def mixed(tiny: Tiny) -> Candidate:
    """One unit of each width: 3, 4, 6, 8, 8 with 8-bit activations, 16 and float."""
    candidate = tiny.with_levels(
        word_embeddings=Level.of(0.0, 8),
        position_embeddings=Level.of(0.0, 16),
        attention=Level.of(0.0, 3),
        feed_forward=Level.of(0.0, "w8a8"),
    )
    last = [unit for unit in tiny.units if unit.kind in ("attention", "feed_forward")][-2:]
    return candidate.with_level(last[0].name, Level.of(0.0, 4)).with_level(last[1].name, Level.of(0.0, 6))


def saved(tiny: Tiny, target: Target, candidate: Candidate, folder: Path) -> Stitched:
    stitched = tiny.stitched_as(candidate)
    folder.mkdir(exist_ok=True)
    target.save(stitched, folder, tiny.task.batch(tiny.task.validation, [0, 1]))
    return stitched


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_transformers_gives_the_stitched_models_logits(
    tiny: Tiny, target: Target, tmp_path: Path, width: int | str
) -> None:
    stitched = saved(tiny, target, uniform(tiny, target, width), tmp_path)
    batch = tiny.task.batch(tiny.task.validation, [0, 1, 2])
    wanted = logits(stitched.model, batch).numpy()
    got = target.load(tmp_path)(batch)
    if stitched.activations:  # a value half-way between two codes may fall to either
        assert np.abs(got - wanted).max() <= target.tolerance * wanted.std()
    else:
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_packed_integers_are_ours_bit_for_bit(
    tiny_bert: Tiny, target: Target, tmp_path: Path, bits: int
) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    stitched = saved(tiny_bert, target, uniform(tiny_bert, target, bits), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    middle = 2 ** (bits - 1)
    packed = {path: integers for path, integers in integers_of(stitched).items() if integers.bits == bits}
    assert packed
    for path, integers in packed.items():
        assert tensors[f"{path}.weight_shape"].tolist() == list(integers.codes.shape)
        codes = unpack_from_int32(tensors[f"{path}.weight_packed"], bits, integers.codes.shape)
        assert torch.equal(codes.short() + middle, integers.codes.short())
        assert torch.equal(tensors[f"{path}.weight_zero_point"].short() + middle, integers.zero.short())
        assert torch.equal(tensors[f"{path}.weight_scale"], integers.scale)
        assert tensors[f"{path}.weight_scale"].dtype == torch.float16


def test_integers_of_8_bits_and_their_grids_are_ours_bit_for_bit(
    tiny_bert: Tiny, target: Target, tmp_path: Path
) -> None:
    stitched = saved(tiny_bert, target, uniform(tiny_bert, target, "w8a8"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert stitched.activations
    for path, integers in integers_of(stitched).items():
        assert torch.equal(tensors[f"{path}.weight"].short() + 128, integers.codes.short())
        assert torch.equal(tensors[f"{path}.weight_scale"], integers.scale)
        grid = stitched.activations.get(path)
        if grid is None:
            assert torch.equal(tensors[f"{path}.weight_zero_point"].short() + 128, integers.zero.short())
        else:
            assert f"{path}.weight_zero_point" not in tensors
            assert tensors[f"{path}.input_scale"].item() == pytest.approx(grid.scale, rel=1e-6)
            assert tensors[f"{path}.input_zero_point"].item() + 128 == grid.zero


def test_a_process_without_autoprune_loads_it(tiny: Tiny, target: Target, tmp_path: Path) -> None:
    stitched = saved(tiny, target, mixed(tiny), tmp_path / "model")
    batch = tiny.task.batch(tiny.task.validation, [0, 1, 2])
    np.savez(tmp_path / "batch.npz", **batch)
    out = tmp_path / "logits.npy"
    names = [str(tmp_path / name) for name in ("model", "batch.npz")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, *names, str(out)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = logits(stitched.model, batch).numpy()
    assert np.abs(np.load(out) - wanted).max() <= target.tolerance * wanted.std()


def test_a_units_weights_share_a_scheme_and_each_weight_has_one(
    tiny_bert: Tiny, target: Target, tmp_path: Path
) -> None:
    stitched = saved(tiny_bert, target, mixed(tiny_bert), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    scheme_of = {path: name for name, group in config["config_groups"].items() for path in group["targets"]}
    assert sum(len(group["targets"]) for group in config["config_groups"].values()) == len(scheme_of)
    assert scheme_of.keys() == integers_of(stitched).keys()
    for unit in tiny_bert.units:
        # Rows of a unit, such as queries, keys and values, take the same input: runtimes fuse them.
        assert len({scheme_of.get(weight.path) for weight in unit.rows}) == 1
    bits = {name: group["weights"]["num_bits"] for name, group in config["config_groups"].items()}
    assert all(bits[scheme_of[path]] == integers.bits for path, integers in integers_of(stitched).items())
    assert config["format"] == "mixed-precision"


def test_the_original_has_no_schemes(tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
    saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_a_units_bytes_are_those_it_takes_in_the_file(
    tiny_bert: Tiny, target: Target, tmp_path: Path, width: int | str
) -> None:
    saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path / "original")
    candidate = uniform(tiny_bert, target, width)
    saved(tiny_bert, target, candidate, tmp_path / "small")
    original = size_on_disk(target, tmp_path / "original")
    predicted = tiny_bert.predicted_bytes(target, candidate, original)
    assert predicted == pytest.approx(size_on_disk(target, tmp_path / "small"), rel=0.002)


def test_rows_that_share_no_group_size_have_one_scale(target: Target, tmp_path: Path) -> None:
    tiny = make_tiny("bert", tmp_path / "library", hidden=60, heads=3, ffn=92, vocab=50)
    stitched = saved(tiny, target, uniform(tiny, target, 3), tmp_path / "model")
    assert any(
        integers.scale.shape[1] == 1 and integers.codes.shape[1] % 32
        for integers in integers_of(stitched).values()
    )
    batch = tiny.task.timing_batch(2, 5) | {"input_ids": np.arange(10).reshape(2, 5)}
    assert np.array_equal(target.load(tmp_path / "model")(batch), logits(stitched.model, batch).numpy())


def test_what_transformers_could_not_load_is_not_offered(tiny: Tiny, target: Target) -> None:
    embedding, attention = tiny.unit("word_embeddings"), tiny.unit("attention")
    assert [b for b in WIDTHS if target.offers(embedding, Level.of(0.0, b))] == [8, 16, 32]
    assert [b for b in WIDTHS if target.offers(attention, Level.of(0.0, b))] == list(WIDTHS)
    assert not any(target.offers(attention, Level.of(0.5, b)) for b in WIDTHS)


def test_removed_rows_are_refused(tiny: Tiny, target: Target, tmp_path: Path) -> None:
    stitched = tiny.stitched_as(tiny.with_levels(feed_forward=Level.of(0.5, 8)))
    with pytest.raises(AutopruneError, match=r"cannot store .*feed_forward with rows removed.*openvino"):
        target.save(stitched, tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_an_embedding_of_few_bits_is_refused(tiny: Tiny, target: Target, tmp_path: Path) -> None:
    stitched = tiny.stitched_as(tiny.with_levels(word_embeddings=Level.of(0.0, 4)))
    with pytest.raises(
        AutopruneError, match=r"embedding \S*word_embeddings with 4 bits, but with 8, 16 or 32"
    ):
        target.save(stitched, tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lost", ["weight_scale", "weight_zero_point", "bias"])
def test_a_tensor_that_is_missing_is_refused_not_drawn(
    tiny_bert: Tiny, target: Target, tmp_path: Path, lost: str
) -> None:
    saved(tiny_bert, target, uniform(tiny_bert, target, 4), tmp_path)
    file = tmp_path / "model.safetensors"
    name = f"bert.encoder.layer.1.intermediate.dense.{lost}"
    with safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys() if key != name}  # noqa: SIM118
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(AutopruneError) as caught:
        target.load(tmp_path)
    assert str(file) in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", '{"model_type": "bert", "quantization_config": {"x": 1}}'])
def test_a_config_that_is_missing_or_damaged_is_refused(
    tiny_bert: Tiny, target: Target, tmp_path: Path, text: str | None
) -> None:
    saved(tiny_bert, target, uniform(tiny_bert, target, 8), tmp_path)
    config = tmp_path / "config.json"
    config.unlink()
    if text is not None:
        config.write_text(text)
    with pytest.raises(AutopruneError, match=r"model\.safetensors .* config beside it"):
        target.load(tmp_path)


def test_loading_prints_nothing(
    tiny_bert: Tiny, target: Target, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(tiny_bert, target, uniform(tiny_bert, target, 4), tmp_path)
    capfd.readouterr()
    target.load(tmp_path)(tiny_bert.task.timing_batch(1, 4))
    assert capfd.readouterr() == ("", "")


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # https://docs.python.org/3/reference/import.html#the-module-cache
    monkeypatch.setitem(sys.modules, "compressed_tensors", None)
    with pytest.raises(AutopruneError, match=r"pip install 'autoprune\[compressed-tensors\]'"):
        get_target("compressed-tensors")


def test_a_grid_of_another_offset_changes_the_file(tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
    """The zero point of activations is read, not guessed: a wrong one gives other logits."""
    stitched = saved(tiny_bert, target, uniform(tiny_bert, target, "w8a8"), tmp_path)
    batch = tiny_bert.task.timing_batch(2, 9)
    right = target.load(tmp_path)(batch)
    path, grid = next(iter(stitched.activations.items()))
    layer = stitched.model.get_submodule(path)
    layer.activations = dataclasses.replace(grid, zero=(grid.zero + 40) % 256)  # type: ignore[assignment]
    target.save(stitched, tmp_path, batch)
    assert not np.allclose(target.load(tmp_path)(batch), right, atol=1e-3)


# ---- other kinds of models ----------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, "w8a8"])
@pytest.mark.parametrize("name", ["bert-tokens", "llama", "vit"])
def test_what_transformers_lays_out_as_here_is_loaded_by_its_class(
    tmp_path: Path, name: str, width: int | str
) -> None:
    case, target = make_case(name, tmp_path / "library"), get_target("compressed-tensors")
    tiny, kind = case.tiny, case.family.kind
    stitched = tiny.stitched_as(search_space(tiny.units, target.offers).uniform(Level.of(0.0, width)))
    assert integers_of(stitched)
    target.save(stitched, tmp_path, tiny.task.batch(tiny.task.validation, [0, 1]))
    batch = tiny.task.batch(tiny.task.validation, [2, 3])
    wanted = torch_runner(stitched.model, kind)(batch)
    assert np.abs(target.load(tmp_path)(batch) - wanted).max() <= target.tolerance * wanted.std()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt2", r"whose GPT2LMHeadModel is not laid out as here: transformer\.h\.0\.attn\.c_attn\.bias"),
        ("resnet", "whose ResNetForImageClassification is not laid out as here"),
        ("torchvision", "has no ResNet for image-classification"),
    ],
)
def test_what_transformers_would_not_find_is_refused(tmp_path: Path, name: str, why: str) -> None:
    tiny, target = make_case(name, tmp_path / "library").tiny, get_target("compressed-tensors")
    stitched = tiny.stitched_as(tiny.space.untouched())
    with pytest.raises(AutopruneError, match=why):
        target.save(stitched, tmp_path, tiny.task.batch(tiny.task.validation, [0, 1]))


@pytest.mark.parametrize("name", ["llama", "vit"])
def test_shared_weights_and_convolutions_stay_floats(tmp_path: Path, name: str) -> None:
    tiny, target = make_case(name, tmp_path / "library").tiny, get_target("compressed-tensors")
    unit = tiny.unit("word_embeddings" if name == "llama" else "patch_embeddings")
    assert [storage for storage in unit.storages if target.offers(unit, Level(0.0, storage))] == [
        storage for storage in unit.storages if storage.is_float
    ]
    stitched = tiny.stitched_as(tiny.space.untouched().with_level(unit.name, Level.of(0.0, 8)))
    with pytest.raises(AutopruneError, match=r"cannot store the (weight|convolution).* in integers"):
        target.save(stitched, tmp_path, tiny.task.batch(tiny.task.validation, [0, 1]))
