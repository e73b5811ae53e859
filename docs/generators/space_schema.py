"""The page of the search space file, from its schema and from the files that are shipped."""

from __future__ import annotations

from typing import Any, get_type_hints

from pydantic_core import PydanticUndefined

from autoprune.space.shipped import spaces_folder
from autoprune.space.space_file import Finetune, Prune, Quantize, SpaceFile, UnitRule, read_space
from docs.generators.tables import default_text, described, table, type_text

INTRODUCTION = """# Search space file

A YAML file that says which modules form a unit and what may be done to each. [Search
spaces](../search_spaces.md) explains how to write one. All errors of a file are told at once. Unknown
keys and keys that stand twice are errors.
"""

TITLES = {
    SpaceFile: "The file",
    UnitRule: "A rule of units",
    Prune: "prune",
    Quantize: "quantize",
    Finetune: "finetune",
}
ANCHORS = {kind: title.lower().replace(" ", "-") for kind, title in TITLES.items()}


def space_file_page() -> str:
    """The schema, the files that are shipped, and one of them."""
    parts = [INTRODUCTION]
    for kind, title in TITLES.items():
        about, meanings = described(kind, kind.model_fields)
        parts.append(f"## {title}\n\n{about}\n")
        hints = get_type_hints(kind, include_extras=True)
        rows = [
            (f"`{name}`", _type(hints[name]), _default(field), meanings.get(name, ""))
            for name, field in kind.model_fields.items()
        ]
        parts.append(table(("key", "value", "default", "meaning"), rows))
    parts.append("## Shipped spaces\n\n`autoprune spaces` lists them; `--space NAME` takes one by name.\n")
    paths = sorted(spaces_folder().glob("*.yaml"))
    rows = []
    for path in paths:
        space = read_space(path)
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").split("`*`")[0]
        rows.append(
            (f"`{path.stem}`", about, ", ".join(f"`{name}`" for name in space.units), _removed(space))
        )
    parts.append(table(("name", "for", "units", "what can be removed"), rows))
    bert = (spaces_folder() / "bert.yaml").read_text(encoding="utf-8")
    parts.append(f"## A whole file\n\n`bert.yaml`:\n\n```yaml\n{bert.rstrip()}\n```\n")
    return "\n".join(parts)


def _type(annotation: Any) -> str:
    words = type_text(annotation)
    for kind in TITLES:
        words = words.replace(
            f"[{kind.__name__}](#{kind.__name__.lower()})", f"[{TITLES[kind]}](#{ANCHORS[kind]})"
        )
    return words


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    return default_text(field.default)


def _removed(space: SpaceFile) -> str:
    kinds = sorted({rule.prune.by for rule in space.units.values() if rule.prune is not None})
    return ", ".join(f"{kind}s" for kind in kinds) or "nothing"
