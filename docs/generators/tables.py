"""Markdown tables, and what a type annotation is called in plain words."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pydantic

WORDS = {
    str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null",
    Any: "any value", object: "any value",
}  # fmt: skip

PLURALS = {"text": "texts", "whole number": "whole numbers", "number": "numbers", "any value": "any values"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def docstring(thing: Any) -> str:
    """The docstring of a class or function, a paragraph a line, without its doctests and arguments."""
    text = inspect.getdoc(thing) or ""
    kept = [
        " ".join(paragraph.split())
        for paragraph in text.split("\n\n")
        if not paragraph.startswith((">>>", "Args:", "Raises:", "Returns:"))
    ]
    return "\n\n".join(kept)


def described(thing: Any, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The docstring of a class, and what it says of single fields: sentences that begin with `name: `."""
    known, about, meanings = set(names), [], {}
    for paragraph in docstring(thing).split("\n\n"):
        pieces = re.split(r"(?:^|(?<=[.;] ))`?((?:\w+, )*\w+)`?: ", paragraph)
        about.append(pieces[0])
        for told, meaning in zip(pieces[1::2], pieces[2::2], strict=True):
            if set(told.split(", ")) <= known:
                meanings |= dict.fromkeys(told.split(", "), meaning.strip().rstrip(";"))
            else:
                about[-1] += f"{told}: {meaning}"
    return "\n\n".join(text.strip() for text in about if text.strip()), meanings


def is_record(annotation: Any) -> bool:
    """Whether a type is an object in a file, with fields of its own."""
    return isinstance(annotation, type) and (
        issubclass(annotation, pydantic.BaseModel)
        or (issubclass(annotation, tuple) and hasattr(annotation, "_fields"))
    )


def type_text(annotation: Any, words: Mapping[Any, str] = WORDS, *, links: bool = True) -> str:
    """A type in plain words.

    >>> type_text(tuple[int, ...]), type_text(dict[str, float | None])
    ('list of whole numbers', 'map to (number or null)')
    """
    if isinstance(annotation, str) or annotation in words:
        return annotation if isinstance(annotation, str) else words[annotation]
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [text for part in inside[1:] if (text := _limit(part))]
        return type_text(inside[0], words, links=links) + "".join(limits)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(part, words, links=links) for part in inside)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, list | Sequence)):
        members = [part for part in inside if part is not Ellipsis]
        return "list of " + ", ".join(_plural(type_text(part, words, links=links)) for part in members)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = type_text(inside[1], words, links=links)
        return f"map to ({inner})" if " or " in inner else f"map to {inner}"
    if is_record(annotation):
        name = annotation.__name__.lstrip("_")
        return f"[{name}](#{name.lower()})" if links else name
    return {"TaskKind": "name of a kind of task", "Metric": "metric", "Storage": "storage"}.get(
        annotation.__name__, annotation.__name__
    )


def _plural(words: str) -> str:
    first, *others = words.split(" or ")
    return " or ".join([PLURALS.get(first, first), *others])


def _limit(part: Any) -> str:
    if isinstance(part, pydantic.fields.FieldInfo):
        return "".join(_limit(inner) for inner in part.metadata)
    told = {
        annotated_types.Ge: ("ge", "at least"), annotated_types.Gt: ("gt", "above"),
        annotated_types.Le: ("le", "at most"), annotated_types.Lt: ("lt", "below"),
    }  # fmt: skip
    for kind, (attribute, words) in told.items():
        if isinstance(part, kind):
            return f", {words} {getattr(part, attribute):g}"
    return ", not empty" if isinstance(part, annotated_types.MinLen) else ""


def option_text(text: str) -> str:
    """What click says of an option, without square brackets, which are links in Markdown.

    >>> option_text("Rows.  [default: 1]  [x>=1]"), option_text("Models.  [2<=x<=8]")
    ('Rows. Default: 1. At least 1.', 'Models. From 2 to 8.')
    """
    text = re.sub(r"\[default: ([^\]]*)\]", r"Default: \1.", " ".join(text.split()))
    text = text.replace("[required]", "Required.")
    text = re.sub(r"\[([^\]<]*)<=x<=([^\]]*)\]", r"From \1 to \2.", text)
    text = re.sub(r"\[x>=([^\]]*)\]", r"At least \1.", text)
    return re.sub(r"\[x>([^\]]*)\]", r"Above \1.", text)


def default_text(value: Any) -> str:
    """A default as a file has it.

    >>> default_text(None), default_text(()), default_text(1e-4), default_text("auto")
    ('null', 'empty', '0.0001', 'auto')
    """
    if isinstance(value, pydantic.BaseModel):
        return "its defaults"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}"
    return str(value) if value else "empty"
