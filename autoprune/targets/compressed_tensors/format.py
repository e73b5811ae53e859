"""Our integers as tensors and schemes of the compressed-tensors format; see `compressed_tensors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.compress.activations import Activations
    from autoprune.compress.integers import Integers


def integer_tensors(integers: Integers) -> dict[str, Tensor]:
    """Tensors of a weight whose groups have zero points, by their names in the format."""
    import torch

    codes, zero = _signed(integers.codes, integers.bits), _signed(integers.zero, integers.bits)
    if integers.bits == 8:
        return {"weight": codes, "weight_scale": integers.scale, "weight_zero_point": zero}
    from compressed_tensors.compressors.pack_quantized.helpers import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        pack_to_int32,
    )

    return {
        "weight_packed": pack_to_int32(codes, integers.bits),
        "weight_scale": integers.scale,
        "weight_zero_point": zero,
        "weight_shape": torch.tensor(integers.codes.shape),
    }


def multiplied_tensors(integers: Integers, grid: Activations) -> dict[str, Tensor]:
    """Tensors of a weight that is multiplied with 8-bit activations, by their names in the format."""
    import torch

    return {
        "weight": _signed(integers.codes, integers.bits),
        "weight_scale": integers.scale,
        "input_scale": torch.tensor([grid.scale]),
        "input_zero_point": torch.tensor([grid.zero - 128], dtype=torch.int8),
    }


def _signed(codes: Tensor, bits: int) -> Tensor:
    """Codes 0 .. 2^bits - 1 as the format's int8, zero in the middle."""
    import torch

    signed: Tensor = codes.to(torch.int16) - 2 ** (bits - 1)
    return signed.to(torch.int8)


def scheme(integers: Integers, grid: Activations | None) -> dict[str, Any]:
    """How the format describes a weight, and its input where that is rounded (`QuantizationScheme`)."""
    common = {"num_bits": integers.bits, "type": "int", "dynamic": False}
    if grid is not None:
        return {
            "weights": common | {"strategy": "channel", "symmetric": True},
            "input_activations": common | {"strategy": "tensor", "symmetric": False},
            "format": "int-quantized",
        }
    groups = common | {"symmetric": False}
    if integers.bits == 8:
        groups |= {"strategy": "group", "group_size": integers.group_size}
        return {"weights": groups, "format": "int-quantized"}
    groups |= {"strategy": "block", "block_structure": [1, integers.group_size]}
    return {"weights": groups, "format": "pack-quantized"}
