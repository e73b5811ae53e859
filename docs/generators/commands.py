"""The page of the command line, from click."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from autoprune.cli.main import main
from docs.generators.tables import option_text, table

INTRODUCTION = """# Command line

The option `--help` of a command prints the same on a terminal. `python -m autoprune` is the same program.
Results go to stdout, progress to stderr. No command asks a question. [Exit codes](exit_codes.md) say
how a command ended; [Configuration](configuration.md) has each setting with its name in Python.
"""


def commands_page() -> str:
    """Every command with its usage, its help and its options."""
    parts = [INTRODUCTION]
    commands = dict(walk(main, "autoprune"))
    rows = [
        (f"[`{path}`](#{path.replace(' ', '-')})", command.get_short_help_str(200))
        for path, command in commands.items()
    ]
    parts.append(table(("command", "what it does"), rows))
    parts += [_section(path, command) for path, command in commands.items()]
    return "\n".join(parts)


def walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group with their full names, groups too."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from walk(command, f"{path} {name}")


def _section(path: str, command: click.Command) -> str:
    parent, _, name = path.rpartition(" ")
    context = click.Context(command, info_name=name, parent=click.Context(main, info_name=parent))
    usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
    options = [
        (f"`{flags.replace(' RANGE', '')}`", _plain(told))
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (record := parameter.get_help_record(context))
        for flags, told in [record]
    ]
    parts = [f"## {path}\n", f"```text\n{usage}\n```\n", _help(command)]
    if options:
        parts.append(table(("option", "meaning"), options))
    return "\n".join(parts)


def _help(command: click.Command) -> str:
    """The help: paragraphs as they are, examples (after a line with a backspace) as code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            paragraphs.append(f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```")
        else:
            paragraphs.append(_plain(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs) + "\n"


def _plain(text: str) -> str:
    """A help text as Markdown: nothing in it is markup."""
    return re.sub(r"([*<])", r"\\\1", option_text(text))
