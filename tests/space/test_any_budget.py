"""Whatever --budget is given: it is refused by an AutopruneError, or read as another reading reads it."""

from __future__ import annotations

import hypothesis

from tests.support.made_budgets import budget_texts, check_budget


@hypothesis.given(budget_texts)
@hypothesis.settings(deadline=None, max_examples=400)
def test_every_budget_is_what_it_says_or_refused(texts: list[str]) -> None:
    hypothesis.event(check_budget(texts))
