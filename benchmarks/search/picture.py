"""The picture of a comparison: hypervolume over trials and over time, a line a search, a band over its seeds.

Drawn as SVG by hand and turned into PNG by the browser that the report's tests use.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.search.methods import METHODS
from benchmarks.search.race import Curve

# Okabe and Ito's palette, which the colour-blind can tell apart (jfly.uni-koeln.de/color).
COLOURS = dict(
    zip(
        METHODS,
        ("#D55E00", "#000000", "#009E73", "#8C8C8C", "#0072B2", "#CC79A7", "#B8860B"),
        strict=True,
    )
)
LABELS = {
    "autoprune": "autoprune", "solver": "solver only", "evolution": "EvoPress-style",
    "random": "random", "tpe": "TPE", "nsga2": "NSGA-II", "gp": "GP",
}  # fmt: skip
TITLES = {"minilm": "MiniLM on film reviews", "digits": "Small transformer on digits"}

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 400, 58, 118, 60, 48
LINE = 15
"""Least distance of two labels."""

GRID = 160
"""Moments at which the scores over time are looked up."""

Curves = Mapping[str, Sequence[Curve]]
Place = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One search: where it was looked at, and the least, median and most of its seeds there."""

    at: Sequence[float]
    low: Sequence[float]
    middle: Sequence[float]
    high: Sequence[float]

    @classmethod
    def of(cls, at: Sequence[float], rows: Sequence[Sequence[float]]) -> Line:
        """From the scores of all seeds at each place."""
        return cls(at, [min(v) for v in rows], [median(v) for v in rows], [max(v) for v in rows])


def draw(arenas: Mapping[str, Curves], references: Mapping[str, float], path: Path) -> None:
    """Write `path` (PNG) and the same as SVG beside it: over trials above, over seconds below."""
    panels = []
    for k, (name, curves) in enumerate(arenas.items()):
        for row, panel in enumerate((_over_trials, _over_seconds)):
            drawn = panel(name, curves, references.get(name))
            panels.append(f'<g transform="translate({k * WIDTH} {row * HEIGHT})">{drawn}</g>')
    width, height = WIDTH * len(arenas), HEIGHT * 2
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" font-size="12" '
        f'fill="#222"><rect width="{width}" height="{height}" fill="white"/>{"".join(panels)}</svg>\n'
    )
    path.with_suffix(".svg").write_text(svg, encoding="utf-8")
    _rasterise(svg, path, width, height)


def _over_trials(name: str, curves: Curves, reference: float | None) -> str:
    trials = max(len(curve.run.names) for seeds in curves.values() for curve in seeds)
    at = range(1, trials + 1)
    lines = {
        m: Line.of(at, [[curve.at("plane", k) for curve in seeds] for k in at]) for m, seeds in curves.items()
    }
    step = 20 if trials > 40 else 5

    def x(trial: float) -> float:
        return LEFT + (trial - 1) / max(trials - 1, 1) * (WIDTH - LEFT - RIGHT)

    many = max(map(len, curves.values()))
    words = f"median and range of {many} seeds" if many > 1 else "one seed"
    return _panel(
        (TITLES[name], f"hypervolume in (bytes, log KL), {words}; higher is better", "trials"),
        lines, x, {k: str(k) for k in (1, *range(step, trials + 1, step))}, reference,
    )  # fmt: skip


def _over_seconds(name: str, curves: Curves, reference: float | None) -> str:
    ends = [curve.run.seconds for seeds in curves.values() for curve in seeds]
    first, last = min(seconds[0] for seconds in ends), max(seconds[-1] for seconds in ends)
    at = [first * (last / first) ** (k / (GRID - 1)) for k in range(GRID)]
    lines = {}
    for method, seeds in curves.items():
        own = [t for t in at if t >= min(curve.run.seconds[0] for curve in seeds)]
        lines[method] = Line.of(own, [[curve.at_seconds("plane", t) for curve in seeds] for t in own])

    def x(second: float) -> float:
        return LEFT + math.log(second / first) / math.log(last / first) * (WIDTH - LEFT - RIGHT)

    decades = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    return _panel(
        ("", "the same over time; a search that has ended stays where it was", "seconds, one core"),
        lines, x, {10.0**k: f"{10.0**k:g}" for k in decades}, reference,
    )  # fmt: skip


def _panel(
    words: tuple[str, str, str],
    lines: Mapping[str, Line],
    x: Place,
    ticks: Mapping[float, str],
    reference: float | None,
) -> str:
    """Words: title, what is shown, name of the axis."""
    top = max([*(max(line.high) for line in lines.values()), reference or 0.0]) * 1.05
    left, right = LEFT, WIDTH - RIGHT

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<text x="{left}" y="24" font-size="16" font-weight="bold">{words[0]}</text>',
        f'<text x="{left}" y="43" fill="#555">{words[1]}</text>',
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{words[2]}</text>',
    ]
    for k in range(int(top * 10) + 1):
        out.append(f'<path d="M{left} {y(k / 10):.1f}H{right}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{left - 8}" y="{y(k / 10) + 4:.1f}" text-anchor="end">{k / 10:.1f}</text>')
    for tick, name in ticks.items():
        out.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>')
    labels = {LABELS[method]: (y(line.middle[-1]), COLOURS[method]) for method, line in lines.items()}
    if reference is not None:
        out.append(f'<path d="M{left} {y(reference):.1f}H{right}" stroke="#555" stroke-dasharray="2 4"/>')
        labels["10,000 measured"] = (y(reference), "#555")
    for method in sorted(lines, key=lambda one: one == METHODS[0]):  # ours on top
        out.append(_band(lines[method], COLOURS[method], x, y, bold=method == METHODS[0]))
    return "".join([*out, *_labels(labels, right + 8)])


def _band(line: Line, colour: str, x: Place, y: Place, *, bold: bool) -> str:
    low, middle, high = (
        [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(line.at, row, strict=True)]
        for row in (line.low, line.middle, line.high)
    )
    return (
        f'<polygon points="{" ".join([*high, *reversed(low)])}" fill="{colour}" fill-opacity="0.15"/>'
        f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" '
        f'stroke-width="{3 if bold else 1.8}"/>'
    )


def _labels(wanted: Mapping[str, tuple[float, str]], x: float) -> list[str]:
    """Labels at their heights, moved apart where they would overlap."""
    order = sorted(wanted, key=lambda one: wanted[one][0])
    places = [wanted[label][0] for label in order]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + LINE)
    over = max(places[-1] - (HEIGHT - BOTTOM), 0.0) if places else 0.0
    for k in reversed(range(len(places))):
        limit = places[k + 1] - LINE if k + 1 < len(places) else places[k] - over
        places[k] = min(places[k], limit)
    return [
        f'<text x="{x:.1f}" y="{place + 4:.1f}" fill="{wanted[label][1]}">{label}</text>'
        for label, place in zip(order, places, strict=True)
    ]


def _rasterise(svg: str, path: Path, width: int, height: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2)
        page.set_content(f'<body style="margin:0">{svg}</body>')
        page.screenshot(path=path)
        browser.close()


def _chromium() -> str | None:
    """A browser of this machine; None takes playwright's own."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)
