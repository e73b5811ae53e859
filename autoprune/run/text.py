"""A plan, a run under way, and a result, as lines for people."""

from __future__ import annotations

import shlex
import time
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoprune.space.budget import megabytes
from autoprune.space.storage import storage_of
from autoprune.space.trial import Trial
from autoprune.tasks.metrics import ACCURACY, Metric

if TYPE_CHECKING:
    from autoprune.run.standing import Standing

RUNGS = ("untrained", "brief", "longer")
"""How long a trial was fine-tuned, in a word."""


def standing_note(now: Standing, failed: int, seconds_left: float, *, metric: Metric = ACCURACY) -> str:
    """How the search stands, in a few words."""
    note = f"front {len(now.front)}  hypervolume {now.hypervolume:.3f}"
    if now.best is not None and now.best.measurement is not None:
        m = now.best.measurement
        name = "" if metric == ACCURACY else f"{metric.word} "
        note += f"  best {name}{metric.text(m.accuracy)} @ {megabytes(m.size_bytes)}"
    return note + (f"  {failed} failed" if failed else "") + f"  {rough_duration(seconds_left)} left"


def stored_text(target: str, file_storage: str) -> str:
    """A target, and how its files are stored where sizes are not those of plain ones.

    >>> stored_text("packed", "plain"), stored_text("packed", "entropy")
    ('packed', 'packed, entropy-coded')
    """
    return target if file_storage == "plain" else f"{target}, {file_storage}-coded"


def rough_duration(seconds: float) -> str:
    """A time for people, no more exact than it is known.

    >>> rough_duration(45), rough_duration(400), rough_duration(5400)
    ('45 s', '7 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def speed_lines(record: Mapping[str, Any]) -> list[str]:
    """Which storages of a space a target computes fast with, and which save bytes alone there.

    record: `target`, `fast` and `bytes_alone`, as `inspect --json` has them.
    """
    fast, alone = (", ".join(map(str, record[name])) for name in ("fast", "bytes_alone"))
    told = f"{fast}: computed" if fast else "no width is computed"
    lines = [f"Fast      {told} faster than floats on {record['target']}"]
    if alone:
        lines.append(f"Slow      {alone}: bytes are saved, but no time")
    names = [name for name in [*record["fast"], *record["bytes_alone"]] if isinstance(name, str)]
    for k, name in enumerate(names):
        told = "" if k else "Numbers are bits of a weight; "
        lines.append(f"          {told}{name} is {storage_of(name).words}")
    return lines


def latency_line(latency: Mapping[str, Any]) -> str:
    """How good the predicted milliseconds are.

    latency: `latency` of `front.json`.

    >>> latency_line({"predicted error": 0.031, "pairs": 24, "bias": -0.012})
    'Latency   predicted 3.1 % off on average over 24 trials, 1.2 % too low in the mean'
    """
    side = "high" if latency["bias"] > 0 else "low"
    return (
        f"Latency   predicted {100 * latency['predicted error']:.1f} % off on average over "
        f"{latency['pairs']} trials, {100 * abs(latency['bias']):.1f} % too {side} in the mean"
    )


def size_text(size_bytes: int) -> str:
    """Bytes for people; a unit may weigh kilobytes and a library gigabytes.

    >>> size_text(20_000_000_000), size_text(4_391_234), size_text(1_536)
    ('20.00 GB', '4.39 MB', '1.5 kB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if abs(size_bytes) >= unit:
            return f"{size_bytes / unit:.2f} {name}"
    return f"{size_bytes / 1e3:.1f} kB"


def small_size(size_bytes: int) -> str:
    """A size for people, with another digit below 1 MB.

    >>> small_size(64_198), small_size(812_000), small_size(2_349_000)
    ('0.06 MB', '0.81 MB', '2.3 MB')
    """
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes < 10**6 else megabytes(size_bytes)


def times(name: str, count: int) -> str:
    """A name, with its count where it occurs more than once.

    >>> times("pooler", 1), times("encoder.layer.*", 6)
    ('pooler', 'encoder.layer.* x6')
    """
    return name if count == 1 else f"{name} x{count}"


def time_text(seconds: float) -> str:
    """A moment in local time, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def trial_line(trial: Trial, *, metric: Metric = ACCURACY) -> str:
    """The result of one trial, as a line."""
    m = trial.measurement
    if m is None:
        return f"#{trial.number} failed: {trial.failure}"
    return (
        f"#{trial.number:<4d}{m.size_bytes / 1e6:6.2f} MB {m.latency_ms:7.2f} ms  "
        f"{metric.told(m.accuracy, 2):>7}  "
        f"{RUNGS[trial.rung]:9} {trial.seconds:5.1f} s"
    )


def shell_word(text: str) -> str:
    """A word that is safe to paste into a shell: quoted, never an option, no control characters.

    >>> shell_word("runs/my model"), shell_word("-rf")
    ("'runs/my model'", './-rf')
    """
    return quoted_path(printable(text))


def quoted_path(path: str) -> str:
    """A path as a shell reads it: quoted, and never taken for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def printable(text: str) -> str:
    """The text without control and formatting characters, which could hide what is pasted."""
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cf"))
