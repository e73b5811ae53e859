"""Models and data that are in memory, as files that a search can read.

They are written into the cache folder `inputs/`, each in a folder named by the hash of what it holds, so that
the same object is written once and a run can be gone on with. Nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoprune.core.cache import cache_folder, check_cache, content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash, written_whole

INPUTS = "inputs"
"""The cache's folder of models and data that came from memory."""

_SPLITS = ("train", "validation", "test")


def model_source(model: Any, processor: Any = None) -> dict[str, str]:
    """The settings `model`, and `weights` where it needs them, of a model as the user has it.

    Args:
        model: a folder or hub id; a transformers model; a torch module whose class can be imported and takes
            no arguments; or a function that builds a module.
        processor: tokenizer or image processor of a transformers model in memory.

    Raises:
        AutopruneError: for anything else, saying what is allowed.
    """
    if isinstance(model, str | Path):
        if processor is not None:
            raise AutopruneError("processor goes with a model in memory: a folder or hub id has its own")
        return {"model": str(model)}
    if hasattr(model, "save_pretrained") and hasattr(model, "config"):
        return {"model": str(_saved_pretrained(model, processor))}
    if _is_module(model):
        return {
            "model": reference_of(type(model), "the model's class"),
            "weights": str(_saved_weights(model)),
        }
    if callable(model):
        return {"model": reference_of(model, "the function that builds the model")}
    raise AutopruneError(
        f"model is a {type(model).__name__}: give a folder or hub id, a transformers model, a torch module, "
        "or a function that builds one"
    )


def data_source(dataset: Any) -> str:
    """The setting `dataset` of data as the user has them.

    Args:
        dataset: a path or hub id; a function without arguments; a `datasets.Dataset` or `DatasetDict`; a
            pandas DataFrame; a dict of columns; a list of dicts, one a row; or a dict of train, validation
            and test of these.

    Raises:
        AutopruneError: for anything else, saying what is allowed.
    """
    if isinstance(dataset, str | Path):
        return str(dataset)
    import datasets

    if callable(dataset):
        return reference_of(dataset, "the function that gives the data")
    if isinstance(dataset, datasets.DatasetDict):
        whole: Any = dataset
    elif isinstance(dataset, Mapping) and dataset and set(dataset) <= set(_SPLITS):
        whole = datasets.DatasetDict({name: _table(part) for name, part in dataset.items()})
    else:
        whole = _table(dataset)
    if not any(map(len, whole.values() if isinstance(whole, datasets.DatasetDict) else [whole])):
        raise AutopruneError(f"dataset is a {type(dataset).__name__} without a row: give one with rows")
    return str(_kept(lambda folder: whole.save_to_disk(str(folder)), "data", _data_key))


def reference_of(function: Any, what: str) -> str:
    """`package.module:name` of a function or class, which workers import.

    Raises:
        AutopruneError: for one that cannot be imported by its name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if (
        module in (None, "__main__")
        or not name.isidentifier()
        or getattr(sys.modules[module], name, None) is None
    ):
        raise AutopruneError(
            f"{what} is {name or function!r} of {module}, which workers cannot import: put it into a module "
            "of its own, at its top level, and import it from there"
        )
    return f"{module}:{name}"


def _is_module(model: Any) -> bool:
    torch = sys.modules.get("torch")  # who has a module has imported it
    return torch is not None and isinstance(model, torch.nn.Module)


def _saved_pretrained(model: Any, processor: Any) -> Path:
    """A folder with a transformers model and what reads its inputs."""
    if processor is None:
        raise AutopruneError(
            "a model in memory needs processor=: its tokenizer, or its image processor, as in "
            "search(model, processor=tokenizer, dataset=...)"
        )
    if not hasattr(processor, "save_pretrained"):
        raise AutopruneError(
            f"processor is a {type(processor).__name__}: give the model's tokenizer or image processor"
        )

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    given = str(getattr(model.config, "_name_or_path", "") or "")
    return _kept(save, Path(given.rstrip("/")).name or model.config.model_type, _files_key)


def _saved_weights(model: Any) -> Path:
    """A file with the weights of a torch module; tensors that share memory are written once."""
    from safetensors.torch import save_model

    name = "model.safetensors"
    return (
        _kept(lambda folder: save_model(model, str(folder / name)), type(model).__name__, _files_key) / name
    )


def _table(part: Any) -> Any:
    """One table as a `datasets.Dataset`."""
    import datasets

    if isinstance(part, datasets.Dataset):
        return part
    try:
        if hasattr(part, "to_parquet") and hasattr(part, "iloc"):
            return datasets.Dataset.from_pandas(part, preserve_index=False)
        if isinstance(part, Mapping):
            return datasets.Dataset.from_dict(dict(part))
        if isinstance(part, list) and part and all(isinstance(row, Mapping) for row in part):
            return datasets.Dataset.from_list([dict(row) for row in part])
    except Exception as error:  # pyarrow raises many kinds
        raise AutopruneError(f"the dataset cannot be read as a table: {error}") from error
    raise AutopruneError(
        f"dataset is a {type(part).__name__}: give a path or hub id, a function, a datasets.Dataset or "
        "DatasetDict, a pandas DataFrame, a dict of columns, a list of dicts, or a dict of train, validation "
        "and test of these"
    )


def _kept(save: Callable[[Path], object], name: str, key: Callable[[Path], str]) -> Path:
    """The folder in the cache with what `save` writes, which is kept by its hash."""
    root = cache_folder() / INPUTS
    check_cache(root)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=root) as temporary:
        made = Path(temporary) / name
        made.mkdir()
        with _no_progress_bars():
            save(made)
        place = root / key(made) / name
        if not place.exists():
            with written_whole(place) as whole:
                shutil.copytree(made, whole)
    return place


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without the bars that transformers and datasets print as they save, where they are imported."""
    names = ("transformers.utils.logging", "datasets.utils.logging")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    shown = [module for module in modules if module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


def _files_key(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return content_key([[path.relative_to(folder).as_posix(), file_hash(path)] for path in files])


def _data_key(folder: Path) -> str:
    """By rows and columns alone: what else `datasets` writes differs from time to time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [
        [path.relative_to(folder).as_posix(), file_hash(path)] for path in files if path.suffix == ".arrow"
    ]
    infos = [path for path in files if path.name == "dataset_info.json"]
    columns = [json.loads(path.read_text(encoding="utf-8")).get("features") for path in infos]
    return content_key(rows, columns)
