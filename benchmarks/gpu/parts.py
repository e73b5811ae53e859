"""One part of the run, in a process of its own: `python -m benchmarks.gpu.parts NAME SETUP FIGURES SECONDS`.

What it finds it writes to the file FIGURES as it goes; an error is written there too, and is its exit code 1.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.setup import Setup

ERROR = "error"


@dataclass(frozen=True)
class Part:
    """One question. module: of this package, whose `measure` answers it. given: what that is told besides.

    least, most: seconds that it needs for a figure, and that it may take.
    """

    name: str
    module: str
    least: float
    most: float
    given: dict[str, Any] = field(default_factory=dict)


def parts_of(setup: Setup) -> list[Part]:
    """In the order of what is asked first: whether it works, whether it is right, how fast it is."""
    first = setup.targets[0]
    parts = [
        Part("machine", "machine", 5, 40),
        Part(f"prepare-{first}", "searches", 30, 200, _search(first, setup.preparers, 1)),
        Part("devices", "devices", 20, 100),
        Part("speed", "speed", 30, 110),
    ]
    searches = [
        Part(f"search-{target}-{workers}", "searches", 45, 100, _search(target, workers, setup.trials))
        for target in setup.targets
        for workers in setup.workers
    ]
    return [replace(part, most=part.most * setup.patience) for part in (*parts, *searches)]


def chosen(parts: Sequence[Part], names: Collection[str]) -> list[Part]:
    """Parts of some names, in their order; all where no name is given.

    Raises:
        AutopruneError: for a name that is none.
    """
    if unknown := sorted(set(names) - {part.name for part in parts}):
        known = ", ".join(part.name for part in parts)
        raise AutopruneError(f"there is no part {', '.join(unknown)}; choose of {known}")
    return [part for part in parts if not names or part.name in names]


def _search(target: str, workers: int, trials: int) -> dict[str, Any]:
    return {"target": target, "workers": workers, "trials": trials}


def main() -> None:
    """Answer one part."""
    name, setup_path, figures_path, seconds = sys.argv[1:]
    setup = Setup.from_text(Path(setup_path).read_text(encoding="utf-8"))
    [part] = [part for part in parts_of(setup) if part.name == name]
    given = dict(part.given)
    if part.module == "searches":
        given |= {"name": part.name, "limit": float(seconds)}
    figures = Figures(Path(figures_path))
    try:
        importlib.import_module(f"benchmarks.gpu.{part.module}").measure(setup, figures, **given)
    except Exception:
        figures.note(**{ERROR: traceback.format_exc()[-6000:]})
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
