"""Which shipped search space fits a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.units import find_units
from autoprune.space.shipped import spaces_folder
from autoprune.space.space_file import SpaceFile, read_space


def find_space(name: str, model: nn.Module) -> tuple[SpaceFile, str]:
    """A space by file, by shipped name, or for "auto" the one that names the model's type or fits it."""
    shipped = {path.stem: path for path in sorted(spaces_folder().glob("*.yaml"))}
    if name == "auto":
        return _fitting(shipped, model)
    if name in shipped:
        return read_space(shipped[name]), shipped[name].name
    path = Path(name)
    if not path.is_file():
        raise AutopruneError(
            f"search space {name!r} is neither a file nor shipped; shipped: {', '.join(shipped)}"
        )
    return read_space(path), path.name


def _fitting(shipped: Mapping[str, Path], model: nn.Module) -> tuple[SpaceFile, str]:
    """The shipped space for a model's type; for one that has none the first whose rules its modules fit.

    Types of transformers may have the same module paths and compute otherwise (OLMo 2 has a norm over all
    heads), so those must be named by a file.
    """
    told = getattr(getattr(model, "config", None), "model_type", None)
    kind = str(told or type(model).__name__)
    files = {stem: read_space(path) for stem, path in shipped.items()}
    known = {stem: kind in (stem, *file.types) for stem, file in files.items()}
    for stem in sorted((stem for stem in files if known[stem] or told is None), key=lambda x: not known[x]):
        try:
            find_units(model, files[stem], source=stem)
        except AutopruneError:
            if known[stem]:
                raise
        else:
            return files[stem], shipped[stem].name
    raise AutopruneError(
        f"no search space is shipped for models of type {kind!r}; there are {', '.join(shipped)}. Draft one "
        "with autoprune inspect MODEL --write-space my.yaml, look it over, and give it with --space my.yaml"
    )
