"""What entropy coding saves of a unit's variants, on a worker: they are coded, and the bytes counted."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.evaluation.workbench import Workbench
from autoprune.models.unit import Unit
from autoprune.space.levels import Level
from autoprune.targets.coded_sizes import saved_by_coding
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class CodeUnit(Job[dict[Level, int]]):
    """Bytes that coding saves of a unit at each of these levels."""

    unit: Unit
    levels: tuple[Level, ...]


def code_unit(workbench: Workbench, job: CodeUnit) -> dict[Level, int]:
    """Bytes that coding saves of the unit at each level, from the library's variants."""
    return {
        level: saved_by_coding(
            job.unit, level, workbench.library.variants(job.unit, level), workbench.teacher
        )
        for level in job.levels
    }
