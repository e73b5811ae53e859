"""Charts that are saved from the page: real SVG and PNG files, whole and harmless."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.report.test_progress import timed
from tests.report.test_report import HOSTILE, Json, climbed, hostile, synthetic

CHARTS = {
    "chart": ("front", "Size, MB (log)"), "parallel": ("measures", "Latency"),
    "progress": ("progress", "Trials of the search"), "scatter": ("prediction", "Predicted KL"),
    "timeline": ("workers", "worker-1"),
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"
ALLOWED = {
    *("svg", "g", "path", "line", "rect", "circle", "text", "title", "defs", "clipPath"),
}


def saved(page: Any, chart: str, kind: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(f"[data-saves={chart}] button[data-kind={kind}]")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_each_chart_is_saved_as_it_is_seen(visit: Callable[[Json], Any], tmp_path: Path) -> None:
    page = visit(timed(climbed(synthetic())))
    for chart, (name, text) in CHARTS.items():
        file, content = saved(page, chart, "svg")
        assert file == f"minilm-20MB-{name}.svg"
        root = ElementTree.fromstring(content)
        tags = {node.tag.removeprefix(SVG) for node in root.iter()}
        assert root.tag == f"{SVG}svg"
        assert tags <= ALLOWED
        names = {key for node in root.iter() for key in node.attrib}
        assert not {key for key in names if key in ("class", "style", "role") or key.startswith("on")}
        assert root[0].text is not None
        assert root[0].text.startswith("minilm-20MB: ")
        assert text in "".join(root.itertext())
        assert not any("rgba" in value for node in root.iter() for value in node.attrib.values())
        size = [int(root.attrib[side]) for side in ("width", "height")]
        file, content = saved(page, chart, "png")
        assert file == f"minilm-20MB-{name}.png"
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert list(struct.unpack(">II", content[16:24])) == [2 * side for side in size]
        assert len(content) > 5000  # drawn, not one colour


def test_a_saved_picture_has_the_colours_of_the_page(visit: Callable[[Json], Any], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    page = visit(timed(climbed(synthetic())))
    for scheme, ground in (("light", (255, 255, 255)), ("dark", (0x14, 0x17, 0x1A))):
        page.emulate_media(color_scheme=scheme)
        (tmp_path / "a.png").write_bytes(saved(page, "progress", "png")[1])
        with image.open(tmp_path / "a.png") as picture:
            colours = dict(reversed(pair) for pair in picture.convert("RGB").getcolors(10**6))
        assert max(colours, key=colours.__getitem__) == ground
        assert any(blue > red + 60 for red, _, blue in colours)  # the curve


def test_a_run_with_a_hostile_name_is_saved_under_a_plain_one(visit: Callable[[Json], Any]) -> None:
    page = visit(timed(hostile(climbed(synthetic()))))
    for chart in CHARTS:
        file, content = saved(page, chart, "svg")
        assert file == f"img-src-x-onerror-window.hacked-1-{CHARTS[chart][0]}.svg"
        root = ElementTree.fromstring(content)
        assert {node.tag.removeprefix(SVG) for node in root.iter()} <= ALLOWED
        assert root[0].text is not None
        assert root[0].text.startswith(HOSTILE[0])
    assert page.evaluate("window.hacked") is None
