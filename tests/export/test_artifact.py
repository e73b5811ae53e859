"""Exported models: they load elsewhere to the same logits, and anything changed is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import autoprune
from autoprune.cli.export_forms import load_line
from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash
from autoprune.export.artifact import ABOUT, read_about, write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture
from autoprune.space.levels import Candidate, Level
from autoprune.targets import Target, get_target, size_on_disk
from autoprune.targets.target import ENTROPY, PLAIN
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from autoprune.tasks.task import Batch
from tests.support.commands import refused
from tests.support.tiny import Tiny, logits

MODEL_FILES = {
    "openvino": ("model.xml", "model.bin"),
    "packed": ("model.safetensors",),
    "coded": ("model.safetensors",),
}
"""Exports that are tried here; "coded" is target packed with entropy-coded storage. What every other target's
files must hold up to is in `test_targets`."""
BESIDE = ("config.json", "vocab.txt")
EVERY_FILE = [(name, file) for name in MODEL_FILES for file in (*MODEL_FILES[name], *BESIDE)]
Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]

FRESH = """
import sys
import numpy as np
import autoprune
folder, batch, out = sys.argv[1:]
model = autoprune.load(folder)
inputs = dict(np.load(batch))
np.save(out, model(**inputs).logits.tolist())
"""


@pytest.fixture(scope="module")
def exports(tiny_bert: Tiny, example: Batch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A mixed candidate exported to each target."""
    root = tmp_path_factory.mktemp("exports")
    for name in MODEL_FILES:
        export(tiny_bert, root / name, name, example, tokenizer_folder(root))
    return {name: root / name for name in MODEL_FILES}


def tokenizer_folder(root: Path) -> Path:
    folder = root / "tokenizer"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return folder


def levels_of(tiny: Tiny) -> Candidate:
    """Levels of every kind, 8-bit activations too."""
    return tiny.mixed.with_level("encoder.layer.1.feed_forward", Level.of(0.5, "w8a8"))


def target_of(name: str) -> Target:
    return get_target("packed" if name == "coded" else name)


def export(tiny: Tiny, folder: Path, name: str, example: Batch, tokenizer: Path) -> int:
    return write_artifact(
        tiny.stitched_as(levels_of(tiny)),
        folder,
        tokenizer=tokenizer,
        example=example,
        about=ExportRecord(
            target=target_of(name).name,
            storage=ENTROPY if name == "coded" else PLAIN,
            run="tiny",
            accuracy=12.5,  # a fact that this version does not know
        ),
    )


def refusal(folder: Path) -> str:
    with pytest.raises(AutopruneError) as caught:
        autoprune.load(folder)
    message = str(caught.value)
    assert len(message.splitlines()[0]) < 600
    return message


def rewrite_about(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / ABOUT).read_text()) | changes
    (folder / ABOUT).write_text(json.dumps(about))


def with_right_hash(folder: Path, file: str) -> None:
    """Record a changed file's new hash, as one who means harm or errs at length would."""
    hashes = json.loads((folder / ABOUT).read_text())["sha256"]
    rewrite_about(folder, sha256=hashes | {file: file_hash(folder / file)})


# ---- a model of somebody's own code -------------------------------------------------------------


def cnn() -> torch.nn.Module:
    """What a user's function gives: a small network of its own."""
    torch.manual_seed(0)
    layers = torch.nn
    return layers.Sequential(layers.Conv2d(3, 8, 3), layers.ReLU(), layers.Flatten(), layers.Linear(288, 4))


def test_a_model_of_own_code_is_loaded_as_the_printed_line_says(tmp_path: Path) -> None:
    name = f"{__name__}:cnn"
    architecture = Architecture(IMAGE_CLASSIFICATION, {}, name, (3, 8, 8))
    pixels = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    folder, model = tmp_path / "own", cnn()
    about = ExportRecord(target="packed", run="own")
    write_artifact(
        Stitched.plain(model, architecture), folder, about=about, tokenizer=tmp_path / "none",
        example={"pixel_values": pixels},
    )  # fmt: skip
    assert "is not called unasked" in refusal(folder)
    names: dict[str, Any] = {}
    line = load_line(folder)
    exec(line.removeprefix("Load it:  "), names)
    inputs = torch.from_numpy(pixels)
    with torch.inference_mode():
        torch.testing.assert_close(
            outputs_of(names["model"], {"pixel_values": inputs}, IMAGE_CLASSIFICATION), model(inputs)
        )
    said = refused("bench", folder)
    assert said.endswith(f"not called unasked: autoprune bench {folder} --builder {name}")
    assert "load(" not in said
    assert load_line(folder, limit="6MB").endswith(f"budget='6MB', builder={name!r})")


# ---- what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openvino", "packed"])
def test_a_fresh_process_loads_it_to_the_same_logits(
    tiny_bert: Tiny, exports: dict[str, Path], tmp_path: Path, name: str
) -> None:
    batch = tiny_bert.task.batch(tiny_bert.task.test, range(8))
    np.savez(tmp_path / "batch.npz", **batch)
    command = [sys.executable, "-c", FRESH, *map(str, (exports[name], "batch.npz", "out.npy"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    got = np.load(tmp_path / "out.npy").astype(np.float32)
    assert np.array_equal(got, target_of(name).load(exports[name])(batch))
    wanted = logits(tiny_bert.stitched_as(levels_of(tiny_bert)).model, batch).numpy()
    assert np.abs(got - wanted).max() <= target_of(name).tolerance * wanted.std()
    if name == "packed":
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_the_record_says_what_was_done_and_lists_every_file(
    tiny_bert: Tiny, exports: dict[str, Path], name: str
) -> None:
    about = read_about(exports[name])
    assert (about.run, about.accuracy) == ("tiny", 12.5)
    assert about.target == target_of(name).name
    assert about.storage == (ENTROPY if name == "coded" else PLAIN)
    levels = {unit: Level.of(level.ratio, level.bits) for unit, level in about.units.items()}
    assert levels == dict(levels_of(tiny_bert).items)
    files = {file.name for file in exports[name].iterdir()} - {ABOUT}
    assert files == set(about.sha256) == {*MODEL_FILES[name], *BESIDE}


def test_a_text_longer_than_the_model_s_places_is_refused(exports: dict[str, Path]) -> None:
    model = autoprune.load(exports["openvino"])
    most = model.config["max_position_embeddings"]
    ids = np.ones((1, most + 1), np.int64)
    with pytest.raises(AutopruneError, match=rf"{most + 1} tokens, and the model has places for {most}: cut"):
        model(input_ids=ids, attention_mask=np.ones_like(ids))


@pytest.mark.parametrize("name", MODEL_FILES)
def test_the_size_returned_is_that_of_the_files_the_runtime_opens(
    tiny_bert: Tiny, example: Batch, tmp_path: Path, name: str
) -> None:
    size = export(tiny_bert, tmp_path / "out", name, example, tokenizer_folder(tmp_path))
    assert size == sum((tmp_path / "out" / file).stat().st_size for file in MODEL_FILES[name])
    assert size == size_on_disk(target_of(name), tmp_path / "out")


def test_two_exports_of_one_model_are_the_same_bytes(
    tiny_bert: Tiny, exports: dict[str, Path], example: Batch, tmp_path: Path
) -> None:
    export(tiny_bert, tmp_path / "again", "packed", example, tokenizer_folder(tmp_path))
    for file in exports["packed"].iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_folder_that_exists_is_refused_and_not_touched(
    tiny_bert: Tiny, example: Batch, tmp_path: Path
) -> None:
    there = tmp_path / "mine"
    there.mkdir()
    (there / "diary.txt").write_text("dear diary")
    with pytest.raises(AutopruneError, match=r"mine already exists and is kept as it is; give another -o"):
        export(tiny_bert, there, "packed", example, tokenizer_folder(tmp_path))
    assert [file.name for file in there.iterdir()] == ["diary.txt"]
    assert (there / "diary.txt").read_text() == "dear diary"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "tokenizer"]


def test_an_export_that_fails_leaves_nothing_behind(tiny_bert: Tiny, example: Batch, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    (tokenizer / "unreadable").mkdir(parents=True)
    with pytest.raises(OSError, match="unreadable"):
        export(tiny_bert, tmp_path / "out", "packed", example, tokenizer)
    assert list(tmp_path.iterdir()) == [tokenizer]


def test_a_model_without_a_tokenizer_is_exported(tiny_bert: Tiny, example: Batch, tmp_path: Path) -> None:
    export(tiny_bert, tmp_path / "out", "packed", example, tmp_path / "no-tokenizer")
    assert (tmp_path / "out" / "autoprune.json").is_file()


def test_bits_that_the_target_lacks_are_refused(tiny_bert: Tiny, example: Batch, tmp_path: Path) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.mixed)
    odd = replace(stitched, levels=Candidate((("somewhere", Level.of(0.0, 12)),)))
    with pytest.raises(AutopruneError, match=r"packed cannot store weights of 12 bits, which this"):
        write_artifact(
            odd, tmp_path / "out", about=ExportRecord(target="packed"), tokenizer=tmp_path, example=example
        )


@pytest.mark.parametrize("name", MODEL_FILES)
def test_no_pickle_is_read(
    exports: dict[str, Path], example: Batch, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle was read")

    for module, function in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, function, refused)
    model = autoprune.load(exports[name])
    out = model(**{key: torch.from_numpy(x) for key, x in example.items()}).logits
    assert out.shape == (2, 3)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def copied(exports: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an export that may be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(exports[name], tmp_path / name))

    return copy


@pytest.mark.parametrize(("name", "file"), EVERY_FILE)
def test_one_flipped_byte_is_refused(copied: Callable[[str], Path], name: str, file: str) -> None:
    folder = copied(name)
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / file).write_bytes(data)
    assert f"{folder / file} is not the file that was exported (its SHA-256 differs)" in refusal(folder)


@pytest.mark.parametrize(("name", "file"), EVERY_FILE)
def test_a_truncated_file_is_refused(copied: Callable[[str], Path], name: str, file: str) -> None:
    folder = copied(name)
    (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    assert f"{folder / file} is not the file that was exported" in refusal(folder)


@pytest.mark.parametrize(("name", "file"), EVERY_FILE)
def test_a_missing_file_is_refused(copied: Callable[[str], Path], name: str, file: str) -> None:
    folder = copied(name)
    (folder / file).unlink()
    assert f"{folder / file} is missing; export the model again" in refusal(folder)


@pytest.mark.parametrize("name", ["../config.json", "/etc/hostname", "..", "", "sub/vocab.txt"])
def test_a_name_that_leads_out_of_the_folder_is_refused(copied: Callable[[str], Path], name: str) -> None:
    folder = copied("packed")
    shutil.copy(folder / "config.json", folder.parent)
    (folder / "sub").mkdir()
    shutil.copy(folder / "vocab.txt", folder / "sub")
    path = folder / name
    known = file_hash(path) if path.is_file() else "0" * 64
    hashes = json.loads((folder / ABOUT).read_text())["sha256"]
    rewrite_about(folder, sha256=hashes | {name: known})
    assert "is missing" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "sha256": 3}', '{"sha256": {}}']
)
def test_a_record_that_is_none_is_refused(copied: Callable[[str], Path], text: str) -> None:
    folder = copied("packed")
    (folder / ABOUT).write_text(text)
    assert "is no exported model: autoprune.json is missing or damaged" in refusal(folder)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} is no exported model" in refusal(tmp_path)
    assert "nowhere is no exported model" in refusal(tmp_path / "nowhere")


def test_a_later_version_and_an_unknown_target_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("packed")
    rewrite_about(folder, version=3)
    assert "has version 3; 1 and 2 can be read" in refusal(folder)
    rewrite_about(folder, version=2)
    assert "is damaged: version 2 and several models go together" in refusal(folder)
    rewrite_about(folder, version=1, target="abacus")
    assert "target 'abacus' does not exist" in refusal(folder)


QUERY = "bert.encoder.layer.0.attention.self.query.weight"
OTHER = "bert.encoder.layer.1.attention.self.query"


def shorter(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        tensors[name] = tensors[name][:-1].clone()

    return change


def narrower(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        tensors[name] = tensors[name][:, :-1].clone()

    return change


def without(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        del tensors[name]

    return change


def shorter_with_its_bias(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    for part in ("weight", "bias"):
        shorter(f"{OTHER}.{part}")(tensors, about)


def one_label_less(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    for part in ("weight", "bias"):
        shorter(f"classifier.{part}")(tensors, about)


def another_tensor(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    tensors["bert.backdoor.weight"] = torch.ones(2, 2)


def described_as(**fields: Any) -> Change:
    def change(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        about["integers"][QUERY.removesuffix(".weight")] |= fields

    return change


def no_description(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    del about["integers"]


MISFITS: dict[str, Change] = {
    "codes too short": shorter(f"{QUERY}.codes"),
    "scales too short": shorter(f"{QUERY}.scale"),
    "zero points too short": shorter(f"{QUERY}.zero"),
    "no scales": without(f"{QUERY}.scale"),
    "no codes": without(f"{QUERY}.codes"),
    "described as narrower": described_as(shape=[32, 60]),
    "described as shorter": described_as(shape=[16, 64]),
    "described with more bits": described_as(bits=8),
    "not described": no_description,
    "a matrix too short": shorter(f"{OTHER}.weight"),
    "a matrix and its bias too short": shorter_with_its_bias,
    "a matrix too narrow": narrower(f"{OTHER}.weight"),
    "no bias": without(f"{OTHER}.bias"),
    "no bias beside a narrower matrix": without("bert.encoder.layer.0.intermediate.dense.bias"),
    "a norm too short": shorter("bert.embeddings.LayerNorm.weight"),
    "a table too short": shorter("bert.embeddings.token_type_embeddings.weight"),
    "fewer labels": one_label_less,
    "a tensor too many": another_tensor,
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS.keys())
def test_tensors_that_do_not_fit_are_refused_though_the_hash_is_right(
    copied: Callable[[str], Path], change: Change
) -> None:
    folder = copied("packed")
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["autoprune"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, about)
    save_file(tensors, path, metadata={"autoprune": json.dumps(about)})
    with_right_hash(folder, path.name)
    assert str(path) in refusal(folder)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 64, b"{}"])
def test_bytes_that_are_no_tensors_are_refused(copied: Callable[[str], Path], data: bytes) -> None:
    folder = copied("packed")
    (folder / "model.safetensors").write_bytes(data)
    with_right_hash(folder, "model.safetensors")
    assert "is not a packed model that can be read" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "no such thing"}', "[]"])
def test_a_config_that_describes_no_model_is_refused(copied: Callable[[str], Path], text: str) -> None:
    folder = copied("packed")
    (folder / "config.json").write_text(text)
    with_right_hash(folder, "config.json")
    assert f"{folder / 'config.json'} describes no model" in refusal(folder)


@pytest.mark.parametrize("file", MODEL_FILES["openvino"])
def test_openvino_files_that_do_not_fit_are_refused(copied: Callable[[str], Path], file: str) -> None:
    folder = copied("openvino")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with_right_hash(folder, file)
    assert "cannot be loaded by OpenVINO" in refusal(folder)
