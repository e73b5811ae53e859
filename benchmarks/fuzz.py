"""Made-up and damaged inputs by the thousand: does anything crash, is anything lost without a word?

    python -m benchmarks.fuzz [KIND...] [--inputs N] [--seed N] [-o FILE.json]

Inputs are drawn by hypothesis from the strategies that the tests use too. For each kind it counts the inputs
that were tried, accepted and refused (an AutopruneError, one line on the command line), crashes (anything
else that is raised) and silent losses: rows that are neither used nor counted as left out, a budget that is
not what another reading reads, a key of a space file that is not heeded, a damaged export that loads and
answers otherwise, a damaged run that lost trials. Ends with 1 where there is a crash or a silent loss.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
EXAMPLES = 3
"""Crashes and losses of a kind that are kept, each with its input."""
PACKAGES = ("hypothesis", "numpy", "optuna", "pydantic", "pyyaml", "safetensors", "torch", "transformers")

Check = Callable[[Any], str]
Made = Iterator[tuple[some.SearchStrategy[Any], Check]]


@dataclass(frozen=True)
class Kind:
    """A kind of input. inputs: how many are tried where nobody says.

    make: for a folder the strategies of its inputs, each with its check: how an input ended, or an error.
    """

    inputs: int
    make: Callable[[Path], Made]


def _tables(folder: Path) -> Made:
    from tests.tasks.made_tables import check_file, check_table, made_files, made_tables

    yield made_tables(), check_table
    yield made_files(), lambda file: check_file(file, folder)


def _labels(folder: Path) -> Made:
    from tests.tasks.made_tables import check_table, labelled_tables

    yield labelled_tables(), check_table


def _pictures(folder: Path) -> Made:
    from tests.support.made_pictures import check_folder, picture_folders

    yield picture_folders(), lambda files: "accepted" if check_folder(files) else "refused"


def _spaces(folder: Path) -> Made:
    from tests.support.made_spaces import check_space_file, made_spaces

    yield made_spaces(), lambda data: check_space_file(data, folder)


def _budgets(folder: Path) -> Made:
    from tests.support.made_budgets import budget_texts, check_budget

    yield budget_texts, check_budget


def _exports(folder: Path) -> Made:
    from tests.support.made_exports import check_export, damages, make_tiny_export

    for storage, hidden in (("plain", 16), ("entropy", 64)):
        export = make_tiny_export(folder / storage, storage, hidden)
        yield damages(export), lambda damage, export=export: check_export(export, damage, folder / "damaged")


def _runs(folder: Path) -> Made:
    from tests.support.made_runs import check_run, new_run, old_run, run_damages

    for run in (new_run(folder / "made"), old_run()):
        yield run_damages(run), lambda damage, run=run: check_run(run, damage, folder / "damaged")


KINDS = {
    "tables": Kind(2000, _tables),
    "labels": Kind(1500, _labels),
    "pictures": Kind(500, _pictures),
    "spaces": Kind(2500, _spaces),
    "budgets": Kind(3000, _budgets),
    "exports": Kind(1500, _exports),
    "runs": Kind(800, _runs),
}


@dataclass
class Tally:
    """What became of the inputs of a kind. endings: the checks' words for what was no crash and no loss."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    crashes: int = 0
    silent_losses: int = 0
    seconds: float = 0.0
    endings: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)

    def note(self, given: object, check: Check) -> None:
        """Try one input."""
        self.tried += 1
        try:
            ending = check(given)
        except AssertionError as error:
            self.silent_losses += 1
            self._keep("silent loss", given, error)
        except Exception as error:
            self.crashes += 1
            self._keep("crash", given, error)
        else:
            self.endings[ending] = self.endings.get(ending, 0) + 1
            self.refused += ending.startswith("refused")
            self.accepted += not ending.startswith("refused")

    def _keep(self, what: str, given: object, error: Exception) -> None:
        if len(self.examples) < EXAMPLES:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            said = f"{type(error).__name__}: {error}"
            self.examples.append(
                {"what": what, "where": where, "error": f"{said:.500}", "input": f"{given!r:.2000}"}
            )


def tried(kind: Kind, inputs: int, seed: int) -> Tally:
    """Try so many inputs of a kind, shared out equally among its strategies."""
    tally, started = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autoprune-fuzz-") as name:
        os.environ["AUTOPRUNE_CACHE"] = str(Path(name) / "cache")
        made = [*kind.make(Path(name))]
        for k, (strategy, check) in enumerate(made):
            _draw(
                strategy,
                lambda given, check=check: tally.note(given, check),
                _share(inputs, len(made), k),
                seed,
            )
    tally.seconds = round(time.monotonic() - started, 1)
    return tally


def _share(inputs: int, parts: int, k: int) -> int:
    return inputs // parts + (k < inputs % parts)


def _draw(strategy: some.SearchStrategy[Any], use: Callable[[Any], None], inputs: int, seed: int) -> None:
    """Draw so many inputs; `use` raises nothing, so that none is drawn a second time to be made smaller."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(given: Any) -> None:
        use(given)

    if inputs:
        draw()


def table(tallies: dict[str, Tally]) -> list[str]:
    """The counts as lines."""
    heads = ("tried", "accepted", "refused", "crashes", "silent losses")
    lines = [f"{'kind':10}" + "".join(f"{head:>15}" for head in heads) + f"{'seconds':>10}"]
    rows = {
        name: [getattr(tally, head.replace(" ", "_")) for head in heads] for name, tally in tallies.items()
    }
    rows["in all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    seconds = [tally.seconds for tally in tallies.values()]
    for (name, counts), took in zip(rows.items(), [*seconds, sum(seconds)], strict=True):
        lines.append(f"{name:10}" + "".join(f"{count:15}" for count in counts) + f"{took:10.1f}")
    return lines


def main(words: Sequence[str] | None = None) -> int:
    """Try, print and write; 1 where there is a crash or a silent loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}.  [default: all]")
    parser.add_argument("--inputs", type=int, help="Inputs of each kind.  [default: 11,800 in all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args(words)
    if unknown := [name for name in given.kinds if name not in KINDS]:
        parser.error(f"no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    tallies = {}
    for name in given.kinds or KINDS:
        inputs = KINDS[name].inputs if given.inputs is None else given.inputs
        tallies[name] = tried(KINDS[name], inputs, given.seed)
        print("\n".join(table({name: tallies[name]})[1:2]), flush=True)
    print("\n".join(table(tallies)))
    versions = {package: metadata.version(package) for package in PACKAGES}
    record = {"seed": given.seed, "kinds": {name: asdict(tally) for name, tally in tallies.items()}}
    record |= {"python": sys.version.split()[0], "versions": versions}
    given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, tally in tallies.items():
        for example in tally.examples:
            print(f"{name}: {example['what']} at {example['where']}: {example['error']}", file=sys.stderr)
    return int(any(tally.crashes or tally.silent_losses for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
