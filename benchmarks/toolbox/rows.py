"""One row of the benchmark: a model at a size limit, searched or exported with one tool."""

from __future__ import annotations

import math
import re
import resource
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from benchmarks.harness import models as zoo
from benchmarks.harness.commands import Bench, Run
from benchmarks.toolbox.small import small_cnn
from benchmarks.toolbox.spaces import shipped, unchanged
from benchmarks.toolbox.tools import DEFAULT, Tool

Figures = dict[str, Any]
Key = tuple[str, int, str, int, bool]
"""Subject, limit in bytes, tool, seed, whether of the check."""
_KEPT = ("name", "number", "rung", "size_bytes", "latency_ms", "accuracy", "test_accuracy", "kl")


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    space: the shipped space's name. float_bytes: of the original's file. limits: bytes, smallest first.
    trials: of a search.
    """

    name: str
    words: tuple[str, ...]
    space: str
    float_bytes: int
    limits: tuple[int, ...]
    trials: int


def subject_of(name: str, folder: Path | None, *, small: bool = False) -> Subject:
    """`demo`: MiniLM on film reviews. `cnn`: the ResNet on digits. `small`: the check's, on fewer.

    `embeddings`: MiniLM's own, of sentences of reviews whose films are in one split each.
    """
    if name == "small" or (name == "cnn" and small):
        model, data = small_cnn(folder)
        words = (str(model), "--dataset", str(data), "--task", "image-classification")
        return Subject(name, words, "resnet", SMALL_BYTES, SMALL_LIMITS, 12)
    if name == "demo":
        return Subject(name, (), "bert", 90_300_000, (3_000_000, 5_000_000, 8_000_000), 16)
    if name == "embeddings":
        return Subject(name, zoo.sentences(folder), "bert", 90_300_000, (5_000_000,), 12)
    model, data = zoo.resnet(folder), zoo.digit_images(folder)
    words = (str(model), "--dataset", str(data), "--task", "image-classification")
    return Subject(name, words, "resnet", CNN_BYTES, CNN_LIMITS, 24)


CNN_BYTES = 2_820_000
SMALL_BYTES, SMALL_LIMITS = 700_000, (35_000, 70_000)
CNN_LIMITS = (140_000, 210_000, 420_000)
"""The smallest is a twentieth of the weights in float32."""


@dataclass(frozen=True)
class Row:
    """What one tool brought.

    best: the model to ship, of a rule the rule's own. closest: of all within the limit the one of least
    divergence. original: the uncompressed model. of_best, of_trials: of `Chosen`. members_bytes: of a family,
    its members' own files. seconds: from start to end; cpu_seconds: of all processes, which a busy machine
    hardly changes; a first search of a model makes what later ones find in the cache.
    """

    subject: str
    limit_bytes: int
    tool: str
    seed: int
    check: bool
    command: str
    best: Figures
    closest: Figures
    original: Figures
    of_best: tuple[int, int] | None
    of_trials: tuple[int, int] | None
    trials: int
    seconds: float
    cpu_seconds: float
    members_bytes: int | None = None
    robustness: Figures | None = None

    @property
    def key(self) -> Key:
        """What a finished row is known by."""
        return self.subject, self.limit_bytes, self.tool, self.seed, self.check

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Inverse of `as_json`, of what a file holds."""
        counts = {name: data[name] and tuple(data[name]) for name in ("of_best", "of_trials")}
        return cls(**{**data, **counts})


@dataclass(frozen=True)
class Plan:
    """How searches are called. few: whether it is the small check."""

    bench: Bench
    seed: int
    words: tuple[str, ...]
    few: bool = False


def measured(plan: Plan, subject: Subject, limit: int, tool: Tool) -> Row:
    """Search or export as a user would, and read what came of it."""
    run = _searched(plan, subject, limit, tool)
    best, before = run.best, _cpu_seconds()
    robustness = run.record.get("robustness")
    members = None
    if tool.baseline is not None:
        best = _rules_own(run, tool.baseline)
    if tool.export:
        best, members = _exported(plan, run, limit, tool)
    counted = tool.count(run)
    seconds = run.record["run"].get("seconds") or math.nan
    return Row(
        subject.name, limit, tool.name, plan.seed, plan.few,
        command=re.sub(r"/\S*/", "", run.command),
        best=_figures(best), closest=_figures(_closest(run, limit)),
        original=_figures(run.baseline("original")),
        of_best=None if counted is None else counted.of_best,
        of_trials=None if counted is None else counted.trials,
        trials=sum(trial["name"] is None for trial in run.trials),
        seconds=round(float(seconds), 1), cpu_seconds=round(_paid(run) + _cpu_seconds() - before, 1),
        members_bytes=members, robustness=robustness,
    )  # fmt: skip


def attempted(plan: Plan, subject: Subject, limit: int, tool: Tool) -> Row | None:
    """A new row; None, with the reason printed, where a command failed."""
    try:
        row = measured(plan, subject, limit, tool)
        if plan.few and tool.edit is not unchanged:
            checked_export(plan, subject, limit, tool)
    except AutopruneError:
        traceback.print_exc()
        return None
    return row


def checked_export(plan: Plan, subject: Subject, limit: int, tool: Tool) -> None:
    """Export the best model for what it was searched for; a fresh process loads it and compares its answers.

    Raises:
        AutopruneError: when the command fails, as where the model is not what was searched.
    """
    run = _searched(plan, subject, limit, tool)
    target = str(run.record["run"]["target"])
    plan.bench.export(run, target)


def run_name(tool: Tool) -> str:
    """What the run of its search is called: tools that differ in what is exported or read share one."""
    return DEFAULT if tool.is_plain else "rules" if tool.baseline else tool.name.replace(" ", "-")


def _searched(plan: Plan, subject: Subject, limit: int, tool: Tool) -> Run:
    """The tool's search; one that is the default search is read again."""
    name = run_name(tool)
    words = [*subject.words, "--budget", f"{limit}B", "--target", "packed", "--seed", str(plan.seed)]
    words += [*plan.words, *tool.flags]
    kind = "check" if plan.few else "full"
    space = tool.edit(shipped(subject.space))
    if space != shipped(subject.space):
        path = plan.bench.work / f"{subject.name}-{kind}-{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(space, sort_keys=False), encoding="utf-8")
        words += ["--space", str(path)]
    before = _cpu_seconds()
    run = plan.bench.search(
        f"{subject.name}-{kind}-{limit}-{name}-{plan.seed}", *words, trials=subject.trials
    )
    write_json(_paid_file(run), {"cpu_seconds": _paid(run) + _cpu_seconds() - before})
    return run


def _paid_file(run: Run) -> Path:
    """Where the CPU seconds of a search lie, which several rows may read."""
    return run.path.with_name(f"{run.name}.cpu.json")


def _paid(run: Run) -> float:
    path = _paid_file(run)
    return float(read_json(path)["cpu_seconds"]) if path.is_file() else 0.0


def _rules_own(run: Run, baseline: str) -> Figures:
    """The rule's model, trained as long as finalists where that is there."""
    named = [trial for name, trial in run.baselines.items() if name.startswith(baseline)]
    if not named:
        raise AutopruneError(f"{run.path} has no baseline {baseline}: it has {', '.join(run.baselines)}")
    return min(named, key=lambda trial: trial["kl"])


def _exported(plan: Plan, run: Run, limit: int, tool: Tool) -> tuple[Figures, int | None]:
    """The export's figures, and of a family the bytes of its members' own files."""
    count = 2 if plan.few else 3
    words = {"count": count, "together": f"{count * limit}B", "any": f"{100 * limit}B"}
    flags = [word.format(**words) for word in tool.export]
    folder = plan.bench.export(run, "packed", *flags, name=tool.name.replace(" ", "-"))
    about = read_json(folder / "autoprune.json")
    if (family := about.get("family")) is not None:
        members = sum(member["size_bytes"] for member in family["members"])
        return run.best | {"size_bytes": family["file_bytes"]}, members
    if (several := about.get("ensemble")) is not None:
        size = sum(member["size_bytes"] for member in several["members"])
        return run.best | {"size_bytes": size, "kl": None} | several[several["average"]], None
    return run.best | {"size_bytes": int(about["validated"]["size_bytes"])}, None


def _closest(run: Run, limit: int) -> Figures:
    within = [t for t in run.trials if t["state"] == "COMPLETE" and t["size_bytes"] <= limit]
    return min(within, key=lambda trial: trial["kl"])


def _figures(trial: Figures) -> Figures:
    return {key: trial.get(key) for key in _KEPT}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
