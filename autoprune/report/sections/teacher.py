"""What the report says of another teacher than the original: who taught, and what its numbers are of."""

from __future__ import annotations

from autoprune.run.front_schema import Front


def teacher_notes(front: Front) -> list[str]:
    """A note where fine-tunes learned from another teacher; else none."""
    run = front.run
    if not run.teacher:
        return []
    scored = ""
    if run.teacher_score is not None:
        scored = f" ({run.metric.told(run.teacher_score)} on validation)"
    return [
        f"Fine-tunes learned the answers of {run.teacher}{scored}. Scores are by the labels. KL and other "
        "answers are of the original, and training may raise both where the teacher answers otherwise than "
        "the original: so what to train was chosen by the KL of untrained models, and points by their scores."
    ]
