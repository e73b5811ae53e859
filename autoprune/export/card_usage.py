"""How to run an exported model, as a few lines of Python for its card: with autoprune and without it."""

from __future__ import annotations

from autoprune.tasks.kinds import TaskKind


def with_autoprune(
    target: str,
    kind: TaskKind,
    folder: str,
    *,
    is_average: bool = False,
    has_sentence_head: bool = False,
    limit: str | None = None,
    builder: str | None = None,
) -> str:
    """Code that loads a folder with autoprune and asks the model once.

    is_average: of several models, which takes arrays on every target. has_sentence_head: whether a text's
    vector is more than the mean of its tokens'. limit: of a family, bytes that a member may have. builder: of
    a model that somebody's own code builds, the function that `load` is given.
    """
    is_torch = target == "packed" and not is_average
    packages = (*_packages(kind), "from autoprune import load")
    call = load_call(folder, limit=limit, builder=builder)
    load = f"model = {call}  # every file is checked by its SHA-256; nothing in it is run"
    ask = f"model(**{_name(kind)})"
    if kind.gives_vectors and is_torch and has_sentence_head:
        answer = [
            f"hidden = {ask}.last_hidden_state",
            "vectors = model.sentence_head(hidden, tokens['attention_mask'])  # compared by cosine",
        ]
    elif kind.gives_vectors and is_torch:
        answer = [
            f"hidden, seen = {ask}.last_hidden_state, tokens['attention_mask'][..., None]",
            "vectors = (hidden * seen).sum(1) / seen.sum(1)  # compared by cosine",
        ]
    else:
        answer = [f"{_answer(kind)} = {ask}.logits"]
    if limit is not None:
        answer.append("model.switch()  # the most accurate member answers from now on")
    return _joined(packages, [_inputs(kind, folder, "pt" if is_torch else "np"), load, *answer])


def load_call(folder: str, *, limit: str | None = None, builder: str | None = None) -> str:
    """The call that loads a folder: with a limit of a family's member, and with the function it needs.

    >>> load_call("small", limit="6MB"), load_call("mine-small", builder="mine:build")
    ("load('small', budget='6MB')", "load('mine-small', builder='mine:build')")
    """
    given = {"budget": limit, "builder": builder}
    words = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
    return f"load({folder!r}{words})"


def without_autoprune(target: str, kind: TaskKind, folder: str) -> str | None:
    """Code that runs a folder with the target's own package alone; None where that takes more."""
    given, answer = _name(kind), _answer(kind)
    if target == "openvino":
        lines = [
            _inputs(kind, folder, "np"),
            'options = {"INFERENCE_PRECISION_HINT": "f32"}',
            f'model = ov.compile_model({folder!r} + "/model.xml", "CPU", options)',
            f"{answer} = model({{port.any_name: {given}[port.any_name] for port in model.inputs}})[0]",
        ]
        return _joined((*_packages(kind), "import openvino as ov"), lines)
    if target == "onnx":
        session = f'{folder!r} + "/model.onnx", providers=["CPUExecutionProvider"]'
        lines = [
            _inputs(kind, folder, "np"),
            f"model = onnxruntime.InferenceSession({session})",
            f"{answer} = model.run(None, {{one.name: {given}[one.name] for one in model.get_inputs()}})[0]",
        ]
        return _joined((*_packages(kind), "import onnxruntime"), lines)
    if target == "compressed-tensors" and kind.auto_class and not kind.gives_vectors:
        name = kind.auto_class
        lines = [
            _inputs(kind, folder, "pt"),
            f"model = {name}.from_pretrained({folder!r})",
            f"{answer} = model(**{given}).logits",
        ]
        return _joined((*_packages(kind), f"from transformers import {name}"), lines)
    return None


def _name(kind: TaskKind) -> str:
    return "pixels" if kind.reads_images else "tokens" if kind.is_tokenized else "inputs"


def _answer(kind: TaskKind) -> str:
    return "vectors" if kind.gives_vectors else "logits"


def _packages(kind: TaskKind) -> tuple[str, ...]:
    if kind.reads_images:
        return ("import numpy as np",)
    return ("from transformers import AutoTokenizer",) if kind.is_tokenized else ()


def _inputs(kind: TaskKind, folder: str, tensors: str) -> str:
    """A line that makes the model's inputs."""
    if kind.is_own:
        return "inputs = {}  # arrays by name, as the model takes them"
    if kind.reads_images:
        zeros = "np.zeros((1, 3, 224, 224), np.float32)"
        if tensors == "pt":
            zeros = f"torch.from_numpy({zeros})"
        return f'pixels = {{"pixel_values": {zeros}}}  # a picture, prepared as for training'
    called = f'"{kind.example_text}", truncation=True, return_tensors="{tensors}"'
    return f"tokens = AutoTokenizer.from_pretrained({folder!r})({called})"


def _joined(packages: tuple[str, ...], lines: list[str]) -> str:
    """Imports in order, then the code."""
    if any("torch.from_numpy" in line for line in lines):
        packages = (*packages, "import torch")
    plain = sorted(package for package in packages if package.startswith("import"))
    named = _merged([package for package in packages if package.startswith("from")])
    return "\n".join([*plain, *named, "", *lines])


def _merged(imports: list[str]) -> list[str]:
    """`from` imports with one line a package, in order.

    >>> _merged(["from b import d", "from a import e", "from b import c"])
    ['from a import e', 'from b import c, d']
    """
    names_of: dict[str, list[str]] = {}
    for line in imports:
        _, package, _, name = line.split()
        names_of.setdefault(package, []).append(name)
    return [
        f"from {package} import {', '.join(sorted(names))}" for package, names in sorted(names_of.items())
    ]
