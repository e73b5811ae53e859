"""The page of exit codes, from the errors that have them."""

from __future__ import annotations

from autoprune.core import errors
from docs.generators.tables import docstring, table

FIXED = {
    0: "The command did what was asked; of a search: a point within the budget was found.",
    1: "An error of ours, with a traceback. Please report it.",
    129: "Ended by SIGHUP (the terminal was closed); the run is saved.",
    130: "Ended by Ctrl-C; the run is saved.",
    141: "Whoever read stdout has gone, as in `autoprune status RUN --json | head -1`.",
    143: "Ended by SIGTERM; the run is saved.",
}

INTRODUCTION = """# Exit codes

A command ends with one line on stderr that says what happened, and with one of these codes.
`status.json` of a run repeats the code with the reason, and with the command that goes on where there
is one.
"""

END = """
A search ends with 3 before anything is trained where no candidate can meet the budget; the message says
the smallest size that can be reached. It ends with 4 when more than half of the trials failed. With 75
the cause is a full disk, memory that is used up, or a Ray cluster that was lost: `autoprune resume`
goes on from there. An export that ends with 5 is kept as `DIR.failed`. `autoprune status` and
`autoprune report` say "gone, resumable" of a run whose process was killed.
"""


def exit_codes_page() -> str:
    """Each code, what it means, and the error of Python that has it."""
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AutopruneError) and "exit_code" in vars(kind)
    ]
    rows = {kind.exit_code: (docstring(kind), f"`{kind.__name__}`") for kind in classes}
    rows |= {code: (meaning, "") for code, meaning in FIXED.items()}
    lines = [(str(code), *rows[code]) for code in sorted(rows)]
    return f"{INTRODUCTION}\n{table(('code', 'meaning', 'error in Python'), lines)}{END}"
