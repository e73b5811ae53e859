"""One architecture through the whole pipe: its space, removal against masking, and three targets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.models.loading import Loaded
from autoprune.pipeline.held_together import held_together
from autoprune.run.config import Config
from autoprune.targets import get_target
from tests.support.families import EVERY, Case, draft_of, made, make_case, task_of
from tests.support.family_checks import answers, gap, halved, lowered, masked, mixed, on_target

TARGETS = ("openvino", "onnx", "packed")
SHIPPED, DRAFTED, REFUSED = "shipped", "drafted", "refused"

CANDIDATES = {"halved": halved, "mixed": mixed}
"""What is saved: half of all that can be removed gone and half floats, which no runtime rounds; and levels of
every sort in turn (2 to 16 bits, 8-bit activations, removed parts), as near as a target has them."""


@dataclass(frozen=True)
class Saved:
    """Candidates on one target, by name: bytes, and how far answers are off, in their spread.

    refusal: why the target does not take the model; empty where it does.
    """

    predicted_bytes: Mapping[str, int] = field(default_factory=dict)
    saved_bytes: Mapping[str, int] = field(default_factory=dict)
    off: Mapping[str, float] = field(default_factory=dict)
    refusal: str = ""


@dataclass(frozen=True)
class Row:
    """What was found of one architecture.

    parts: units that lose something, by what they lose. stored: units that are stored in fewer bits alone.
    left: layers of a draft that are in no unit, by the reason. kept: those of which no part can go, with `*`
    for numbers, by the reason. masked_against_removed: the largest
    difference, of the largest answer; None where nothing is removed. refusal: why it does not go through.
    """

    family: str
    model: str
    task: str
    status: str
    space: str = ""
    parameters: int = 0
    units: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)
    stored: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, list[str]] = field(default_factory=dict)
    masked_against_removed: float | None = None
    targets: Mapping[str, Saved] = field(default_factory=dict)
    refusal: str = ""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Inverse of `as_json`."""
        targets = {name: Saved(**saved) for name, saved in data["targets"].items()}
        return cls(**{**data, "targets": targets})


def measure(name: str, folder: Path) -> Row:
    """Take one of the tests' families through the pipe; `folder` is empty."""
    family = EVERY[name]
    status = SHIPPED if family.space else DRAFTED
    model = type(family.plain()).__name__
    try:
        loaded = Loaded(made(name)[1], None, True, family.architecture)
        held_together(Config.of(model=name), loaded, task_of(family))
        (folder / "library").mkdir()
        case = make_case(name, folder / "library")
    except AutopruneError as error:
        return Row(name, model, family.kind.name, REFUSED, refusal=_line(error))
    units = case.tiny.units
    prunable = [unit for unit in units if unit.prunable]
    targets = {target: _saved(case, target, folder) for target in TARGETS}
    refusals = {saved.refusal for saved in targets.values()}
    return Row(
        name,
        model,
        family.kind.name,
        status if "" in refusals else REFUSED,
        space=f"{family.space}.yaml" if family.space else "",
        parameters=sum(parameter.numel() for parameter in case.tiny.model.parameters()),
        units=len(units),
        parts=dict(Counter(unit.removed for unit in prunable)),
        stored=len(units) - len(prunable),
        left={} if family.space else _left(name),
        kept={} if family.space else kept_whole(name),
        masked_against_removed=_difference(case) if prunable else None,
        targets=targets,
    )


def _left(name: str) -> dict[str, int]:
    """Layers that a draft has in no unit, by the reason."""
    counts: Counter[str] = Counter()
    for left in draft_of(name).left:
        if not left.stored:
            counts[_starred(left.why)] += len(left.paths)
    return dict(counts)


def kept_whole(name: str) -> dict[str, list[str]]:
    """Layers of a draft of which no part can go, with `*` for numbers, by the reason."""
    kept: dict[str, dict[str, None]] = {}
    for left in draft_of(name).left:
        if left.stored:
            why = _starred(left.why.partition(" (The size")[0].partition(" (output with")[0])
            kept.setdefault(why, {}).update(dict.fromkeys(map(_starred, left.paths)))
    return {why: list(paths) for why, paths in kept.items()}


def _starred(text: str) -> str:
    """With `*` for the numbers in module paths."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", text)


def _difference(case: Case) -> float:
    stitched = case.tiny.stitched_as(lowered(case, 0.5))
    return gap(answers(case, stitched.model), answers(case, masked(case, stitched)))


def _saved(case: Case, name: str, folder: Path) -> Saved:
    """All candidates on a target; the first that it refuses tells why."""
    target = get_target(name, builder=case.architecture.builder)
    done = {}
    for which, candidate in CANDIDATES.items():
        try:
            done[which] = on_target(case, target, candidate(case), folder / f"{name}-{which}")
        except AutopruneError as error:
            return Saved(refusal=_line(error))
    return Saved(
        {which: saved.predicted_bytes for which, saved in done.items()},
        {which: saved.saved_bytes for which, saved in done.items()},
        {which: saved.off for which, saved in done.items()},
    )


def _line(error: AutopruneError) -> str:
    """A refusal without the folders of this run."""
    return " ".join(str(error).split())
