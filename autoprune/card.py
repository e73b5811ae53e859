"""The model card of an exported model: `README.md` with the front matter that the Hugging Face hub reads.

Names of models, data, classes and folders come from elsewhere and are taken for hostile: in the front matter
they go through the YAML writer, in the text they stand in code spans, where Markdown and HTML mean nothing,
and every fence of code is longer than any in what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.demo import demo_model
from autoprune.hub import is_hub_id

DEMO_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
TASK = "text-classification"

_RUNTIMES = {
    "openvino": """import openvino as ov
from transformers import AutoTokenizer

tokens = AutoTokenizer.from_pretrained({folder})("a fine film", return_tensors="np")
model = ov.compile_model({folder} + "/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
logits = model({{port.any_name: tokens[port.any_name] for port in model.inputs}})[0]""",
    "onnx": """import onnxruntime
from transformers import AutoTokenizer

tokens = AutoTokenizer.from_pretrained({folder})("a fine film", return_tensors="np")
model = onnxruntime.InferenceSession({folder} + "/model.onnx", providers=["CPUExecutionProvider"])
logits = model.run(None, {{one.name: tokens[one.name] for one in model.get_inputs()}})[0]""",
    "compressed-tensors": """from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokens = AutoTokenizer.from_pretrained({folder})("a fine film", return_tensors="pt")
model = AutoModelForSequenceClassification.from_pretrained({folder})
logits = model(**tokens).logits""",
}
"""How to run a model without autoprune."""


def base_of(model: str | None, revision: str | None) -> dict[str, str | None]:
    """Name, hub id, revision and license of the model that was compressed, as far as they are known here.

    Args:
        model: a folder or hub id; None is the built-in demo's.
    """
    if model is None:
        return {"name": "all-MiniLM-L6-v2", "hub_id": DEMO_HUB_ID, "revision": None,
                "license": _license(demo_model() / "README.md")}  # fmt: skip
    if Path(model).exists() or not is_hub_id(model):
        return {"name": Path(model).name, "hub_id": None, "revision": None,
                "license": _license(Path(model) / "README.md")}  # fmt: skip
    from huggingface_hub import try_to_load_from_cache

    card = try_to_load_from_cache(model, "README.md", revision=revision)
    found = _license(Path(card)) if isinstance(card, str) else None
    return {"name": model, "hub_id": model, "revision": revision, "license": found}


def model_card(about: Mapping[str, Any], name: str) -> str:
    """The card of a model, from what its `autoprune.json` says.

    Args:
        name: of the folder it is exported to.
    """
    base, target = about["base"], about["target"]
    validated = about["validated"]
    parts = [
        f"# {_code(name)}",
        f"{_code(base['name'])}, compressed by autoprune for {_code(target)}: heads and neurons removed and "
        f"weights stored as integers, unit by unit, as a search found best within {about['budget']}. "
        f"This is trial {about['trial']} of the run {_code(about['run'])}.",
        _summary(validated),
        *_measurements(about, validated),
        *_loading(target, name),
        *_units(about),
        "## Make it again",
        "The search, then the export:",
        _fenced(f"{about['command']}\n{about['export']}", "bash"),
        *_origin(about),
    ]
    return f"---\n{_front_matter(about, name)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(about: Mapping[str, Any], name: str) -> str:
    from huggingface_hub import ModelCardData

    base, kinds = about["base"], [str(one["bits"]) for one in about["units"].values()]
    is_pruned = any(one["ratio"] > 0 for one in about["units"].values())
    tags = ["autoprune", about["target"], *(["pruned"] if is_pruned else [])]
    tags += ["quantized"] if any(bits not in ("16", "32") for bits in kinds) else []
    dataset = _hub_dataset(about)
    data = ModelCardData(
        base_model=base["hub_id"],
        license=base["license"],
        library_name="autoprune",
        pipeline_tag=TASK,
        tags=tags,
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"],
        model_name=_line(name),
        eval_results=_results(about) or None,
    )
    return str(data.to_yaml())


def _results(about: Mapping[str, Any]) -> list[Any]:
    """Accuracies for the card's model-index, of the target's own model alone."""
    from huggingface_hub import EvalResult

    scores = {"validation": about["validated"].get("accuracy")}
    if about["measured_on"] == about["target"]:
        scores["test"] = about["measured"]["test_accuracy"]
    dataset = _hub_dataset(about) or _line(about["dataset"])
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=_line(about["dataset"]),
            dataset_split=split,
            metric_type="accuracy",
            metric_value=round(score / 100, 4),
        )
        for split, score in scores.items()
        if score is not None
    ]


def _summary(validated: Mapping[str, Any]) -> str:
    accuracy = validated["accuracy"]
    score = "" if accuracy is None else f", accuracy {accuracy:.1f} % on {validated['rows']} validation rows"
    faster = 1 / validated["latency"]["ratio"]
    return f"**{validated['size_bytes'] / 1e6:.2f} MB{score}, {faster:.2f} times as fast as the original.**"


def _measurements(about: Mapping[str, Any], validated: Mapping[str, Any]) -> list[str]:
    recorded, timing = about["measured"], validated["latency"]
    original_ms = recorded["original_ms"]
    before = original_ms / recorded["latency_ms"] if original_ms else None
    rows = [
        ("size, bytes", recorded["size_bytes"], validated["size_bytes"]),
        ("accuracy on validation, %", recorded["accuracy"], validated["accuracy"]),
        ("accuracy on test, %", recorded["test_accuracy"], None),
        ("latency, ms", recorded["latency_ms"], timing["median_ms"]),
        ("10th and 90th percentile, ms", (recorded["latency_low_ms"], recorded["latency_high_ms"]),
         (timing["low_ms"], timing["high_ms"])),
        ("the original's latency, ms", original_ms, timing["original_ms"]),
        ("times as fast", before, 1 / timing["ratio"]),
        ("loads in, s", None, validated["load_seconds"]),
    ]  # fmt: skip
    return [
        "## Measurements",
        _table(
            ("", f"by the search, on {_code(about['measured_on'])}", "as exported, in a fresh process"),
            [(what, _figure(a), _figure(b)) for what, a, b in rows],
        ),
        f"As exported: {validated['protocol']} {validated['date']}, {_code(validated['machine'])}.",
        f"By the search: {about['protocol']}",
        "Checked in a fresh process after the export:",
        _table(
            ("", "", "found"),
            [(one["name"], _MARKS[one["passed"]], _code(one["said"])) for one in validated["checks"]],
        ),
    ]


_MARKS = {True: "ok", False: "**failed**", None: "not checked"}


def _loading(target: str, name: str) -> list[str]:
    kind = "pt" if target == "packed" else "np"
    code = (
        "from autoprune import load\nfrom transformers import AutoTokenizer\n\n"
        f'tokens = AutoTokenizer.from_pretrained({name!r})("a fine film", return_tensors="{kind}")\n'
        f"model = load({name!r})  # every file is checked by its SHA-256; nothing in it is run\n"
        "logits = model(**tokens).logits"
    )
    parts = ["## Load it", _fenced(code, "python")]
    if target in _RUNTIMES:
        parts += ["Without autoprune:", _fenced(_RUNTIMES[target].format(folder=repr(name)), "python")]
    return parts


def _units(about: Mapping[str, Any]) -> list[str]:
    sizes = about.get("unit_bytes", {})
    rows = [
        (_code(unit), f"{100 * one['ratio']:.0f} %", str(one["bits"]), _figure(sizes.get(unit)))
        for unit, one in about["units"].items()
    ]
    size = "bytes" if about["storage"] == "plain" else "bytes before entropy coding"
    return ["## What was done to each unit", _table(("unit", "rows removed", "bits", size), rows)]


def _origin(about: Mapping[str, Any]) -> list[str]:
    base, data = about["base"], about["data"]
    versions = ", ".join(f"{name} {version}" for name, version in about["searched_with"].items())
    revision = base["revision"] or "as found"
    facts = {
        "base model": f"{_code(base['hub_id'] or base['name'])}, revision {_code(revision)}, "
        f"SHA-256 of its tensors {_code(base['tensors_sha256'])}",
        "license of the base model": _code(base["license"] or "not known"),
        "data": f"{_code(about['dataset'])}, fingerprint {_code(data['fingerprint'])}; "
        f"{data['validation_rows']} validation rows; rows cut at {data['max_length']} tokens",
        "classes": ", ".join(map(_code, data["labels"])),
        "brief fine-tune": f"{about['steps']} steps under the original",
        "seed": str(data["seed"]),
        "versions": _code(versions),
    }
    return ["## Where it comes from", "\n".join(f"- {name}: {fact}" for name, fact in facts.items())]


def _hub_dataset(about: Mapping[str, Any]) -> str | None:
    name = about["data"]["dataset"]
    return name if name and not Path(name).exists() and is_hub_id(name) else None


def _license(card: Path) -> str | None:
    """The license that a model's own card names; None where there is none, or it is no plain name."""
    from huggingface_hub.repocard import metadata_load

    try:
        data = metadata_load(card)
    except Exception:  # of whatever kind: a card that cannot be read names no license
        return None
    name = (data or {}).get("license")
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", name) else None


# ---- Markdown -----------------------------------------------------------------------------------


def _line(text: str) -> str:
    """One line of printable characters.

    >>> _line("a\\nb" + chr(0))
    'a b�'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))


def _code(text: str) -> str:
    """Text as a code span: nothing in it is Markdown or HTML.

    >>> print(_code("a`b"), _code("<b>"))
    ``a`b`` `<b>`
    """
    line = _line(text) or "-"
    fence = "`" * (_longest_run(line) + 1)
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def _fenced(text: str, language: str) -> str:
    """Text as a block of code, which it cannot end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. A bar ends a cell even in a code span, and whether a backslash before it helps depends on
    what stands before that (GitHub Flavored Markdown, 4.10): it becomes another one.
    """
    cells = [[cell.replace("|", "\u00a6") for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return " to ".join(map(_figure, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
