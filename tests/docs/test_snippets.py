"""Commands of the documentation parse, and its Python names only things that exist. Nothing is run here."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import autoprune
from autoprune.api.front import Front, Point
from autoprune.api.options import ResumeOptions, SearchOptions
from autoprune.cli.main import main
from tests.support.doc_pages import PAGES, blocks, commands
from tests.support.paths import ROOT

GIVES: dict[Any, Any] = {autoprune.search: Front, autoprune.open_run: Front, autoprune.resume: Front}
MORE = {"search": SearchOptions.__annotations__, "resume": ResumeOptions.__annotations__}
"""Keyword arguments that a signature has by a type alone."""


def parsed(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Parse words as the command line does, down to the last command, and run nothing."""
    context = command.make_context(name, list(words), parent=parent)
    if isinstance(command, click.Group):
        below, chosen, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert chosen is not None
        parsed(chosen, str(below), rest, context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page: Path) -> None:
    """In a sentence an argument may be left out; an option that does not exist may not be named."""
    for words, in_block in commands(page):
        try:
            parsed(main, "autoprune", words)
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            assert not in_block, f"autoprune {' '.join(words)} lacks an argument"
        except click.UsageError as error:
            pytest.fail(f"autoprune {' '.join(words)}: {error.format_message()}")


def test_a_wrong_command_is_seen() -> None:
    for words in (["search", "model", "--buget", "20MB"], ["serch"], ["bench", "a", "--batch", "none"]):
        with pytest.raises(click.UsageError):
            parsed(main, "autoprune", words)


def snippets() -> list[Any]:
    return [
        pytest.param(page, block.text, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page))
        if block.language == "python"
    ]


@pytest.mark.parametrize(("page", "text"), snippets())
def test_python_names_what_exists(page: Path, text: str) -> None:
    own = {block.mark.removeprefix("file: ").removesuffix(".py") for block in blocks(page)}
    tree = ast.parse(text)
    imported = _imported(tree, own)
    bound = {*imported, *dir(builtins), *_bound(tree)}
    unknown = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in bound]
    assert not unknown
    _check_attributes(tree, {name: thing for name, thing in imported.items() if thing is not None})


def _imported(tree: ast.AST, own: set[str]) -> dict[str, Any]:
    """What a snippet imports, by its name there; None of a module that the page itself writes."""
    things: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                module = None if name.name in own else importlib.import_module(name.name)
                things[name.asname or name.name.split(".")[0]] = module
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            things |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
    return things


def _bound(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _check_attributes(tree: ast.AST, things: dict[str, Any]) -> None:
    """Follow attributes and calls from what was imported as far as the types are known."""
    types: dict[str, Any] = {}

    def told(node: ast.expr) -> Any:
        """The thing or type that an expression is; None where it is not known."""
        if isinstance(node, ast.Name):
            return types.get(node.id, things.get(node.id))
        if isinstance(node, ast.Attribute):
            owner = told(node.value)
            if owner is None:
                return None
            assert hasattr(owner, node.attr) or node.attr in getattr(owner, "__annotations__", ()), (
                f"{ast.unparse(node)} does not exist"
            )
            value = getattr(owner, node.attr, None)
            if isinstance(owner, type) and isinstance(value, property):
                return _known(get_type_hints(value.fget).get("return"))
            return value if inspect.ismodule(owner) or callable(value) else None
        if isinstance(node, ast.Subscript):
            return Point if told(node.value) is Front else None
        if isinstance(node, ast.Call):
            function = told(node.func)
            if getattr(function, "__module__", "").startswith("autoprune"):
                _check_keywords(node, function)
            return GIVES.get(function) if inspect.isfunction(function) else None
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs = list(zip(node.targets, [node.value], strict=False))
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
            types |= {pair[0].id: told(pair[1]) for pair in pairs if isinstance(pair[0], ast.Name)}
        elif isinstance(node, ast.For) and told(node.iter) is Front and isinstance(node.target, ast.Name):
            types[node.target.id] = Point
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Call):
            told(node)


def _known(kind: Any) -> Any:
    return kind if kind in (Front, Point) else None


def _check_keywords(node: ast.Call, function: Any) -> None:
    allowed = {*inspect.signature(function).parameters, *MORE.get(function.__name__, ())}
    unknown = [word.arg for word in node.keywords if word.arg not in allowed]
    assert not unknown, f"{ast.unparse(node)} has no {unknown}"


@pytest.mark.parametrize(
    "text",
    [
        "import autoprune\nfront = autoprune.open_run('x')\nfront.bset",
        "import autoprune\nfront = autoprune.open_run('x')\nfront.best.size",
        "import autoprune\nautoprune.search('x', buget='20MB')",
        "import autoprune\nautoprune.serch('x')",
    ],
)
def test_a_wrong_name_is_seen(text: str) -> None:
    tree = ast.parse(text)
    with pytest.raises(AssertionError):
        _check_attributes(tree, _imported(tree, set()))
