"""Folders of pictures: every file is a row or is counted as left out, and what cannot be read is named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.models.image_processor import Pixels
from autoprune.tasks.data.image_folders import IMAGE_SUFFIXES, read_image_folder
from autoprune.tasks.data.images import READ_WHOLE, Images, StoredImage
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from tests.support.made_pictures import (
    FORMATS,
    MODES,
    OTHERS,
    Content,
    check_folder,
    encoded_picture,
    noise,
    photograph,
    picture_folders,
    write_folder,
)
from tests.support.splits import splits_of

pytest.importorskip("PIL.Image", reason="Pillow, of the extra `vision`, is not installed")

many = hypothesis.settings(
    deadline=None, max_examples=300, suppress_health_check=list(hypothesis.HealthCheck)
)


def read(folder: Path, **options: object) -> Splits:
    return splits_of(str(folder), kind=IMAGE_CLASSIFICATION, **options)  # type: ignore[arg-type]


def rows_of(splits: Splits) -> int:
    return len(splits.train) + len(splits.validation) + len(splits.test)


def of_suffixes(**classes: str) -> dict[str, Content]:
    """30 whole pictures of each class, with the suffixes that are named in turn."""
    files: dict[str, Content] = {}
    for place, (name, text) in enumerate(classes.items()):
        suffixes = [suffix.strip("-") for suffix in text.split()]
        for k in range(30):
            suffix = suffixes[k % len(suffixes)]
            form = FORMATS.get(suffix)
            pixels = noise(100 * place + k, 6, 8)
            files[f"{name}/{k}{suffix}"] = b"no picture" if form is None else encoded_picture(pixels, form)
    return files


# ---- what is read, and what is not ---------------------------------------------------------------


def test_no_suffix_that_pillow_reads_vanishes(tmp_path: Path) -> None:
    write_folder(tmp_path, of_suffixes(
        cat=".png .tif .gif", dog=".jpg .jfif .webp", owl=".TIFF", fox="- .png .heic", emu=".jpg_large",
    ))  # fmt: skip
    splits = read(tmp_path)
    assert splits.label_names == ("cat", "dog", "emu", "fox", "owl")
    assert rows_of(splits) == 140
    assert (
        "10 of 150 files left out, as no pictures of a class: fox 20 read and .heic 10 left out"
        in "\n".join(splits.notes)
    )


def test_a_class_of_nothing_that_is_read_stops_and_every_such_class_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, of_suffixes(cat=".png", dog=".png", owl=".heic", emu=".svg .txt") | {"gnu/": None})
    with pytest.raises(AutopruneError) as caught:
        read(tmp_path)
    said = "3 class folders hold no picture that is read: emu (.svg 15, .txt 15), gnu (empty), owl (.heic 30)"
    assert said in str(caught.value)
    assert "Formats are .png, " in str(caught.value)
    assert "move what is no class elsewhere" in str(caught.value)


def test_where_no_class_has_any_the_formats_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, of_suffixes(cat=".heic", dog=".heic"))
    with pytest.raises(AutopruneError, match=r"2 class folders .* cat \(\.heic 30\), dog \(\.heic 30\)"):
        read(tmp_path)


def test_a_folder_of_pictures_beside_a_table_is_no_class(tmp_path: Path) -> None:
    files = {f"pictures/{k}.png": encoded_picture(noise(k, 5, 5), "PNG") for k in range(30)}
    rows = "".join(f"pictures/{k}.png,{k % 2}\n" for k in range(30))
    write_folder(
        tmp_path, files | {"notes/a.txt": b"no picture", "data.csv": f"image,label\n{rows}".encode()}
    )
    assert rows_of(read(tmp_path)) == 30


def test_all_pictures_that_cannot_be_read_are_named_at_once(tmp_path: Path) -> None:
    files = of_suffixes(cat=".png", dog=".jpg")
    cut = ("cat/3.png", "cat/8.png", "dog/5.jpg")
    for name in cut:
        files[name] = (files[name] or b"")[:100]
    write_folder(tmp_path, files | {"dog/29.jpg": None})
    with pytest.raises(AutopruneError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith("4 of 60 images cannot be read:\n")
    assert all(str(tmp_path / name) in str(caught.value) for name in (*cut, "dog/29.jpg"))


def test_a_class_may_be_empty_in_one_split_and_what_lies_beside_splits_is_counted(tmp_path: Path) -> None:
    pictures = of_suffixes(cat=".png", dog=".png", owl=".png")
    files = {f"train/{name}": content for name, content in pictures.items()}
    files |= {f"test/{name}": content for name, content in list(pictures.items())[:60]}
    files |= {
        "test/owl/1.heic": b"",
        "holdout/7.png": pictures["cat/7.png"],
        "test/a.png": b"",
        "read.me": b"",
    }
    write_folder(tmp_path, files)
    splits = read(tmp_path)
    assert rows_of(splits) == 150
    assert splits.label_names == ("cat", "dog", "owl")
    said = (
        "4 of 154 files left out, as no pictures of a class: beside the folders 0 read and .me 1 left out, "
        "holdout 0 read and .png 1 left out, test 0 read and .png 1 left out, test/owl 0 read and .heic 1 "
        "left out"
    )
    assert said in "\n".join(splits.notes)


def test_hidden_files_are_no_data_and_links_are_followed(tmp_path: Path) -> None:
    files = of_suffixes(cat=".png", dog=".png")
    hidden = {"cat/.ipynb_checkpoints/1-checkpoint.png": b"", "dog/._2.png": b"", ".git/x/3.png": b""}
    write_folder(tmp_path / "data", files | hidden)
    write_folder(tmp_path / "elsewhere", {"a.png": encoded_picture(noise(7, 5, 5), "PNG")})
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "round").symlink_to(tmp_path / "data" / "cat")
    found = read_image_folder(tmp_path / "data")
    assert found is not None
    assert [*found.splits] == ["train"]
    assert {name: len(rows) for name, rows in found.splits["train"].items()} == {"cat": 31, "dog": 30}
    assert found.left_out == ()


def test_every_suffix_is_one_that_pillow_reads() -> None:
    from PIL import Image

    Image.init()
    known = Image.registered_extensions()
    assert {known.get(suffix) for suffix in IMAGE_SUFFIXES if suffix in known} <= set(Image.OPEN)
    assert [suffix for suffix in IMAGE_SUFFIXES if suffix not in known] in ([], [".jif"])


def test_a_camera_raw_file_is_left_out_not_read_as_its_thumbnail(tmp_path: Path) -> None:
    raw = encoded_picture(noise(1, 4, 4), "TIFF")  # as .nef, .dng and .cr2 begin
    write_folder(tmp_path, of_suffixes(cat=".png", dog=".png") | {"cat/a.nef": raw})
    found = read_image_folder(tmp_path)
    assert found is not None
    assert found.left_out == (tmp_path / "cat" / "a.nef",)


def test_that_the_first_frame_alone_is_read_is_said(tmp_path: Path) -> None:
    from PIL import Image

    write_folder(tmp_path, of_suffixes(cat=".gif", dog=".tif"))
    frames = [Image.fromarray(noise(k, 6, 8)) for k in range(3)]
    for name in ("cat/3.gif", "dog/5.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    splits = read(tmp_path)
    assert "2 of 60 pictures have several frames; the first is read" in "\n".join(splits.notes)
    assert "left out" not in "\n".join(splits.notes)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    files = of_suffixes(cat=".png", train=".png")
    write_folder(tmp_path / "a", files | {"train/deep/er.png": encoded_picture(noise(999, 5, 5), "PNG")})
    assert read(tmp_path / "a").label_names == ("cat", "train")
    write_folder(
        tmp_path / "b", {f"{s}/{name}": x for s in ("train", "val") for name, x in list(files.items())[:9]}
    )
    with pytest.raises(AutopruneError, match="holds no data"):  # one class, and not the classes train and val
        read(tmp_path / "b")


def test_folders_that_are_splits_under_another_name_are_no_classes(tmp_path: Path) -> None:
    pictures = of_suffixes(cat=".png", dog=".png")
    parts = ("training", "seg_test", "validation_set")
    write_folder(tmp_path / "a", {f"{part}/{name}": x for part in parts for name, x in pictures.items()})
    with pytest.raises(AutopruneError) as caught:
        read(tmp_path / "a")
    assert "seg_test, training, validation_set hold the same folders cat, dog" in str(caught.value)
    assert "Name them train, validation, test." in str(caught.value)
    vehicles = of_suffixes(**{"train": ".png", "test tube": ".png"})
    write_folder(tmp_path / "b", vehicles)
    assert read(tmp_path / "b").label_names == ("test tube", "train")


# ---- any folder ----------------------------------------------------------------------------------


@hypothesis.given(files=picture_folders())
@many
def test_any_folder_is_read_whole_or_refused(files: dict[str, Content]) -> None:
    check_folder(files)


@hypothesis.given(files=picture_folders(harm=False))
@hypothesis.settings(many, max_examples=60)
def test_a_folder_without_harm_is_refused_for_nothing_but_its_size(files: dict[str, Content]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        write_folder(folder, files)
        try:
            splits = read(folder)
        except AutopruneError as error:
            assert "is too small" in str(error)  # noqa: PT017
            return
        assert rows_of(splits) == len([name for name in files if Path(name).suffix not in OTHERS])


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_every_format_and_mode_is_read_or_named(tmp_path: Path, form: str, mode: str) -> None:
    content = encoded_picture(noise(1, 6, 8), form, mode)
    stored = StoredImage(content, "here")
    if mode == "F":
        with pytest.raises(AutopruneError, match="an image of fractions"):
            stored.decoded()
        return
    assert stored.decoded().shape == (6, 8, 3)
    assert stored.decoded().dtype == np.uint8


# ---- photographs ---------------------------------------------------------------------------------


def test_a_large_picture_is_known_by_its_bytes_and_not_decoded_before_rows_are_drawn(tmp_path: Path) -> None:
    large = encoded_picture(photograph(0, 1000, 1001), "JPEG")
    assert READ_WHOLE < 1000 * 1001
    damaged = bytearray(large)
    del damaged[len(damaged) // 2 :]
    files = {f"{name}/{k}.jpg": large + bytes([k]) for name in ("cat", "dog") for k in range(20)}
    for name in ("cat/1.jpg", "cat/2.jpg"):
        files[name] = bytes(damaged) + name.encode()
    write_folder(tmp_path, files)
    splits = read(tmp_path)  # decodes none
    assert rows_of(splits) == 40
    every = Images([x for rows in (splits.train, splits.validation, splits.test) for x in rows.images.stored])
    with pytest.raises(
        AutopruneError, match=r"^2 of 40 images cannot be read:\n.*cat/1\.jpg cannot .*\n.*cat/2"
    ):
        Pixels((8, 8))(every)
    copies = [StoredImage(large, "a"), StoredImage(large + b"0", "b"), StoredImage(bytes(large), "c")]
    assert copies[0].key() == copies[2].key() != copies[1].key()
    assert copies[0].key(by_pixels=True) == copies[1].key(by_pixels=True) != copies[0].key()


def test_a_photograph_is_decoded_a_little_larger_than_needed(tmp_path: Path) -> None:
    """What is resized from a half, a quarter or an eighth of a JPEG differs by little from the whole's."""
    stored = StoredImage(encoded_picture(photograph(3, 1600, 2400), "JPEG"), "here")
    assert stored.decoded(least=200).shape == (400, 600, 3)
    assert stored.decoded(least=401).shape == (1600, 2400, 3)
    assert stored.decoded().shape == (1600, 2400, 3)
    for pixels in (Pixels((64, 64)), Pixels((64, 64), resample=3, resized=72, is_cropped=True)):
        few, whole = (pixels.shaped(stored.decoded(least)) for least in (pixels.least_side, None))
        levels = np.abs(few.astype(int) - whole)
        assert levels.mean() < 0.5
        assert levels.max() <= 8
