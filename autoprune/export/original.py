"""The original's own files on a target, kept so that every export is timed against the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune.core.cache import cache_folder, content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import written_whole
from autoprune.models.spec import Architecture
from autoprune.targets import Target, versions_of
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
    kept = cache_folder() / "originals" / f"{key}-{target.name}"
    if key and kept.is_dir():
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
    name = content_key(
        "shapes", architecture.identity(), code, layout(example), target.name, versions_of(target.name)
    )
    path = cache_folder() / "originals" / f"{name}-{target.name}"
    if not path.is_dir():
        with written_whole(path) as temporary:
            temporary.mkdir()
            target.save(Stitched.plain(_stand_in(architecture), architecture), temporary, example)
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
