"""The lines of a run: which there are of its task, each measured once, on a worker."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from autoprune.evaluation.lines.dynamic import DynamicLine
from autoprune.evaluation.lines.layerless import LayerlessLine, token_table
from autoprune.evaluation.lines.line import FitLine, Line
from autoprune.evaluation.lines.tfidf import LabelledTexts, TfidfLine
from autoprune.pipeline.opened import OpenedSearch
from autoprune.pipeline.prepare import Prepared
from autoprune.run.front_schema import LineRow
from autoprune.run.lines import record_line, recorded_lines
from autoprune.targets import get_target
from autoprune.targets.target import QuantizesDynamically
from autoprune.tasks.data.rows import Rows
from autoprune.workers.pool import run_each

MOST_TOLD = 200
"""Characters of what went wrong that are told."""

MOST_ROWS, MOST_CHARACTERS = 200_000, 20_000_000
"""Training rows, divided by classes, and characters of them, that a line which reads text is fitted on at
most: about a minute."""


def lines_of(prepared: Prepared) -> list[Line]:
    """The lines that there are for a run: its runtime's own quantizer, and what is fitted on texts."""
    quantizes = isinstance(get_target(prepared.setting.target), QuantizesDynamically)
    return [*([DynamicLine()] if quantizes else []), *_text_lines(prepared)]


def _text_lines(prepared: Prepared) -> list[Line]:
    """Those that are fitted on texts: none but for classes of texts and pairs of texts."""
    texts, task = prepared.inputs.texts, prepared.setting.task
    if texts is None or not task.kind.predicts_classes:
        return []
    most = max(10_000, MOST_ROWS // len(task.label_names))
    train = _drawn(_joined(texts.train), most, prepared.setting.seed)
    lines: list[Line] = [TfidfLine(train, _joined(texts.validation), _joined(texts.test))]
    return lines if token_table(prepared.model) is None else [*lines, LayerlessLine()]


def run_lines(search: OpenedSearch) -> None:
    """Measure the lines that are not recorded yet; one that cannot be made is told of and left out."""
    have = {line.name for line in recorded_lines(search.run.path)}
    todo = [line for line in lines_of(search.prepared) if line.name not in have]
    if not todo:
        return
    jobs = [FitLine(line, search.costed.reference_ms) for line in todo]
    with search.progress.bar("Simple models to compare with", len(todo)) as bar:
        for outcome in run_each(search.pool, jobs, bar):
            if outcome.result is None:
                search.progress.line(
                    f"Note      {todo[outcome.key].name} was not measured; the search goes on without it: "
                    f"{(outcome.failure or '')[:MOST_TOLD]}"
                )
            else:
                record_line(search.run.path, LineRow(**asdict(outcome.result)))
    search.ledger.sum_up(state="running")


def _joined(rows: Rows) -> LabelledTexts:
    """A split's texts, pairs joined by a line break."""
    columns = [[str(text) for text in column] for column in rows.texts]
    texts = tuple("\n".join(parts) for parts in zip(*columns, strict=True))
    return LabelledTexts(texts, tuple(int(label) for label in rows.labels))  # type: ignore[arg-type]


def _drawn(rows: LabelledTexts, most: int, seed: int) -> LabelledTexts:
    """Rows in a random order, until there are enough of them or of characters; all where that is all."""
    order = np.random.default_rng(seed).permutation(len(rows.texts))
    read = np.cumsum([len(rows.texts[k]) for k in order])
    count = min(most, int(np.searchsorted(read, MOST_CHARACTERS)) + 1, len(order))
    if count == len(order):
        return rows
    kept = np.sort(order[:count])
    return LabelledTexts(tuple(rows.texts[k] for k in kept), tuple(rows.labels[k] for k in kept))
