"""Levels, candidates and the space file: what is offered, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import UNTOUCHED, Candidate, Choices, Level, SearchSpace
from autoprune.space.space_file import read_space
from autoprune.space.storage import FLOAT_BITS, storages_of

quick = hypothesis.settings(deadline=None, max_examples=40)
SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
GOOD = """
version: 1
units:
  block:
    at: encoder.*
    rows: [lin1]
    cols: [lin2]
    prune: {by: neuron, ratios: [0.5, 0.25]}
    quantize: {bits: [8, 4]}
"""

ratios = some.lists(some.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9]), min_size=1, unique=True)
bits = some.lists(some.sampled_from([2, 3, 4, 6, 8, 16, FLOAT_BITS]), min_size=1, unique=True)
levels = some.builds(Level.of, some.floats(0, 0.99), some.sampled_from([2, 3, 4, 6, 8, 16, FLOAT_BITS]))
names = some.lists(some.from_regex(r"[a-z_]+(\.[a-z0-9_]+){0,3}", fullmatch=True), max_size=5, unique=True)


@some.composite
def candidates(draw: some.DrawFn) -> Candidate:
    return Candidate(tuple((name, draw(levels)) for name in draw(names)))


@some.composite
def spaces(draw: some.DrawFn) -> SearchSpace:
    return SearchSpace(
        tuple(Choices(name, tuple(draw(ratios)), storages_of(draw(bits))) for name in draw(names))
    )


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """What `read_space` says of a file with this content."""
    path = tmp_path / "my.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(AutopruneError) as caught:
        read_space(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ---- candidates ---------------------------------------------------------------------------------


@quick
@hypothesis.given(candidates())
def test_params_read_back_to_the_same_candidate(one: Candidate) -> None:
    assert Candidate.from_params(one.params()) == one
    assert len(one.params()) == 2 * len(one.items)


def test_params_as_text_or_whole_numbers_read_back_typed() -> None:
    assert Candidate.from_params({"a.b.ratio": 0, "a.b.bits": 4.0}) == Candidate((("a.b", Level.of(0.0, 4)),))


@quick
@hypothesis.given(candidates(), levels)
def test_with_level_changes_one_unit_and_no_other(one: Candidate, level: Level) -> None:
    for name, _ in one.items:
        other = one.with_level(name, level)
        assert other[name] == level
        assert all(other[unit] == one[unit] for unit, _ in one.items if unit != name)
    assert one.with_level("not a unit", level) == one


def test_levels_are_every_ratio_with_every_bits_untouched_first() -> None:
    found = list(Choices("a", (0.5, 0.0), storages_of((4, 32, 8))).levels())
    assert found[0] == UNTOUCHED
    assert sorted(found) == sorted(Level.of(r, b) for r in (0.0, 0.5) for b in (4, 8, 32))


@quick
@hypothesis.given(spaces(), levels)
def test_uniform_picks_the_nearest_offered_and_the_milder_of_two(space: SearchSpace, level: Level) -> None:
    found = space.uniform(level)
    space.check(found)
    for unit in space.units:
        ratio, width = found[unit.unit].ratio, found[unit.unit].storage.bits
        for other in unit.ratios:
            away, further = abs(ratio - level.ratio), abs(other - level.ratio)
            assert away < further or (away == further and ratio <= other)
        for other_bits in (storage.bits for storage in unit.storages):
            away, further = abs(width - level.storage.bits), abs(other_bits - level.storage.bits)
            assert away < further or (away == further and width >= other_bits)


def test_uniform_takes_the_less_pruned_and_the_more_bits_of_two_as_near() -> None:
    space = SearchSpace((Choices("a", (0.75, 0.25), storages_of((4, 8))),))
    assert space.uniform(Level.of(0.5, 6)) == Candidate((("a", Level.of(0.25, 8)),))


SPACE = SearchSpace(
    (Choices("a", (0.0, 0.5), storages_of((4, 32))), Choices("b", (0.0,), storages_of((8, 32))))
)


def test_uniform_takes_plain_integers_before_other_storages_of_as_many_bits() -> None:
    space = SearchSpace((Choices("a", (0.0,), storages_of([32, "shared16", "4g32", 4, "codebook8"])),))
    assert space.uniform(Level.of(0.0, 4))["a"] == Level.of(0.0, 4)
    assert space.uniform(Level.of(0.0, 6))["a"] == Level.of(0.0, 4)
    assert space.uniform(Level.of(0.0, "shared16"))["a"] == Level.of(0.0, "shared16")


def test_untouched_and_every_offered_level_pass_the_check() -> None:
    SPACE.check(SPACE.untouched())
    for unit in SPACE.units:
        for level in unit.levels():
            SPACE.check(SPACE.untouched().with_level(unit.unit, level))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ((("a", UNTOUCHED),), "units are not those"),
        ((("b", UNTOUCHED), ("a", UNTOUCHED)), "units are not those"),
        ((("a", UNTOUCHED), ("c", UNTOUCHED)), "units are not those"),
        ((("a", UNTOUCHED), ("b", UNTOUCHED), ("b", UNTOUCHED)), "units are not those"),
        ((("a", Level.of(0.25, 4)), ("b", UNTOUCHED)), "a: level 0.25x4b is not offered"),
        ((("a", UNTOUCHED), ("b", Level.of(0.0, 4))), "ratios [0.0], bits [8, 32]"),
    ],
)
def test_check_refuses_what_is_foreign(items: tuple[tuple[str, Level], ...], words: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        SPACE.check(Candidate(items))
    assert words in str(caught.value)


# ---- space files --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_reads_and_offers_the_untouched_model(path: Path) -> None:
    space = read_space(path)
    for rule in space.units.values():
        assert FLOAT_BITS in rule.quantize.bits
        assert set(rule.quantize.bits) <= {2, 3, 4, 6, 8, 16, FLOAT_BITS}
        assert rule.prune is None or 0.0 in rule.prune.ratios
    assert path.read_text().startswith("# ")  # what `autoprune spaces` shows


def test_float_bits_and_ratio_zero_are_offered_though_not_written(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(GOOD)
    space = read_space(path)
    rule = space.units["block"]
    assert rule.quantize.bits == (4, 8, 32)
    assert rule.prune is not None
    assert rule.prune.ratios == (0.0, 0.25, 0.5)
    assert (rule.quantize.group_size, space.finetune.steps) == (64, 60)


def test_other_storages_are_offered_by_name(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(GOOD.replace("[8, 4]", "[8, 4], also: [shared16, codebook4]"), encoding="utf-8")
    names = [storage.name for storage in read_space(path).units["block"].quantize.storages]
    assert names == ["32", "8", "shared16", "4", "codebook4"]


def test_three_mistakes_are_one_error_that_names_all(tmp_path: Path) -> None:
    text = GOOD.replace("[8, 4]", "[8, 5]").replace("0.25]", "1.5]").replace("cols:", "speed: 9\n    cols:")
    said = refusal(tmp_path, text)
    head, *lines = said.splitlines()
    assert head.endswith("my.yaml has 3 errors:")
    assert [line.strip() for line in sorted(lines)] == [
        "units.block.prune.ratios.1: input should be less than or equal to 1, got 1.5",
        "units.block.quantize.bits.1: input should be 2, 3, 4, 6, 8 or 16, got 5",
        "units.block.speed: no such key here; see search_spaces/bert.yaml for those that exist",
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 2", "version: input should be 1, got 2"),
        ("version: 1", "", "version: is missing"),
        ("    at: encoder.*\n", "", "1 error:\n  units.block.at: is missing"),
        ("encoder.*", "!!binary OA==", "!!binary stands for nothing here; write text as it is"),
        ("encoder.*", "''", "units.block.at: string should have at least 1 character, got ''"),
        ("    rows: [lin1]\n", "", "units.block: `prune` needs `rows` and `cols`"),
        ("    cols: [lin2]\n", "    cols: []\n", "units.block: `prune` needs `rows` and `cols`"),
        ("[0.5, 0.25]", "[]", "units.block.prune.ratios: tuple should have at least 1 item"),
        ("[0.5, 0.25]", "[-0.5]", "greater than or equal to 0, got -0.5"),
        ("[0.5, 0.25]", "[.nan]", "units.block.prune.ratios.0:"),
        ("[0.5, 0.25]", "[half]", "valid number, unable to parse string as a number, got 'half'"),
        ("neuron", "layer", "by: input should be 'head', 'neuron', 'channel' or 'token', got 'layer'"),
        ("neuron", "token", "units.block: `prune: {by: token}` is for an embedding alone: no `rows`"),
        ("by: neuron, ratios: [0.5, 0.25]", "by: token, ratios: [1.0]", "ratios` of tokens are below 1"),
        ("[8, 4]", "8", "units.block.quantize.bits: input should be a valid tuple, got 8"),
        ("[8, 4]", "[8], group_size: 48", "group_size: input should be 8, 16, 32, 64 or 128, got 48"),
        ("quantize:", "quantise:", "units.block.quantise: no such key here"),
        ("[8, 4]", "[8, 4], also: [w8a8]", "quantize.also: no way of storing is named 'w8a8'; choose from"),
        (
            "[8, 4]",
            "[8, 4], also: [nf4, nf3]",
            "quantize.also: no way of storing is named 'nf3'; choose from",
        ),
        ("[8, 4]", "[8, 4], also: [4]", "quantize.also.0: input should be a valid string, got 4"),
        (
            "0.25]",
            "0.25], importance: taylr",
            "importance.0: input should be 'l1', 'l2', 'activation', "
            "'taylor', 'obs', 'gates', 'random' or 'hybrid', got 'taylr'",
        ),
        ("0.25]", "0.25], importance: [obs, obs]", "importance: `importance` names one of them twice"),
        ("0.25]", "0.25], importance: []", "prune.importance: tuple should have at least 1 item"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert GOOD.count(old) == 1
    assert words in refusal(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file: input should be a valid dictionary"),
        ("- a\n- b\n", "file: input should be a valid dictionary"),
        ("version: 1\nunits: {}\n", "units: dictionary should have at least 1 item"),
        ("units: [", "is not YAML"),
        ("at: 2026-13-45", "is not YAML: month must be in 1..12"),
        ("at: !!int ''", "is not YAML"),
        ("[" * 500, "is not YAML"),
        (b"version: \xff1", "cannot be read"),
    ],
)
def test_what_is_no_space_at_all_is_one_clear_error(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(AutopruneError, match="cannot be read") as caught:
            read_space(path)
        assert str(path) in str(caught.value)


def test_a_tag_in_the_file_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    said = refusal(tmp_path, f"version: !!python/object/apply:os.system ['touch {mark}']\n")
    assert "is not YAML" in said
    assert not mark.exists()


def test_tokens_are_removed_from_an_embedding_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    words = "  words:\n    at: words\n    prune: {by: token, ratios: [0.5]}\n    quantize: {bits: [4]}\n"
    path.write_text(GOOD + words)
    rule = read_space(path).units["words"]
    assert rule.prune is not None
    assert (rule.prune.by, rule.prune.ratios, rule.rows, rule.cols) == ("token", (0.0, 0.5), (), ())
    said = refusal(tmp_path, GOOD + words.replace("at: words", "at: words\n    tied: lm_head"))
    assert "units.words: `prune: {by: token}` is for an embedding alone: no `rows`, `cols` or `tied`" in said


def test_an_importance_is_one_name_or_several_and_second_order_where_none_is_given(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    for written, names in (
        ("", ("obs",)),
        (", importance: taylor", ("taylor",)),
        (", importance: [taylor, obs]", ("taylor", "obs")),
    ):
        path.write_text(GOOD.replace("0.25]", f"0.25]{written}"))
        rule = read_space(path).units["block"]
        assert rule.prune is not None
        assert rule.prune.importance == names


def test_tokens_have_no_importance(tmp_path: Path) -> None:
    words = "  words:\n    at: w\n    prune: {by: token, ratios: [0.5], importance: obs}\n"
    said = refusal(tmp_path, GOOD + words + "    quantize: {bits: [4]}\n")
    assert "units.words.prune: `importance` is for heads, neurons and channels" in said


def test_tokens_have_a_fallback_and_nothing_else_has(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    words = "  words:\n    at: w\n    prune: {by: token, ratios: [0.5]}\n    quantize: {bits: [4]}\n"
    for written, fallback in (("", "nearest"), (", fallback: centroid", "centroid")):
        path.write_text(GOOD + words.replace("0.5]", f"0.5]{written}"))
        rule = read_space(path).units["words"]
        assert rule.prune is not None
        assert rule.prune.fallback == fallback
    said = refusal(tmp_path, GOOD + words.replace("0.5]", "0.5], fallback: mean"))
    assert "units.words.prune.fallback: input should be 'nearest' or 'centroid', got 'mean'" in said
    said = refusal(tmp_path, GOOD.replace("0.25]", "0.25], fallback: centroid"))
    assert "units.block.prune: `fallback` is for tokens" in said


def test_a_vocabulary_is_parted_where_it_is_an_embedding_alone(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    words = "  words:\n    at: words\n    common: 0.8\n    quantize: {bits: [4]}\n"
    path.write_text("version: 1\nunits:\n" + words, encoding="utf-8")
    assert read_space(path).units["words"].common == 0.8
    for wrong, said in (
        (words + "    tied: head\n", "`common` is for an embedding alone: no `rows`, `cols` or `tied`"),
        (words.replace("0.8", "1.0"), "units.words.common: input should be less than 1, got 1.0"),
    ):
        path.write_text("version: 1\nunits:\n" + wrong, encoding="utf-8")
        with pytest.raises(AutopruneError) as caught:
            read_space(path)
        assert said in str(caught.value)


def test_all_of_a_unit_may_go(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(GOOD.replace("0.25]", "1.0]"))
    rule = read_space(path).units["block"]
    assert rule.prune is not None
    assert rule.prune.ratios == (0.0, 0.5, 1.0)


# ---- what YAML or Python would let through ------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "    cols: [lin2]\n",
            "    cols: [lin2]\n    rows: [lin3]\n",
            "rows: is there twice, in line 6 and in line 8",
        ),
        ("units:", "units: {}\nunits:", "units: is there twice, in line 3 and in line 4"),
        ("version: 1", "version: true", "version: true and false are not allowed here, got True"),
        ("[0.5, 0.25]", "[0.5, true]", "ratios: true and false are not allowed here"),
        ("units:", "finetune: {steps: yes}\nunits:", "finetune.steps: true and false are not allowed here"),
        ("units:", "finetune: {learning_rate: .inf}\nunits:", "finetune.learning_rate: "),
        ("units:", "a: !!timestamp x\nunits:", "is not YAML"),
        ("units:", "finetune: {steps: " + "-0x" + "f" * 5000 + "}\nunits:", "a number of very many digits"),
    ],
)
def test_what_would_not_be_heeded_is_an_error(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in refusal(tmp_path, GOOD.replace(old, new, 1))


def test_a_key_twice_and_a_wrong_one_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("    cols: [lin2]\n", "    cols: [lin2]\n    cols: [lin2]\n    depth: 2\n")
    told = refusal(tmp_path, text)
    assert "has 2 errors" in told
    assert "cols: is there twice, in line 7 and in line 8" in told
    assert "units.block.depth: no such key here" in told


def test_a_merge_is_no_key_twice_and_numbers_may_be_quoted(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    more = "  other:\n    <<: *b\n    at: decoder.*\nfinetune: {learning_rate: 3e-5, steps: '7'}\n"
    path.write_text(GOOD.replace("  block:", "  block: &b") + more, encoding="utf-8")
    space = read_space(path)
    assert (space.units["block"].at, space.units["other"].at) == ("encoder.*", "decoder.*")
    assert space.units["other"].cols == ("lin2",)
    assert (space.finetune.learning_rate, space.finetune.steps) == (3e-5, 7)


def test_a_few_lines_that_stand_for_millions_are_told_in_a_few(tmp_path: Path) -> None:
    lines = [f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]" for a, b in ("ab", "bc", "cd", "de", "ef", "fg", "gh")]
    told = refusal(tmp_path, GOOD + "a: &a [x]\n" + "\n".join(lines) + "\ntypes: [*h]\n")
    assert "is not YAML: its aliases stand for 21598132 values, and at most 100000 are read" in told
    assert len(told) < 3000
