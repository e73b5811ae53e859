"""Pictures are made inputs as a model's own processor makes them, or the difference is an error."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import torch
import transformers
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.image_processor import FILE, Pixels, earlier_pixels
from autoprune.models.own_processor import own_processor, pixels_beside, pixels_of_model
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.data.images import Images, StoredImage
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.encoding import encoded_hash, pictures
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from autoprune.tasks.task import Arrays
from tests.support.made_pictures import EARLIER_SETTINGS, encoded_picture, noise, photograph, write_folder
from tests.support.splits import splits_of

Image: Any = pytest.importorskip("PIL.Image", reason="Pillow, of the extra `vision`, is not installed")

READ = [
    "Beit", "Bit", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Levit", "MobileNetV1", "MobileNetV2",
    "MobileViT",    "PoolFormer", "Pvt", "Segformer", "Siglip", "ViT",
]  # fmt: skip
"""Types of processors that models of transformers for classes of pictures have, and that are read."""

REFUSED = {
    "Perceiver": r"its inputs are \[3, 224, 224\], those made here \[3, 256, 256\]",
    "TextNet": "the shorter edge is made 640 pixels and nothing is cropped",
    "Siglip2": "its size is {}; height and width, or shortest_edge, are read",
    "Donut": "its numbers differ by up to 255 of 255 grey levels",
    "ImageGPT": "it reads no picture with the settings of preprocessor_config.json: Clusters must be",
}


def photographs() -> Images:
    """Nearly square, high, wide, and small."""
    shapes = ((300, 301), (480, 211), (90, 160), (20, 9))
    return Images([StoredImage(photograph(k, *shape), f"p{k}") for k, shape in enumerate(shapes)])


def saved(folder: Path, name: str, **settings: Any) -> Path:
    """A folder with the processor of a type, with its own defaults or some other settings."""
    kind: Any = getattr(transformers, f"{name}ImageProcessorPil")
    kind(**settings).save_pretrained(folder)
    return folder


def theirs(folder: Path, image: np.ndarray, **settings: Any) -> np.ndarray:
    """What transformers makes of a picture."""
    processor: Any = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]
    return np.asarray(
        processor(images=Image.fromarray(image), return_tensors="np", **settings)["pixel_values"][0]
    )


@pytest.mark.parametrize("side", [None, 96])
@pytest.mark.parametrize("name", READ)
def test_numbers_are_those_of_the_models_own_processor(tmp_path: Path, name: str, side: int | None) -> None:
    images = photographs()
    pixels, own = pixels_of_model(str(saved(tmp_path, name)), None, None, side)
    assert own is not None
    own.check(images, pixels)
    made = pixels(images)[:]
    for place, image in enumerate(images):
        wanted = np.asarray(
            own.processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        )
        assert made[place].shape == wanted.shape
        np.testing.assert_allclose(made[place], wanted, rtol=1e-5, atol=2e-6)
    if side is not None:
        assert made.shape[2:] == (side, side)


@pytest.mark.parametrize("name", READ)
def test_what_is_written_is_read_alike_here_and_by_transformers(tmp_path: Path, name: str) -> None:
    pixels, _ = pixels_of_model(str(saved(tmp_path, name)), None)
    (tmp_path / "export").mkdir()
    pixels.write(tmp_path / "export")
    assert Pixels.read(tmp_path / "export") == pixels
    image = photograph(5, 211, 480)
    made = pixels([image])[0]
    np.testing.assert_allclose(theirs(tmp_path / "export", image), made, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_a_processor_that_does_something_else_is_refused(tmp_path: Path, name: str) -> None:
    source = str(saved(tmp_path, name))
    with pytest.raises(AutopruneError, match=REFUSED[name]) as caught:  # noqa: PT012
        pixels, own = pixels_of_model(source, None)
        assert own is not None
        own.check(photographs(), pixels)
    assert f"as its processor {name}ImageProcessor does" in str(caught.value)
    assert "give a preprocessor_config.json of these (ViTImageProcessor, or" in str(caught.value)


@hypothesis.given(data=some.data())
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_setting_is_met_or_refused(
    data: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    sides = some.integers(4, 40)
    spread = some.lists(some.floats(0.1, 1), min_size=3, max_size=3)
    settings = {
        "image_processor_type": data.draw(some.sampled_from([f"{name}ImageProcessor" for name in READ])),
        "size": data.draw(some.one_of(
            some.builds(dict, shortest_edge=sides), some.builds(dict, height=sides, width=sides), sides,
            some.none(), some.builds(dict, longest_edge=sides), some.just("224"),
        )),
        "crop_size": data.draw(some.one_of(sides, some.builds(dict, height=sides, width=sides), some.none())),
        "do_center_crop": data.draw(some.sampled_from([True, False, None])),
        "do_resize": data.draw(some.sampled_from([True, True, False, None])),
        "do_rescale": data.draw(some.sampled_from([True, True, False])),
        "rescale_factor": data.draw(some.sampled_from([1 / 255, 1 / 127.5])),
        "do_normalize": data.draw(some.sampled_from([True, False, None])),
        "image_mean": data.draw(some.one_of(spread, some.floats(0.1, 1), some.none())),
        "image_std": data.draw(spread),
        "resample": data.draw(some.sampled_from([0, 1, 2, 3, 4, 5])),
        "crop_pct": data.draw(some.sampled_from([0.875, 0.9])),
        "rescale_offset": data.draw(some.booleans()),
    }  # fmt: skip
    kept = {name: value for name, value in settings.items() if data.draw(some.booleans()) or "type" in name}
    (folder / FILE).write_text(json.dumps(kept))
    images = Images(photographs().stored[2:])
    try:
        pixels, own = pixels_of_model(str(folder), None, None, data.draw(some.sampled_from([None, 16])))
        assert own is not None
        own.check(images, pixels)
        made = pixels(images)[:]
    except AutopruneError:
        return
    for place, image in enumerate(images):
        wanted = own.processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(made[place], wanted, rtol=1e-4, atol=1e-4)


def test_a_crop_a_squeeze_and_the_order_of_colours_are_told_apart(tmp_path: Path) -> None:
    pixels, own = pixels_of_model(str(saved(tmp_path, "CLIP")), None)
    assert own is not None
    wrong = [
        replace(pixels, resized=None, is_cropped=False),
        replace(pixels, resample=2),
        replace(pixels, is_bgr=True),
        replace(pixels, scale=1.0),
        replace(pixels, mean=(0.5, 0.5, 0.5)),
        replace(pixels, size=(200, 224)),
    ]
    for other in wrong:
        with pytest.raises(AutopruneError, match=r"differ by up to|its inputs are"):
            own.check(photographs(), other)
    square = Images(
        [StoredImage(photograph(1, 300, 300), "square"), StoredImage(photograph(1, 300, 400), "wide")]
    )
    with pytest.raises(AutopruneError, match="of wide its numbers differ"):
        own.check(square, wrong[0])


def test_a_grey_picture_is_what_the_processor_makes_of_it(tmp_path: Path) -> None:
    source = saved(tmp_path, "ViT", size={"height": 32, "width": 32})
    pixels, _ = pixels_of_model(str(source), None)
    grey = photograph(1, 50, 70)[:, :, 0]
    stored = StoredImage(grey, "grey")
    assert stored.decoded().strides[2] == 0
    np.testing.assert_allclose(
        pixels(Images([stored]))[0], theirs(source, np.dstack([grey] * 3)), rtol=1e-5, atol=2e-6
    )


# ---- what a model's folder may lack --------------------------------------------------------------


def test_what_a_file_leaves_out_is_as_its_processor_has_it(tmp_path: Path) -> None:
    """And not ImageNet's, which is what a model without a file gets, and is told."""
    (tmp_path / FILE).write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}})
    )
    assert pixels_of_model(str(tmp_path), None)[0].mean == (0.5, 0.5, 0.5)


def test_a_model_without_a_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pixels, own = pixels_of_model(str(tmp_path), transformers.ViTConfig(image_size=64))
    assert (pixels, own) == (Pixels((64, 64)), None)
    assert (
        "has no preprocessor_config.json: pictures are resized to 64 x 64, and mean and spread are those"
        in caplog.text
    )
    with pytest.raises(AutopruneError, match="does not say how large its pictures are; give --image-size"):
        pixels_of_model(str(tmp_path), transformers.ResNetConfig())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"image_processor_type": "NoSuchImageProcessor"}', "transformers makes no image processor of its"),
        ("{", "cannot be read"),
        ("[1]", "holds a list; an object is needed"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(AutopruneError, match=said):
        own_processor(str(tmp_path))


def test_settings_that_name_no_processor_are_taken_word_by_word_where_the_usual_one_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A ResNet's usual processor is ConvNeXT's, which reads no height and width."""
    transformers.ResNetConfig().save_pretrained(tmp_path)
    (tmp_path / FILE).write_text('{"size": {"height": 32, "width": 32}}')
    pixels, own = pixels_of_model(str(tmp_path), None)
    assert own is not None
    with caplog.at_level(logging.WARNING):
        own.check(photographs(), pixels)
    assert pixels.size == (32, 32)
    assert (
        "names no image_processor_type, and ConvNextImageProcessor, which transformers takes for it"
        in caplog.text
    )


def test_a_mean_for_each_channel_is_needed(tmp_path: Path) -> None:
    grey = transformers.ViTConfig(num_channels=1)
    with pytest.raises(AutopruneError, match=r"takes pictures of 1 channels, and image_mean .* is of 3"):
        pixels_of_model(str(saved(tmp_path, "ViT")), grey)
    source = saved(tmp_path, "ViT", image_mean=[0.5], image_std=[0.25], size={"height": 8, "width": 8})
    pixels, own = pixels_of_model(str(source), grey)
    assert own is not None
    own.check(photographs(), pixels)
    assert pixels.shape == (1, 8, 8)


def test_beside_weights_a_named_processor_is_read_as_such(tmp_path: Path) -> None:
    weights = str(tmp_path / "w.safetensors")
    assert pixels_beside(weights, 64) == (Pixels((64, 64)), None)
    pixels, own = pixels_beside(
        str(saved(tmp_path, "ConvNext", size={"shortest_edge": 224}) / "w.safetensors"), None
    )
    assert own is not None
    assert (pixels.size, pixels.resized, pixels.is_cropped) == ((224, 224), 256, True)


# ---- as bytes ------------------------------------------------------------------------------------


def task_of(pixels: Pixels) -> Any:
    images = Images([StoredImage(photograph(k, 30, 40), f"p{k}") for k in range(5)])
    rows = Rows((), (0, 1, 0, 1, 0), images)
    return pictures(Splits(rows, rows, rows, ("a", "b"), "", ""), pixels)


def test_a_batch_is_the_same_whatever_it_is_part_of() -> None:
    pixels = Pixels((16, 16))
    task = task_of(pixels)
    whole = task.batch(task.train, range(5))["pixel_values"]
    assert (whole.dtype, whole.shape) == (np.float32, (5, 3, 16, 16))
    for rows in ([0], [4, 1], [2, 2]):
        assert (task.batch(task.train, rows)["pixel_values"] == whole[rows]).all()
        assert (
            task.batch(task.train.pick(np.array(rows)), range(len(rows)))["pixel_values"] == whole[rows]
        ).all()
    kept = task.train.inputs["pixel_values"]
    assert isinstance(kept, ByteImages)
    assert 4 * kept.bytes.nbytes == whole.nbytes
    again = Arrays.from_arrays(task.train.arrays())
    assert (task.batch(again, range(5))["pixel_values"] == whole).all()
    assert replace(task, train=again).digest() == task.digest()
    other = Arrays({"pixel_values": ByteImages(kept.bytes, kept.numbers + 1)}, task.train.labels)
    assert replace(task, train=other).digest() != task.digest()


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("autoprune.tasks.encoding.available_bytes", lambda: 15 * 3 * 16 * 16 - 1)
    unread = Images([StoredImage("no such file", f"p{k}") for k in range(5)])
    rows = Rows((), (0, 1, 0, 1, 0), unread)
    splits = Splits(rows, rows, rows, ("a", "b"), "", "")
    with pytest.raises(AutopruneError, match=r"15 pictures of 3 x 16 x 16 bytes .* \(--limit-rows\)"):
        pictures(splits, Pixels((16, 16)))
    monkeypatch.setattr("autoprune.tasks.encoding.available_bytes", lambda: None)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(AutopruneError, match=r"^5 of 5 images cannot be read"),
    ):
        pictures(splits, Pixels((4096, 4096)))
    assert "15 pictures of 3 x 4096 x 4096 bytes are decoded; they take 0.75 GB" in caplog.text


# ---- earlier versions ----------------------------------------------------------------------------


def earlier(image: np.ndarray) -> np.ndarray:
    """What that version made of a picture [h w 3]."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    pixels = nn.functional.interpolate(pixels, (8, 8), mode="bicubic", antialias=True)
    shares = pixels[0].clamp(0, 255).numpy() / 255
    return np.asarray((shares - np.float32(0.5)) / np.float32(0.25))


def test_settings_of_an_earlier_version_give_its_numbers_and_are_written_as_they_were(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(EARLIER_SETTINGS))
    pixels = Pixels.read(tmp_path)
    assert earlier_pixels(tmp_path) == pixels
    images = list(photographs())
    assert (pixels(images) == np.stack([earlier(image) for image in images])).all()
    pixels.write(tmp_path)
    assert json.loads((tmp_path / FILE).read_text()) == EARLIER_SETTINGS
    Pixels((8, 8)).write(tmp_path)
    assert earlier_pixels(tmp_path) is None
    assert earlier_pixels(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "fingerprint", "fed"),
    [
        (
            "small",
            "e71a6f66b0cf33194728b47f16b4f99c785e2766a931bf9e4d7b24407bf527c9",
            "fd0e0cbad92c8ea5773a4982",
        ),
        (
            "large",
            "f07c7db17ee61e4ec5953e42060b3719cc8ba26a8ed4a3daa1a0b4a13e4ad6e7",
            "fa2d77b0c65147662e5f8603",
        ),
    ],
)
def test_hashes_of_an_earlier_version_are_met(tmp_path: Path, name: str, fingerprint: str, fed: str) -> None:
    """Of the data, by which an export finds its rows, and of what the model is fed, which names caches."""
    if name == "small":
        made = {
            f"{('cat', 'dog')[k % 2]}/{k:02}.png": encoded_picture(noise(k, 10 + k, 12), "PNG")
            for k in range(24)
        }
    else:
        plain = [np.full((1000, 1001, 3), k, np.uint8) for k in range(44)]
        made = {f"{('cat', 'dog')[k % 2]}/{k:02}.png": encoded_picture(x, "PNG") for k, x in enumerate(plain)}
    write_folder(tmp_path / "data", made)
    (tmp_path / FILE).write_text(json.dumps(EARLIER_SETTINGS))
    splits = splits_of(str(tmp_path / "data"), kind=IMAGE_CLASSIFICATION, by_pixels=True)
    pixels = Pixels.read(tmp_path)
    assert splits.fingerprint == fingerprint
    assert encoded_hash(pictures(splits, pixels), data_hash=fingerprint, pixels=pixels) == fed
    now = replace(pixels, in_floats=False)
    assert encoded_hash(pictures(splits, now), data_hash=fingerprint, pixels=now) != fed
    today = splits_of(str(tmp_path / "data"), kind=IMAGE_CLASSIFICATION)
    assert (today.fingerprint == fingerprint) == (name == "small")  # so those of small pictures hold on
