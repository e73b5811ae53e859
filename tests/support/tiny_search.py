"""A search that ends in half a minute: a tiny random BERT, 200 rows of random words, no Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.support import forked
from tests.support.made_run import write_rows
from tests.support.tiny import random_model

WORDS = 2000
OPTIONS = (
    "--budget", "300kB", "--target", "packed", "--workers", 0, "--trials", 2, "--finetune-steps", 1,
    "--max-length", 16, "--sequence", 16, "--calibration-rows", 32, "--limit-rows", 64, 20, 20,
)  # fmt: skip


def write_inputs(folder: Path) -> None:
    """`model` and `rows.csv` in a folder."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{k}" for k in range(WORDS - len(words))]
    model = folder / "model"
    model.mkdir(parents=True)
    random_model("bert", hidden=64, layers=1, heads=2, ffn=128, vocab=WORDS).save_pretrained(model)
    (model / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(model).save_pretrained(model)
    write_rows(folder / "rows.csv", rows=200)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from autoprune.cli.main import main; main()", *map(str, arguments)]


def environment(cache: Path, **more: str) -> dict[str, str]:
    """Of a process with its own cache, and nothing that could tell a database's password."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AUTOPRUNE_"))}
    home = {"HOME": str(cache), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return {**kept, **home, "AUTOPRUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1", **more}


def autoprune(
    arguments: Sequence[object], *, cwd: Path, env: Mapping[str, str], code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A command that must end with `code`."""
    if forked.fits(env):
        done = forked.run([*map(str, arguments)], cwd=cwd, env=env, timeout=600)
    else:
        words = command(*arguments)
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def change_weights(model: Path) -> bytes:
    """Train a model on, as it were; its file as it was before."""
    path = model / "model.safetensors"
    before = path.read_bytes()
    state = load_file(path)
    name = next(name for name in sorted(state) if name.endswith("query.weight"))
    save_file({**state, name: state[name] + torch.ones(1) * 0.01}, path, metadata={"format": "pt"})
    return before
