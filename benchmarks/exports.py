"""Does every model of a front run elsewhere, with the runtime alone, as accurately as recorded?

    python -m benchmarks.exports RUN... --openvino PYTHON --onnx PYTHON [-o FILE.json]

Each front member of the given runs is written for openvino, onnx and packed. The first two are run on the
validation rows by `clean_room.py` under the two interpreters, which should have their runtime, `tokenizers`
and NumPy and nothing else; packed in a fresh process of this one by `autoprune.load`. A minute a member.

    python -m venv ov && ov/bin/pip install openvino tokenizers numpy
    python -m venv ort && ort/bin/pip install onnxruntime tokenizers numpy

Exits 1 where accuracy is off by more than 0.1 point on the target that was searched, or 0.5 on another. The
accuracy with the runtime's own settings is noted beside it; a runtime that ends its process ends this too.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from autoprune.export.artifact import write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.pipeline.inputs import read_inputs
from autoprune.run.folder import FRONT, read_record, run_config
from autoprune.targets.packed import read_packed
from autoprune.tasks.data.splits import demo_splits

RESULTS = Path(__file__).parent / "results" / "exports.json"
TARGETS = ("openvino", "onnx", "packed")
SAME, OTHER = 0.1, 0.5
"""Points of accuracy that may differ on the target that was searched, and on another."""

PACKED = """
import json, sys
import numpy as np, torch, transformers
from autoprune import load
transformers.logging.set_verbosity_error()
rows = json.load(open(sys.argv[1]))
labels = np.array(rows["labels"])
for name in sys.argv[2:]:
    model, known = load(name), transformers.AutoTokenizer.from_pretrained(name)
    order = np.argsort([len(one[0]) for one in rows["texts"]])
    hits = 0
    for k in range(0, len(order), 32):
        texts = [rows["texts"][n] for n in order[k:k + 32]]
        tokens = known(*map(list, zip(*texts)), truncation=True, max_length=rows["max_length"], padding=True,
                       return_tensors="pt")
        with torch.inference_mode():
            hits += int((model(**tokens).logits.argmax(-1).numpy() == labels[order[k:k + 32]]).sum())
    print(json.dumps({"folder": name, "accuracy": 100 * hits / len(labels), "heavy": []}), flush=True)
"""


def rows_file(run: Path, path: Path) -> tuple[Any, dict[str, Any]]:
    """The validation rows of a run as texts, and an example batch of its task."""
    config = run_config(run)
    inputs = read_inputs(config)
    if config.data.dataset is not None:
        raise SystemExit(f"{run} is no run of the built-in demo")
    data = demo_splits().validation
    texts = [list(text) for text in zip(*data.texts, strict=True)]
    labels = [int(label) for label in data.labels]
    rows = {"texts": texts, "labels": labels, "max_length": config.task.max_length}
    path.write_text(json.dumps(rows), encoding="utf-8")
    return inputs.task.batch(inputs.task.validation, [0, 1]), {"target": config.search.target}


def written(run: Path, folder: Path, example: Any) -> list[dict[str, Any]]:
    """Every front member of a run on every target: where it is, and what was recorded of it."""
    record = read_record(run / FRONT)
    trials = {trial["number"]: trial for trial in record["trials"]}
    out = []
    for number in record["front"]:
        source = run / "trials" / f"{number:04d}"
        if not source.is_dir():  # the original is no model of ours
            continue
        for target in TARGETS:
            where = folder / f"{run.name}-{number}-{target}"
            model, tokens = read_packed(source), run / "tokenizer"
            size = write_artifact(
                model, where, about=ExportRecord(target=target), tokenizer=tokens, example=example
            )
            one = trials[number]
            out.append(
                {"run": run.name, "trial": number, "target": target, "folder": str(where), "size_bytes": size}
                | {"recorded": one["accuracy"], "recorded_bytes": one["size_bytes"]}
            )
    return out


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--openvino", required=True, help="Interpreter with openvino and tokenizers alone.")
    parser.add_argument("--onnx", required=True, help="Interpreter with onnxruntime and tokenizers alone.")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    room = str(Path(__file__).parent / "harness" / "clean_room.py")
    calls = {
        "openvino": [given.openvino, "-I", room],
        "onnx": [given.onnx, "-I", room],
        "packed": [sys.executable, "-W", "ignore", "-c", PACKED],
    }
    found, bad = [], 0
    for run in given.runs:
        with tempfile.TemporaryDirectory() as name:
            rows = Path(name) / "rows.json"
            example, about = rows_file(run, rows)
            made = written(run, Path(name), example)
            for target, call in calls.items():
                mine = [row for row in made if row["target"] == target]
                folders = [row["folder"] for row in mine]
                done = subprocess.run(
                    [*call, str(rows), *folders], check=True, stdout=subprocess.PIPE, text=True
                )
                for row, line in zip(mine, done.stdout.splitlines(), strict=True):
                    said = json.loads(line)
                    row |= {name: x for name, x in said.items() if name != "folder"}
                    most = SAME if target == about["target"] else OTHER
                    row["holds"] = abs(row["accuracy"] - row["recorded"]) <= most and not said["heavy"]
                    bad += not row["holds"]
                    del row["folder"]
                    print(
                        f"{row['run']:>14} #{row['trial']:<4}{target:>9}{row['size_bytes'] / 1e6:9.2f} MB"
                        f"{row['recorded']:9.2f}{row['accuracy']:9.2f}  {'' if row['holds'] else 'OFF'}",
                        flush=True,
                    )
            found += made
    members = len({(row["run"], row["trial"]) for row in found})
    print(f"{members} front members, {len(found)} exports, {bad} not as recorded")
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, CPU",
        "versions": {name: metadata.version(name) for name in ("torch", "openvino", "onnxruntime")},
        "exports": found,
    }
    given.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
