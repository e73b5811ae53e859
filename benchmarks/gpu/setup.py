"""What every part is told: where things lie, and how much is done. Two sizes: for a GPU, and tiny."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setup:
    """How the parts are run.

    Args:
        demo: folder with `model` and `rows.csv`. work: folder of caches, runs and whatever else is written.
        cuda: whether to use a GPU, or the CPU in its place.
        workers: of the two searches that are compared. targets: that are searched for.
        preparers: workers of the search that fills the caches; 0 for none but its own process.
        budget, trials: of a search. settings: more options of each, by the names that `Config` has.
        batches: rows of a call that speed is measured at. sequence: tokens of each. rounds: timed calls.
        steps: of the brief fine-tune that is done on both devices.
        patience: how many times its usual limit a part may take.
    """

    demo: str
    work: str
    cuda: bool
    workers: tuple[int, int]
    targets: tuple[str, ...]
    preparers: int
    budget: str
    trials: int
    batches: tuple[int, ...]
    sequence: int
    rounds: int
    steps: int
    patience: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def for_gpu(cls, demo: Path, work: Path, *, cores: int) -> Setup:
        """The demo's search with one and with four workers on one GPU, on target torch and on the default."""
        return cls(
            demo=str(demo), work=str(work), cuda=True, workers=(4, 1), targets=("torch", "openvino"),
            preparers=max(1, min(8, cores)), budget="20MB", trials=24, batches=(1, 32), sequence=128,
            rounds=50, steps=24, settings={"finetune_steps": 40, "max_length": 64},
        )  # fmt: skip

    @classmethod
    def tiny(cls, demo: Path, work: Path) -> Setup:
        """The same parts on the CPU in a minute."""
        settings = {
            "finetune_steps": 2, "max_length": 16, "sequence": 16, "calibration_rows": 32,
            "limit_rows": (96, 32, 32),
        }  # fmt: skip
        return cls(
            demo=str(demo), work=str(work), cuda=False, workers=(2, 1), targets=("packed",), preparers=0,
            budget="200kB", trials=2, batches=(1, 4), sequence=16, rounds=3, steps=4,
            patience=5.0, settings=settings,
        )  # fmt: skip

    def gpus_per_trial(self, workers: int) -> float:
        """A worker's share of the one GPU; 0 without."""
        return round(1 / workers, 4) if self.cuda else 0.0

    def as_text(self) -> str:
        """Inverse of `from_text`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Setup:
        """Inverse of `as_text`."""
        data = json.loads(text)
        data["settings"] = _with_tuples(data["settings"])
        return cls(**_with_tuples(data))


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """The same with tuples, which JSON has none of, for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
