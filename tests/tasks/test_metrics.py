"""Metrics by their own names and numbers: in the terminal, in checks and cards; and no family's name."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import yaml

from autoprune.api.terminal import plan_lines, summary_lines
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.measure import Timing
from autoprune.export.card import model_card
from autoprune.export.card_usage import with_autoprune, without_autoprune
from autoprune.export.checks import bench_checks, export_checks, latency, lines
from autoprune.export.export_record import ExportRecord
from autoprune.export.validate import ExportMeasurements
from autoprune.run.config import Config
from autoprune.run.front_schema import LineRow
from autoprune.run.standing import Summary, class_scores, standing
from autoprune.run.text import standing_note, trial_line
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial
from autoprune.tasks import kinds
from autoprune.tasks.metrics import ACCURACY, DASH, METRICS, Metric, own_metric
from autoprune.tasks.row_scores import ClassRows, rows_as_text
from tests.export.test_card import cells, changed, front_matter, outside_code

PACKAGE = Path(__file__).parents[2] / "autoprune"
PERPLEXITY = METRICS["perplexity"]
SCORES = some.floats(0.001, 100.0)

FAMILIES = (
    *("albert", "bert", "bloom", "convnext", "deberta", "deit", "distilbert", "efficientnet", "electra"),
    *("falcon", "gemma", "gpt", "llama", "minilm", "mistral", "mobilenet", "mobilenetv", "mpnet", "phi"),
    *("qwen", "resnet", "roberta", "smollm", "swin", "t5", "vit", "whisper"),
)
"""Of models, with or without a number after them."""


# ---- numbers ------------------------------------------------------------------------------------


@hypothesis.given(SCORES, SCORES)
def test_less_is_better_exactly_where_it_is_said(a: float, b: float) -> None:
    for metric in METRICS.values():
        assert metric.score(metric.shown(a)) == pytest.approx(a)
        if a != b and metric.shown(a) != metric.shown(b):
            assert (metric.shown(a) > metric.shown(b)) == ((a > b) == metric.higher_is_better)


@hypothesis.given(SCORES, SCORES)
def test_a_difference_has_the_sign_of_what_is_shown_and_agrees_with_ahead(a: float, b: float) -> None:
    for metric in METRICS.values():
        said, step = metric.signed(a, b), metric.shown(a) - metric.shown(b)
        if re.search("[1-9]", said):
            assert said[0] == ("+" if step > 0 else "\u2212")
        else:
            assert abs(step) <= 0.05
            assert said[0] == "0"
        assert metric.is_ahead(a, b) == (a > b and said[0] in "+\u2212")
        assert said in metric.difference(a, b)


def test_what_has_no_number_is_a_dash_or_infinite() -> None:
    assert [ACCURACY.value(score) for score in (None, math.nan)] == [DASH, DASH]
    assert PERPLEXITY.value(None) == PERPLEXITY.value(math.nan) == DASH
    assert PERPLEXITY.value(0.0) == "\u221e"
    assert PERPLEXITY.score(math.inf) == 0.0
    assert PERPLEXITY.difference(0.0, 5.0) == "perplexity +\u221e"
    assert PERPLEXITY.difference(0.0, 0.0) == f"perplexity {DASH}"
    assert not PERPLEXITY.is_ahead(0.0, 0.0)
    with pytest.raises(AutopruneError, match=r"perplexity came to 0\.9: where less is better, 1 is the best"):
        PERPLEXITY.score(0.9)


def test_a_metric_reads_back_from_json() -> None:
    own = own_metric("calls a day", unit="d", higher_is_better=False)
    for metric in (*METRICS.values(), own):
        assert Metric.from_json(json.loads(json.dumps(metric.as_json()))) == metric
    assert Metric.from_json(None) == Metric.from_json("accuracy") == Metric.from_json("") == ACCURACY
    assert Metric.from_json({"name": "perplexity"}) == PERPLEXITY
    assert Metric.from_json("bleu") == own_metric("bleu")


@pytest.mark.parametrize("wrong", [3, [], {}, {"name": ""}, {"name": "x", "unit": 1}, {"name": ["x"]}])
def test_what_is_no_metric_is_refused(wrong: object) -> None:
    with pytest.raises(AutopruneError, match=r"is none: give its name, or an object with `name`"):
        Metric.from_json(wrong)


@pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 61, "\x1b[31m"])
def test_a_metric_of_one_s_own_has_a_short_plain_name(name: str) -> None:
    with pytest.raises(AutopruneError, match=r"the name of a metric is .*: give one line of at most 60"):
        own_metric(name)
    with pytest.raises(AutopruneError, match=r"the unit of a metric is .*: give one line of at most 10"):
        own_metric("x", unit=name or "more than ten")
    assert own_metric("f1", unit="x") == METRICS["f1"]


def test_a_hostile_name_is_one_short_line() -> None:
    metric = Metric("\x1b[2J\n" + "m" * 500, "\x1b[2J")
    for text in (metric.word, metric.title, metric.label, metric.told(50.0), metric.difference(50.0, 60.0)):
        assert text.isprintable()
        assert len(text) < 160


def test_every_kind_of_task_has_metrics_that_are_known() -> None:
    assert all(kind.usual_metric in kind.metrics and kind.pipeline for kind in kinds.KINDS)
    assert {metric for kind in kinds.KINDS for metric in kind.metrics} == set(METRICS.values())
    assert not kinds.OWN.metrics
    assert kinds.OWN.pipeline is None


# ---- the terminal -------------------------------------------------------------------------------

TRIAL = Trial(7, Candidate(()), Measurement(12_340_000, 4.5, 8.1), seconds=12.0, test_accuracy=8.0)
REFERENCE = Measurement(91_080_000, 29.0, 1.0)


def test_lines_of_a_search_name_the_metric(tmp_path: Path) -> None:
    now = standing([TRIAL], Budget(), REFERENCE, answers=100)
    note = standing_note(now, 0, 60.0, metric=PERPLEXITY)
    assert "best perplexity 12.35 @ 12.3 MB" in note
    assert "best F1 8.1 @ 12.3 MB" in standing_note(now, 0, 60.0, metric=METRICS["f1"])
    assert "best 8.1 @ 12.3 MB" in standing_note(now, 0, 60.0)
    assert "4.50 ms  perplexity 12.35  brief" in trial_line(TRIAL, metric=PERPLEXITY)
    assert "4.50 ms   8.10 %  brief" in trial_line(TRIAL)
    summary = Summary(tmp_path, "finished", now, Budget())
    head, _, row, front, *_ = summary_lines(summary, metric=PERPLEXITY)
    assert head.split() == ["Baselines", "size", "latency", "perplexity", "test"]
    row, names = row.split("  also ")
    assert row.split() == ["#7", "best", "12.34", "MB", "4.50", "ms", "12.35", "12.50"]
    assert names == "most accurate, smallest, fastest and knee"
    assert head.index("perplexity") + len("perplexity") == row.index("12.35") + len("12.35")
    assert front.endswith("29.0 ms, perplexity 100.0)")
    for metric in (*METRICS.values(), own_metric("an own metric with a long name")):
        head, _, row, *_ = summary_lines(summary, metric=metric)
        assert len(head) == len(row.split("  also ")[0])


def test_simple_models_have_a_row_each_below_the_baselines(tmp_path: Path) -> None:
    uniform = Trial(3, Candidate(()), Measurement(12_000_000, 4.0, 90.0), name="uniform 8-bit")
    now = standing([uniform], Budget(), REFERENCE, answers=100)
    rows = (
        LineRow(name="tf-idf and logistic regression", size_bytes=174_565, latency_ms=0.87, accuracy=76.5,
                test_accuracy=77.0),
        LineRow(name="averaged token vectors", size_bytes=64_198, accuracy=75.2),
    )  # fmt: skip
    head, first, second, third, *_ = summary_lines(Summary(tmp_path, "finished", now, Budget(), rows))
    assert len(head) == len(first) == len(second) == len(third)
    assert second.endswith("  0.17 MB    0.87 ms      76.5    77.0")
    assert third.split() == ["averaged", "token", "vectors", "0.06", "MB", "75.2"]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (98.5, ""),
        (99.0, "is as accurate as the best within the noise, smaller and faster."),
        (99.5, "is as accurate as the best, smaller and faster."),
        (99.9, "is as accurate as the best within the noise, smaller"),
        (100.0, "is more accurate than the best, smaller"),
    ],
)
def test_a_simple_model_as_good_as_the_best_is_told(tmp_path: Path, score: float, said: str) -> None:
    """Of 200 rows 99.5 and 99.0 % are half a point apart, with a standard error of 0.86 of the difference."""
    best = Trial(4, Candidate(()), Measurement(400_000, 2.58, 99.5), test_accuracy=98.7)
    name = "tf-idf and logistic regression"
    line = LineRow(name=name, size_bytes=80_000, latency_ms=2.54, accuracy=score, test_accuracy=99.0)
    now = standing([best], Budget(), REFERENCE, answers=200)

    def told(row: LineRow) -> list[str]:
        lines = summary_lines(Summary(tmp_path, "finished", now, Budget(), (row,)))
        return [text for text in lines if text.startswith(f"  {name} (")]

    (sentence,) = told(line) or [""]
    assert said in sentence
    assert bool(sentence) == bool(said)
    if said:
        assert f"(0.08 MB, 2.54 ms, {score:.1f} %)" in sentence
    for worse in ({"size_bytes": 400_001}, {"latency_ms": 2.59}, {"latency_ms": None}):
        assert told(line.model_copy(update=worse)) == []


@pytest.mark.parametrize(("stopped_by", "told"), [("space", "no candidate"), ("time", "the time limit")])
def test_a_search_that_ended_early_says_by_what(tmp_path: Path, stopped_by: str, told: str) -> None:
    now = standing([TRIAL], Budget(), REFERENCE, answers=100)
    lines = summary_lines(Summary(tmp_path, "finished", now, Budget(), stopped_by=stopped_by))
    assert any(line.startswith(f"Ended     by {told}") for line in lines)
    assert not any(
        line.startswith("Ended") for line in summary_lines(Summary(tmp_path, "finished", now, Budget()))
    )


def test_a_uniform_model_that_is_best_is_named(tmp_path: Path) -> None:
    uniform = Trial(3, Candidate(()), Measurement(12_000_000, 4.0, 90.0), name="uniform 8-bit")
    now = standing([uniform, TRIAL], Budget(), REFERENCE, answers=100)
    lines = summary_lines(Summary(tmp_path, "finished", now, Budget()))
    assert any(line.startswith("  #3 is uniform 8-bit, which no trial dominates") for line in lines)
    longer = Trial(9, Candidate(()), Measurement(12_000_000, 4.0, 95.0), rung=2)
    now = standing([uniform, longer], Budget(), REFERENCE, answers=100)
    lines = summary_lines(Summary(tmp_path, "finished", now, Budget()))
    assert any(
        line.startswith("  #9 is uniform 8-bit, trained longer, which no trial dominates") for line in lines
    )
    alone = standing([TRIAL], Budget(), REFERENCE, answers=100)
    assert "dominates" not in "".join(summary_lines(Summary(tmp_path, "finished", alone, Budget())))


def test_a_point_that_lost_a_class_is_named(tmp_path: Path) -> None:
    classes = ClassRows(("ok", "bad"), np.repeat([0, 1], [80, 20]))
    lost = np.repeat([True, False], [88, 12])
    original = Trial(0, Candidate(()), Measurement(20_000_000, 9.0, 100.0), name="original")
    original = replace(original, row_scores=rows_as_text(np.ones(100, bool)))
    now = standing(
        [original, replace(TRIAL, row_scores=rows_as_text(lost))], Budget(), REFERENCE, answers=100
    )
    lines = summary_lines(Summary(tmp_path, "finished", now, Budget(), (), classes))
    told = "is right in 40 % of the validation rows of 'bad', the original in 100 %: of all classes it lost"
    assert sum(told in line for line in lines) == 1
    assert class_scores(now, classes)["class_scores"] == {
        "classes": ["ok", "bad"],
        "validation_rows": [80, 20],
        "percent_right": {"0": [100.0, 100.0], str(TRIAL.number): [100.0, 40.0]},
    }
    assert class_scores(now, None) == {}


def test_a_plan_has_classes_only_where_there_are_some() -> None:
    config = Config.of(model="small", dataset="news")
    for names, metric, said in (
        (("a", "b"), ACCURACY, "test 1; 2 classes"),
        (("a", "b"), METRICS["f1"], "test 1; 2 classes; F1 %"),
        ((), PERPLEXITY, "test 1; perplexity (lower is better)"),
        ((), METRICS["spearman"], "test 1; Spearman correlation %"),
    ):
        task = SimpleNamespace(train=[0], validation=[0], test=[0], label_names=names)
        inputs: Any = SimpleNamespace(
            teacher=None, task=task, original_bytes=1, coded_original=None, dataset="n", space_name="s",
            units=(), notes=(),
        )  # fmt: skip
        assert plan_lines(config, inputs, 1, metric=metric)[1].endswith(said)


# ---- checks -------------------------------------------------------------------------------------


def found(
    score: float | None, *, rows: int = 200, is_recorded: bool = True, sequence: int = 128
) -> ExportMeasurements:
    return ExportMeasurements(
        size_bytes=19_000_000, load_seconds=0.1, rows=rows, accuracy=score, is_recorded_data=is_recorded,
        missing="", logits=None, latency=Timing(2.0, 1.9, 2.2, 4.0, 0.5, 0.5), batch=1, sequence=sequence,
        threads=1, protocol="As it was timed.", machine="x86",
    )  # fmt: skip


def of_metric(metric: Metric, score: float, **more: Any) -> ExportRecord:
    return changed(
        data__metric=metric.as_json(), measured__accuracy=score, validated__accuracy=score, sha256={},
        predicted_size_bytes=None, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "recorded", "now", "where", "passed", "said"),
    [
        (
            PERPLEXITY,
            20.0,
            20.09,
            "openvino",
            True,
            "20.09 on 200 validation rows, 20.00 the search recorded",
        ),
        (PERPLEXITY, 20.0, 20.2, "openvino", False, "(0.5 % allowed)"),
        (PERPLEXITY, 20.0, 20.2, "packed", True, "20.00 the search recorded on packed (2 % allowed)"),
        (PERPLEXITY, 20.0, 22.0, "packed", False, "(2 % allowed)"),
        (PERPLEXITY, math.inf, math.inf, "packed", True, "\u221e on 200"),
        (METRICS["matthews"], 60.0, 60.9, "openvino", True, "60.90 % on 200 validation rows, 60.00 the"),
        (METRICS["spearman"], 60.0, 60.2, "openvino", False, "(0.1 point allowed)"),
        (ACCURACY, 60.0, 60.5, "openvino", True, "(0.5 point allowed)"),
    ],
)
def test_an_export_is_checked_in_the_metric_s_own_numbers(
    metric: Metric, recorded: float, now: float, where: str, passed: bool, said: str
) -> None:
    about = of_metric(metric, metric.score(recorded), measured_on=where)
    check = export_checks(found(metric.score(now)), about, tolerance=0.1)[-1]
    assert (check.name, check.passed) == (metric.word, passed)
    assert said in check.said


def test_other_data_and_no_data_are_no_check() -> None:
    about = of_metric(PERPLEXITY, 5.0)
    check = bench_checks(found(4.0, is_recorded=False), about)[-1]
    assert check.passed is None
    assert check.said == "25.00 on 200 validation rows of other data than 20.00 was recorded of"
    assert bench_checks(found(None), about)[-1].name == "perplexity"


def test_lines_of_checks_stay_in_columns_and_pictures_have_no_tokens() -> None:
    checks = export_checks(found(60.0), of_metric(METRICS["matthews"], 60.0), tolerance=0.1)
    seen = found(60.0, sequence=0)
    starts = {re.search(r"(ok|FAILED|not checked|measured) ", line).start() for line in lines(seen, checks)}  # type: ignore[union-attr]
    assert len(starts) == 1
    assert "at batch 1, 1 thread;" in latency(seen)
    assert "at batch 1, 128 tokens, 1 thread;" in latency(found(60.0))


# ---- the card -----------------------------------------------------------------------------------


def test_a_card_of_a_language_model_has_perplexity() -> None:
    more = {"data__task": "causal-lm", "latency_of": "a token after 128 others"}
    about = of_metric(PERPLEXITY, 8.0, measured__test_accuracy=10.0, **more)
    card = model_card(about, "small")
    data = front_matter(card)
    assert (data["pipeline_tag"], data["metrics"]) == ("text-generation", ["perplexity"])
    results = data["model-index"][0]["results"]
    assert {result["dataset"]["split"]: result["metrics"][0]["value"] for result in results} == {
        "validation": 12.5, "test": 10.0,
    }  # fmt: skip
    assert "19.00 MB, perplexity 12.50 on 500 validation rows, 2.00 times as fast" in card
    assert "| perplexity on validation (lower is better) | 12.50 | 12.50 |" in card
    assert "| latency of a token after 128 others, ms |" in card
    assert "accuracy" not in card.replace("| accuracy | not checked", "")


def test_a_card_of_a_task_of_one_s_own_names_no_pipeline() -> None:
    about = of_metric(own_metric("my score"), 8.0, data__task="own", data__labels=[])
    card = model_card(about, "small")
    data = front_matter(card)
    assert "pipeline_tag" not in data
    assert "model-index" not in data
    assert "classes" not in card
    assert "| my score on validation |" in card


@pytest.mark.parametrize("name", ["<b>x</b>", "a|b", "x`y", "[x](javascript:y)", "a\n# b", "*bold*"])
def test_a_metric_s_name_in_a_card_is_text(name: str) -> None:
    hostile, harmless = (
        model_card(changed(data__metric={"name": text, "unit": text}, latency_of=text), "small")
        for text in (name, "harmless")
    )
    assert cells(hostile) == cells(harmless)
    for harm in ("<b>", "](", "# b", "*bold*"):
        assert harm not in outside_code(hostile)
    data = yaml.safe_load(hostile.split("---\n")[1])
    assert data["metrics"] == [" ".join(name.split())]


@pytest.mark.parametrize("kind", [*kinds.KINDS, kinds.OWN], ids=str)
def test_the_code_of_every_kind_and_target_is_python(kind: kinds.TaskKind) -> None:
    name = 'it\'s "small"'
    for target in ("openvino", "onnx", "packed", "compressed-tensors", "torch", "gguf"):
        for code in (with_autoprune(target, kind, name), without_autoprune(target, kind, name)):
            if code is not None:
                compile(code, "card", "exec")
                assert ("AutoTokenizer" in code) == (kind not in (kinds.IMAGE_CLASSIFICATION, kinds.OWN))


# ---- no special case ----------------------------------------------------------------------------


def test_no_family_of_models_is_named_where_none_may_be() -> None:
    modules = ["strategy/study", "workers/__init__", "strategy/pareto", "tasks/metrics"]
    modules += [f"pipeline/{name}" for name in ("driver", "opened", "baselines", "trials", "answers")]
    files = [PACKAGE / f"{name}.py" for name in modules]
    files += [path for path in (PACKAGE / "report").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    word = re.compile(rf"(?<![a-z])({'|'.join(FAMILIES)})[0-9]*(?![a-z])", re.IGNORECASE)
    assert all(word.search(text) for text in ("class ViT_Model", "ResNet18", "bert-base", "self.gpt2"))
    assert not any(word.search(text) for text in ("invite", "vitae", "Albertina", "graphic"))
    named = [(file.name, hit[0]) for file in files for hit in word.finditer(file.read_text(encoding="utf-8"))]
    assert named == []
    assert len(files) > 20
