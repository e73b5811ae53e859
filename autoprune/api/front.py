"""A run's result as objects: its front, and the points to ship.

Sizes are in bytes as `stat` gives them, times in milliseconds, scores in the units of the run's metric
(accuracy in percent). Everything is read from the run folder; nothing is measured again.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.core.errors import AutopruneError
from autoprune.core.files import fields_of
from autoprune.core.progress import Progress
from autoprune.run.folder import FRONT, run_config
from autoprune.run.front_schema import Front as FrontRecord
from autoprune.run.front_schema import TrialRow, checked_front
from autoprune.run.kept_models import kept_artifact
from autoprune.run.short_rows import level_rows, whole_row
from autoprune.run.status import read_front_file
from autoprune.space.levels import Level
from autoprune.space.point_names import by_trial
from autoprune.tasks.metrics import Metric

if TYPE_CHECKING:
    import pandas

    from autoprune.export.from_run import Exported


@dataclass(frozen=True)
class Point:
    """One model of a run: a trial or a baseline.

    number: of the trial. names: what it is among the points to ship, as `("best", "smallest")`.
    baseline: its name where it is one. size_bytes: of the files that the runtime opens. latency_ms: the
    median of a call, low and high its 10th and 90th percentile. accuracy, test_accuracy: the score on
    validation and on test. kl: divergence of its validation answers from the teacher's, nats. levels: of each
    unit. What was not measured is None.
    """

    run: Path
    number: int
    names: tuple[str, ...]
    baseline: str | None
    size_bytes: int | None
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    accuracy: float | None
    test_accuracy: float | None
    kl: float | None
    failure: str | None
    on_front: bool
    within_budget: bool
    levels: Mapping[str, Level] = field(repr=False)

    def export(
        self,
        folder: str | Path,
        *,
        target: str | None = None,
        storage: str | None = None,
        quiet: bool = True,
    ) -> Exported:
        """Write this model, ready to ship, and check it in a fresh process.

        Args:
            folder: to write; must not exist.
            target: as `autoprune export --target`; None is the run's.
            storage: plain, or entropy for target packed; None is as the search counted bytes, and plain for
                another target.

        Raises:
            AutopruneError: for a target, storage or folder that cannot be.
            ValidationError: when what was written is not what was searched; it is kept as `<folder>.failed`.
        """
        from autoprune.export.from_run import export

        searched = run_config(self.run).search
        target = target or searched.target
        return export(
            self.run,
            which=str(self.number),
            budget=None,
            target=target,
            storage=storage or searched.storage_on(target),
            folder=Path(folder),
            progress=Progress(quiet=quiet),
        )

    def load(self) -> Any:
        """This model as a torch module, with the weights that the run kept.

        Raises:
            AutopruneError: where the run did not keep it: models that left the front are not; export those.
        """
        from autoprune.pipeline.named import names_builder
        from autoprune.targets.packed import read_packed

        kept = kept_artifact(self.run, self.number)
        if kept is None:
            raise AutopruneError(
                f"trial {self.number} of {self.run} was not kept, since it is not on the front: "
                "export it, which makes it again, and load that"
            )
        name = run_config(self.run).model.name
        builder = name if name is not None and names_builder(name) else None
        return read_packed(kept, builder=builder).model


class Front:
    """The Pareto front of a run, and all that was tried on the way.

    Iterates over the points of the front from the smallest on; `front[12]` is trial 12, on the front or not;
    `front.best` and its like are the points to ship (`autoprune export --trial` describes them).
    """

    def __init__(self, run: str | Path) -> None:
        """Read the front of a run folder.

        Raises:
            AutopruneError: when it is none, has no trials yet, or is damaged.
        """
        self.run = Path(run)
        record = read_front_file(self.run)
        with fields_of(self.run / FRONT):
            levels = level_rows(record)
            rows = [whole_row(trial, levels) for trial in record["trials"]]
        self.record: FrontRecord = checked_front({**record, "trials": rows})
        """All of `front.json`, typed."""
        numbers = self.record.points or {"best": self.record.best, "knee": self.record.knee}
        self._numbers: Mapping[str, int | None] = numbers
        names = by_trial(numbers)
        self._points = {
            row.number: _point(self.run, row, names.get(row.number, [])) for row in self.record.trials
        }

    @property
    def best(self) -> Point:
        """The smallest or fastest that is as accurate as the most accurate within the budget."""
        return self._named("best")

    @property
    def accurate(self) -> Point:
        """The most accurate within the budget."""
        return self._named("accurate")

    @property
    def small(self) -> Point:
        """The smallest that is as accurate as the most accurate."""
        return self._named("small")

    @property
    def fast(self) -> Point:
        """The fastest that is as accurate as the most accurate."""
        return self._named("fast")

    @property
    def knee(self) -> Point:
        """Where the front bends: less size from there on costs much accuracy."""
        return self._named("knee")

    @property
    def original(self) -> Point:
        """The uncompressed model."""
        row = self.record.original
        if row is None:
            raise AutopruneError(f"run {self.run} has not measured its original model yet")
        return self._points[row.number]

    @property
    def trials(self) -> list[Point]:
        """All that was tried, baselines and failures too, by number."""
        return [self._points[number] for number in sorted(self._points)]

    @property
    def metric(self) -> Metric:
        """What `accuracy` holds: its name, unit and which way is better."""
        return self.record.run.metric

    @property
    def report(self) -> Path:
        """The report, a page for any browser."""
        return self.run / "report.html"

    def __getitem__(self, number: int) -> Point:
        if number not in self._points:
            raise AutopruneError(
                f"run {self.run} has no trial {number!r}: give 0 to {max(self._points, default=0)}"
            )
        return self._points[number]

    def __iter__(self) -> Iterator[Point]:
        members = [self._points[number] for number in self.record.front]
        return iter(sorted(members, key=lambda point: (point.size_bytes or 0, point.number)))

    def __len__(self) -> int:
        return len(self.record.front)

    def __repr__(self) -> str:
        best = self._numbers.get("best")
        return f"Front({str(self.run)!r}, {len(self)} points of {len(self._points)} trials, best {best})"

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each trial, by number: the measures of `Point`, and ratio and storage of every unit."""
        import pandas

        rows = []
        for point in self.trials:
            row = {name: getattr(point, name) for name in _COLUMNS}
            row["names"] = ", ".join(point.names)
            for unit, level in point.levels.items():
                row |= {f"{unit}.ratio": level.ratio, f"{unit}.storage": level.storage.name}
            rows.append(row)
        return pandas.DataFrame(rows).set_index("number")

    def plot(self, axes: Any = None) -> Any:
        """Draw score against size, the front and its named points; gives matplotlib's axes.

        Raises:
            AutopruneError: where matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise AutopruneError(
                "a plot needs matplotlib: pip install 'autoprune[plot]'. The report has a front to look at "
                f"without it: {self.report}"
            ) from error
        axes = pyplot.subplots()[1] if axes is None else axes
        measured = [(p, p.size_bytes / 1e6, p.accuracy) for p in self.trials
                    if p.size_bytes is not None and p.accuracy is not None]  # fmt: skip
        for members, look in (
            ([row for row in measured if not row[0].on_front], {"color": "0.7", "label": "other trials"}),
            ([row for row in measured if row[0].on_front], {"color": "tab:blue", "label": "front"}),
        ):
            axes.scatter([x for _, x, _ in members], [y for _, _, y in members], **look)
        for point, x, y in measured:
            if point.names:
                axes.annotate(
                    f"#{point.number} {point.names[0]}", (x, y), textcoords="offset points", xytext=(5, 5)
                )
        axes.set(xscale="log", xlabel="MB", ylabel=self.metric.label)
        axes.legend()
        return axes

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>" for name in ("point", "MB", "ms", html.escape(self.metric.label), "test")
        )
        rows = "".join(_html_row(point, self.metric) for point in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def _named(self, name: str) -> Point:
        number = self._numbers.get(name)
        if number is None:
            raise AutopruneError(f"run {self.run} has no {name} point: no trial is within its budget")
        return self._points[number]


_COLUMNS = (
    "number", "names", "baseline", "size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms",
    "accuracy", "test_accuracy", "kl", "failure", "on_front", "within_budget",
)  # fmt: skip


def _point(run: Path, row: TrialRow, names: list[str]) -> Point:
    levels = {unit: Level(level.ratio, level.storage) for unit, level in (row.levels or {}).items()}
    same = ("number", "size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms", "accuracy",
            "test_accuracy", "kl", "failure", "on_front", "within_budget")  # fmt: skip
    return Point(
        run=run,
        names=tuple(names),
        baseline=row.name,
        levels=levels,
        **{name: getattr(row, name) for name in same},
    )


def _html_row(point: Point, metric: Metric) -> str:
    name = f"#{point.number} {', '.join(point.names) or point.baseline or ''}"
    size = "" if point.size_bytes is None else f"{point.size_bytes / 1e6:.2f}"
    time = "" if point.latency_ms is None else f"{point.latency_ms:.2f}"
    scores = ["" if value is None else metric.text(value) for value in (point.accuracy, point.test_accuracy)]
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, size, time, *scores)) + "</tr>"
