"""YAML that a user wrote, within limits: what it says, and keys of which only the last would be heeded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

MOST_YAML_BYTES = 1_000_000
"""Of a file: the longest space that is shipped has a five-hundredth."""

MOST_YAML_NODES = 100_000
"""Values of a file, each counted as often as an alias (`*name`) repeats it."""

NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises for a text that is none."""


def parse_yaml(text: str) -> tuple[Any, list[str]]:
    """What a text says, and what in it would not be heeded.

    Raises:
        One of `NO_YAML`, for a text that is none or whose aliases stand for too much.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, loader.errors
        if (count := _count(root, {})) > MOST_YAML_NODES:
            raise ValueError(f"its aliases stand for {count} values, and at most {MOST_YAML_NODES} are read")
        return loader.construct_document(root), loader.errors
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Notes bytes, and the keys that a mapping has twice, of which YAML would heed the last alone."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errors: list[str] = []

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag == "tag:yaml.org,2002:binary":
            line = node.start_mark.line + 1
            self.errors.append(f"line {line}: !!binary stands for nothing here; write text as it is")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    first = lines[key.tag, key.value]
                    self.errors.append(f"{key.value}: is there twice, in line {first} and in line {line}")
                lines[key.tag, key.value] = line
        return node


# PyYAML reads YAML 1.1, where a number without a point has no exponent; 1.2 and JSON have it so.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node stands for once its aliases are written out.

    counts: of the nodes that were counted, by id; 0 while one is.

    Raises:
        ValueError: where an alias stands inside of what it names.
    """
    if id(node) in counts:
        if counts[id(node)] == 0:
            raise ValueError(f"line {node.start_mark.line + 1} holds an alias of itself")
        return counts[id(node)]
    counts[id(node)] = 0
    inside = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for entry in inside for part in (entry if isinstance(entry, tuple) else (entry,))]
    counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    return counts[id(node)]


def errors_text(where: str, errors: Sequence[str]) -> str:
    """All errors of a file in one message, of very many the first; `where` names the file."""
    told = [f"{line:.500}" for line in errors[:_MOST_ERRORS]]
    told += [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
    return f"{where} has {len(errors)} error{'s' * (len(errors) > 1)}:\n  " + "\n  ".join(told)


_MOST_ERRORS = 30
"""Errors that one message tells."""
