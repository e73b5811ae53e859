"""After the search: the points to ship and the original asked about test rows as they come in the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.evaluation.robustness import AlteredRows, Examine, Examined
from autoprune.pipeline.finalists import model_of
from autoprune.pipeline.inputs import Inputs
from autoprune.pipeline.opened import OpenedSearch
from autoprune.run.robustness import AlterationRow, Robustness, record_robustness, recorded_robustness
from autoprune.tasks.alterations import alterations_of, altered_text, attacks_on
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.encoding import encode_rows
from autoprune.tasks.task import Arrays, Encoded
from autoprune.tasks.word_tokens import WordTokens
from autoprune.workers.pool import run_all

MOST_ROWS = 1000
"""Test rows that are altered at most, drawn by the seed: the standard error of a score of 80 % is 1.3 points,
that of a drop, over the same rows, less."""


MOST_ATTACKED = 200
"""The same where words are swapped, which takes some fifty answers of a row."""


def examine_finalists(search: OpenedSearch) -> None:
    """Score the original and the points to ship on altered and attacked test rows, each once, as asked."""
    if not (search.config.search.robustness or search.config.search.attacks):
        return
    inputs, seed = search.prepared.inputs, search.config.search.seed
    before = recorded_robustness(search.run.path)
    have = set() if before is None else {*before.scores}
    wanted = [trial for trial in search.ledger.standing().original_and_points if trial.measurement]
    todo = [trial for trial in wanted if str(trial.number) not in have]
    if not todo:
        return
    asked = search.config.search
    rows = altered_rows(
        inputs, search.config.task.max_length, seed=seed, alters=asked.robustness, attacks=asked.attacks
    )
    jobs = [Examine(model_of(search, trial), rows) for trial in todo]
    record = before or _empty(search, rows)

    def done(k: int, result: Examined) -> None:
        nonlocal record
        record = record.with_model(todo[k].number, result.scores, result.flips)
        record_robustness(search.run.path, record)

    with search.progress.bar("Finalists on altered test rows", len(jobs)) as bar:
        run_all(search.pool, jobs, done, bar)


def _empty(search: OpenedSearch, rows: tuple[AlteredRows, ...]) -> Robustness:
    kind = search.prepared.setting.task.kind
    known = {one.name: one for one in (*alterations_of(kind), *attacks_on(kind))}
    return Robustness(
        rows=len(rows[0].numbers),
        test_rows=len(search.prepared.setting.task.test),
        seed=rows[0].seed,
        alterations=tuple(AlterationRow(name=one.name, what=known[one.name].what) for one in rows[1:]),
    )


def altered_rows(
    inputs: Inputs, max_length: int, *, seed: int, alters: bool = True, attacks: bool = False
) -> tuple[AlteredRows, ...]:
    """Some test rows, as they are, with each alteration, and to be attacked.

    Raises:
        AutopruneError: of pictures that an earlier version made inputs in floats.
    """
    task = inputs.task
    is_text = not isinstance(task.test, Arrays)
    most = MOST_ATTACKED if attacks and is_text else MOST_ROWS
    chosen = np.random.default_rng([seed, len(task.test)]).permutation(len(task.test))[:most]
    chosen = np.sort(chosen).astype(np.int64)
    plain = AlteredRows("", chosen, seed)
    names = [one.name for one in alterations_of(task.kind)] if alters else []
    words = word_tokens(inputs.loaded.tokenizer) if attacks and is_text else None
    hard = [AlteredRows(one.name, chosen, seed, words=words) for one in attacks_on(task.kind) if attacks]
    if isinstance(task.test, Arrays):
        if not all(isinstance(images, ByteImages) for images in task.test.inputs.values()):
            raise AutopruneError(
                "--robustness: this run has pictures in floats, as earlier versions made them"
            )
        return (plain, *(AlteredRows(name, chosen, seed) for name in names), *hard)
    assert inputs.texts is not None
    rows, labels = inputs.texts.test.pick(chosen.tolist()), task.test.pick(chosen).labels
    out = [plain]
    for name in names:
        texts = _altered(rows, name, chosen, seed)
        tokens = encode_rows(Rows(texts, rows.labels), inputs.loaded.tokenizer, max_length, task.kind)
        out.append(AlteredRows(name, chosen, seed, _like(tokens, labels)))
    return (*out, *hard)


def word_tokens(tokenizer: Any) -> WordTokens:
    """Which tokens of a tokenizer are words."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return WordTokens.of(tokens, tokenizer.all_special_ids)


def _altered(rows: Rows, name: str, numbers: NDArray[np.int64], seed: int) -> tuple[tuple[str, ...], ...]:
    """The texts of rows, by column, with an alteration."""
    return tuple(
        tuple(
            altered_text(str(text), name, seed=seed, row=int(number))
            for number, text in zip(numbers, column, strict=True)
        )
        for column in rows.texts
    )


def _like(tokens: Encoded, labels: object) -> Encoded:
    """Encoded rows with labels as the model's head numbers them."""
    return replace(tokens, labels=labels)  # type: ignore[arg-type]
