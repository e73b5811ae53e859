"""Jobs that work for longer than they may: the worker of each is asked, since waiting is no work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from autoprune.workers.ray_worker import CLOCK_GROUP, Slot
from autoprune.workers.work_clock import Worked

ANSWER_SECONDS = 30.0
"""A worker that does not say within this time how long it has worked is taken to be stuck."""

_PAUSE_SECONDS = 1.0
"""Between two questions to one worker, at least."""


class Overdue(NamedTuple):
    """A worker whose job is given up. reason: why, in words. trace: where in its code the job was."""

    slot: Slot
    reason: str
    trace: str


@dataclass
class _Watch:
    """What is known of one job on a worker. since: when it was handed out. ask_at: not before then."""

    since: float
    ask_at: float
    asked: Any = None
    asked_at: float = 0.0


class JobLimits:
    """Finds the jobs that are overdue. The time that a job may work is its `limit_s`."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._watches: dict[Slot, _Watch] = {}

    def overdue(self, slots: Sequence[Slot]) -> list[Overdue]:
        """The workers that have worked for too long on their job, or do not answer after that time."""
        out, now = list[Overdue](), time.monotonic()
        watches, self._watches = self._watches, {}
        for slot in slots:
            limit = None if slot.task is None else getattr(slot.task.job, "limit_s", None)
            if limit is None:
                continue
            watch = watches.get(slot)
            if watch is None or watch.since != slot.since:
                watch = _Watch(slot.since, slot.since + limit)
            self._watches[slot] = watch
            if watch.asked is None and now >= watch.ask_at:
                clock = slot.actor.worked.options(concurrency_group=CLOCK_GROUP)
                watch.asked, watch.asked_at = clock.remote(), now
            elif watch.asked is not None and (found := self._verdict(slot, watch, limit, now)) is not None:
                out.append(found)
        return out

    def _verdict(self, slot: Slot, watch: _Watch, limit: float, now: float) -> Overdue | None:
        allowed = f"and a trial may for {limit:.0f} s (--trial-timeout)"
        if not self._ray.wait([watch.asked], timeout=0)[0]:
            silent = now - watch.asked_at
            if silent < ANSWER_SECONDS:
                return None
            spent = f"it ran for {now - slot.since:.0f} s, {allowed}"
            return Overdue(slot, f"{spent}; its worker answers nothing since {silent:.0f} s", "")
        asked, watch.asked = watch.asked, None
        try:
            worked: Worked = self._ray.get(asked)
        except self._ray.exceptions.RayError:  # its worker died, which the pool hears
            watch.ask_at = now + _PAUSE_SECONDS
            return None
        watch.ask_at = now + max(_PAUSE_SECONDS, limit - worked.seconds)
        if worked.seconds < limit:
            return None
        place = f"; it was in {worked.line}" if worked.line else ""
        return Overdue(slot, f"it worked for {worked.seconds:.0f} s, {allowed}{place}", worked.trace)
