"""A torch model as OpenVINO's graph, with our integers in it and what has nothing left taken out.

Shapes: o rows, i columns of a weight as a matrix; b rows of a batch, s tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_openvino
from autoprune.core.errors import AutopruneError
from autoprune.tasks.kinds import task_kind
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.integers import Integers
    from autoprune.compress.stitch import Stitched


PREFIX, SUFFIX = "self.model.", ".weight"
"""What is around a weight's path in the graph's names."""

CALL = "__module.model."
"""What comes before a layer's path in the name of the operation that it is."""

KIND = ["autoprune", "kind"]
"""Where a graph notes the kind of its task."""

EXAMPLE_TOKENS = 5
"""Of a window that a language model is traced with; its lengths are not part of the graph."""


def converted(stitched: Stitched, example: Batch) -> Any:
    """The module as an OpenVINO model; its weights are constants named after their paths.

    Raises:
        AutopruneError: when OpenVINO has no operators for what it computes, or it cannot be traced.
    """
    import openvino as ov
    import torch

    module, names, inputs = _traceable(stitched, example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every Python branch on a shape
        try:
            graph = ov.convert_model(module, example_input=inputs)
        except Exception as error:  # whatever a module's own code raises where it is traced
            raise AutopruneError(_unconverted(stitched.model, error)) from error
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, getattr(module, "outputs", ("logits",)), strict=True):
        port.get_tensor().set_names({name})
    if _has_windows(stitched.model):
        bound_masks_(graph)
    if shapes := _shapes(stitched, module, example, names):
        graph.reshape(shapes)
    graph.set_rt_info(stitched.architecture.kind.name, KIND)
    return graph


def _unconverted(model: Any, error: Exception) -> str:
    """Which operations OpenVINO knows no counterpart of, or what else was wrong, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.removeprefix("-- ") for line in lines if "No conversion rule" in line]
    reason = told[-1] if told else " ".join(lines) or type(error).__name__
    return (
        f"{type(model).__name__} cannot be converted to OpenVINO: {reason:.300}. Choose --target packed, "
        "which runs the module itself"
    )


def _has_windows(model: Any) -> bool:
    """Whether some of a model's tokens see those of a window alone, by its config."""
    return bool(getattr(getattr(model, "config", None), "sliding_window", None))


def is_decoding(graph: Any) -> bool:
    """Whether a graph, as read from its file, is a language model's with its past."""
    if not graph.has_rt_info(KIND):
        return False
    return task_kind(graph.get_rt_info(KIND).astype(str)).predicts_next_token


def _traceable(stitched: Stitched, example: Batch) -> tuple[Any, tuple[str, ...], tuple[Any, ...]]:
    """What to trace, its inputs' names, and an example of them."""
    import torch

    if stitched.architecture.kind.predicts_next_token:
        from autoprune.targets.decoding import INPUT, Decoding

        decoding = Decoding(stitched.model)
        ids = torch.from_numpy(np.resize(example[INPUT], (2, EXAMPLE_TOKENS)))
        return decoding, decoding.inputs, decoding.example(ids)
    from autoprune.models.outputs import Answering

    names = tuple(example)
    inputs = tuple(torch.from_numpy(tensor) for tensor in example.values())
    return Answering(stitched.model, stitched.architecture.kind, names), names, inputs


def _shapes(stitched: Stitched, module: Any, example: Batch, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Inputs whose shape is not all free (-1): keys and values, and pictures, all of one size."""
    if stitched.architecture.kind.predicts_next_token:
        heads = [shape for shape in module.heads.values() for _ in range(2)]
        return {name: [-1, h, -1, d] for name, (h, d) in zip(names[1:], heads, strict=True)}
    if stitched.architecture.kind.reads_images:
        return {name: [-1, *tensor.shape[1:]] for name, tensor in example.items()}
    return {}


HIDDEN = -3e4
"""Added to the scores of tokens that are not seen: nothing after a softmax, and no infinity in any float."""


def bound_masks_(graph: Any) -> None:
    """Add finite numbers to scores where attention is masked by truth values, in place.

    OpenVINO adds minus infinity, so that a token that sees none at all is no number (torch: zeros). In a
    window of padding alone that is so; and through the next layer's values it is all of the row.
    """
    from openvino import opset13 as op

    bounded: dict[tuple[str, int], Any] = {}
    for node in list(graph.get_ops()):
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input_value(3)
        if mask.get_element_type().get_type_name() != "boolean":
            continue
        key = (str(mask.get_node().get_friendly_name()), mask.get_index())
        if key not in bounded:
            bounded[key] = op.select(mask, op.constant(np.float32(0)), op.constant(np.float32(HIDDEN)))
        node.input(3).replace_source_output(bounded[key].output(0))


# ---- what has nothing left ----------------------------------------------------------------------


def drop_empty_(graph: Any) -> None:
    """Put zeros, which spread over rows and places, where a product has no columns to sum; in place.

    OpenVINO leaves such outputs as they happen to be in memory. What came before goes with them.
    """
    from openvino import opset13 as op

    for node in graph.get_ops():
        if node.get_type_name() not in ("MatMul", "Convolution"):
            continue
        weight = node.input_value(1).get_node()
        shape = list(weight.get_output_shape(0)) if weight.get_type_name() == "Constant" else []
        if 0 in shape[1:] and shape[0]:
            rank = node.get_output_partial_shape(0).rank.get_length()
            zeros = np.zeros([1] * (rank - 1) + [shape[0]], np.float32)
            zeros = zeros if node.get_type_name() == "MatMul" else np.moveaxis(zeros, -1, 1)
            node.output(0).replace(op.constant(zeros).output(0))


# ---- weights ------------------------------------------------------------------------------------


def put_weights_(graph: Any, stitched: Stitched) -> None:
    """Replace the constants of compressed weights by what is stored of them, in place.

    Raises:
        AutopruneError: when the graph lacks one.
    """
    from autoprune.compress.integers import Integers

    wanted = {path for path, weight in stitched.stored.items() if 0 not in weight.shape}
    for path, node in list(_constants(graph, stitched)):
        if path not in wanted:
            continue
        wanted.discard(path)
        shape = list(node.get_output_shape(0))
        weight = stitched.stored[path]
        if not isinstance(weight, Integers):
            new = half_pattern(np.asarray(node.data))
        elif path in stitched.activations:
            new = signed_pattern(weight, shape)
        else:
            new = integer_pattern(weight, shape)
        node.output(0).replace(new.output(0))
    if wanted:
        raise AutopruneError(f"OpenVINO's graph has no weight of {sorted(wanted)[0]}")


def _constants(graph: Any, stitched: Stitched) -> Iterator[tuple[str, Any]]:
    """Constants of weights, each with the path of the layer that it is of; a shared one with the first's.

    Those of depthwise convolutions are laid out anew, and only the operation is still named after the layer.
    """
    from autoprune.models.state import aliases

    shared = aliases(stitched.model)
    for node in graph.get_ops():
        name = str(node.get_friendly_name())
        if node.get_type_name() == "Constant" and name.startswith(PREFIX) and name.endswith(SUFFIX):
            name = name.removeprefix(PREFIX)
            yield shared.get(name, name).removesuffix(SUFFIX), node
        elif node.get_type_name() == "GroupConvolution" and name.startswith(CALL):
            weight = node.input_value(1).get_node()
            if not weight.get_friendly_name().startswith(PREFIX):
                yield name.removeprefix(CALL).partition("/")[0], weight


def integer_pattern(integers: Integers, shape: list[int]) -> Any:
    """(codes - zero) * scale as operations on packed constants, in the weight's shape.

    Codes of 2 bits are stored as such and made codes of 4 bits when the file is loaded. OpenVINO multiplies
    2 bits in float32 alone: under bfloat16, its default on some CPUs, the first call fails or ends the
    process (2026.4.1). With 4 bits it gives the same answers, bit for bit, and takes as long.
    """
    from openvino import opset13 as op

    o, i = integers.codes.shape
    g = integers.scale.shape[1]
    codes = _packed(integers.codes.numpy(), (o, g, i // g), integers.bits)
    codes = op.convert(codes, "u4") if integers.bits == 2 else codes
    zero = _packed(integers.zero.numpy(), (o, g, 1), integers.bits)
    scale = op.constant(integers.scale.numpy().reshape(o, g, 1))
    centred = op.subtract(op.convert(codes, "f16"), op.convert(zero, "f16"))
    whole = op.constant(np.array(shape, np.int64))
    return op.convert(op.reshape(op.multiply(centred, scale), whole, False), "f32")


def signed_pattern(integers: Integers, shape: list[int]) -> Any:
    """code * scale with signed codes and one scale a row, as kernels of integers want it."""
    from openvino import opset13 as op

    signed = (integers.codes.numpy().astype(np.int16) - 128).astype(np.int8)
    codes = op.constant(signed.reshape(shape))
    scale = op.constant(integers.scale.numpy().astype(np.float32).reshape(-1, *[1] * (len(shape) - 1)))
    return op.multiply(op.convert(codes, "f32"), scale)


def half_pattern(weight: NDArray[np.float32]) -> Any:
    """The weight as half floats."""
    from openvino import opset13 as op

    return op.convert(op.constant(weight.astype(np.float16)), "f32")


def _packed(codes: NDArray[np.uint8], shape: tuple[int, ...], bits: int) -> Any:
    """A constant of unsigned integers of `bits` bits."""
    import openvino as ov

    kinds = {2: ov.Type.u2, 3: ov.Type.u3, 4: ov.Type.u4, 6: ov.Type.u6, 8: ov.Type.u8}
    packed = np.ascontiguousarray(pack_openvino(codes, bits))
    # Not shared: the constant would outlive the array it points into.
    return ov.op.Constant(ov.Tensor(packed, list(shape), kinds[bits]), shared_memory=False)
