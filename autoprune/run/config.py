"""What a search was asked for, as `run.json` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import holds_secret, redacted
from autoprune.space.budget import Budget, parse_budget

DEMO_DEFAULTS = {"trials": 24, "finetune_steps": 12, "max_length": 64}
"""What a search without MODEL asks for where the user says nothing: about five minutes on 2 cores."""


@dataclass(frozen=True)
class Config:
    """All that a search is asked for. What is None is settled by the demo, the model or the space."""

    model: str | None = None
    dataset: str | None = None
    task: str = "auto"
    metric: str | None = None
    weights: str | None = None
    image_size: int | None = None
    text_columns: tuple[str, ...] = ()
    image_column: str | None = None
    limit_rows: tuple[int, ...] = ()
    label_column: str | None = None
    group_by: str | None = None
    budget: tuple[str, ...] = ()
    space: str = "auto"
    target: str = "openvino"
    trials: int = 100
    timeout_s: float | None = None
    patience: int | None = None
    sampler: str = "autoprune"
    seed: int = 0
    finetune_steps: int | None = None
    teacher_epochs: float = 1.0
    teacher_rate: float = 1e-4
    batch: int = 1
    sequence: int = 128
    max_length: int = 128
    calibration_rows: int = 512
    workers: int = 2
    gpus_per_trial: float | None = None
    cpus_per_trial: float = 1.0
    address: str | None = None
    latency_node: str | None = None
    storage: str | None = field(default=None, repr=False)
    revision: str | None = None
    trust_remote_code: bool = False

    def limits(self) -> Budget:
        """The budget as numbers."""
        return parse_budget(self.budget)

    def check_secrets(self) -> None:
        """Raise `AutopruneError` for a password or token in what is written to `run.json`.

        The address of a database is written without its own; nothing else works without what is hidden.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "storage" and isinstance(value, str) and holds_secret(value):
                raise AutopruneError(
                    f"{one.name} {redacted(value)!r} holds a password or token (hidden here), which is "
                    "written to no file and could not be used again. Give it without one: for the hub run "
                    "`hf auth login` or set HF_TOKEN, and download what is not on the hub first"
                )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote; unknown names are an error."""
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise AutopruneError(f"run.json has settings this version does not know: {unknown}")
        lists = {"text_columns", "budget", "limit_rows"}
        settings: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in data.items()}
        return cls(**settings)
