"""A search with --clean-data: what it trains on, what it does not touch, and how two runs are told apart."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.pipeline.data_doubts import embedding
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.run.cleaning import CLEANING
from autoprune.run.config import Config
from autoprune.tasks.data.cleaning import DOUBTED, REPEATED
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs

TWICE = 30


def write_twice(folder: Path) -> None:
    """A model and its rows, of which each of the first `TWICE` comes twice."""
    write_inputs(folder)
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows, *rows[:TWICE]])


def read(folder: Path, **settings: Any) -> Inputs:
    given = {"model": str(folder / "model"), "dataset": str(folder / "rows.csv"), "target": "packed"}
    config = Config.of(**{**given, "max_length": 16, "sequence": 16, **settings})
    return read_inputs(config, progress=Progress(quiet=True))


def test_only_training_rows_are_left_out_and_the_plan_says_how_many(tmp_path: Path) -> None:
    write_twice(tmp_path)
    plain, clean = read(tmp_path), read(tmp_path, clean_data="labels")
    assert clean.cleaned is not None
    left_out = len(clean.cleaned.left_out)
    assert len(clean.task.train) == len(plain.task.train) - left_out == len(clean.cleaned.kept)
    assert clean.cleaned.counts[REPEATED] > TWICE / 2
    for part in ("validation", "test"):
        before, after = (getattr(one.task, part).arrays() for one in (plain, clean))
        assert all((before[name] == after[name]).all() for name in before)
    assert any(
        note.startswith(f"of {len(plain.task.train)} training rows {left_out}") for note in clean.notes
    )
    assert clean.texts is not None
    assert len(clean.texts.train) == len(clean.task.train)
    assert (np.asarray(clean.texts.train.labels) == clean.task.train.labels).all()


def test_what_was_left_out_is_part_of_what_tells_two_runs_apart(tmp_path: Path) -> None:
    write_twice(tmp_path)
    plain, clean = read(tmp_path), read(tmp_path, clean_data="labels")
    assert clean.cleaned is not None
    assert clean.identity.data != plain.identity.data
    assert clean.encoded_hash != plain.encoded_hash
    assert clean.data_hash == plain.data_hash  # of the rows as they were read, which exports read again
    again = read(tmp_path, clean_data="labels")
    assert again.identity == clean.identity


def test_a_recorded_choice_is_taken_as_it_is(tmp_path: Path) -> None:
    """Another machine's embedding may doubt another row: a run goes on with what it began with."""
    write_twice(tmp_path)
    clean = read(tmp_path, clean_data="labels")
    assert clean.cleaned is not None
    fewer = type(clean.cleaned)(clean.cleaned.left_out[:5], clean.cleaned.rows)
    config = Config.of(
        model=str(tmp_path / "model"), dataset=str(tmp_path / "rows.csv"), target="packed", max_length=16,
        sequence=16, clean_data="labels",
    )  # fmt: skip
    assert len(read_inputs(config, left_out=fewer).task.train) == fewer.rows - 5
    plain = config.with_settings(clean_data=None)
    assert read_inputs(plain, left_out=fewer).cleaned is None


def test_embeddings_are_of_each_row_whatever_its_batch(tmp_path: Path) -> None:
    write_twice(tmp_path)
    inputs = read(tmp_path)
    vectors = embedding(inputs.loaded, inputs.task, "train", Progress(quiet=True))
    keys = inputs.texts.train.keys() if inputs.texts else []
    assert vectors.shape == (len(keys), 64)
    first: dict[str, int] = {}
    for k, key in enumerate(keys):
        assert np.allclose(vectors[k], vectors[first.setdefault(key, k)], atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 0.01


def test_without_labels_only_rows_that_come_again_are_left_out(tmp_path: Path) -> None:
    write_twice(tmp_path)
    repeats, labels = (read(tmp_path, clean_data=what).cleaned for what in ("repeats", "labels"))
    assert repeats is not None
    assert labels is not None
    assert DOUBTED in labels.counts
    assert DOUBTED not in repeats.counts
    assert {row.number for row in repeats.left_out} <= {row.number for row in labels.left_out}
    with pytest.raises(AutopruneError, match="'outliers' does not exist; there are repeats and labels"):
        read(tmp_path, clean_data="outliers")


def test_a_task_of_ones_own_is_refused() -> None:
    with pytest.raises(AutopruneError, match="--clean-data"):
        read_inputs(Config.of(model="a:b", task="tests.support.networks:task", clean_data="labels"))


@pytest.mark.slow
def test_a_search_records_what_it_left_out_and_is_taken_up_with_it(tmp_path: Path) -> None:
    write_twice(tmp_path)
    env = environment(tmp_path / "cache")
    words = [*OPTIONS, "--dataset", "rows.csv", "--limit-rows", 200, 20, 20]
    done = autoprune(
        ["search", "model", *words, "--clean-data", "labels", "-o", "run"], cwd=tmp_path, env=env
    )
    assert "left out by --clean-data" in done.stderr
    recorded = (tmp_path / "run" / CLEANING).read_text(encoding="utf-8")
    assert "Left out of training" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    autoprune(["resume", "run", "--trials", "+1"], cwd=tmp_path, env=env)
    assert (tmp_path / "run" / CLEANING).read_text(encoding="utf-8") == recorded
    assert REPEATED in recorded
