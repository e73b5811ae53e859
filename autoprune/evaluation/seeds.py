"""A trial's seed follows from the run's seed and its candidate, so the worker does not matter."""

from __future__ import annotations

import hashlib

from autoprune.space.levels import Candidate


def candidate_seed(seed: int, candidate: Candidate) -> int:
    """A trial's seed: from the run's and the candidate alone, whatever worker it meets."""
    digest = hashlib.sha256(f"{seed}:{candidate.items}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
