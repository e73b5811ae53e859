"""The original's own files on a target, kept so that every export is timed against the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.models.spec import Architecture
from autoprune.targets import Target, versions_of
from autoprune.targets.originals import kept_original, loaded_original
from autoprune.targets.spot_check import spot_check
from autoprune.tasks.task import Batch, layout


def original_folder(
    folder: Path,
    target: Target,
    example: Batch,
    *,
    key: str | None = None,
    builder: str | None = None,
) -> tuple[Path, str]:
    """The uncompressed model saved for a target, and which it is: to time against and to count from.

    The search's own under `key`, where this machine still has it. Otherwise one of its shapes with random
    weights, which takes as long and has as many bytes: neither depends on what the numbers are.

    Args:
        folder: with the `config.json` that both models have in common.
        example: a batch to trace the model with.
        builder: of a model that is not from transformers, the function that may be called for it.
    """
    kept = kept_original(target, [key]) if key else None
    if kept is not None:
        return kept, SEARCHED
    from autoprune.compress.stitch import Stitched
    from autoprune.targets.packed import torch_runner

    architecture = Architecture.read(folder)
    if architecture.builder and architecture.builder != builder:
        raise AutopruneError(
            f"{folder} is timed in turn with the original, which {architecture.builder} builds; that is "
            f"somebody's own code: bench DIR --builder {architecture.builder}"
        )
    plain_config = {name: x for name, x in architecture.config.items() if name != "quantization_config"}
    architecture = replace(architecture, config=plain_config)
    code: list[float] = []
    if architecture.builder:
        code = spot_check(torch_runner(_stand_in(architecture), architecture.kind), example)
    path = loaded_original(
        target,
        ["shapes", architecture.identity(), code, layout(example), versions_of(target.name)],
        lambda: Stitched.plain(_stand_in(architecture), architecture),
        example,
        load=lambda folder: folder,
    )
    return path, "its shapes, with random weights"


def _stand_in(architecture: Architecture) -> Any:
    """A model with random weights, none of them zeros, as biases are, or ones: runtimes leave such out."""
    import torch

    torch.manual_seed(0)
    model = architecture.empty()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model


SEARCHED = "the search's own"
"""Which original a model is timed against, where the machine has that of the search."""
