"""Pictures of a run's report, for the pages that explain it: `python -m docs.generators.pictures RUN`.

Needs playwright, Chromium and Pillow. Colours are cut to 24, so that each file stays small. Look at every
picture before it is committed.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
WIDTH, COLOURS = 1000, 24

SECTIONS = {
    "report-limit": "At a limit of your own",
    "report-front": "Front",
    "report-units": "Units",
    "report-gain": "Gain over baselines",
    "report-classes": "Classes",
    "report-changes": "Answers that changed",
    "report-points": "Two points side by side",
    "report-trials": "Trials and baselines",
    "report-measures": "All measures at once",
    "report-progress": "Progress",
    "report-workers": "Workers",
    "report-rungs": "Rungs",
    "report-sensitivity": "Sensitivity",
}
"""Heading of the section that each picture shows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="A run folder with a report.html.")
    parser.add_argument("names", nargs="*", metavar="PICTURE", help=f"All if none: {', '.join(SECTIONS)}.")
    asked = parser.parse_args()
    page_file = asked.run / "report.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1500}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.wait_for_function("document.querySelector('svg') !== null")
        if not asked.names:
            _save(page.locator("header").first.screenshot(), "report-verdict")
        for name in asked.names or SECTIONS:
            heading = SECTIONS[name]
            section = page.locator(f"section:has(h2:text-is('{heading}'))").first
            _save(section.screenshot(), name)
        browser.close()


def _save(screenshot: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    few = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
