"""What is claimed of a family's run, with the figures behind it."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.claim import Claim
from benchmarks.harness.commands import Run, shown

MOST_SIZE_ERROR = 0.005
"""Largest share by which a file may differ from what was predicted of it, as in `limits.py`."""


def score(trial: dict[str, Any]) -> float:
    """On test where it was taken, which is so for the best and the baselines."""
    return float(trial["accuracy"] if trial["test_accuracy"] is None else trial["test_accuracy"])


def mb(trial: dict[str, Any]) -> str:
    return f"{trial['size_bytes'] / 1e6:.2f} MB"


def within(what: str, run: Run, *, limit_bytes: int | None = None, limit_ms: float | None = None) -> Claim:
    """The best is within the limit, with what it and the original are beside it."""
    best, whole = run.best, run.baseline("original")
    limit = f"{limit_bytes / 1e6:.2f} MB" if limit_bytes else f"{limit_ms} ms"
    met = best["size_bytes"] <= (limit_bytes or float("inf"))
    met &= best["latency_ms"] <= (limit_ms or float("inf"))
    figures = "; ".join(
        f"{name} {mb(figure)}, {figure['latency_ms']:.3f} ms, {shown(run, figure)}"
        for name, figure in (
            ("best", best),
            ("original", whole),
            ("uniform 8-bit", run.baseline("uniform 8-bit")),
        )
    )
    return Claim(f"{what}: {limit} is kept", figures, met)


def loss(run: Run, most: float) -> Claim:
    """Points lost on test."""
    best, whole = score(run.best), score(run.baseline("original"))
    faster = run.baseline("original")["latency_ms"] / run.best["latency_ms"]
    smaller = run.baseline("original")["size_bytes"] / run.best["size_bytes"]
    return Claim(
        f"at most {most:g} points below the original on test",
        f"{whole:.2f} -> {best:.2f}, {whole - best:+.2f} lost; {smaller:.1f} times smaller, "
        f"{faster:.2f} times faster as measured",
        whole - best <= most,
    )


def kept(run: Run) -> tuple[Claim, ...]:
    """What holds of every family: no trial fails, and bytes are what was predicted.

    The graph text that goes with a layer's last head or neuron differs by family and is only guessed: bytes
    of models with such layers are told apart.
    """
    done = [trial for trial in run.trials if trial["state"] == "COMPLETE"]
    off = {trial["number"]: abs(trial["predicted_size_bytes"] - trial["size_bytes"]) for trial in done}
    emptied = {trial["number"] for trial in done if any(lv["ratio"] == 1 for lv in trial["levels"].values())}
    whole = [trial for trial in done if trial["number"] not in emptied]
    share = max(off[trial["number"]] / trial["size_bytes"] for trial in whole)
    most = max(off[trial["number"]] for trial in whole)
    said = (
        f"; {len(emptied)} with emptied layers at most {max(off[k] for k in emptied)} bytes"
        if emptied
        else ""
    )
    return (
        Claim(
            f"{run.name}: no trial fails and every file is as large as predicted",
            f"{len(done)} of {len(run.trials)} trials; at most {share:.4%} and {most} bytes off{said}",
            len(done) == len(run.trials) and share <= MOST_SIZE_ERROR,
        ),
    )
