"""What a model's folder or hub repository holds, looked at before its weights are loaded.

Code that a model brings is never run, and transformers is never left to ask whether it may: every call of it
here says `trust_remote_code=False`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import transformers

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json

ADAPTER, WEIGHTS, INDEX = "adapter_config.json", "model.safetensors", "model.safetensors.index.json"

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before the names of a model's tensors."""

_INTEGERS = {"I8", "U8", "I16", "U16", "I32", "U32", "F8_E4M3", "F8_E5M2", "F4", "F8_E8M0"}
"""Types of safetensors that a weight has only once it is quantized."""


_OTHERS = ("bin", "pt", "pth", "gguf", "onnx")
"""Ends of names of files that hold weights otherwise."""


def check_source(source: str) -> None:
    """One clear error for a local path that is no folder of a whole model.

    Raises:
        AutopruneError: naming what it is instead.
    """
    path = Path(source)
    if path.is_file():
        raise AutopruneError(
            f"model {source!r} is a file; MODEL is a folder with config.json, model.safetensors "
            "and a tokenizer, or a hub id"
        )
    if path.is_dir():
        _check_adapter(source, None)
        if not (path / "config.json").is_file():
            inner = sorted(file.parent.name for file in path.glob("*/config.json"))
            hint = f" (its sub-folders {', '.join(inner)} have one)" if inner else ""
            raise AutopruneError(f"model folder {source!r} has no config.json{hint}; is it a model?")
        if not any(path.glob("*.safetensors")):
            others = sorted(file.name for end in _OTHERS for file in path.glob(f"*.{end}"))
            has = f"it has {', '.join(others[:3])}: " if others else ""
            raise AutopruneError(
                f"model folder {source!r} has no *.safetensors; only that format is read ({has}save "
                "the model again with transformers' save_pretrained)"
            )
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise AutopruneError(f"model folder {source!r} does not exist")


def config_of(source: str, revision: str | None = None) -> Any:
    """The config of a model that can be rebuilt from its config alone, in floats.

    Raises:
        AutopruneError: when there is no such model, and for one that is an adapter, is quantized already, was
            made by autoprune, or needs code that it brings.
    """
    check_source(source)
    try:
        told, _ = transformers.PreTrainedConfig.get_config_dict(source, revision=revision)
    except Exception as error:  # transformers raises many kinds
        _check_adapter(source, revision)
        raise AutopruneError(f"model {source!r} cannot be loaded: {first_line(error)}") from error
    _check_told(source, told)
    _check_adapter(source, revision)
    try:
        return transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise AutopruneError(f"model {source!r} cannot be loaded: {first_line(error)}") from error


def _check_told(source: str, told: dict[str, Any]) -> None:
    """Raise `AutopruneError` for what a config says that stands against compressing its model."""
    quantized = told.get("quantization_config")
    if isinstance(quantized, dict) and quantized:
        how = quantized.get("quant_method") or next((name for name in quantized if "bit" in name), "some way")
        bits = f", {quantized['bits']} bits" if "bits" in quantized else ""
        raise AutopruneError(
            f"model {source!r} is quantized already ({how}{bits}): its weights are rounded, and a search "
            "needs "
            "those before that. Give the model it was made from"
        )
    if isinstance(told.get("autoprune"), dict):
        raise AutopruneError(
            f"model {source!r} was made by autoprune: it is compressed already. Give the model it was made "
            "from"
        )
    brings = told.get("auto_map") or {}
    if brings and not _is_known(told.get("model_type")):
        names = (str(_first(name)).rpartition("--")[2] for name in brings.values())
        files = sorted({name.split(".")[0] + ".py" for name in names})
        raise AutopruneError(
            f"model {source!r} of type {told.get('model_type')!r} needs code that it brings "
            f"({', '.join(files)}), "
            "which transformers has not. It is not run, with --trust-remote-code neither: workers and "
            "exports "
            "make a model of its config alone. Build it in a function of your own, and give "
            "package.module:function with --weights FILE.safetensors and --task module:function"
        )


def _is_known(model_type: Any) -> bool:
    """Whether transformers has a type of model itself."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _first(name: Any) -> Any:
    return next((part for part in name if part), "") if isinstance(name, list | tuple) else name


def _check_adapter(source: str, revision: str | None) -> None:
    """Raise `AutopruneError` where a folder or repository has an adapter, alone or beside its weights."""
    told = json_of(source, ADAPTER, revision)
    if told is None:
        return
    base = told.get("base_model_name_or_path") or "its base model"
    raise AutopruneError(
        f"model {source!r} has an adapter ({told.get('peft_type') or 'of peft'}, {ADAPTER}) of {base}: put "
        "the "
        "two together (peft: model.merge_and_unload().save_pretrained(FOLDER)) and give that folder"
    )


# ---- files --------------------------------------------------------------------------------------


def file_of(source: str, name: str, revision: str | None = None, *, must_know: bool = False) -> Path | None:
    """A file of a folder or hub repository; None where it has none of that name.

    must_know: whether it matters that a repository was not asked; else its file is taken for none.

    Raises:
        AutopruneError: where that is not known and must be, and for a name that leads out of the model.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from transformers.utils.hub import cached_file

    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise AutopruneError(
            f"model {source!r} names a file {name!r} that lies outside of it: only its own are read"
        )
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    try:
        got = cached_file(
            source, name, revision=revision, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
    except OSError as error:
        raise AutopruneError(f"model {source!r} cannot be loaded: {first_line(error)}") from error
    if got is not None:
        return Path(got)
    if not must_know or try_to_load_from_cache(source, name, revision=revision) is _CACHED_NO_EXIST:
        return None
    raise AutopruneError(
        f"whether model {source!r} has a file {name} is not known: the hub could not be asked, and it is "
        "not in "
        "the cache. Go online once, or download the model into a folder (hf download) and give that"
    )


def json_of(source: str, name: str, revision: str | None = None, *, must_know: bool = False) -> Any:
    """What a file of JSON says; None where there is none.

    Raises:
        AutopruneError: where it is damaged, or as `file_of` raises.
    """
    path = file_of(source, name, revision, must_know=must_know)
    try:
        return None if path is None else read_json(path)
    except (OSError, ValueError) as error:
        raise AutopruneError(f"{name} of {source!r} cannot be read: {error}") from error


# ---- names and types of tensors -----------------------------------------------------------------


def prefix_of(source: str, revision: str | None = None) -> str:
    """What stands before the name of each tensor in a model's files, and is not the model's.

    A model that was saved from within DataParallel or torch.compile has their name there.

    Raises:
        AutopruneError: where tensors are integers: the model is quantized, whatever its config says.
    """
    names = _tensors(source, revision)
    integers = sorted(name for name, type in names.items() if name.endswith("weight") and type in _INTEGERS)
    if integers:
        raise AutopruneError(
            f"model {source!r} is quantized already: {len(integers)} of its weights are no floats, as "
            f"{integers[0]} ({names[integers[0]]}). Give the model it was made from"
        )
    return wrapper_of(names)


def wrapper_of(names: Iterable[str]) -> str:
    """What wrappers put before all of some names; empty where they did not.

    >>> wrapper_of(["module._orig_mod.a", "module._orig_mod.b"]), wrapper_of(["module.a", "b"])
    ('module._orig_mod.', '')
    """
    left, prefix = list(names), ""
    while left:
        wrapper = next((w for w in WRAPPERS if all(name.startswith(w) for name in left)), None)
        if wrapper is None:
            break
        prefix += wrapper
        left = [name.removeprefix(wrapper) for name in left]
    return prefix


def _tensors(source: str, revision: str | None) -> dict[str, str]:
    """Types of the tensors in a model's files, by name; none where the files are not found so."""
    index = json_of(source, INDEX, revision) if _may_have(source, INDEX) else None
    try:
        names = [WEIGHTS] if index is None else sorted({str(name) for name in index["weight_map"].values()})
    except (LookupError, TypeError, AttributeError) as error:
        raise AutopruneError(f"{INDEX} of {source!r} does not say which file has which tensor") from error
    out: dict[str, str] = {}
    for name in names:
        path = file_of(source, name, revision) if _may_have(source, name) else None
        out |= {} if path is None else header_of(path)
    return out


def _may_have(source: str, name: str) -> bool:
    """Whether a file may be there: of a folder this is known."""
    return not Path(source).is_dir() or (Path(source) / name).is_file()


def header_of(path: Path) -> dict[str, str]:
    """Types of the tensors in a safetensors file, by name.

    Raises:
        AutopruneError: for a file that is none.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            told = json.loads(file.read(min(size, 100_000_000)))
            return {name: about["dtype"] for name, about in told.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise AutopruneError(f"{path} is no safetensors file: {error}") from error


def first_line(error: BaseException) -> str:
    """What an error says, its first line alone."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_body(source: str, model: Any, missing: set[str], unfit: set[str]) -> None:
    """Raise `AutopruneError` where a tensor of the body is not in the file, or has another shape there.

    A head that is missing is fitted; a body would be drawn at random. A pooler belongs to the head.
    """
    body = getattr(model, "base_model", model)
    if body is model:
        return
    names = {f"{model.base_model_prefix}.{name}" for name, _ in body.named_parameters()}
    wrong = sorted(name for name in (missing | unfit) & names if "pooler" not in name)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        what = (
            "is not in its file"
            if wrong[0] in missing
            else "has another shape in its file than its config says"
        )
        raise AutopruneError(
            f"model {source!r} is incomplete: {wrong[0]}{more} {what}. Save the model again, whole"
        )


def check_finite(source: str, model: Any) -> None:
    """Raise `AutopruneError` where a weight is NaN or infinite."""
    wrong = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise AutopruneError(
            f"model {source!r} is damaged: {wrong[0]}{more} holds NaN or Inf. Give another checkpoint"
        )
