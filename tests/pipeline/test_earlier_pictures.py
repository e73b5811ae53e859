"""Runs and exports of pictures: rows are read again as they were, by this version and by earlier ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from autoprune.core.errors import AutopruneError
from autoprune.export.export_record import DataRecord, ExportRecord
from autoprune.export.recorded_rows import other_rows, recorded_rows
from autoprune.models.image_processor import FILE, Pixels
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.pipeline.start import plan
from autoprune.run.config import Config
from autoprune.run.folder import RunFolder
from tests.support.made_pictures import EARLIER_SETTINGS, encoded_picture, noise, photograph, write_folder

pytest.importorskip("PIL.Image", reason="Pillow, of the extra `vision`, is not installed")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A small ViT whose own processor crops, and 24 pictures of two classes."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(**shape, image_size=8, patch_size=4)
    )
    model.save_pretrained(tmp_path / "vit")
    settings = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 9},
        "crop_size": {"height": 8, "width": 8},
    }  # fmt: skip
    (tmp_path / "vit" / FILE).write_text(json.dumps(settings))
    names = [f"{('cat', 'dog')[k % 2]}/{k:02}.png" for k in range(24)]
    pictures = [encoded_picture(noise(k, 10 + k, 12), "PNG") for k in range(24)]
    write_folder(tmp_path / "data", dict(zip(names, pictures, strict=True)))
    return Config.of(model=str(tmp_path / "vit"), dataset=str(tmp_path / "data"), target="packed")


def exported(folder: Path, inputs: Inputs, config: Config) -> tuple[Path, ExportRecord]:
    """What an export says of its data, and the settings of its pictures."""
    inputs.loaded.save_inputs(folder)
    data = DataRecord(
        dataset=config.data.dataset, text_columns=(), label_column=None, group_by=None, seed=0,
        max_length=128,
        labels=inputs.task.label_names, fingerprint=inputs.data_hash, task="image-classification",
        metric="accuracy",
    )  # fmt: skip
    return folder, ExportRecord(target="packed", data=data, sha256={FILE: inputs.encoded_hash})


def numbers(task: Any) -> np.ndarray:
    return np.asarray(task.batch(task.validation, range(len(task.validation)))["pixel_values"])


def test_rows_of_an_export_are_those_of_the_search_from_its_cache_too(tmp_path: Path, config: Config) -> None:
    inputs = read_inputs(config)
    folder, about = exported(tmp_path / "export", inputs, config)
    assert Pixels.read(folder) == inputs.loaded.pixels
    for _ in range(2):
        again = recorded_rows(folder, about)
        assert (numbers(again) == numbers(inputs.task)).all()
        assert (again.validation.labels == inputs.task.validation.labels).all()
    other, is_same = other_rows(folder, about, str(tmp_path / "data"))
    assert is_same
    assert (numbers(other) == numbers(inputs.task)).all()
    (tmp_path / "data" / "cat" / "00.png").unlink()
    changed = ExportRecord(target="packed", data=about.data, sha256={FILE: "another"})
    with pytest.raises(AutopruneError, match="is not what it was when the search read it"):
        recorded_rows(folder, changed)


def test_a_run_of_an_earlier_version_goes_on_with_its_own_pictures(tmp_path: Path, config: Config) -> None:
    """Its hash of what the model is fed is the one that version 55a009e made of these pictures."""
    run = RunFolder.create(tmp_path / "run", config, "autoprune search")
    (run.path / "tokenizer").mkdir()
    (run.path / "tokenizer" / FILE).write_text(json.dumps(EARLIER_SETTINGS))
    inputs, _ = plan(config, run)
    assert inputs.encoded_hash == "fd0e0cbad92c8ea5773a4982"
    assert inputs.loaded.pixels is not None
    assert inputs.loaded.pixels.in_floats
    today, _ = plan(config)
    assert today.encoded_hash != inputs.encoded_hash
    assert today.loaded.pixels is not None
    assert today.loaded.pixels.is_cropped
    folder, about = exported(tmp_path / "export", inputs, config)
    assert (numbers(recorded_rows(folder, about)) == numbers(inputs.task)).all()
    run.close()


def test_rows_of_an_earlier_export_of_large_pictures_are_found(tmp_path: Path, config: Config) -> None:
    """They were dealt and named by their pixels then, and are by their bytes now."""
    large = [encoded_picture(photograph(k, 1000, 1001), "JPEG") for k in range(12)]
    files = {f"{('cat', 'dog')[k % 2]}/{k}.jpg": content for k, content in enumerate(large)}
    write_folder(tmp_path / "large", files)
    config = config.with_settings(dataset=str(tmp_path / "large"))
    earlier = replace(Pixels((8, 8)), in_floats=True)
    inputs = read_inputs(config, earlier)
    assert read_inputs(config).data_hash != inputs.data_hash
    folder, about = exported(tmp_path / "export", inputs, config)
    assert (numbers(recorded_rows(folder, about)) == numbers(inputs.task)).all()
