"""The original's own files on a target, kept so that every export is timed against the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autoprune.core.cache import cache_folder, content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import written_whole
from autoprune.models.spec import Architecture
from autoprune.targets import Target
from autoprune.tasks.task import Batch


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
    import torch
    import transformers

    from autoprune.compress.stitch import Stitched

    architecture = Architecture.read(folder)
    if architecture.builder and architecture.builder != builder:
        raise AutopruneError(
            f"{folder} is timed in turn with the original, which {architecture.builder} builds; that is "
            f"somebody's own code: bench DIR --builder {architecture.builder}"
        )
    plain_config = {name: x for name, x in architecture.config.items() if name != "quantization_config"}
    architecture = replace(architecture, config=plain_config)
    name = content_key("shapes", architecture.described(), transformers.__version__, target.name)
    path = cache_folder() / "originals" / f"{name}-{target.name}"
    if not path.is_dir():
        torch.manual_seed(0)
        model = architecture.empty()
        with torch.no_grad():
            for parameter in model.parameters():  # biases of 0 and norms of 1 would be optimized away
                parameter.add_(torch.randn_like(parameter) * 0.01)
        with written_whole(path) as temporary:
            temporary.mkdir()
            plain = Stitched.plain(model, architecture)
            target.save(plain, temporary, example)
    return path, "its shapes, with random weights"


SEARCHED = "the search's own"
"""Which original a model is timed against, where the machine has that of the search."""
