"""The page of the files of a run and of an export, from the records that read and write them."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pydantic
from pydantic_core import PydanticUndefined

from autoprune.export.export_record import ExportRecord
from autoprune.run.front_schema import Front
from autoprune.run.run_record import RunRecord, StatusRecord
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.metrics import Metric
from docs.generators.tables import default_text, described, is_record, table, type_text

INTRODUCTION = """# Files of a run, and of an export

A run is a folder. Every file in it is written under a temporary name and renamed, so a reader never
sees half of one. A kill costs the trials in flight and nothing else.

| file | what it holds |
|---|---|
| `run.json` | what was asked, versions, hashes of model, data and space ([fields](#runjson)) |
| `status.json` | what the driver does now, or how it ended ([fields](#statusjson)) |
| `front.json` | all trials, the front and the points to choose from ([fields](#frontjson)) |
| `front.csv` | the same as a table: a row a trial, with ratio, bits and bytes of every unit |
| `report.html` | the report: one file, no request to a network |
| `study.db` | the Optuna study (SQLite, one writer: the driver); its dashboard opens it |
| `units.json` | bytes, milliseconds and predicted damage of every unit at every level |
| `sensitivity.json` | predicted damage of every unit compressed alone, in nats |
| `lines.json` | simple models that the front is compared with, where there are any |
| `answer_changes.json` | answers that points to ship change, with rows of data (`--no-examples`: none) |
| `row_scores.json` | scores of rows of the models worth comparing with another run's |
| `trials/0042/` | a model of the front, packed: `config.json`, `model.safetensors`, `sha256.json` |
| `trackers/` | what each tracker has (`--track`), and what those write that have no other place |
| `tokenizer/` | what an export needs beside the model |
| `logs/search.log` | what the searches of the run said, one after another |
| `.lock`, `.holder.json` | which process has the run; a second one is refused |

What takes long and may be shared between runs is not here but in the cache (`AUTOPRUNE_CACHE`, see
[Configuration](configuration.md#environment-variables)). Fields that a later version wrote are kept as
they are. Every field may be missing in a file of an earlier version: the default is then read.
"""

ROOTS = (
    ("run.json", RunRecord),
    ("status.json", StatusRecord),
    ("front.json", Front),
    ("autoprune.json of an export", ExportRecord),
)


def run_files_page() -> str:
    """Every field of every file that a program may read."""
    parts, told = [INTRODUCTION], set()
    for title, root in ROOTS:
        parts.append(f"## {title}\n")
        waiting = [root]
        while waiting:
            record = waiting.pop(0)
            if record in told:
                continue
            told.add(record)
            if record is not root:
                parts.append(f"### {record.__name__}\n")
            about, meanings = described(record, _annotations(record))
            parts.append(f"{about}\n")
            parts.append(_fields(record, meanings))
            waiting += _inside(record)
    return "\n".join(parts)


def _annotations(record: Any) -> dict[str, Any]:
    """Name and annotation of each field, as files name them, Annotated kept."""
    hints = get_type_hints(record, include_extras=True)
    if issubclass(record, tuple):
        return {name: hints[name] for name in record._fields}
    return {field.alias or name: hints[name] for name, field in record.model_fields.items()}


def _fields(record: Any, meanings: dict[str, str]) -> str:
    rows = [
        (f"`{name}`", type_text(annotation), _default(record, name), meanings.get(name, ""))
        for name, annotation in _annotations(record).items()
    ]
    return table(("field", "type", "default", "meaning"), rows)


def _default(record: Any, name: str) -> str:
    if issubclass(record, tuple):
        return default_text(record._field_defaults[name]) if name in record._field_defaults else "needed"
    field = next(f for n, f in record.model_fields.items() if name in (n, f.alias))
    if field.default_factory is not None:
        return "empty"
    if field.default is PydanticUndefined:
        return "needed"
    return _named(field.default)


def _named(value: Any) -> str:
    """A default; of a task or a metric its name."""
    return str(value.name) if isinstance(value, TaskKind | Metric) else default_text(value)


def _inside(record: Any) -> list[Any]:
    """The records that fields of a record hold."""
    found: list[Any] = []
    for annotation in _annotations(record).values():
        waiting = [annotation]
        while waiting:
            part = waiting.pop()
            if is_record(part) and part is not record:
                found.append(part)
            elif not isinstance(part, type) or get_args(part):
                waiting += [p for p in get_args(part) if not isinstance(p, pydantic.fields.FieldInfo)]
    return found
