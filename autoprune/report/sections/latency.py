"""How latency was predicted and how well that held, and which storages save bytes alone, in words."""

from __future__ import annotations

from autoprune.report.text import comma_list, plural, share
from autoprune.run.front_schema import Front
from autoprune.space.storage import FLOAT32, STATIC8, Storage

METHOD = (
    "What a unit takes at each level was fitted to whole models timed on the target before the trials; a "
    "trial\u2019s predicted milliseconds are those of its units and of all the rest, added up. The search "
    "aims by them; every latency on this page that is not called predicted is measured."
)


def prediction(front: Front) -> str:
    """How milliseconds were predicted, and by how much that was off; empty where they were not."""
    if all(trial.predicted_latency_ms is None for trial in front.searched):
        return ""
    return " ".join(sentence for sentence in (METHOD, _on_left_out(front), _on_trials(front)) if sentence)


def _on_left_out(front: Front) -> str:
    error = front.run.latency_table_error
    if error is None:
        return ""
    return f"On models left out of the fit, the sum was off by {share(error)} on average."


def _on_trials(front: Front) -> str:
    latency = front.latency
    if latency is None:
        return "Too few trials have been measured to tell how far off they are."
    text = (
        f"Predicted milliseconds were off by {share(latency.predicted_error)} on average over "
        f"{plural(latency.pairs, 'trial')}"
    )
    if abs(latency.bias) >= 0.0005:
        text += f", and too {'high' if latency.bias > 0 else 'low'} by {share(abs(latency.bias))} in the mean"
    return f"{text}."


def bytes_alone(front: Front) -> str:
    """Storages of the front's members that the target computes no faster than floats; empty if none."""
    slow = [storage for storage in _used(front) if not front.run.is_fast(storage)]
    if not slow:
        return ""
    verb, they = ("saves", "it is") if slow == [STATIC8] else ("save", "they are")
    where = f" on {front.run.target}" if front.run.target else " on this target"
    return f"{comma_list(slow)} {verb} bytes alone{where}: {they} computed no faster than floats."


def _used(front: Front) -> list[Storage]:
    """Storages below float32 that any member of the front has."""
    members = [trial for trial in front.trials if trial.on_front]
    used = {level.storage for trial in members for level in (trial.levels or {}).values()}
    return [storage for storage in used if storage != FLOAT32]
