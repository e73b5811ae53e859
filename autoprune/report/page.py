"""`report.html`: one file that asks the network for nothing and runs nothing it was not built with.

The browser enforces both: the content security policy allows only the style and the script whose
hashes it names. Data travels as JSON in an element that does not execute.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple, cast

import jinja2
import markupsafe

from autoprune.core.errors import AutopruneError
from autoprune.report.sections.answer_changes import changes_section, not_compared
from autoprune.report.sections.choices import choice_note, choices
from autoprune.report.sections.classes import class_table
from autoprune.report.sections.folds import fold_table
from autoprune.report.sections.latency import bytes_alone, prediction
from autoprune.report.sections.lines import fits_budget
from autoprune.report.sections.plain_table import plain_rows
from autoprune.report.sections.progress import progress
from autoprune.report.sections.repeat import repeat_note
from autoprune.report.sections.robustness import robustness_table
from autoprune.report.sections.rungs import agreements, ladder
from autoprune.report.sections.sensitivity import extremes, held, predicted
from autoprune.report.sections.tables import causes, gain_heads, gain_note, gains, provenance
from autoprune.report.sections.teacher import teacher_notes
from autoprune.report.sections.timeline import timeline
from autoprune.report.sections.verdict import figures, has_budget, latency_title, notes, verdict
from autoprune.report.shown import shown_note, shown_numbers, with_shown
from autoprune.report.text import standard_error, write_text
from autoprune.report.trial_rows import FIELDS, Json, metric_column, pack
from autoprune.run.answer_changes import without_rows
from autoprune.run.front_schema import Front, LineRow, TrialRow, checked_front
from autoprune.run.safe_front import safe
from autoprune.run.text import printable, shell_word
from autoprune.space.storage import widest_first
from autoprune.tasks.metrics import ACCURACY, Metric

SCRIPTS = (
    "dom.js",
    "metric.js",
    "chart.js",
    "heat.js",
    "scatter.js",
    "map.js",
    "report.js",
    "table.js",
    "filter.js",
    "progress.js",
    "parallel.js",
    "timeline.js",
    "save.js",
    "limit.js",
    "ties.js",
    "pair.js",
    "address.js",
)
"""Inlined in this order."""

STYLES = ("report.css", "charts.css", "changes.css")
"""Inlined in this order."""

LIVE_SCRIPT = "live.js"
"""Inlined last where the page follows its run."""


class Live(NamedTuple):
    """What a page that follows its run begins with. version: changes with the front. line: its state."""

    version: str
    line: str


REPORT_TITLE = "compression report</title>"
"""By which a page is known as a report."""


def check_own_page(path: Path, mark: str, what: str) -> None:
    """Raise `AutopruneError` where another file than a page with this mark at its beginning is at a path."""
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise AutopruneError(f"{path} is there, and no {what}: it is not overwritten; give another with -o")


def write_report(front: Mapping[str, object], path: Path) -> None:
    """Write the report of a parsed `front.json` to `path`, whole or not at all.

    Raises:
        AutopruneError: where `front` is not what `front.json` holds.
    """
    write_text(path, render(front))


def render(front: Mapping[str, object], *, live: Live | None = None) -> str:
    """The page as text.

    live: of a page that follows its run (`watch/server`).
    """
    read = checked_front(front)
    numbers = shown_numbers(read)
    style = "\n".join(map(asset, STYLES))
    script = "\n".join(asset(name) for name in (*SCRIPTS, *([] if live is None else [LIVE_SCRIPT])))
    curve, lanes = progress(read), timeline(read)
    drawn = {"progress": curve and curve.as_json(), "timeline": lanes and lanes.as_json()}
    # Files of this package, and data that `embedded` has left nothing in that HTML would read.
    texts = {
        "style": style,
        "script": script,
        "data": embedded(_data(with_shown(safe(front), numbers), read) | drawn),
    }
    unescaped = {name: markupsafe.Markup(text) for name, text in texts.items()}  # nosec B704
    return template("report.html.j2").render(
        run=read.run,
        has_budget=has_budget(read),
        verdict=verdict(read),
        notes=[*notes(read), *teacher_notes(read)],
        figures=figures(read),
        choices=choices(read),
        choice_note=choice_note(read),
        gains=gains(read),
        gain_heads=gain_heads(read),
        gain_note=gain_note(read),
        classes=class_table(read),
        changes=changes_section(read),
        not_compared=not_compared(read),
        robustness=robustness_table(read),
        folds=fold_table(read),
        causes=causes(read),
        progress=curve,
        timeline=lanes,
        plain_rows=plain_rows(read, numbers),
        provenance=provenance(read),
        ladder=ladder(read),
        agreements=agreements(read),
        mapped=bool(read.sensitivity and read.sensitivity.levels),
        predicted=predicted(read),
        extremes=extremes(read),
        held=held(read),
        prediction=prediction(read),
        bytes_alone=bytes_alone(read),
        command=printable(read.run.command),
        policy=policy(style, script, is_live=live is not None),
        repeat_note=repeat_note(read),
        live=live,
        shown_note=shown_note(read, len(numbers)),
        **unescaped,
    )


def render_waiting(name: str, line: str) -> str:
    """The page of a run that is watched and has no front yet, as text."""
    style, script = asset("report.css"), "\n".join(asset(name) for name in ("dom.js", LIVE_SCRIPT))
    unescaped = {"style": markupsafe.Markup(style), "script": markupsafe.Markup(script)}  # nosec B704
    allowed = policy(style, script, is_live=True)
    return template("waiting.html.j2").render(
        name=printable(name), policy=allowed, live=Live("", line), **unescaped
    )


def template(name: str) -> jinja2.Template:
    """A template of `assets`, which escapes all that is put into it."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)


def embedded(value: object) -> str:
    r"""JSON that is inert inside a script element: no character of it can end the element.

    >>> embedded("</script>&\u2028")
    '"\\u003c/script\\u003e\\u0026\\u2028"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _data(front: Json, read: Front) -> dict[str, object]:
    run, shown = read.run, {trial.number: trial for trial in read.trials}
    stem = "".join(character if character.isalnum() or character in "._-" else "-" for character in run.name)
    return {
        **pack(without_rows(front)),
        "fields": FIELDS,
        "errors": [
            error_of(read, shown[cast(int, trial["number"])]) for trial in cast(list[Json], front["trials"])
        ],
        "lines": [
            {
                **line.model_dump(),
                "error": error_of(read, line),
                "within_budget": fits_budget(read, line),
            }
            for line in read.lines
        ],
        "metric": metric_data(run.metric, metric_column(run.metric)),
        "latency": latency_title(read),
        "storages": _storages(read),
        "place": run.place,
        "export": {
            "folder": shell_word(run.folder or "."),
            "target": shell_word(run.target or "original"),
            "stem": stem.strip("-.") or "model",
        },
    }


def metric_data(metric: Metric, column: Sequence[str] = ()) -> dict[str, Json]:
    """A metric as the scripts of a page take it. column: heads of its own column in a table."""
    return {
        **metric.as_json(),
        **{name: getattr(metric, name) for name in ("word", "title")},
        "is_accuracy": metric == ACCURACY,
        "column": [*column],
    }


def _storages(front: Front) -> dict[str, Json]:
    """How weights are stored anywhere in a run, by name, for the page's words, signs and order."""
    levels = [level for trial in front.trials for level in (trial.levels or {}).values()]
    rows = front.sensitivity.levels if front.sensitivity else ()
    used = widest_first([*(level.storage for level in levels), *(row.storage for row in rows)])
    return {
        storage.name: {"bits": storage.bits, "breadth": -k, "words": storage.words, "sign": storage.sign}
        for k, storage in enumerate(used)
    }


def error_of(front: Front, trial: TrialRow | LineRow) -> float | None:
    """The standard error of a score on validation, in points; None where it is no share of rows."""
    run = front.run
    return standard_error(trial.accuracy, run.validation_rows) if run.metric.is_share_of_rows else None


def asset(name: str) -> str:
    """A file of `assets` as text."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def policy(style: str, script: str, *, is_live: bool = False) -> str:
    """What the browser allows: this style and script alone; a page that is live may ask its own server."""
    asks = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        f"{asks}img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
