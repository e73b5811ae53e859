"""`autoprune data`: planted repeats, leaks and wrong labels, by the rows of the file they stand in."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.inspection.data_lines import data_lines
from autoprune.inspection.data_record import data_record
from autoprune.run.config import Config
from autoprune.tasks.outliers import LEAST_SCORE
from tests.support.made_pictures import photograph
from tests.support.paths import ROOT
from tests.support.tiny_search import write_inputs

GOOD = ["lovely", "bright", "moving", "funny", "tender", "sharp", "warm", "clever"]
BAD = ["dull", "stale", "clumsy", "noisy", "flat", "bleak", "lazy", "hollow"]
OTHER = [f"{a}{b}" for a in ("film", "plot", "cast", "score", "scene", "shot") for b in "abcdefgh"]


def sentence(rng: np.random.Generator, label: str) -> str:
    words = [*rng.choice(GOOD if label == "good" else BAD, 3), *rng.choice(OTHER, 9)]
    return " ".join(map(str, rng.permutation(words)))


def written(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [(sentence(rng, label), label) for label in rng.choice(["good", "bad"], count)]


def record_of_data(path: Path) -> dict:  # type: ignore[type-arg]
    return data_record(Config.of(dataset=str(path)), has_model=False)


def places(rows: list[dict]) -> list[tuple[str, int]]:  # type: ignore[type-arg]
    return [(row["table"], row["row"]) for row in rows]


def test_planted_rows_are_told_by_their_numbers_in_the_file(tmp_path: Path) -> None:
    train, test = reviews(400, 0), reviews(100, 1)
    train[7] = (train[3][0].upper(), train[3][1])  # the same but for case
    train[50] = (train[40][0] + " indeed", train[40][1])  # nearly the same
    train[61] = (train[60][0], "bad" if train[60][1] == "good" else "good")  # contradicts
    test[9] = train[100]
    test[12] = (train[101][0] + " too", train[101][1])
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "train.csv", train)
    written(tmp_path / "data" / "validation.csv", reviews(60, 2))
    written(tmp_path / "data" / "test.csv", test)
    record = record_of_data(tmp_path / "data")
    assert [places(group) for group in record["same"]] == [
        [("train", 3), ("train", 7)],
        [("train", 60), ("train", 61)],
        [("train", 100), ("test", 9)],
    ]
    assert [places(group) for group in record["near"]] == [
        [("train", 40), ("train", 50)],
        [("train", 101), ("test", 12)],
    ]
    assert [places(group) for group in record["contradictions"]] == [[("train", 60), ("train", 61)]]
    assert places(record["leaks"]["test"]["same"]) == [("test", 9)]
    assert places(record["leaks"]["test"]["near"]) == [("test", 12)]
    assert record["leaks"]["validation"] == {"same": [], "near": []}
    assert (record["repeated_rows"], record["near_rows"]) == (3, 2)
    assert sum(row["train"] for row in record["classes"]) == 400


def test_a_row_that_was_cut_into_another_split_keeps_its_number(tmp_path: Path) -> None:
    rows = reviews(200, 3)
    record = record_of_data(written(tmp_path / "all.csv", rows))
    assert record["rows"]["test"] > 0
    doubted = record["doubted_labels"]
    assert all(rows[row["row"]][0].startswith(row["shown"][:40]) for row in doubted)


def test_wrong_labels_are_told_by_words(tmp_path: Path) -> None:
    """Planted: 60 of 1,000. Recall is 0.75 or more and precision 0.9 or more."""
    rows = reviews(1000, 4)
    wrong = set(map(int, np.random.default_rng(5).choice(1000, 60, replace=False)))
    for k in wrong:
        rows[k] = (rows[k][0], "bad" if rows[k][1] == "good" else "good")
    record = record_of_data(written(tmp_path / "all.csv", rows))
    told = {row["row"] for row in record["doubted_labels"]}
    assert record["judged_by"] == "tf-idf of its words"
    assert len(told & wrong) / 60 >= 0.75
    assert len(told & wrong) / len(told) >= 0.9
    assert all(row["likelier"] != row["label"] for row in record["doubted_labels"])


def test_pictures_are_told_by_their_files(tmp_path: Path) -> None:
    from PIL import Image

    for name, seed in (("cat", 0), ("dog", 50)):
        (tmp_path / name).mkdir()
        for k in range(20):
            Image.fromarray(photograph(seed + k, 60, 80)).save(tmp_path / name / f"{k:02}.png")
    Image.fromarray(photograph(3, 60, 80)).save(tmp_path / "dog" / "copy.png")
    Image.fromarray(photograph(54, 60, 80)).save(tmp_path / "dog" / "again.jpg", quality=40)
    record = record_of_data(tmp_path)
    assert record["task"] == "image-classification"
    [same], [near] = record["same"], record["near"]
    assert [Path(row["shown"]).name for row in same] == ["03.png", "copy.png"]
    assert {Path(row["shown"]).name for row in near} == {"04.png", "again.jpg"}
    assert [places(group) for group in record["contradictions"]] == [places(same)]
    assert "doubted_labels" not in record


def test_the_command_prints_lines_or_json(tmp_path: Path) -> None:
    rows = reviews(300, 6)
    rows[5] = rows[4]
    path = written(tmp_path / "all.csv", rows)
    done = CliRunner().invoke(main, ["data", str(path), "--shown", "1"])
    assert done.exit_code == 0, done.output
    assert "Repeats   1 row with the text of another row" in done.output
    assert "train row 4" in done.output
    told = CliRunner().invoke(main, ["data", str(path), "--json"])
    assert json.loads(told.stdout)["repeated_rows"] == 1
    record = record_of_data(path)
    assert "train row 4" not in "\n".join(data_lines(record, shown=0))


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AutopruneError, match="cannot be looked at"):
        data_record(Config.of(dataset=str(tmp_path), task="my.module:task"), has_model=False)
    with pytest.raises(AutopruneError, match="does not exist"):
        record_of_data(tmp_path / "no.csv")


def test_without_a_model_the_answer_needs_no_torch(tmp_path: Path) -> None:
    path = written(tmp_path / "all.csv", reviews(60, 8))
    code = (
        "import sys; from autoprune.cli.main import main\n"
        f"main(['data', {str(path)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'ray'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_tells_outliers_and_judges_labels(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = Config.of(model=str(tmp_path / "model"), dataset=str(tmp_path / "rows.csv"), max_length=16)
    record = data_record(config, has_model=True, progress=Progress(quiet=True))
    assert record["judged_by"] == "the model's embedding"
    assert sum(record["rows"].values()) == 200
    assert all(row["score"] > LEAST_SCORE for row in record["outliers"])
    assert {row["likelier"] for row in record["doubted_labels"]} <= {"bad", "fair", "good"}
    assert any("in the model's embedding" in line for line in data_lines(record, shown=3))
