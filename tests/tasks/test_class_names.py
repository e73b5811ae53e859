"""Classes of the data and of a trained head: who is who, by name or by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.core.errors import AutopruneError
from autoprune.tasks.class_names import ClassMatch, match_classes, match_note

THREE = ("negative", "neutral", "positive")
words = st.lists(st.text("abcdefg", min_size=1, max_size=6), min_size=2, max_size=8, unique=True)


@given(words, st.data())
def test_a_subset_of_a_heads_names_in_any_order_keeps_each_classs_number(
    head: list[str], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(head), min_size=1, unique=True))
    match = match_classes([name.upper() for name in names], head)
    assert match == ClassMatch(tuple(head.index(name) for name in names), by_name=True)


@pytest.mark.parametrize("spelled", ["B-PER", "b_per", " B PER "])
def test_case_hyphens_and_underscores_do_not_count(spelled: str) -> None:
    assert match_classes([spelled], ("O", "B-PER")).numbers == (1,)


def test_two_classes_that_differ_in_case_alone_stay_two() -> None:
    assert match_classes(("PER", "per"), ("per", "PER")).numbers == (1, 0)


@given(st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_numbers_of_a_nameless_head_are_its_numbers(numbers: set[int]) -> None:
    head = [f"LABEL_{k}" for k in range(6)]
    assert match_classes([str(k) for k in sorted(numbers)], head).numbers == tuple(sorted(numbers))


def test_as_many_other_names_are_taken_in_order_and_said() -> None:
    match = match_classes(("bad", "good"), ("NEGATIVE", "POSITIVE"))
    assert match == ClassMatch((0, 1), by_name=False)
    assert "bad as NEGATIVE, good as POSITIVE" in (
        match_note(("bad", "good"), ("NEGATIVE", "POSITIVE"), match) or ""
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("alpha", "beta"), "none of them by these names (alpha, beta)"),
        (("negative", "mixed", "positive"), "of which it does not know mixed"),
        (("negative", "Negative", "positive"), "Negative differs from another in case or spaces alone"),
        (("a", "b", "c", "d"), "none of them by these names"),
    ],
)
def test_what_names_do_not_tell_is_refused_with_the_cure(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        match_classes(names, THREE)
    assert said in str(caught.value)
    assert "3 classes (negative, neutral, positive)" in str(caught.value)
    assert "--new-head" in str(caught.value)


def test_a_plan_says_which_classes_have_no_row() -> None:
    note = match_note(("positive", "negative"), THREE, match_classes(("positive", "negative"), THREE))
    assert note is not None
    assert "3 classes" in note
    assert note.endswith("no row of 1 of them: neutral")


def test_a_plan_says_nothing_of_classes_that_are_the_same() -> None:
    assert match_note(THREE, THREE, match_classes(THREE, THREE)) is None
    assert match_note(("0", "1"), ("LABEL_0", "LABEL_1"), ClassMatch((0, 1), by_name=False)) is None
