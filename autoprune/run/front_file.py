"""Writes `front.json`: the text of a trial is made once, however often the file is written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from autoprune.core.files import json_text, written_whole
from autoprune.core.redaction import cleaned, may_hold_secret
from autoprune.run.front_record import TrialRows, front_fields
from autoprune.run.run_record import RunRecord
from autoprune.run.short_rows import WHOLE_TRIALS
from autoprune.run.standing import Standing
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.trial import Trial
from autoprune.strategy.hypervolume import ByteRange

ALWAYS = 256
"""Trials up to which the file is written after each."""

LARGEST_SHARE = 0.02
"""Share of the time that writing the file may take while a search with more trials is under way."""

_NO_TRIALS = '\n "trials": [],\n'
"""Where the trials belong in the text: nothing but the record's own key stands at this indent."""


class FrontFile:
    """The `front.json` of one run."""

    def __init__(self, path: Path, costs: Costs, budget: Budget, byte_range: ByteRange) -> None:
        self.path, self.byte_range = path, byte_range
        self._rows = TrialRows(costs, budget)
        self._texts: dict[int, tuple[Trial, tuple[bool, bool], str]] = {}
        self._due = 0.0

    def is_due(self, trials: int) -> bool:
        """Whether it is time to write the file again, of a search that goes on."""
        return trials <= ALWAYS or time.monotonic() >= self._due

    def write(
        self, about: RunRecord, now: Standing, *, state: str, more: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the file; what it holds but for the trials.

        more: fields beside those of the trials.
        """
        begun = time.monotonic()
        fields = front_fields(about, self._rows, now, byte_range=self.byte_range, state=state)
        fields |= more or {}
        before, after = json_text(fields).split(_NO_TRIALS, 1)
        rows = self._row_texts(now)
        trials = '\n "trials": [\n' + ",\n".join(rows) + "\n ],\n" if rows else _NO_TRIALS
        with written_whole(self.path) as temporary:
            temporary.write_text(before + trials + after, encoding="utf-8")
        ended = time.monotonic()
        self._due = ended + (ended - begun) / LARGEST_SHARE
        return fields

    def _row_texts(self, now: Standing) -> list[str]:
        members = {trial.number for trial in now.front}
        shown = members | {number for number in now.points.numbers().values() if number is not None}
        is_long = len(now.trials) > WHOLE_TRIALS
        texts = []
        for trial in now.trials:
            is_short = is_long and not trial.is_baseline and trial.number not in shown
            looks = is_short, trial.number in members
            known = self._texts.get(trial.number)
            if known is None or known[0] is not trial or known[1] != looks:
                known = trial, looks, self._row_text(trial, now, is_short=is_short, is_long=is_long)
                self._texts[trial.number] = known
            texts.append(known[2])
        return texts

    def _row_text(self, trial: Trial, now: Standing, *, is_short: bool, is_long: bool) -> str:
        row = self._rows.short(trial, now) if is_short else self._rows.whole(trial, now)
        text = json.dumps(row, allow_nan=False)
        if may_hold_secret(text):
            row = cleaned(row)
        if is_long:
            return "  " + json.dumps(row, allow_nan=False, separators=(",", ":"))
        return "  " + json.dumps(row, indent=1, allow_nan=False).replace("\n", "\n  ")
