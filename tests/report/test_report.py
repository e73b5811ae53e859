"""The report: what it says, that it asks the network for nothing, and that nothing hostile runs."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.report import write_csv, write_report
from autoprune.report.page import embedded, render
from autoprune.report.sections.choices import choices
from autoprune.report.sections.classes import class_table
from autoprune.report.sections.latency import bytes_alone, prediction
from autoprune.report.sections.lines import not_above
from autoprune.report.sections.rungs import agreements, ladder
from autoprune.report.sections.sensitivity import extremes, held, predicted
from autoprune.report.sections.tables import causes, gains, provenance
from autoprune.report.sections.verdict import figures, notes, verdict
from autoprune.report.shown import MOST_SHOWN, shown_numbers
from autoprune.report.text import DASH, MINUS, standard_error
from autoprune.report.trial_rows import pack
from autoprune.run.class_scores import FEWEST_SHOWN
from autoprune.run.front_record import front_record
from autoprune.run.front_schema import checked_front
from autoprune.run.run_record import RunFacts, RunRecord
from autoprune.run.standing import standing
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Level
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.hypervolume import ByteRange
from autoprune.tasks.metrics import METRICS
from autoprune.tasks.row_scores import FEWEST_OF_CLASS

Json = dict[str, Any]
HOSTILE = ("<img src=x onerror=window.hacked=1>", "</script><script>window.hacked=1</script>")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]
MB = 1_000_000
RUNGS = ["long", "brief", "untrained"]


# ---- a front that looks like one of a small encoder on reviews ----------------------------------


def _units(count: int) -> list[Json]:
    parts = [("attention", 2_365_000), ("feed_forward", 4_724_000)] * count
    blocks = [
        {"name": f"encoder.layer.{k // 2}.{part}", "kind": part, "size_bytes": size}
        for k, (part, size) in enumerate(parts)
    ]
    embeddings = {"name": "embeddings", "kind": "embedding", "size_bytes": 46_880_000}
    pooler = {"name": "pooler", "kind": "linear", "size_bytes": 591_000}
    return [embeddings, *blocks[: count - 2], pooler]


def _fragile(unit: Json) -> float:
    """How much a unit's level costs, relative to others; attention of every third layer most."""
    if unit["kind"] == "embedding":
        return 0.3
    return 3.2 if re.search(r"layer\.[036]\.attention", unit["name"]) else 0.6


def _measure(trial: Json, units: list[Json], noise: random.Random) -> None:
    """Made-up measurements: bytes by arithmetic, latency and accuracy by a smooth rule."""
    loss, kept = 0.0, 0.0
    for unit in units:
        level = trial["levels"][unit["name"]]
        share = (1.0 - level["ratio"]) * (level["bits"] + (0.5 if level["bits"] < 16 else 0)) / 32
        trial["unit_bytes"][unit["name"]] = round(unit["size_bytes"] * share)
        harm = 5.0 * level["ratio"] ** 2 + 60.0 * 2.0 ** (-1.6 * level["bits"])
        loss += _fragile(unit) * harm / len(units)
        kept += (1.0 - level["ratio"]) * (0.45 if level["bits"] <= 8 else 1.0) / len(units)
    size = sum(trial["unit_bytes"].values()) + 412_000
    latency = 1.6 + 12.5 * kept + noise.uniform(-0.2, 0.2)
    accuracy = 80.6 - 2.6 * loss + (noise.gauss(0, 0.3) if loss else 0.0)
    trial |= {"size_bytes": size, "predicted_size_bytes": size, "latency_ms": round(latency, 3)}
    trial |= {"latency_low_ms": round(latency * 0.96, 3)}
    trial |= {"latency_high_ms": round(latency * 1.07, 3)}
    trial |= {"accuracy": round(accuracy, 2), "kl": round(0.021 * loss**1.3, 5)}


def _trial(number: int, name: str | None, levels: Json) -> Json:
    fixed = {"number": number, "name": name, "state": "COMPLETE", "failure": None, "levels": levels}
    rest = {"unit_bytes": {}, "seconds": 41.5 + number % 7, "worker": f"worker-{number % 2}"}
    return {**fixed, **rest, "test_accuracy": None, "on_front": False, "within_budget": False}


def _level(unit: Json, bold: float, noise: random.Random) -> Json:
    """As a search that has begun to learn: fragile units are touched less."""
    bold = bold * (0.3 if _fragile(unit) > 1 else 1.0)
    ratios = [0.0, 0.0, 0.25] if bold < 0.5 else [0.0, 0.25, 0.25, 0.5]
    bits = [4, 8, 8] if bold < 0.35 else [4, 4, 8] if bold < 0.8 else [3, 4, 4]
    ratio = noise.choice(ratios) if "encoder" in unit["name"] else 0.0
    return {"ratio": ratio, "bits": noise.choice(bits)}


def _dominates(a: Json, b: Json) -> bool:
    x, y = ([trial["size_bytes"], trial["latency_ms"], -trial["accuracy"]] for trial in (a, b))
    return x != y and all(p <= q for p, q in zip(x, y, strict=True))


def synthetic(trials: int = 40, units: int = 15, seed: int = 3) -> Json:
    """A realistic `front.json`: four baselines, then `trials` trials of which two fail."""
    noise, model = random.Random(seed), _units(units)
    fixed = {"original": (0.0, 32), "uniform 8-bit": (0.0, 8), "uniform 4-bit": (0.0, 4)}
    rows: list[Json] = []
    for name, (ratio, bits) in {**fixed, "uniform pruning": (0.5, 32)}.items():
        levels = {unit["name"]: {"ratio": ratio, "bits": bits} for unit in model}
        rows.append(_trial(len(rows), name, levels))
    for number in range(len(rows), len(rows) + trials):
        bold = noise.random()
        levels = {unit["name"]: _level(unit, bold, noise) for unit in model}
        rows.append(_trial(number, None, levels))
    for row in rows:
        _measure(row, model, noise)
    causes_ = ("OutOfMemoryError: 2.1 GB asked for, 1.4 GB free", "loss is NaN at step 31")
    for row, cause in zip((rows[13], rows[29]), causes_, strict=True):
        row |= dict.fromkeys(("size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms"))
        row |= {"state": "FAIL", "failure": cause, "accuracy": None, "kl": None, "unit_bytes": {}}
    return _finish(rows, model, trials)


def _finish(rows: list[Json], units: list[Json], planned: int) -> Json:
    done = [row for row in rows if row["state"] == "COMPLETE"]
    for row in done:
        row["on_front"] = not any(_dominates(other, row) for other in done)
        row["within_budget"] = row["size_bytes"] <= 20 * MB
        if row["on_front"] or row["name"]:
            row["test_accuracy"] = round(row["accuracy"] - 0.3, 2)
    fit = [row for row in done if row["within_budget"] and row["name"] is None]
    members = [row for row in done if row["on_front"] and row["name"] is None]
    knee = max(members, key=lambda row: row["accuracy"] - 6 * math.log(row["size_bytes"]))
    run = {
        "name": "minilm-20MB", "folder": "runs/minilm-20MB", "model": "microsoft/MiniLM-L12-H384",
        "dataset": "reviews (validation 1,600, test 1,821)", "target": "openvino", "seed": 0,
        "sampler": "TPE, multivariate, 10 starts", "metric": "accuracy", "state": "finished",
        "command": "autoprune search microsoft/MiniLM-L12-H384 --budget 20MB --seed 0",
        "budget": {"size_bytes": 20 * MB, "latency_ms": None}, "budget_text": "20.0 MB",
        "validation_rows": 1600, "test_rows": 1821, "planned_trials": planned,
        "started": "2025-03-04T10:12:00+00:00", "seconds": 6720.0, "space": "bert.yaml",
        "versions": {"autoprune": "0.1.0", "optuna": "4.5.0", "openvino": "2025.3.0"},
        "machine": "2 cores, Xeon 2.8 GHz, 8 GB, Linux 6.1", "model_hash": "sha256 5a3c91d07e",
        "protocol": "Median of 40 calls of one row at batch size 1 and 128 tokens, after 10 calls "
        "to warm up, interleaved with calls of the original on the same core and scaled to its "
        "quiet time, so that drift of the machine cancels.",
        "data_hash": "sha256 09b1e44c52",
    }  # fmt: skip
    return {
        "version": 1, "run": run, "units": units, "trials": rows, "knee": knee["number"],
        "front": [row["number"] for row in done if row["on_front"]], "hypervolume": 0.7123,
        "best": max(fit, key=lambda row: row["accuracy"])["number"] if fit else None,
        "hypervolume_reference": {"size_bytes": 88 * MB, "latency_ms": 14.1, "accuracy": 50.0},
    }  # fmt: skip


SYNTHETIC = synthetic()


@pytest.fixture(scope="module")
def front() -> Json:
    """As a run without rungs or predictions wrote it: none of the optional fields."""
    return synthetic()


WIDTHS = (32, 8, "w8a8", 4, 3)


def _cost(unit: Json, level: Json) -> float:
    """Made-up milliseconds of a unit: w8a8 fastest, then 8 and 4 bits, 3 bits no faster than floats."""
    times = {32: 1.0, 8: 0.55, "w8a8": 0.3, 4: 0.5, 3: 1.0}
    return float((1 - level["ratio"]) * times[level["bits"]] * unit["size_bytes"] / 5e6)


def predicted_fast(front: Json) -> Json:
    """The same front from a target with w8a8, with milliseconds predicted of every trial."""
    new = copy.deepcopy(front)
    errors = []
    for row in new["trials"]:
        for unit in new["units"]:
            level = row["levels"][unit["name"]]
            if row["name"] is None and "encoder" in unit["name"] and level["bits"] == 8:
                level["bits"] = "w8a8"
        row["unit_ms"] = {u["name"]: _cost(u, row["levels"][u["name"]]) for u in new["units"]}
        row["predicted_latency_ms"] = 1.5 + sum(row["unit_ms"].values())
        if row["state"] == "COMPLETE" and row["name"] is None:
            errors.append(row["predicted_latency_ms"] / row["latency_ms"] - 1)
    pairs = len(errors)
    error, bias = sum(map(abs, errors)) / pairs, sum(errors) / pairs
    new["run"] |= {"fast_bits": [2, 4, 8], "integer": True}
    return {**new, "latency": {"predicted error": error, "pairs": pairs, "bias": bias}}


def climbed(front: Json) -> Json:
    """The front of today: w8a8, and rungs; every third trial promoted once, two of them twice."""
    new = predicted_fast(front)
    levels = []
    for k, unit in enumerate(new["units"]):
        for ratio in (0.0, 0.25) if "encoder" in unit["name"] else (0.0,):
            for bits in WIDTHS:
                stored, rounding = (8, 2e-3) if bits == "w8a8" else (bits, 0.01 * 4.0**-bits)
                damage = 0.0 if bits == 32 and not ratio else (k + 1) * (1e-3 * ratio + rounding)
                size = round(unit["size_bytes"] * (1 - ratio) * stored / 32)
                levels.append([unit["name"], ratio, bits, size, damage, 0.9 * (1 - ratio)])
    for row in new["trials"]:
        fixed = {"rung": 0, "promoted_from": None}
        row |= {**fixed, "predicted_kl": None if row["kl"] is None else 0.8 * row["kl"] + 1e-5}
    done = [row for row in new["trials"] if row["state"] == "COMPLETE" and row["name"] is None]
    brief = [_promoted(row, len(new["trials"]) + k) for k, row in enumerate(done[::3])]
    long = [_promoted(row, len(new["trials"]) + len(brief) + k) for k, row in enumerate(brief[:2])]
    new["trials"] += brief + long
    counts = ((0, 0, 38, 6.1), (1, 16, len(brief), 31.0), (2, 120, 2, None))
    new["rungs"] = [
        dict(zip(("rung", "steps", "trials", "mean_seconds"), values, strict=True)) for values in counts
    ]
    new["agreement"] = [
        {"lower": 0, "upper": 1, "kendall_tau": 0.83, "pairs": len(brief), "low": False},
        {"lower": 1, "upper": 2, "kendall_tau": None, "pairs": 2, "low": False},
    ]
    new["sensitivity"] = {"levels": levels, "spearman": 0.97, "pairs": 38}
    new["run"] |= {"stopped_by": "patience", "driver_share": 0.004, "overhead_share": 0.031}
    return {**new, "kl_hypervolume": 0.5821}


PERPLEXITY = METRICS["perplexity"]
TOKEN = "a token after 128 others"


def worded(front: Json) -> Json:
    """The same front of a language model: perplexities from about 9 to 50, milliseconds of a token."""
    new = copy.deepcopy(front)
    for row in new["trials"]:
        for field in ("accuracy", "test_accuracy"):
            if row[field] is not None:
                row[field] = PERPLEXITY.score(9.5 * 1.9 ** ((80.6 - row[field]) / 1.5))
    new["hypervolume_reference"]["accuracy"] = 1.0
    new["run"] |= {"metric": PERPLEXITY.as_json(), "latency_of": TOKEN, "task": "causal-lm"}
    return new


def deep(front: Json) -> Json:
    """The same front of a model with numbered layers, of units that are removed whole in every trial."""
    new = copy.deepcopy(front)
    kinds = ("heads", "neurons", "channels")
    last = len(new["units"]) - 1
    for k, unit in enumerate(new["units"]):
        layer, part = divmod(k - 1, 3)
        name = f"model.layers.{layer}.part_{part}" if 0 < k < last else ("tokens", "head")[k > 0]
        for row in new["trials"]:
            for field in ("levels", "unit_bytes"):
                if unit["name"] in row[field]:
                    row[field][name] = row[field].pop(unit["name"])
            if k == 7:
                row["levels"][name] = {"ratio": 1.0, "bits": 4}
        unit |= {"name": name, "kind": "tokens" if k == 0 else kinds[part % 3]}
    return new


def _promoted(row: Json, number: int) -> Json:
    changes = {"number": number, "rung": row["rung"] + 1, "promoted_from": row["number"]}
    return {**copy.deepcopy(row), **changes, "kl": 0.5 * row["kl"], "on_front": False}


@pytest.fixture(scope="module")
def modern(front: Json) -> Json:
    return climbed(front)


def hostile(front: Json) -> Json:
    """The same front with markup wherever a model, a data set or a message gives the text."""
    bad = copy.deepcopy(front)
    image, script = HOSTILE
    bad["run"] |= dict.fromkeys(("name", "model", "dataset", "protocol", "machine"), image)
    bad["run"] |= {"metric": {"name": script, "higher_is_better": True, "unit": image}, "latency_of": image}
    bad["run"] |= {"command": script, "folder": script, "target": image, "budget_text": image}
    bad["run"]["versions"] = {script: image}
    bad["trials"][1]["name"], bad["trials"][2]["name"] = image, "=cmd|' /C calc'!A0"
    bad["trials"][13]["failure"], bad["trials"][8]["worker"] = script, image
    old = bad["units"][3]["name"]
    bad["units"][3] |= {"name": script + "\u2028", "kind": image}
    for trial in bad["trials"]:
        for field in ("levels", "unit_bytes", "unit_ms"):
            if old in trial.get(field, ()):
                trial[field][script + "\u2028"] = trial[field].pop(old)
    for row in bad.get("sensitivity", {}).get("levels", ()):
        row[0] = script + "\u2028" if row[0] == old else image if row[0] == "pooler" else row[0]
    if "rungs" in bad:
        bad["run"]["stopped_by"] = image
    return bad


# ---- what it says -------------------------------------------------------------------------------


def changed(front_: Json, run: Json | None = None, **fields: object) -> Json:
    return {**front_, **fields, "run": {**front_["run"], **(run or {})}}


def test_verdict_of_a_finished_run(front: Json) -> None:
    text = verdict(checked_front(front))
    number = front["best"]
    expected = (
        r"\d+\.\d MB, \d\.\d\u00d7 smaller and \d\.\d\u00d7 faster than the original at \d+\.\d\s% "
        rf"\(original \d+\.\d\s%\) on test: trial {number} is within 20\.0 MB"
    )
    assert re.fullmatch(expected, text)


def test_verdict_where_nothing_fits(front: Json) -> None:
    tight = {"budget": {"size_bytes": MB, "latency_ms": None}, "budget_text": "1.0 MB"}
    text = verdict(checked_front(changed(front, tight, best=None)))
    assert text.startswith("No trial is within 1.0 MB: the smallest of 38 trials is trial ")
    fast = {"budget": {"size_bytes": None, "latency_ms": 1.0}, "budget_text": "1 ms"}
    text = verdict(checked_front(changed(front, fast, best=None)))
    assert text.startswith("No trial is within 1 ms: the fastest of 38 trials is trial ")


def test_a_uniform_model_trained_longer_is_named_where_it_is_chosen(front: Json) -> None:
    assert not any("trained longer" in note for note in notes(checked_front(front)))
    uniform = next(trial for trial in front["trials"] if trial["name"] == "uniform 4-bit")
    rows = [
        {**trial, "levels": uniform["levels"]} if trial["number"] == front["best"] else trial
        for trial in front["trials"]
    ]
    said = [note for note in notes(checked_front(changed(front, trials=rows))) if "trained longer" in note]
    assert len(said) == 1
    told = "is uniform 4-bit, trained longer, which no trial dominates"
    assert said[0].startswith(f"Trial {front['best']} {told}")


def test_a_baseline_that_wins_and_a_point_that_guesses_are_said_first(front: Json) -> None:
    base = next(trial for trial in front["trials"] if trial["name"] == "uniform 4-bit")
    is_best = notes(checked_front(changed(front, best=base["number"])))
    assert is_best[0].startswith(f"Trial {base['number']} is uniform 4-bit, which no trial dominates")
    chosen = next(trial for trial in front["trials"] if trial["number"] == front["best"])
    better = {"size_bytes": chosen["size_bytes"] - 1, "latency_ms": chosen["latency_ms"] / 2}
    rows = [{**t, **better} if t is base else t for t in front["trials"]]
    for equal in ([], [base["number"], chosen["number"]]):
        said = notes(checked_front(changed(front, trials=rows, as_accurate=equal)))
        assert any(note.startswith("Uniform 4-bit is as accurate as trial ") for note in said) == bool(equal)
    rows = [{**t, "accuracy": 50.4} if t["number"] == front["knee"] else t for t in front["trials"]]
    said = notes(checked_front(changed(front, trials=rows)))
    assert any(note.startswith(f"Trial {front['knee']} (") and "than guessing" in note for note in said)
    assert not any("than guessing" in note for note in notes(checked_front(front)))


def test_each_point_to_choose_is_a_row_once(front: Json) -> None:
    number, other = front["best"], front["knee"]
    points = {"best": number, "accurate": number, "small": None, "fast": number, "knee": other}
    rows = choices(checked_front(changed(front, points=points)))
    expected = [("Best", "also most accurate and fastest"), ("Knee", "")]
    if other == number:
        expected = [("Best", "also most accurate, fastest and knee")]
    assert [(row.point, row.also) for row in rows] == expected
    assert len(choices(checked_front(front))) == len({number, other})  # an old run's


def test_verdict_without_test_accuracy_budget_or_result(front: Json) -> None:
    rows = [{**trial, "test_accuracy": None} for trial in front["trials"]]
    free = {"budget": {"size_bytes": None, "latency_ms": None}, "budget_text": ""}
    read = checked_front(changed(front, {**free, "state": "running"}, trials=rows))
    assert verdict(read).startswith("So far ")
    assert "on validation" in verdict(read)
    assert verdict(read).endswith("no limit was set")
    assert any("not finished: 38 of 40" in note for note in notes(read))
    gone = notes(checked_front(changed(front, {"state": "gone"})))
    assert any("ended without a word: 38 of 40" in line and "autoprune resume" in line for line in gone)
    assert any("somewhat optimistic" in note for note in notes(read))
    empty = checked_front(changed(front, trials=[], best=None, knee=None))
    assert verdict(empty) == "No trial has finished yet"
    failed = checked_front(changed(front, trials=[front["trials"][13]], best=None))
    assert verdict(failed) == "No result: the only trial failed"


def test_gain_is_against_trials_of_no_more_bytes(front: Json) -> None:
    read = checked_front(front)
    rows = gains(read)
    assert [row.name for row in rows] == ["uniform pruning", "uniform 8-bit", "uniform 4-bit"]
    small = {f"trial {trial.number}": trial.size_bytes or 0 for trial in read.searched if trial.measured}
    for row, base in zip(rows, ("uniform pruning", "uniform 8-bit", "uniform 4-bit"), strict=True):
        limit = next(trial.size_bytes for trial in read.baselines if trial.name == base)
        assert row.equal is not None
        assert small[row.equal.label] <= (limit or 0)
    assert [row.chosen is not None for row in rows] == [False, False, True]
    assert {cause.cause for cause in causes(read)} == {"OutOfMemoryError", "loss is NaN at step 31"}


def test_most_and_least_sensitive_are_named_at_the_bits_nearest_to_four(modern: Json) -> None:
    said = extremes(checked_front(modern))
    assert said == (
        "At 4 bits with nothing removed, pooler is the most sensitive (5.9\u00d710\u207b\u2074 nats a row) "
        "and embeddings the least (3.9\u00d710\u207b\u2075)."
    )
    rows = [row for row in modern["sensitivity"]["levels"] if row[2] not in (3, 4)]
    without = changed(modern, sensitivity={"levels": rows, "spearman": None, "pairs": 1})
    assert extremes(checked_front(without)).startswith("At 8 bits with nothing removed, pooler")
    one = changed(modern, sensitivity={"levels": rows[:2]})
    assert extremes(checked_front(one)) == ""
    only = changed(modern, sensitivity={"levels": [row for row in rows if row[2] == "w8a8"]})
    said = extremes(checked_front(only))
    assert said.startswith("At 8-bit weights and activations with nothing removed, pooler is the most")


@pytest.mark.parametrize(
    ("spearman", "pairs", "said"),
    [
        (0.97, 40, "Over 40 untrained trials predicted and measured divergence rank alike: Spearman 0.97."),
        (0.6, 40, "rank partly alike: Spearman 0.60."),
        (-0.2, 40, "rank differently: Spearman \u22120.20."),
        (None, 40, "cannot be compared by rank: too many are tied."),
        (1.0, 2, "2 untrained trials measured: too few to tell how well the prediction holds."),
        (None, 0, "No untrained trial measured: too few"),
    ],
)
def test_how_well_the_prediction_held(modern: Json, spearman: float | None, pairs: int, said: str) -> None:
    given = {"levels": [], "spearman": spearman, "pairs": pairs}
    assert said in held(checked_front(changed(modern, sensitivity=given)))


@pytest.mark.parametrize(
    ("fields", "low", "said"),
    [
        ({"kendall_tau": 0.83, "pairs": 17}, False, "Ranks by KL untrained agree with those after the brief"),
        ({"kendall_tau": 0.4, "pairs": 17}, False, "agree only in part with those after the brief"),
        ({"kendall_tau": -0.1, "pairs": 9}, True, "Kendall\u2019s tau \u22120.10 over 9 candidates), so the"),
        ({"kendall_tau": -0.1, "pairs": 9}, True, "Ranks flip between rungs"),
        ({"kendall_tau": None, "pairs": 2}, False, "2 candidates were measured both untrained and after"),
        ({"kendall_tau": None, "pairs": 1}, False, "1 candidate was measured both"),
        ({"kendall_tau": None, "pairs": 5}, False, "cannot be compared: too many are tied"),
        (
            {"kendall_tau": 0.83, "pairs": 17, "trained": 21, "left": 0.634},
            False,
            "17 of 21 brief fine-tunes changed anything and were kept; on average 63\u00a0% of the KL was "
            "left. Ranks by KL untrained agree",
        ),
        (
            {"kendall_tau": None, "pairs": 0, "trained": 4, "left": None},
            False,
            "0 of 4 brief fine-tunes changed anything and were kept.",
        ),
    ],
)
def test_agreement_of_rungs_in_words(modern: Json, fields: Json, low: bool, said: str) -> None:
    given = [{"lower": 0, "upper": 1, "low": low, **fields}]
    (sentence,) = agreements(checked_front(changed(modern, agreement=given)))
    assert said in sentence.text
    assert sentence.low is low
    none = [{"lower": 0, "upper": 1, "kendall_tau": None, "pairs": 0, "low": False}]
    assert agreements(checked_front(changed(modern, agreement=none))) == []


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        (
            (0.031, 24, 0.012),
            "were off by 3.1 % on average over 24 trials, and too high by 1.2 % in the mean.",
        ),
        ((0.2, 3, -0.2), "were off by 20.0 % on average over 3 trials, and too low by 20.0 % in the mean."),
        ((0.031, 24, 0.0004), "were off by 3.1 % on average over 24 trials."),
        ((0.0, 5, 0.0), "were off by 0.0 % on average over 5 trials."),
        (None, "Too few trials have been measured to tell how far off they are."),
    ],
)
def test_error_of_predicted_milliseconds_in_words(
    modern: Json, latency: tuple[float, int, float] | None, said: str
) -> None:
    given = latency and dict(zip(("predicted error", "pairs", "bias"), latency, strict=True))
    text = prediction(checked_front(changed(modern, latency=given))).replace("\u00a0", " ")
    assert text.startswith("What a unit takes at each level was fitted to whole models timed on the target")
    assert text.endswith(said)
    assert "left out" not in text
    checked = changed(modern, {"latency_table_error": 0.024}, latency=given)
    left_out = "On models left out of the fit, the sum was off by 2.4 % on average."
    assert left_out in prediction(checked_front(checked)).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("widths", "facts", "said"),
    [
        ([32, 8, 3, 6], {}, "6 and 3 bits save bytes alone on openvino: they are computed no faster than"),
        ([3], {}, "3 bits save bytes alone on openvino: they"),
        ([32, 8, 4, 2, "w8a8"], {}, ""),
        ([32], {}, ""),
        ([8, 4, 16], {"fast_bits": []}, "16, 8 and 4 bits save bytes alone on openvino"),
        (["w8a8"], {"integer": False}, "w8a8 saves bytes alone on openvino: it is computed no faster"),
        ([3, "w8a8"], {"integer": False, "target": ""}, "w8a8 and 3 bits save bytes alone on this target"),
        ([3, 6], {"fast_bits": None, "integer": None}, ""),
    ],
)
def test_widths_of_the_front_that_save_no_time(
    modern: Json, widths: list[int | str], facts: Json, said: str
) -> None:
    members = [{"ratio": 0.0, "bits": width} for width in widths]
    rows = [
        {**row, "on_front": k < 2, "levels": {f"unit {n}": trial for n, trial in enumerate(members)}}
        if k < 2
        else {**row, "on_front": False, "levels": {"other": {"ratio": 0.5, "bits": 6}}}
        for k, row in enumerate(modern["trials"])
    ]
    text = bytes_alone(checked_front(changed(modern, facts, trials=rows)))
    assert text.startswith(said) if said else text == ""


def test_a_width_that_is_none_is_named_with_its_place(front: Json) -> None:
    for wrong in ("w4a8", "8", 4.5, None):
        bad = copy.deepcopy(front)
        bad["trials"][5]["levels"]["pooler"]["bits"] = wrong
        with pytest.raises(AutopruneError, match=r"trials\.5\.levels\.pooler\.bits"):
            checked_front(bad)


TFIDF = {
    "name": "tf-idf and logistic regression", "size_bytes": 812_000, "latency_ms": 0.9, "accuracy": 76.3,
    "test_accuracy": 76.1, "what": "30,000 words", "seconds": 3.1,
}  # fmt: skip


def lined(front: Json, *lines: Json) -> Json:
    """The same front beside simple models."""
    return {**front, "lines": [dict(line) for line in lines or (TFIDF,)]}


def members(front: Json, *points: tuple[int, float]) -> Json:
    """The same front of these sizes and scores alone; all other trials are dominated."""
    rows = [{**row, "on_front": False} for row in front["trials"]]
    done = [row for row in rows if row["state"] == "COMPLETE" and row["name"] is None]
    for row, (size, score) in zip(done, points, strict=False):
        row |= {"on_front": True, "size_bytes": size, "accuracy": score}
    return {**front, "trials": rows}


def test_the_first_note_says_where_a_simple_model_is_as_good_as_the_front(front: Json) -> None:
    points = ((1_400_000, 70.2), (2_000_000, 76.3), (2_349_000, 78.4), (9_000_000, 76.0))
    read = checked_front(lined(members(front, *points)))
    told = "tf-idf and logistic regression (0.81 MB, 76.3\u00a0%)"
    assert notes(read)[0] == f"Below 2.3 MB the front is no better on validation than {told}."
    worse = checked_front(lined(members(front, *points[:2])))
    assert not_above(worse) == f"Nowhere is the front better on validation than {told}."
    for score, said in ((71.0, ". Below 2.0 MB the front is no better on validation than a mean (0.81"),
                        (76.4, " or a mean (0.81")):  # fmt: skip
        two = lined(members(front, *points), TFIDF, {**TFIDF, "name": "a mean", "accuracy": score})
        assert said in not_above(checked_front(two))


def test_a_simple_model_within_the_noise_of_the_best_is_told_first(front: Json) -> None:
    read = checked_front(front)
    best = read.chosen
    assert best is not None
    error = standard_error(best.accuracy, read.run.answers)
    for off, said in ((0.9 * error, True), (2 * error, False)):
        line = TFIDF | {
            "accuracy": best.accuracy - off,
            "latency_ms": 0.5 * best.latency_ms,
            "size_bytes": 9_000,
        }
        first = notes(checked_front(lined(front, line)))[0]
        assert ("is as accurate as the best within the noise, smaller and faster." in first) == said
        if said:
            assert first.startswith("tf-idf and logistic regression (0.01 MB, ")


@pytest.mark.parametrize(("size", "score"), [(900_000, 77.0), (700_000, 70.0)])
def test_nothing_is_said_where_the_front_is_above(front: Json, size: int, score: float) -> None:
    points = ((size, score), (2_000_000, 78.0))
    assert not_above(checked_front(lined(members(front, *points)))) == ""
    assert not_above(checked_front(members(front, *points))) == ""


@hypothesis.given(
    some.lists(some.tuples(some.integers(100_000, 9_000_000), some.integers(700, 800)), max_size=6),
    some.integers(700, 800),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_simple_model_wins_by_definition(points: list[tuple[int, int]], tenths: int) -> None:
    """Over members of no fewer bytes and no better score, up to the smallest that is better."""
    line = {**TFIDF, "accuracy": tenths / 10}
    read = checked_front(lined(members(SYNTHETIC, *((size, score / 10) for size, score in points)), line))
    said, limit = not_above(read), min((size for size, score in points if score > tenths), default=math.inf)
    beaten = [size for size, score in points if size >= line["size_bytes"] and score <= tenths]
    assert bool(said) == any(size < limit for size in beaten)
    if said and limit < math.inf:
        assert said.startswith(f"Below {limit / 1e6:.1f} MB the front is no better on validation than tf-idf")


def test_simple_models_stand_below_the_baselines_in_the_table(front: Json) -> None:
    *uniform, row = gains(checked_front(lined(front)))
    assert uniform == gains(checked_front(front))
    assert (row.name, row.size, row.latency.split(), row.equal) == (
        TFIDF["name"], "0.81 MB", ["0.900", "ms"], None,
    )  # fmt: skip
    assert row.chosen is not None
    best = next(trial for trial in front["trials"] if trial["number"] == front["best"])
    assert row.chosen.step == METRICS["accuracy"].signed(best["test_accuracy"], TFIDF["test_accuracy"])
    assert "30,000 words" in render(lined(front))
    assert "line-what" not in render(front)


def test_provenance_tells_what_ended_the_run(front: Json, modern: Json) -> None:
    told = {name: value.replace("\u00a0", " ") for name, value in provenance(checked_front(modern))}
    assert told["Stopped by"] == "patience: no more progress"
    assert told["Driver"] == "0.4 % of the wall time spent thinking"
    assert told["Overhead"] == "3.1 % of the trials\u2019 time neither training nor evaluation"
    assert told["KL hypervolume"] == "0.5821 in bytes and log KL"
    new = {"Stopped by", "Driver", "Overhead", "KL hypervolume"}
    assert not new & dict(provenance(checked_front(front))).keys()


def classed(front: Json, classes: int = 4, rows: int = 40) -> Json:
    """The same front with scores of classes: the best lost most in the second, the knee in the third."""
    names = [f"class {k}" for k in range(classes)]
    before = [90.0 - k % 7 for k in range(classes)]
    best = [score - 0.5 * (k % 3) for k, score in enumerate(before)]
    best[1], best[3] = before[1] - 12.5, before[3] + 2.0
    knee = [score - 1.0 for score in before]
    knee[2] = before[2] - 30.0
    numbers = {0: before, front["best"]: best, front["knee"]: knee}
    field = {"classes": names, "validation_rows": [rows] * classes}
    right = {str(number): scores for number, scores in numbers.items()}
    return changed(front, class_scores={**field, "percent_right": right})


def test_classes_that_changed_most_are_told_with_the_worst_of_each_point(front: Json) -> None:
    table = class_table(checked_front(classed(front)))
    assert table is not None
    assert table.heads == ((f"Trial {front['best']}", "best"), (f"Trial {front['knee']}", "knee"))
    assert [row.name for row in table.rows] == ["class 2", "class 1", "class 3", "class 0"]
    told = {row.name: [(cell.change, cell.is_worst) for cell in row.cells] for row in table.rows}
    assert told == {
        "class 0": [("0.0", False), (MINUS + "1.0", False)],
        "class 1": [(MINUS + "12.5", True), (MINUS + "1.0", False)],
        "class 2": [(MINUS + "1.0", False), (MINUS + "30.0", True)],
        "class 3": [("+2.0", False), (MINUS + "1.0", False)],
    }
    assert (table.rows[1].original.split(), table.rows[1].rows) == (["89.0", "%"], "40")
    assert "marked, of classes of 10 rows or more" in table.note
    assert "more class" not in table.note


def test_of_many_classes_twenty_are_told_and_how_many_are_not(front: Json) -> None:
    record = classed(front, classes=1500)
    assert FEWEST_SHOWN == FEWEST_OF_CLASS  # apart, for the report does without numpy
    record["class_scores"]["validation_rows"][2] = FEWEST_SHOWN - 1  # so few that its loss is luck
    table = class_table(checked_front(record))
    assert table is not None
    assert len(table.rows) == 20
    assert "1,480 more classes changed less" in table.note
    worst = [[row.name for row in table.rows if row.cells[point].is_worst] for point in (0, 1)]
    assert worst == [["class 1"], ["class 0"]]  # of equal losses the first
    assert "1 more class changed less" in str(class_table(checked_front(classed(front, classes=21))))


@pytest.mark.parametrize(
    "scores",
    [None, {"classes": ["a"], "validation_rows": [9], "percent_right": {}},
     {"classes": ["a"], "validation_rows": [9], "percent_right": {"0": [90.0]}},
     {"classes": ["a"], "validation_rows": [9], "percent_right": {"7": [90.0]}}],
)  # fmt: skip
def test_without_scores_of_original_and_point_there_is_no_table_of_classes(front: Json, scores: Json) -> None:
    record = changed(front, class_scores=scores)
    assert class_table(checked_front(record)) is None
    assert "classes-title" not in render(record)


def test_scores_of_other_classes_than_there_are_name_the_field(front: Json) -> None:
    record = classed(front)
    record["class_scores"]["percent_right"]["0"].pop()
    with pytest.raises(AutopruneError, match=r"front\.json cannot be read:\s+class_scores: 4 classes have"):
        render(record)


def test_a_front_without_the_new_fields_has_no_new_sections(front: Json) -> None:
    null = dict.fromkeys(("rungs", "agreement", "sensitivity", "kl_hypervolume", "latency"))
    for record in (front, changed(front, **null)):
        read = checked_front(record)
        assert (ladder(read), agreements(read), predicted(read), extremes(read), held(read)) == (
            [], [], False, "", "",
        )  # fmt: skip
        assert (prediction(read), bytes_alone(read)) == ("", "")
        names = "rungs-title|sensitivity-title|heat|scatter|bytes-alone|latency-prediction"
        assert not re.search(f'id="({names})"', render(record))


# ---- metrics other than accuracy ----------------------------------------------------------------


def test_perplexity_is_told_in_its_own_numbers(front: Json) -> None:
    read = checked_front(worded(front))
    best, original = (
        PERPLEXITY.text(next(t for t in read.trials if t.number == number).test_accuracy)
        for number in (front["best"], 0)
    )
    assert f"at perplexity {best} (original {original}) on test" in verdict(read)
    size, latency, score, _ = figures(read)
    assert latency.label == f"Latency of {TOKEN}"
    assert (score.label, score.value, score.detail) == ("Perplexity, test", best, f"original {original}")
    assert re.fullmatch(r"perplexity \+\d\.\d\d", score.change)
    assert size == figures(checked_front(front))[0]
    assert not any("standard error" in note for note in notes(read))
    told = dict(provenance(read))
    assert told["Metric"] == "perplexity (lower is better)"
    assert told["Hypervolume"].endswith("perplexity 100.0")
    assert "Metric" not in dict(provenance(checked_front(front)))


def test_gain_of_perplexity_is_ahead_where_it_falls(front: Json) -> None:
    plain, words = gains(checked_front(front)), gains(checked_front(worded(front)))
    for a, b in zip(plain, words, strict=True):
        assert a.equal is not None
        assert b.equal is not None
        assert (a.equal.label, a.equal.ahead) == (b.equal.label, b.equal.ahead)
        assert (b.equal.step[0] == "\u2212") == b.equal.ahead
    page = render(worded(front))
    assert "Change in perplexity" in page
    assert "Less perplexity is better." in page
    assert "Gain, points" not in page


def test_a_metric_in_percent_has_points_and_its_name(front: Json) -> None:
    for given in ("f1", METRICS["f1"].as_json()):
        read = checked_front(changed(front, {"metric": given}))
        assert re.search(r" at F1 \d\d\.\d\s% \(original \d\d\.\d\s%\) on test", verdict(read))
        assert figures(read)[2].change.endswith(" points")
        assert not any("standard error" in note for note in notes(read))
    assert checked_front(changed(front, {"latency_of": None})).run == checked_front(front).run
    for given in (None, "accuracy", METRICS["accuracy"].as_json()):
        assert verdict(checked_front(changed(front, {"metric": given}))) == verdict(checked_front(front))


def test_what_is_no_metric_is_named_with_its_place(front: Json) -> None:
    for wrong in ({"name": 3}, {"unit": "%"}, ["accuracy"], {"name": "x", "higher_is_better": "no"}):
        with pytest.raises(AutopruneError, match=r"run\.metric: .* is none: give its name"):
            checked_front(changed(front, {"metric": wrong}))


def test_csv_has_the_score_and_the_metric_s_own_number(front: Json, tmp_path: Path) -> None:
    words = worded(front)
    words["trials"][5]["accuracy"] = 0.0
    write_csv(words, tmp_path / "front.csv")
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert rows[5]["perplexity"] == ""
    for k, (row, trial) in enumerate(zip(rows, words["trials"], strict=True)):
        assert (float(row["accuracy"]) if row["accuracy"] else None) == trial["accuracy"]
        if row["accuracy"] and k != 5:
            assert float(row["perplexity"]) == pytest.approx(100 / trial["accuracy"])
    write_csv(front, tmp_path / "front.csv")
    assert "perplexity" not in (tmp_path / "front.csv").read_text()


# ---- what a run records of its predicted milliseconds -------------------------------------------


TABLE = {Level(): 9.0, Level.of(0.5, "w8a8"): 1.0, Level.of(0.0, 4): 5.0}
COSTS = Costs(1000, {u: {lv: Cost(100, 0.0, ms) for lv, ms in TABLE.items()} for u in ("a", "b")}, 2.0)


def recorded(
    found: Sequence[tuple[Level, float | None]], costs: Costs = COSTS, baseline: float | None = None
) -> Json:
    """What `front.json` holds of trials: unit `a` at a level, `b` untouched, with measured milliseconds."""
    rows = [Trial(0, *_pair(Level(), baseline), name="original")] if baseline else []
    rows += [Trial(k, *_pair(*pair)) for k, pair in enumerate(found, start=len(rows))]
    facts = {"recipe": {"steps": 1}, "fast_bits": [4], "integer": True, "target": "openvino"}
    about = RunRecord(facts=RunFacts(**facts), latency_table_error=0.024)
    now = standing(rows, Budget(), Measurement(3000, 30.0, 50.0), answers=10)
    record = front_record(about, costs, now, Budget(), byte_range=ByteRange(1000.0, 3000.0), state="finished")
    json.dumps(record, allow_nan=False)
    return record


def _pair(level: Level, ms: float | None) -> tuple[Candidate, Measurement | None]:
    candidate = Candidate((("a", level), ("b", Level())))
    return candidate, None if ms is None else Measurement(1200, ms, 80.0)


def test_error_of_predictions_is_the_mean_over_measured_trials() -> None:
    w8a8, four = Level.of(0.5, "w8a8"), Level.of(0.0, 4)  # predicted: 2 + 1 + 9 = 12 ms, 2 + 5 + 9 = 16 ms
    trials = [(w8a8, 10.0), (w8a8, 12.0), (four, 20.0), (four, None)]
    found = recorded(trials, baseline=40.0)  # the original, off by half, is no pair
    assert found["latency"] == pytest.approx(
        {"predicted error": (0.2 + 0.0 + 0.2) / 3, "pairs": 3, "bias": (0.2 + 0.0 - 0.2) / 3}
    )
    assert recorded(trials[1:], baseline=40.0)["latency"] is None
    read = checked_front(found)
    assert "off by 13.3 % on average over 3 trials." in prediction(read).replace("\u00a0", " ")


def test_each_trial_has_its_predicted_milliseconds_and_those_of_its_units() -> None:
    found = recorded([(Level.of(0.5, "w8a8"), 10.0), (Level.of(0.0, 4), None)], baseline=20.0)
    assert [row["predicted_latency_ms"] for row in found["trials"]] == [20.0, 12.0, 16.0]
    assert [row["unit_ms"] for row in found["trials"]] == [{"a": ms, "b": 9.0} for ms in (9.0, 1.0, 5.0)]
    assert [row["levels"]["a"]["bits"] for row in found["trials"]] == [32, "w8a8", 4]
    rows = found["sensitivity"]["levels"]
    for trial in found["trials"]:
        for unit, level in trial["levels"].items():
            (ms,) = [row[5] for row in rows if row[:3] == [unit, level["ratio"], level["bits"]]]
            assert ms == trial["unit_ms"][unit]
    said = [found["run"][name] for name in ("fast_bits", "integer", "latency_table_error")]
    assert said == [[4], True, 0.024]


def test_without_a_latency_table_nothing_is_predicted() -> None:
    bare = Costs(1000, {u: {lv: Cost(100) for lv in TABLE} for u in ("a", "b")})
    found = recorded([(Level.of(0.0, 4), 10.0)] * 4, bare)
    assert found["latency"] is None
    assert {row["predicted_latency_ms"] for row in found["trials"]} == {None}
    assert [row["unit_ms"] for row in found["trials"]] == [{}] * 4
    assert prediction(checked_front(found)) == ""


def test_a_packed_front_is_small_and_unpacks_to_itself(modern: Json) -> None:
    given: Any = pack(modern)
    names, levels, variants = (given[key] for key in ("names", "levels", "variants"))
    assert {json.dumps(level) for level in levels} == {
        json.dumps(level) for row in modern["trials"] for level in row["levels"].values()
    }
    for row, packed in zip(modern["trials"], given["front"]["trials"], strict=True):
        for k, name in enumerate(names):
            index, size, ms = variants[k][packed["levels"][k]]
            assert levels[index] == row["levels"][name]
            assert (size, ms) == (row["unit_bytes"].get(name), row["unit_ms"][name])
    assert len(json.dumps(given)) < 0.5 * len(json.dumps(modern))


# ---- the files ----------------------------------------------------------------------------------


def test_embedded_json_is_inert() -> None:
    text = embedded({"</script>": "<!-- & \u2028\u2029"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"</script>": "<!-- & \u2028\u2029"}


@pytest.mark.slow
def test_five_hundred_trials_fit(tmp_path: Path) -> None:
    for units in (15, 151):
        write_report(climbed(synthetic(500, units)), tmp_path / "report.html")
        assert (tmp_path / "report.html").stat().st_size <= 1.5 * MB


def shortened(front: Json) -> Json:
    """The same with `level_numbers` in the rows that are neither on the front nor baselines nor points."""
    new = copy.deepcopy(front)
    places: dict[str, dict[tuple[Any, Any], int]] = {}
    for unit, ratio, bits, *_ in new["sensitivity"]["levels"]:
        table = places.setdefault(unit, {})
        table.setdefault((ratio, bits), len(table))
    named = {new["best"], new["knee"], *(new.get("points") or {}).values()}
    for row in new["trials"]:
        if row["on_front"] or row["name"] is not None or row["number"] in named:
            continue
        chosen = [(unit, level["ratio"], level["bits"]) for unit, level in row.pop("levels").items()]
        row["level_numbers"] = [places[unit][ratio, bits] for unit, ratio, bits in chosen]
        del row["unit_bytes"], row["unit_ms"]
    return new


def offered(front: Json) -> Json:
    """The same, whose `sensitivity` has every level that a trial has, with its bytes."""
    new = copy.deepcopy(front)
    rows: dict[tuple[str, Any, Any], list[Any]] = {}
    for row in new["trials"]:
        row["levels"] = {unit["name"]: (row["levels"] or {}).get(unit["name"], {"ratio": 0.0, "bits": 32})
                         for unit in new["units"]}  # fmt: skip
        for unit in new["units"]:
            level = row["levels"][unit["name"]]
            size = round(unit["size_bytes"] * (1 - level["ratio"]) * 0.1)
            key = unit["name"], level["ratio"], str(level["bits"])
            rows.setdefault(key, [unit["name"], level["ratio"], level["bits"], size, 0.1, 0.5])
        row["unit_bytes"] = {
            name: rows[name, level["ratio"], str(level["bits"])][3] for name, level in row["levels"].items()
        }
        row["unit_ms"] = dict.fromkeys(row["levels"], 0.5)
        row["predicted_latency_ms"] = 9.0
    order = [unit["name"] for unit in new["units"]]
    new["sensitivity"]["levels"] = sorted(rows.values(), key=lambda row: order.index(row[0]))
    return new


@pytest.mark.slow
def test_a_page_of_many_trials_shows_those_that_matter_and_says_so(tmp_path: Path) -> None:
    whole = offered(climbed(synthetic(2000, 15)))
    short = shortened(whole)
    assert sum("level_numbers" in row for row in short["trials"]) > 1500
    for front in (whole, short):
        write_report(front, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert len(page) <= 1.5 * MB
        assert f"of {len(whole['trials']):,} trials are shown on this page" in page
        assert "All of them are in front.csv." in page
    assert MOST_SHOWN >= len(shown_numbers(checked_front(short))) > MOST_SHOWN - 10
    wanted = {row["number"] for row in short["trials"] if row["on_front"] or row["name"] is not None}
    assert wanted <= shown_numbers(checked_front(short))
    write_csv(whole, tmp_path / "whole.csv")
    write_csv(short, tmp_path / "short.csv")
    assert (tmp_path / "short.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_page_of_some_trials_shows_all_and_says_nothing(modern: Json) -> None:
    assert "trials are shown on this page" not in render(modern)
    assert len(shown_numbers(checked_front(modern))) == len(modern["trials"])


def test_write_is_whole_or_not_at_all(front: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")

    def refuse(*_: object) -> None:
        assert path.read_text() == "before"
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    for write in (write_report, write_csv):
        with pytest.raises(OSError, match="disk full"):
            write(front, path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"


def test_nan_is_nothing_and_a_wrong_file_is_named(front: Json, tmp_path: Path) -> None:
    rows = [{**trial, "kl": math.nan} for trial in front["trials"]]
    write_report(changed(front, trials=rows), tmp_path / "report.html")
    assert ":NaN" not in (tmp_path / "report.html").read_text()
    with pytest.raises(AutopruneError, match="version 9, this report reads version 1"):
        write_report(changed(front, version=9), tmp_path / "x.html")
    with pytest.raises(AutopruneError, match=r"trials\.0\.number"):
        write_report(changed(front, trials=[{"state": "FAIL"}]), tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_csv_reads_back(front: Json, tmp_path: Path) -> None:
    write_csv(front, tmp_path / "front.csv")
    check_csv((tmp_path / "front.csv").read_bytes().decode(), front)


def test_csv_has_rung_and_prediction(front: Json, modern: Json, tmp_path: Path) -> None:
    write_csv(modern, tmp_path / "front.csv")
    check_csv((tmp_path / "front.csv").read_bytes().decode(), modern)
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    for row, trial in zip(rows, modern["trials"], strict=True):
        assert int(row["rung"]) == trial["rung"]
        for field in ("predicted_kl", "predicted_latency_ms"):
            assert (float(row[field]) if row[field] else None) == trial[field]
    write_csv(front, tmp_path / "front.csv")
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert {(row["rung"], row["predicted_kl"], row["predicted_latency_ms"]) for row in rows} == {("", "", "")}


def check_csv(text: str, front: Json) -> None:
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(front["trials"])
    for row, trial in zip(rows, front["trials"], strict=True):
        assert (row["name"] or None) == trial["name"]
        for field in ("number", "size_bytes", "latency_ms", "accuracy", "kl", "seconds"):
            assert (float(row[field]) if row[field] else None) == trial[field]
        for name, level in trial["levels"].items():
            assert float(row[f"{name}.ratio"]) == level["ratio"]
            assert row[f"{name}.bits"] == str(level["bits"])


def test_csv_holds_no_formula(front: Json, tmp_path: Path) -> None:
    write_csv(hostile(front), tmp_path / "front.csv")
    with (tmp_path / "front.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=cmd|' /C calc'!A0" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_report_imports_no_torch() -> None:
    code = "import sys, autoprune.report; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# ---- in a browser -------------------------------------------------------------------------------


def chromium() -> str | None:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH; set CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[[Json], Any]]:
    """Opens the report of a front; at the end, nothing may have been asked for or gone wrong."""
    wrong: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    page.on("dialog", lambda one: wrong.append(one.message))
    page.on("request", lambda one: asked.append(one.url))
    address = (tmp_path / "report.html").as_uri()

    def opened(front: Json) -> Any:
        write_report(front, tmp_path / "report.html")
        page.goto(address)
        return page

    yield opened
    page.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} <= {address}


def rows_of(page: Any, column: int) -> list[str]:
    cells = page.locator(f"#trials tbody tr > :nth-child({column})").all_inner_texts()
    return [cell.strip() for cell in cells]


def test_page_shows_the_chosen_trial(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    assert page.inner_text("h1").split() == verdict(checked_front(front)).split()
    best = front["best"]
    assert page.inner_text("#card h3") == f"Trial {best}"
    assert page.inner_text("#export") == (
        f"autoprune export runs/minilm-20MB --trial {best} --target openvino -o minilm-20MB-{best}"
    )
    assert page.locator("#map tbody tr").count() == 15
    assert page.locator("#chart .point").count() == 42
    assert page.locator("#heat, #scatter, #rungs-title, #trials button[data-key=rung]").count() == 0
    assert "2 failed" in page.inner_text("#legend")


def test_simple_models_are_in_the_chart_and_not_among_the_trials(
    visit: Callable[[Json], Any], front: Json
) -> None:
    page = visit(lined(front))
    assert page.locator("#chart .point").count() == 43
    assert page.locator("#trials tbody tr").count() == len(front["trials"])
    assert "simple model" in page.inner_text("#legend")
    assert TFIDF["name"] in page.locator("#chart .caption.line").all_text_contents()
    page.locator("#chart .point.line").click()
    card = page.inner_text("#card")
    assert page.inner_text("#card h3") == "Tf-idf and logistic regression"
    assert "30,000 words" in card
    assert "76.3" in card
    assert page.locator("#export").count() == 0
    assert page.inner_text("#map") == "It is no model of units."
    assert page.locator("#trials tbody tr.selected").count() == 0


@pytest.mark.parametrize("gap", [1.0, 1.05, 1.3])
def test_names_in_the_chart_cover_no_other(visit: Callable[[Json], Any], front: Json, gap: float) -> None:
    """Uniform models as large and as accurate as the best, or nearly: their names all stay readable."""
    best = next(trial for trial in front["trials"] if trial["number"] == front["best"])
    rows = [
        trial
        if trial["name"] in (None, "original")
        else {**trial, "size_bytes": round(best["size_bytes"] * gap), "accuracy": best["accuracy"]}
        for trial in front["trials"]
    ]
    page = visit(changed(front, trials=rows))
    names = page.locator("#chart text.caption")
    boxes = [names.nth(k).bounding_box() for k in range(names.count())]
    assert len(boxes) >= 5
    for box, other in itertools.combinations(boxes, 2):
        apart_x = box["x"] + box["width"] <= other["x"] or other["x"] + other["width"] <= box["x"]
        apart_y = box["y"] + box["height"] <= other["y"] + 4 or other["y"] + other["height"] <= box["y"] + 4
        assert apart_x or apart_y, (box, other)
    star = page.locator("#chart .point.best .mark").bounding_box()
    x, y = star["x"] + star["width"] / 2, star["y"] + star["height"] / 2
    for box in boxes:
        assert not (box["x"] < x < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"]), box


def test_click_and_keys_select_a_trial(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    before = page.inner_text("#map")
    page.locator("#chart .point[aria-label^='uniform pruning']").click()
    assert page.inner_text("#card h3") == "Uniform pruning"
    assert page.inner_text("#map") != before
    assert page.locator("#map tbody .bits").all_inner_texts() == ["32"] * 15
    page.locator("#chart .point[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.inner_text("#card h3") == "Original"
    page.locator("#trials .pick", has_text=re.compile("^trial 13$")).click()
    assert "OutOfMemoryError" in page.inner_text("#card")


def test_axes_and_table(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    page.select_option("#axis-x", "latency")
    assert "Latency, ms" in page.inner_text("#chart")
    assert "90th" in page.inner_text("#chart-note")
    page.select_option("#axis-y", "latency")
    assert page.input_value("#axis-x") == "accuracy"
    page.check("#zoom")
    head = page.locator("#trials button[data-key=size]")
    for direction in ("ascending", "descending"):
        head.click()
        assert page.locator("#trials th:nth-child(3)").first.get_attribute("aria-sort") == direction
        sizes = [float(cell.split()[0]) for cell in rows_of(page, 3) if cell != DASH]
        assert sizes == sorted(sizes, reverse=direction == "descending")
        assert len(sizes) == 42
        assert rows_of(page, 3)[-2:] == [DASH, DASH]


@pytest.mark.parametrize("axis", ["size", "latency"])
def test_the_slider_tells_the_most_accurate_trial_within_any_limit(
    visit: Callable[[Json], Any], front: Json, axis: str
) -> None:
    page = visit(front)
    page.select_option("#limit-axis", axis)
    cost = {"size": "size_bytes", "latency": "latency_ms"}[axis]
    rows = [t for t in front["trials"] if t["failure"] is None and t["name"] != "original"]
    answers = set()
    for share in (0.0, 0.2, 0.35, 0.5, 0.8, 1.0):
        page.locator("#limit").fill(str(round(1000 * share)))
        most = page.evaluate("limit.value")
        within = [t for t in rows if t[cost] <= most]
        told = page.locator("#limit-answer p").inner_text()
        best = max(within, key=lambda t: (t["accuracy"], -t[cost]))
        name = best["name"] or f"trial {best['number']}"
        assert f"with {name}: " in told
        assert f"--trial {best['number']} " in page.locator("#limit-answer code").inner_text()
        answers.add(best["number"])
    assert len(answers) > 1
    page.locator("#limit-answer button.pick").click()
    assert page.locator("#card h3").inner_text().lower() == name


def test_the_limit_is_kept_in_the_address(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    page.select_option("#limit-axis", "latency")
    page.locator("#limit").fill("400")
    most, told = page.evaluate("limit.value"), page.locator("#limit-answer p").inner_text()
    assert "#limit=latency:" in page.url
    page.reload()
    assert page.evaluate("limit.value") == pytest.approx(most, rel=1e-5)
    assert page.input_value("#limit-axis") == "latency"
    assert page.locator("#limit-answer p").inner_text() == told


def test_a_simple_model_as_good_within_the_limit_is_told(visit: Callable[[Json], Any], front: Json) -> None:
    simple = {"name": "tf-idf", "size_bytes": 1000, "latency_ms": 0.1, "accuracy": 99.5, "what": "words"}
    page = visit(front | {"lines": [simple]})
    assert "Without a search tf-idf has 99.5" in page.locator("#limit-answer p").inner_text()


def test_the_slider_begins_at_the_limit_of_the_run(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    assert page.evaluate("limit.value") == front["run"]["budget"]["size_bytes"]


def test_the_view_is_kept_in_the_address(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    assert "#" not in page.url
    page.select_option("#axis-x", "latency")
    page.check("#zoom")
    page.locator("#trials thead button[data-key=kl]").click()
    picked = page.locator("#trials tbody tr button").nth(5).inner_text()
    page.locator("#trials tbody tr button").nth(5).click()
    number = picked.removeprefix("trial ")
    assert page.url.partition("#")[2] == f"x=latency&sort=kl&zoom=1&trial={number}"
    order = rows_of(page, 1)
    page.reload()
    assert page.locator("#card h3").inner_text() == picked.capitalize()
    assert (page.input_value("#axis-x"), page.is_checked("#zoom")) == ("latency", True)
    assert rows_of(page, 1) == order


@pytest.mark.parametrize(
    "view", ["x=nonsense&trial=9999", "x=size&y=size", "trial=<img>", "x=__proto__", "%00"]
)
def test_an_address_that_names_no_view_shows_the_first(
    visit: Callable[[Json], Any], front: Json, view: str
) -> None:
    page = visit(front)
    first = page.locator("#card h3").inner_text()
    page.goto(page.url + "#" + view)
    page.reload()
    assert page.locator("#card h3").inner_text() == first
    assert page.input_value("#axis-x") != page.input_value("#axis-y")


def test_a_limit_of_milliseconds_alone_is_drawn_at_once(visit: Callable[[Json], Any], front: Json) -> None:
    for size, ms, axis in ((None, 5.0, "latency"), (20 * MB, 5.0, "size"), (None, None, "size")):
        budget = {"size_bytes": size, "latency_ms": ms}
        page = visit(changed(front, {"budget": budget, "budget_text": ""}))
        assert page.input_value("#axis-x") == axis
        shown = page.locator("#chart .budget-text").all_text_contents()
        limit = {"latency": ["budget 5.00 ms"], "size": ["budget 20.0 MB"] if size else []}[axis]
        assert [text.replace("\u00a0", " ") for text in shown] == limit


def saved(page: Any, button: str) -> str:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes().decode()


def test_saved_files_are_those_of_the_run(
    visit: Callable[[Json], Any], front: Json, modern: Json, tmp_path: Path
) -> None:
    page = visit(front)
    assert json.loads(saved(page, "#save-json")) == front
    check_csv(saved(page, "#save-csv"), front)
    page = visit(modern)
    assert json.loads(saved(page, "#save-json")) == modern
    check_csv(saved(page, "#save-csv"), modern)
    write_csv(modern, tmp_path / "front.csv")
    assert saved(page, "#save-csv").splitlines()[0] == (tmp_path / "front.csv").read_text().splitlines()[0]
    bad = hostile(climbed(front))
    page = visit(bad)
    assert json.loads(saved(page, "#save-json")) == bad
    assert "'=cmd" in saved(page, "#save-csv")


def test_the_worst_class_of_each_point_is_marked_on_the_page(
    visit: Callable[[Json], Any], front: Json
) -> None:
    record = classed(front, classes=30)
    record["class_scores"]["classes"][2] = HOSTILE[0] + " x" * 60
    page = visit(record)
    assert page.locator(".classes tbody tr").count() == 20
    assert [text.split() for text in page.locator(".classes .worst").all_inner_texts()] == [
        ["58.0", "%", "worst", MINUS + "30.0"], ["76.5", "%", "worst", MINUS + "12.5"],
    ]  # fmt: skip
    assert HOSTILE[0] in page.inner_text(".classes")
    assert page.locator("img").count() == 0
    assert "10 more classes changed less" in page.inner_text("main")
    for wide in (1200, 390):
        page.set_viewport_size({"width": wide, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= wide


def test_hostile_names_are_text(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(hostile(modern))
    for cell in page.locator("#heat tbody tr > td:nth-child(2)").all():
        cell.hover()
    for key in page.locator("#trials .pick").all()[:15]:
        key.click()
    page.wait_for_timeout(100)
    page.locator("#trials .pick").nth(6).click()
    assert "Share of time" in page.inner_text("#map")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    for name in HOSTILE:
        assert name in page.inner_text("body")
    assert HOSTILE[0] in page.inner_text("#trials")
    assert HOSTILE[1] in page.inner_text("#map")
    assert set(HOSTILE) <= {text.strip() for text in page.locator("#heat tbody th").all_inner_texts()}


def test_a_run_with_nothing_measured_opens(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(changed(front, {"state": "running"}, trials=[], best=None, knee=None, front=[]))
    assert page.inner_text("h1") == "No trial has finished yet"
    assert "No trial has these two measurements yet" in page.inner_text("#chart")


def test_damage_is_shaded_told_and_walked_by_keys(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    levels = modern["sensitivity"]["levels"]
    assert page.locator("#heat td[aria-label]").count() == len(levels)
    heads = page.locator("#heat thead tr").all()
    assert [head.inner_text().split() for head in heads] == [
        ["Rows", "removed", "none", "25", "%"], ["Bits", *2 * ["32", "8", "w8a8", "4", "3"]],
    ]  # fmt: skip
    names = [unit["name"] for unit in modern["units"]]
    assert page.locator("#heat tbody th").all_text_contents() == names
    first = page.locator("#heat td[tabindex='0']")
    assert first.count() == 1
    assert first.inner_text() == "0"
    first.focus()
    for key in ("ArrowDown", "End", "ArrowLeft"):
        page.keyboard.press(key)
    unit, _, _, size, damage, _ = next(row for row in levels if row[:3] == [names[1], 0.25, 4])
    told = page.inner_text("#tip").replace("\u00a0", " ").splitlines()
    shown = f"{damage:.2g}" if damage >= 1e-3 else f"{damage:.1e}".split("e")[0]
    assert told[:2] == [unit, "4 bits, 25 % of rows removed"]
    assert told[2].startswith(f"damage {shown}")
    assert told[3] == f"{size / 1e3:.1f} kB, 0.675 ms"
    page.keyboard.press("Escape")
    assert not page.is_visible("#tip")
    page.keyboard.press("ArrowUp")
    assert page.locator("#heat td:focus").count() == 1


def numbers(cells: list[str]) -> list[float]:
    """Numbers with a unit, in bytes, milliseconds or percent."""
    scale = {"MB": 1e6, "kB": 1e3}
    parts = [cell.replace("\u00a0", " ").split() for cell in cells]
    return [float(number) * scale.get(unit, 1.0) for number, unit in parts]


def test_map_of_a_trial_has_w8a8_and_shares_of_bytes_and_time(
    visit: Callable[[Json], Any], modern: Json
) -> None:
    page = visit(modern)
    trial = next(row for row in modern["trials"] if row["number"] == modern["best"])
    names = [unit["name"] for unit in modern["units"]]
    assert page.locator("#map tbody th code").all_text_contents() == names
    bits = page.locator("#map tbody .bits")
    assert bits.all_inner_texts() == [str(trial["levels"][name]["bits"]) for name in names]
    w8a8 = bits.filter(has_text="w8a8")
    assert w8a8.count() > 3
    assert {cell.get_attribute("title") for cell in w8a8.all()} == {"8-bit weights and activations"}
    assert w8a8.first.evaluate("(node) => node.scrollWidth <= node.clientWidth")
    assert "w8a8: 8-bit weights and activations." in page.inner_text("#map .hint")
    heads = page.locator("#map thead th").all_inner_texts()
    column = {
        name: 1 + heads.index(name) for name in ("Bytes", "Share of file", "Predicted time", "Share of time")
    }
    cells = {
        name: numbers(page.locator(f"#map tbody td:nth-child({k})").all_inner_texts())
        for name, k in column.items()
    }
    assert cells["Predicted time"] == pytest.approx([trial["unit_ms"][name] for name in names], rel=5e-3)
    whole = trial["predicted_latency_ms"]
    for name, ms, share in zip(names, cells["Predicted time"], cells["Share of time"], strict=True):
        assert share == pytest.approx(100 * ms / whole, abs=0.1), name
    rest, total = (
        numbers(row.locator("td").all_inner_texts()) for row in page.locator("#map tfoot tr").all()
    )
    for k, name in enumerate(("Bytes", "Share of file", "Predicted time", "Share of time")):
        assert sum(cells[name]) + rest[k] == pytest.approx(total[k], rel=0.01)
    assert total == pytest.approx([trial["size_bytes"], 100, whole, 100], rel=5e-3)
    error = 100 * (whole / trial["latency_ms"] - 1)
    card = page.inner_text("#card").replace("\u00a0", " ")
    assert f"{abs(error):.1f} % too {'high' if error > 0 else 'low'}" in card


def in_codebooks(front: Json) -> Json:
    """The same front with codebooks of 8 values in the place of 3 bits."""
    new = copy.deepcopy(front)
    levels = [level for row in new["trials"] for level in (row["levels"] or {}).values()]
    for level in levels:
        level["bits"] = "codebook8" if level["bits"] in (3, 4) else level["bits"]
    for row in new["sensitivity"]["levels"]:
        row[2] = "codebook8" if row[2] == 3 else row[2]
    return new


def test_a_storage_with_a_name_has_words_a_sign_and_a_colour(
    visit: Callable[[Json], Any], modern: Json
) -> None:
    page = visit(in_codebooks(modern))
    heads = page.locator("#heat thead tr").all()[1].inner_text().split()
    assert heads == ["Bits", *2 * ["32", "8", "w8a8", "4", "3c"]]
    told = page.inner_text("#heat .scale .hint:last-child")
    assert "3c is codebook8. w8a8: 8-bit weights and activations. codebook8: a codebook of 8 values" in told
    named = page.locator("#map tbody .bits").filter(has_text="codebook8")
    assert named.count() > 0
    assert named.first.get_attribute("title") == "a codebook of 8 values for each row"
    assert "b3" in (named.first.get_attribute("class") or "").split()
    assert "codebook8: a codebook of 8 values for each row." in page.inner_text("#map .hint")


def test_map_is_whole_on_paper(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 900})  # A4 less margins, at 96 dots an inch
    page.wait_for_timeout(50)
    for name in ("#map .scroll", "#heat .scroll"):
        assert page.locator(name).evaluate("(node) => node.scrollWidth <= node.clientWidth"), name


def test_map_of_an_older_run_has_no_time(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(front)
    assert "time" not in page.inner_text("#map").lower()
    assert page.locator("#map thead th").count() == 6
    assert "Predicted" not in page.inner_text("#card")


def test_widths_go_from_wide_to_narrow_with_w8a8_beside_8(visit: Callable[[Json], Any], modern: Json) -> None:
    widths = [32, 16, 8, "w8a8", 6, 4, 3, 2]
    rows = [["pooler", 0.0, width, 1000, 1e-3, 0.1] for width in widths]
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        page = visit(changed(modern, sensitivity={"levels": rows, "spearman": None, "pairs": 0}))
        heads = page.locator("#heat thead tr:last-child th").all_text_contents()
        assert heads == ["Bits", *map(str, widths)]
    page.locator("#heat tbody td").nth(3).hover()
    told = page.inner_text("#tip").splitlines()
    assert told[:2] == ["pooler", "8-bit weights and activations, nothing removed"]
    assert "w8a8: 8-bit weights and activations." in page.inner_text("#heat")
    shown = page.locator("#heat thead tr:last-child th").nth(4)
    assert shown.evaluate("(node) => node.scrollWidth <= node.clientWidth")


def test_latency_is_told_as_measured_and_as_predicted(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    read = checked_front(modern)
    assert page.text_content("#latency-prediction") == prediction(read)
    assert page.text_content("#bytes-alone") == bytes_alone(read) != ""
    members = {lv["bits"] for row in modern["trials"] if row["on_front"] for lv in row["levels"].values()}
    assert 3 in members
    assert bytes_alone(read).startswith("3 bits save bytes alone on openvino")


def test_shades_follow_damage_in_light_and_dark(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    cells = page.locator("#heat tbody tr:nth-child(2) td.heat")
    for theme, sign in (("light", -1), ("dark", 1)):
        page.emulate_media(color_scheme=theme)
        colours = [cell.evaluate("(node) => getComputedStyle(node).backgroundColor") for cell in cells.all()]
        bright = [
            sum(map(float, re.findall(r"[\d.]+", colour.replace("srgb", ""))[:3])) for colour in colours
        ]
        damage = [row[4] for row in modern["sensitivity"]["levels"] if row[0] == modern["units"][1]["name"]]
        order = sorted(range(len(bright)), key=lambda k: damage[1:][k])
        values = [sign * bright[k] for k in order]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_scatter_has_untrained_trials_then_all(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    untrained = page.locator("#scatter .point").count()
    assert untrained == 38
    assert page.locator("#scatter-legend li").count() == 0
    page.check("#scatter-all")
    assert page.locator("#scatter .point").count() == len([t for t in modern["trials"] if t["kl"]]) - 3
    assert [text.split()[0] for text in page.locator("#scatter-legend li").all_inner_texts()] == [
        "untrained", "brief", "long",
    ]  # fmt: skip
    point = page.locator("#scatter .point.r2").first
    point.focus()
    assert "predicted" in page.inner_text("#tip")
    page.keyboard.press("Enter")
    number = point.get_attribute("aria-label").split(",")[0]
    assert page.inner_text("#card h3").lower() == number
    assert "selected" in point.get_attribute("class")
    older = [{**trial, "rung": None, "promoted_from": None} for trial in modern["trials"]]
    page = visit(changed(modern, trials=older))
    assert page.locator("#scatter .point").count() > untrained
    assert not page.is_visible("#scatter-all")


def test_rungs_in_table_card_and_section(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    page.click("#trials button[data-key=rung]")
    page.click("#trials button[data-key=rung]")
    column = rows_of(page, 8)
    first = modern["trials"][-2]
    assert column[0] == f"long from #{first['promoted_from']}"
    assert [cell.split()[0] for cell in column] == sorted(
        (cell.split()[0] for cell in column), key=RUNGS.index
    )
    page.locator("#trials .pick").first.click()
    page.click("#card .pick")
    assert page.inner_text("#card h3") == f"Trial {first['promoted_from']}"
    label = page.locator(f"#chart .point[aria-label^='trial {first['number']},']").get_attribute("aria-label")
    assert label.endswith(f"long from #{first['promoted_from']}")
    section = page.locator("section[aria-labelledby=rungs-title]")
    assert section.locator("tbody tr").count() == 3
    assert section.locator(".warning").count() == 0
    flipped = [{"lower": 0, "upper": 1, "kendall_tau": 0.2, "pairs": 13, "low": True}]
    page = visit(changed(modern, agreement=flipped))
    assert "promoted more" in page.inner_text("section[aria-labelledby=rungs-title] .warning")


def test_new_sections_fit_a_narrow_page(visit: Callable[[Json], Any], modern: Json) -> None:
    page = visit(modern)
    for wide in (1200, 390):
        page.set_viewport_size({"width": wide, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= wide


def test_page_shows_perplexity_by_its_name_and_which_way_is_better(
    visit: Callable[[Json], Any], front: Json, tmp_path: Path
) -> None:
    words = worded(front)
    words["trials"][5]["accuracy"], words["trials"][6]["accuracy"] = 0.0, 0.004
    page = visit(words)
    name = "Perplexity on validation (log, lower is better)"
    assert page.locator("#chart svg").get_attribute("aria-label").startswith(f"{name} against Size")
    assert page.locator("#axis-x option").all_inner_texts()[1] == f"Latency of {TOKEN}, ms"
    heads = page.locator("#trials thead th").all_inner_texts()
    column = 1 + heads.index("Perplexity, validation")
    told = [PERPLEXITY.text(trial["accuracy"]) for trial in words["trials"]]
    assert rows_of(page, column) == told
    assert {told[5], told[6]} == {"\u221e", "25,000"}
    places = {
        point.get_attribute("aria-label").split(",")[0]: point.bounding_box()["y"]
        for point in page.locator("#chart .point").all()
    }
    assert "trial 5" not in places
    done = [trial for trial in words["trials"] if trial["accuracy"]]
    named = {trial["name"] or f"trial {trial['number']}": trial["accuracy"] for trial in done}
    scores = [named[place] for place in sorted(places, key=places.__getitem__)]
    assert scores[0] == min(scores)
    assert scores[-1] == max(scores)
    assert page.locator("#chart .bar[d*=V]").count() == 0
    assert "standard error" not in page.inner_text("body")
    assert not re.search(r"\d\spoints|, points", page.inner_text("body"))
    assert page.inner_text("#latency-of") == f"Every latency on this page is that of {TOKEN}."
    page.locator("#trials .pick").first.click()
    assert "perplexity" in page.inner_text("#card")
    text = saved(page, "#save-csv")
    write_csv(words, tmp_path / "front.csv")
    rows = [
        list(csv.DictReader(lines.splitlines())) for lines in (text, (tmp_path / "front.csv").read_text())
    ]
    page_s, run_s = ([float(row["perplexity"] or "nan") for row in table] for table in rows)
    assert page_s == pytest.approx(run_s, rel=1e-12, nan_ok=True)
    assert rows[0][0].keys() == rows[1][0].keys()


def test_numbers_of_the_page_are_those_of_the_metric(visit: Callable[[Json], Any], front: Json) -> None:
    page = visit(worded(front))
    scores = [100.0, 50.0, 8.1234, 1.0001, 0.1, 0.1000005, 0.01, 1e-4, 1.0000001e-4, 3e-9, 0.0, None]
    for metric in (PERPLEXITY, METRICS["spearman"]):
        for score in [*scores, -12.34]:
            told = page.evaluate(
                "([m, s]) => metricOf(m).told(s)",
                [{**metric.as_json(), "word": "", "title": "", "column": []}, score],
            ).replace("\u00a0", " ")
            if score is None or score >= 0 or metric.higher_is_better:
                assert told == metric.value(score)


def test_many_units_have_an_overview_and_a_table_that_scrolls(
    visit: Callable[[Json], Any], front: Json
) -> None:
    page = visit(front)
    assert page.locator("#map .overview, #map .tall").count() == 0
    many = deep(synthetic(30, 152))
    page = visit(many)
    lines = page.locator("#map .stem")
    parts = [f"model.layers.*.part_{k}" for k in range(3)]
    assert lines.locator("code").all_text_contents() == ["tokens", *parts, "head"]
    assert [line.locator(".cell").count() for line in lines.all()] == [1, 50, 50, 50, 1]
    trial = next(trial for trial in many["trials"] if trial["number"] == (many["best"] or many["knee"]))
    first = lines.nth(1).locator(".cell")
    bits = [trial["levels"][f"model.layers.{k}.part_0"]["bits"] for k in range(50)]
    bits[2] = DASH  # nothing of it is left
    assert first.all_inner_texts() == [str(width) for width in bits]
    first.nth(2).hover()
    assert page.inner_text("#tip").splitlines()[:2] == ["model.layers.2.part_0", "all removed"]
    box = page.locator("#map .tall")
    assert box.evaluate("(node) => node.clientHeight") < 600
    assert box.locator("tbody tr").count() == 152
    row = box.locator("tbody tr").nth(7)
    assert row.locator(".bits").count() == 0
    assert "100" in row.inner_text()
    assert row.locator("small").inner_text() == "heads"
    foot = box.locator("tfoot tr").last
    assert foot.is_visible()
    assert foot.bounding_box()["y"] < box.bounding_box()["y"] + box.bounding_box()["height"]
    for wide in (1200, 390):
        page.set_viewport_size({"width": wide, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= wide


def test_divergence_of_a_language_model_is_by_the_token(visit: Callable[[Json], Any], modern: Json) -> None:
    for front_, place in ((worded(modern), "token"), (modern, "row")):
        assert f"nats a {place}) and" in extremes(checked_front(front_))
        page = visit(front_)
        other = {"row": "token", "token": "row"}[place]
        for part in ("#heat", "#scatter"):
            assert f"nats a {place} (log)" in page.locator(part).text_content()
            assert f"nats a {other}" not in page.locator(part).text_content()
        page.locator("#heat td.heat").first.hover()
        assert f"nats a {place}" in page.inner_text("#tip")
