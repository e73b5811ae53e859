"""Runs in an environment without autoprune, torch or transformers: a runtime, `tokenizers` and NumPy alone.

    python clean_room.py ROWS.json FOLDER...

ROWS.json holds texts, labels and the tokens a row is cut at. Prints a line of JSON for each folder: its
accuracy on these rows in percent, as measured and with the runtime's own settings, and which of the heavy
packages were there. `benchmarks.exports` calls it.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

BATCH = 32


def runner(folder, *, defaults=False):
    """A function of arrays by name, on whichever runtime the folder's files are for.

    defaults: give the runtime no settings.
    """
    if (folder / "model.xml").is_file():
        import openvino

        settings = {} if defaults else {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
        names = [port.any_name for port in model.inputs]
        return lambda batch: model({name: batch[name] for name in names})[0]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not defaults:
        options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    names = [node.name for node in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def batches(tokenizer, texts):
    """Rows of like length together: their numbers and their arrays, padded to a multiple of 8."""
    found = tokenizer.encode_batch([tuple(text) if len(text) > 1 else text[0] for text in texts])
    order = sorted(range(len(found)), key=lambda k: len(found[k].ids))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        width = -(-max(len(found[k].ids) for k in rows) // 8) * 8
        arrays = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
        batch = {name: np.zeros((len(rows), width), np.int64) for name in arrays}
        for place, k in enumerate(rows):
            for name, part in arrays.items():
                values = getattr(found[k], part)
                batch[name][place, : len(values)] = values
        yield rows, batch


def accuracy(run, tokenizer, rows):
    """Percent of the rows whose label is the likeliest."""
    labels, hits = np.array(rows["labels"]), 0
    for numbers, batch in batches(tokenizer, rows["texts"]):
        hits += int((np.asarray(run(batch)).argmax(-1) == labels[numbers]).sum())
    return 100 * hits / len(labels)


def main():
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    heavy = [name for name in ("autoprune", "torch", "transformers") if importlib.util.find_spec(name)]
    for name in sys.argv[2:]:
        folder = Path(name)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(rows["max_length"])
        measured = accuracy(runner(folder), tokenizer, rows)
        unset = accuracy(runner(folder, defaults=True), tokenizer, rows)
        said = {"folder": name, "accuracy": measured, "accuracy_by_default": unset, "heavy": heavy}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
