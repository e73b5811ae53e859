"""How large is a report, how long does a browser take to open it, and does it ask for anything?

    python -m benchmarks.report [--trials 500 1000] [--check] [-o FILE.json]

Reports of searches over simulated workers (`benchmarks.scale`): the real loop, study and files, 38 units.
Each page is opened three times in headless Chromium; told are the median seconds until it is loaded, which a
busy machine stretches, and those that the page's own thread worked, which it does not. `--check` ends with 1
where a limit does not hold. Needs playwright and chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from autoprune.pipeline.trials import run_trials
from autoprune.report import write_report
from autoprune.run.folder import FRONT
from benchmarks.harness.claim import Claim
from benchmarks.scale.simulated import UNITS, open_simulated

RESULTS = Path(__file__).parent / "results" / "report.json"
PACKAGES = ("autoprune", "jinja2", "playwright")
MOST_BYTES, MOST_SECONDS, TIMES, WORKERS = 1_500_000, 2.0, 3, 8
PATIENCE_MS = 600_000
"""How long a page is waited for at most."""


def report_of(folder: Path, trials: int) -> tuple[Path, int, float]:
    """The report of a simulated search of so many candidates; its trials, and seconds to write it."""
    search, _ = open_simulated(folder, workers=WORKERS, trials=trials, model_bytes=1000)
    run_trials(search)
    search.ledger.sum_up(state="finished")
    search.study.close()
    front = json.loads((folder / FRONT).read_text(encoding="utf-8"))
    begun = time.process_time()
    write_report(front, folder / "report.html")
    return folder / "report.html", len(front["trials"]), time.process_time() - begun


def opened(page: Any, path: Path) -> dict[str, float]:
    """Seconds until a page is loaded, and those that its thread worked on script, style and layout."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    numbers = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    return {"loaded": loaded, "worked": numbers["TaskDuration"], "script": numbers["ScriptDuration"]}


def measure(browser: Any, folder: Path, trials: int) -> dict[str, Any]:
    """What is told of a report of so many trials."""
    path, rows, seconds = report_of(folder, trials)
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.on("request", lambda request: asked.append(request.url))
    times = [opened(page, path) for _ in range(TIMES)]
    page.close()
    median = {name: round(statistics.median(row[name] for row in times), 3) for name in times[0]}
    return {
        "candidates": trials,
        "trials": rows,
        "units": UNITS,
        "bytes": path.stat().st_size,
        "write_seconds": round(seconds, 2),
        "seconds": median,
        "requests": len([url for url in asked if url != path.as_uri()]),
    }


def claims(reports: list[dict[str, Any]]) -> list[Claim]:
    """The limits of the report."""
    small = [row for row in reports if row["candidates"] <= 500]
    return [
        Claim(
            "A report of 500 trials is at most 1.5 MB.",
            ", ".join(f"{row['candidates']:,}: {row['bytes'] / 1e6:.2f} MB" for row in small),
            all(row["bytes"] <= MOST_BYTES for row in small),
        ),
        Claim(
            "It opens in at most 2 seconds.",
            ", ".join(
                f"{row['candidates']:,}: loaded after {row['seconds']['loaded']:.2f} s, "
                f"{row['seconds']['worked']:.2f} s of work"
                for row in reports
            ),
            all(row["seconds"]["worked"] <= MOST_SECONDS for row in reports),
        ),
        Claim(
            "It asks for nothing.",
            ", ".join(f"{row['candidates']:,}: {row['requests']} requests" for row in reports),
            all(row["requests"] == 0 for row in reports),
        ),
    ]


def main() -> int:
    """Measure, print, write; 1 where a limit does not hold and --check is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        chromium = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu"],
            timeout=PATIENCE_MS,
        )
        reports = [measure(chromium, Path(folder) / str(count), count) for count in options.trials]
        about = {"chromium": chromium.version} | {name: metadata.version(name) for name in PACKAGES}
        chromium.close()
    held = claims(reports)
    print(*held, sep="\n")
    options.output.write_text(json.dumps({"versions": about, "reports": reports}, indent=1) + "\n")
    return 1 if options.check and not all(claim.holds for claim in held) else 0


if __name__ == "__main__":
    sys.exit(main())
