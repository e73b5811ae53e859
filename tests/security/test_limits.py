"""What is read has limits: YAML and JSON that stand for more than they hold, packed files, pictures."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.files import MOST_JSON_BYTES, read_json, read_within
from autoprune.core.yaml_text import MOST_YAML_BYTES
from autoprune.models.checkpoint import header_of
from autoprune.run.folder import FRONT, RUN, STATUS
from autoprune.space.space_file import read_space
from autoprune.tasks.data.images import decoded
from autoprune.tasks.data.plain_text import FREE_BYTES, MOST_TIMES, read_bytes
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.splits import read_splits
from tests.support.made_runs import RunDamage, new_run, write_damaged

SPACE = "version: 1\nunits:\n  x: {at: a, quantize: {bits: [4]}}\n"


# ---- YAML ---------------------------------------------------------------------------------------


def refused_space(text: str, path: Path) -> str:
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(AutopruneError) as error:
        read_space(path)
    assert time.process_time() - start < 10
    return str(error.value)


def bomb(width: int, depth: int, merged: bool) -> str:
    """Lines of aliases that stand for width ** depth values."""
    lines = ["a0: &a0 {k: x}" if merged else "a0: &a0 [x]"]
    for k in range(depth):
        many = ", ".join([f"*a{k}"] * width)
        lines.append(f"a{k + 1}: &a{k + 1} " + (f"{{<<: [{many}], m{k}: y}}" if merged else f"[{many}]"))
    return SPACE + "\n".join(lines) + "\n"


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(width=some.integers(2, 12), depth=some.integers(17, 40), merged=some.booleans())
def test_aliases_that_stand_for_very_many_values_are_refused_at_once(
    width: int, depth: int, merged: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told = refused_space(bomb(width, depth, merged), tmp_path_factory.mktemp("bomb") / "space.yaml")
    assert "its aliases stand for" in told
    assert len(told) < 1000


def test_an_alias_of_itself_and_deep_nesting_are_refused(tmp_path: Path) -> None:
    assert "line 4 holds an alias of itself" in refused_space(SPACE + "a: &a [*a]\n", tmp_path / "a.yaml")
    assert "is not YAML" in refused_space(SPACE + "a: " + "[" * 5000 + "]" * 5000, tmp_path / "b.yaml")


def test_aliases_in_measure_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "version: 1\nunits:\n  x: {at: a, quantize: &q {bits: [4]}}\n  y: {at: b, quantize: *q}\n"
    )
    assert {rule.quantize.bits for rule in read_space(tmp_path / "a.yaml").units.values()} == {(4, 32)}


def test_a_space_file_of_megabytes_and_a_pipe_are_refused(tmp_path: Path) -> None:
    told = refused_space(SPACE + "#" * MOST_YAML_BYTES, tmp_path / "a.yaml")
    assert f"and at most {MOST_YAML_BYTES} are read" in told
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(AutopruneError, match=r"pipe\.yaml cannot be read: it is no regular file"):
        read_space(tmp_path / "pipe.yaml")


# ---- JSON ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, bytes], Path]:
    run = new_run(tmp_path_factory.mktemp("made") / "run")

    def write(folder: Path, name: str, content: bytes) -> Path:
        write_damaged(run, RunDamage({name: content}), folder)
        return folder

    return write


@pytest.mark.parametrize("name", [RUN, STATUS, FRONT])
@pytest.mark.parametrize("depth", [60, 300, 900, 990, 5_000, 1_000_000])
def test_deep_json_is_one_line(
    made: Callable[[Path, str, bytes], Path], name: str, depth: int, tmp_path: Path
) -> None:
    nested = b'{"a": ' * depth + b"1" + b"}" * depth
    for content in (nested, b'{"state": "finished", "version": 1, "x": ' + nested + b"}"):
        folder = made(tmp_path / "run", name, content)
        for command in ("status", "report", "inspect"):
            result = CliRunner().invoke(main, [command, str(folder)])
            assert result.exit_code in (0, 2), (command, result.output[-500:], result.exception)


def test_json_of_more_than_a_gigabyte_and_a_pipe_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(MOST_JSON_BYTES + 1)  # without taking the room
    with pytest.raises(ValueError, match="it has 1073741825 bytes, and at most 1073741824 are read"):
        read_json(tmp_path / "a.json")
    os.mkfifo(tmp_path / "b.json")
    with pytest.raises(ValueError, match="it is no regular file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="it is no regular file"):
        read_json(Path("/dev/zero"))
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(content=some.binary(max_size=60), most=some.integers(0, 60))
def test_a_file_is_read_up_to_its_limit(
    content: bytes, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("within") / "a"
    path.write_bytes(content)
    try:
        expected: str | None = content.decode("utf-8") if len(content) <= most else None
    except UnicodeDecodeError:
        expected = None
    if expected is None:
        with pytest.raises(ValueError, match=r"utf-8|at most"):
            read_within(path, most)
    else:
        assert read_within(path, most) == expected


def test_the_header_of_a_safetensors_file_that_nests_too_deep_is_one_error(tmp_path: Path) -> None:
    header = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(AutopruneError, match="is no safetensors file"):
        header_of(tmp_path / "a.safetensors")


# ---- packed files -------------------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_that_unpacks_to_very_many_times_its_bytes_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(PACKERS[suffix](bytes(FREE_BYTES + (8 << 20))))
    with pytest.raises(ValueError, match=rf"over {MOST_TIMES} times as many.*if it is one, unpack it"):
        read_bytes(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_repeats_is_read_where_it_is_small(suffix: str, tmp_path: Path) -> None:
    rows = b"text,label\n" + b"the same again and again,1\n" * 100_000
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(PACKERS[suffix](rows))
    assert len(rows) > MOST_TIMES * path.stat().st_size or suffix == ".gz"
    assert read_bytes(path) == rows


# ---- pictures -----------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG that says a size and has hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_a_picture_that_says_it_has_billions_of_pixels_is_not_decoded(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(AutopruneError, match="DecompressionBombError"):
        decoded(png(60_000, 60_000), where="row 0")
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(AutopruneError, match="DecompressionBombError"):
        decoded(str(tmp_path / "a.png"), where="row 0")


def test_json_rows_that_nest_too_deep_are_one_error(tmp_path: Path) -> None:
    nested = "[" * 100_000 + "]" * 100_000
    (tmp_path / "rows.jsonl").write_text(3 * f'{{"text": "x", "label": 1, "n": {nested}}}\n')
    with pytest.raises(AutopruneError, match="nested too deep"):
        read_splits(DataSource(str(tmp_path / "rows.jsonl")))
