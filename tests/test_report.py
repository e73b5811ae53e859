"""The report: what it says, that it asks the network for nothing, and that nothing hostile runs."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune.errors import AutopruneError
from autoprune.report import write_csv, write_report
from autoprune.report.page import embedded, render
from autoprune.report.rows import pack
from autoprune.report.schema import read_front
from autoprune.report.tables import causes, gains
from autoprune.report.verdict import notes, verdict

Json = dict[str, Any]
HOSTILE = ("<img src=x onerror=window.hacked=1>", "</script><script>window.hacked=1</script>")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--no-first-run"]
MB = 1_000_000


# ---- a front that looks like one of a small encoder on reviews ------------------------------------


def _units(count: int) -> list[Json]:
    blocks = [
        {"name": f"encoder.layer.{k // 2}.{part}", "kind": part, "size_bytes": size}
        for k, (part, size) in enumerate([("attention", 2_365_000), ("feed_forward", 4_724_000)] * count)
    ]
    embeddings = {"name": "embeddings", "kind": "embedding", "size_bytes": 46_880_000}
    pooler = {"name": "pooler", "kind": "linear", "size_bytes": 591_000}
    return [embeddings, *blocks[: count - 2], pooler]


def _measure(trial: Json, units: list[Json], noise: random.Random) -> None:
    """Made-up measurements: bytes by arithmetic, latency and accuracy by a smooth rule."""
    loss, kept = 0.0, 0.0
    for unit in units:
        level = trial["levels"][unit["name"]]
        share = (1.0 - level["ratio"]) * (level["bits"] + (0.5 if level["bits"] < 16 else 0)) / 32
        trial["unit_bytes"][unit["name"]] = round(unit["size_bytes"] * share)
        fragile = 0.35 if unit["kind"] == "embedding" else 1.0
        loss += fragile * (5.0 * level["ratio"] ** 2 + 60.0 * 2.0 ** (-1.6 * level["bits"])) / len(units)
        kept += (1.0 - level["ratio"]) * (0.45 if level["bits"] <= 8 else 1.0) / len(units)
    size = sum(trial["unit_bytes"].values()) + 412_000
    latency = 1.6 + 12.5 * kept + noise.uniform(-0.2, 0.2)
    accuracy = 80.6 - 2.6 * loss + (noise.gauss(0, 0.35) if loss else 0.0)
    trial |= {"size_bytes": size, "predicted_size_bytes": size, "latency_ms": round(latency, 3)}
    trial |= {"latency_low_ms": round(latency * 0.96, 3), "latency_high_ms": round(latency * 1.07, 3)}
    trial |= {"accuracy": round(accuracy, 2), "kl": round(0.021 * loss**1.3, 5)}


def _trial(number: int, name: str | None, units: list[Json], pick: Callable[[Json], Json]) -> Json:
    levels = {unit["name"]: pick(unit) for unit in units}
    fixed = {"number": number, "name": name, "state": "COMPLETE", "failure": None, "levels": levels}
    rest = {"unit_bytes": {}, "seconds": 41.5 + number % 7, "worker": f"worker-{number % 2}"}
    return {**fixed, **rest, "test_accuracy": None, "on_front": False, "within_budget": False}


def _dominates(a: Json, b: Json) -> bool:
    x, y = ([one["size_bytes"], one["latency_ms"], -one["accuracy"]] for one in (a, b))
    return x != y and all(p <= q for p, q in zip(x, y, strict=True))


def synthetic(trials: int = 40, units: int = 15, seed: int = 3) -> Json:
    """A realistic `front.json`: four baselines, then `trials` trials of which two fail."""
    noise, model = random.Random(seed), _units(units)
    fixed = {"original": (0.0, 32), "uniform 8-bit": (0.0, 8), "uniform 4-bit": (0.0, 4)}
    rows = []
    for name, (ratio, bits) in {**fixed, "uniform pruning": (0.5, 32)}.items():
        level = {"ratio": ratio, "bits": bits}
        rows.append(_trial(len(rows), name, model, lambda _, level=level: dict(level)))
    for number in range(len(rows), len(rows) + trials):
        bold = noise.random()
        ratios = [0.0, 0.0, 0.25, 0.5] if bold < 0.6 else [0.0, 0.25, 0.5, 0.75]
        bits = [4, 8, 8] if bold < 0.5 else [3, 4, 4, 8]
        rows.append(_trial(number, None, model, lambda unit, ratios=ratios, bits=bits: {
            "ratio": noise.choice(ratios) if "encoder" in unit["name"] else 0.0,
            "bits": noise.choice(bits)}))  # fmt: skip
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
        "command": "autoprune search microsoft/MiniLM-L12-H384 --budget 20MB --target openvino --seed 0",
        "budget": {"size_bytes": 20 * MB, "latency_ms": None}, "budget_text": "20.0 MB",
        "validation_rows": 1600, "test_rows": 1821, "planned_trials": planned,
        "started": "2025-03-04T10:12:00+00:00", "seconds": 6720.0, "space": "bert.yaml (sha256 71f0c2)",
        "versions": {"autoprune": "0.1.0", "optuna": "4.5.0", "openvino": "2025.3.0"},
        "machine": "2 cores, Xeon 2.8 GHz, 8 GB, Linux 6.1", "model_hash": "sha256 5a3c91d07e",
        "protocol": "Median of 40 calls of one row at batch size 1 and 128 tokens, interleaved with "
        "calls of the original on the same core and scaled to its quiet time, after 10 calls to warm up.",
        "data_hash": "sha256 09b1e44c52",
    }  # fmt: skip
    return {
        "version": 1, "run": run, "units": units, "trials": rows, "knee": knee["number"],
        "front": [row["number"] for row in done if row["on_front"]], "hypervolume": 0.7123,
        "best": max(fit, key=lambda row: row["accuracy"])["number"] if fit else None,
        "hypervolume_reference": {"size_bytes": 88 * MB, "latency_ms": 14.1, "accuracy": 50.0},
    }  # fmt: skip
