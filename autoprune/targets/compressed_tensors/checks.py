"""What a model must be for the compressed-tensors layout to hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.core.errors import AutopruneError

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched
from typing import TYPE_CHECKING

from autoprune.space.storage import (
    storages_of,
)

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched


def check_stitched(stitched: Stitched) -> None:
    """Raise where a level is one that transformers could not load."""
    from torch import nn

    from autoprune.compress.integers import Integers
    from autoprune.models.state import aliases

    if pruned := [name for name, level in stitched.levels.items if level.ratio > 0]:
        raise AutopruneError(
            f"target compressed-tensors cannot store {pruned[0]} with rows removed: transformers gives every "
            "layer the width in config.json. Search with this target, or export to openvino or packed"
        )
    if stitched.architecture.sentence.layers:
        raise AutopruneError(
            "target compressed-tensors cannot store a dense layer after a sentence's pooling: transformers "
            "has none. Search with another target, or export to openvino, onnx or packed"
        )
    check_names(stitched)
    shared = aliases(stitched.model)
    for path, weight in stitched.stored_as(Integers).items():
        module = stitched.model.get_submodule(path)
        is_embedding = isinstance(module, nn.Embedding)
        shares = is_embedding and f"{path}.weight" in shared.values()
        if shares or isinstance(module, nn.Conv2d):
            what = (
                "the weight that an embedding shares with an output layer," if shares else "the convolution"
            )
            raise AutopruneError(
                f"target compressed-tensors cannot store {what} {path} in integers. "
                "Search with this target, or export to openvino, onnx or packed"
            )
        if is_embedding and weight.storage not in OF_EMBEDDINGS:
            raise AutopruneError(
                f"target compressed-tensors cannot store the embedding {path} with {weight.bits} bits, but "
                "with 8, 16 or 32. Search with this target, or export to openvino or packed"
            )


def check_names(stitched: Stitched) -> None:
    """Raise where transformers would not find a model's tensors under the names that they have here."""
    import torch

    from autoprune.models.spec import auto_class
    from autoprune.models.state import state_of

    kind, name = stitched.architecture.kind, type(stitched.model).__name__
    elsewhere = "Choose target openvino, onnx or packed"
    if stitched.architecture.builder is not None or kind.auto_class is None:
        raise AutopruneError(
            f"target compressed-tensors is read by transformers, which has no {name} for {kind}. {elsewhere}"
        )
    with torch.device("meta"):
        model = auto_class(kind).from_config(stitched.model.config)
    if unlike := sorted(state_of(model).keys() ^ state_of(stitched.model).keys()):
        raise AutopruneError(
            f"target compressed-tensors is read by transformers, whose {name} is not laid out as here: "
            f"{unlike[0]} and {len(unlike) - 1} other tensors are in one of them alone. {elsewhere}"
        )


OF_EMBEDDINGS = frozenset(storages_of((8, 16, 32)))
