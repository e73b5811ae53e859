"""A family of models that is loaded: one member answers, and another takes its place when it is told to."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.export.arrays import taking_arrays
from autoprune.export.export_record import FamilyRecord, MemberRecord
from autoprune.space.budget import Budget, megabytes, parse_budget
from autoprune.targets import Runner
from autoprune.targets.packed import Packed, read_packed
from autoprune.targets.packed_family import FAMILY, FamilyFile


@dataclass(frozen=True)
class ServedMember:
    """One member of a family, opened as a target opens a model. builder: as of `load`."""

    name: str
    builder: str | None = None

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The member as a runner; its own file is made in a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="autoprune-") as place:
            FamilyFile.open(folder / FAMILY).write_member(self.name, Path(place))
            return Packed(builder=self.builder).load(Path(place), threads=threads)

    def defaults(self) -> None:
        """None: autoprune itself runs it."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The family's one file."""
        return [folder / FAMILY]


class FamilyModel:
    """The member of a family that answers, and the means to have another answer.

    Call it as a transformers model, with tensors or arrays; what else it is asked for is the module's of the
    member. A call that runs while `switch` is called ends with the member that it began with.
    """

    def __init__(self, folder: Path, family: FamilyRecord, budget: Budget, builder: str | None) -> None:
        self._file, self._family, self._builder = FamilyFile.open(folder / FAMILY), family, builder
        self._current = self._made(choose_member(family.members, budget))

    @property
    def members(self) -> tuple[MemberRecord, ...]:
        """All members, smallest first."""
        return self._family.members

    @property
    def member(self) -> MemberRecord:
        """The one that answers."""
        return self._current[0]

    @property
    def model(self) -> Any:
        """The torch module that answers."""
        return self._current[1]

    def switch(
        self, *, budget: str | None = None, latency: str | None = None, member: str | None = None
    ) -> MemberRecord:
        """Have the most accurate member within limits answer from now on, or the one named; returns it.

        Args:
            budget: most bytes of its own file, as `6MB`. latency: most milliseconds, as `5ms`, of what was
                measured when the family was exported.

        Raises:
            AutopruneError: for limits that are none, or a name that no member has.
            BudgetError: when no member is within them.
        """
        if member is None:
            chosen = choose_member(self.members, limits_of(budget, latency))
        elif budget is not None or latency is not None:
            raise AutopruneError("switch takes limits, or the name of a member, and not both")
        else:
            known = {one.name: one for one in self.members}
            if member not in known:
                raise AutopruneError(f"the family has no member {member!r}; it has {', '.join(known)}")
            chosen = known[member]
        if chosen.name != self.member.name:
            self._current = self._made(chosen)
        return chosen

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        return self.model(*arguments, **inputs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def _made(self, member: MemberRecord) -> tuple[MemberRecord, Any]:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as place:
            self._file.write_member(member.name, Path(place))
            return member, taking_arrays(read_packed(Path(place), builder=self._builder).model)


def limits_of(budget: str | None, latency: str | None) -> Budget:
    """Limits as they are given to `load`: of bytes, and of milliseconds.

    >>> limits_of("6MB", "5ms")
    Budget(size_bytes=6000000, latency_ms=5.0)

    Raises:
        AutopruneError: for what is no such limit.
    """
    size = Budget() if budget is None else parse_budget([budget])
    time = Budget() if latency is None else parse_budget([latency])
    if size.latency_ms is not None or time.size_bytes is not None:
        raise AutopruneError(
            f"budget={budget!r}, latency={latency!r}: budget is a size, such as '6MB', and latency a time, "
            "such as '5ms'"
        )
    return Budget(size.size_bytes, time.latency_ms)


def choose_member(members: Sequence[MemberRecord], budget: Budget) -> MemberRecord:
    """The most accurate member within a budget; of equals the smallest.

    Raises:
        BudgetError: when none is.
    """
    fitting = [one for one in members if budget.allows(one.size_bytes, one.latency_ms or 0.0)]
    if not fitting:
        smallest = min(one.size_bytes for one in members)
        fastest = min(one.latency_ms or 0.0 for one in members)
        raise BudgetError(
            f"no member of the family is within {budget}: the smallest has {megabytes(smallest)}, the "
            f"fastest takes {fastest:.2f} ms"
        )
    return max(fitting, key=lambda one: (one.accuracy or 0.0, -one.size_bytes))
