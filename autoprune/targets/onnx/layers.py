"""A stitched model's integers in its exported ONNX graph, in place of float weights.

Shapes: o output features, i input features, g groups in a row, s = i / g weights in a group.

What a float weight's operators become:
weight-only integers    Gather -> GatherBlockQuantized, MatMul + Add and Gemm -> MatMulNBits, both of ONNX
                        Runtime's own domain, which hold `bits` bits a code and unpack as they compute
8-bit activations       QuantizeLinear (one for all layers that read the same grid) -> MatMulIntegerToFloat
half floats             Cast to float32, which the runtime does once, at load
convolutions            see `onnx_conv`
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
An embedding that is an output layer's weight too has one set of codes for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_dense
from autoprune.core.errors import AutopruneError
from autoprune.targets.onnx.convolutions import convolve
from autoprune.targets.onnx.folding import simplify_
from autoprune.targets.onnx.graph import DOMAIN, Graph

if TYPE_CHECKING:
    from autoprune.compress.integers import Integers
    from autoprune.compress.stitch import Stitched


BITS = frozenset({2, 4, 8})
GROUP_SIZES = frozenset({16, 32, 64, 128})
"""What the operators of weight-only integers take; blocks are powers of two from 16."""

_ROUNDED_INPUT = 4
"""`accuracy_level` of MatMulNBits that rounds its input to 8 bits, a scale for every block of weights."""

_FORMATS = {4: (21, 10), 2: (25, 13)}
"""Of a convolution's weights with so many bits: the versions of ONNX's operators and file that have them."""


def rewrite_(proto: Any, stitched: Stitched) -> None:
    """Put a stitched model's integers and half floats into its exported graph, in place.

    Raises:
        AutopruneError: when the graph has no such weight, or uses it in a way that is not known here.
    """
    from onnx import helper

    from autoprune.compress.integers import Integers
    from autoprune.compress.stored import HalfFloats

    simplify_(proto)
    graph = Graph(proto.graph)
    for path in stitched.stored_as(HalfFloats):
        graph.halve(path)
    grids = stitched.activations
    for path, grid in grids.items():
        for node in _products(graph, path):
            graph.expect(path, node.input[0], grid)
    for path, weight in stitched.stored_as(Integers).items():
        _compress(graph, path, weight, rounded=path in grids)
    graph.finish()
    if any(node.domain == DOMAIN for node in proto.graph.node):
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    for bits, (operators, file) in _FORMATS.items():
        if bits in graph.widths:
            proto.opset_import[0].version = max(proto.opset_import[0].version, operators)
            proto.ir_version = max(proto.ir_version, file)


def _products(graph: Graph, path: str) -> list[Any]:
    """Nodes that multiply with a weight."""
    nodes = []
    for node in graph.users(path):
        nodes += graph.takers(node.output[0]) if node.op_type == "Transpose" else [node]
    return nodes


def _compress(graph: Graph, path: str, integers: Integers, *, rounded: bool) -> None:
    """Compute with a weight's integers wherever the weight is used."""
    for node in graph.users(path):
        if node.op_type == "Conv":
            convolve(graph, path, node, integers, rounded=rounded)
            continue
        if not rounded and (integers.bits not in BITS or integers.group_size not in GROUP_SIZES):
            raise AutopruneError(
                f"{path} has {integers.bits} bits with a scale for {integers.group_size}; target onnx "
                f"takes {sorted(BITS)} bits with a scale for {sorted(GROUP_SIZES)}. Search with --target onnx"
            )
        if node.op_type == "Gather":
            _gather(graph, path, node, integers)
        elif node.op_type == "Gemm":
            _multiply(graph, path, node.input[0], node.input[2], node.output[0], integers, rounded=rounded)
        elif node.op_type == "Transpose":
            for product in graph.takers(node.output[0]):
                bias, output = graph.bias(path, product.output[0])
                _multiply(graph, path, product.input[0], bias, output, integers, rounded=rounded)
        else:
            raise AutopruneError(f"ONNX's graph uses weight {path} in a {node.op_type}, which is not known")


def _gather(graph: Graph, path: str, node: Any, integers: Integers) -> None:
    """Rows of an embedding, unpacked as they are looked up."""
    codes, scale, zero = _packed(graph, path, integers)
    about = {"bits": integers.bits, "block_size": integers.group_size, "gather_axis": 0, "quantize_axis": 1}
    inputs = [codes, node.input[1], scale, zero]
    graph.give("GatherBlockQuantized", inputs, node.output[0], domain=DOMAIN, **about)


def _multiply(
    graph: Graph, path: str, x: str, bias: str, output: str, integers: Integers, *, rounded: bool
) -> None:
    """x times a weight, and its bias added."""
    if rounded:
        _multiply_integers(graph, path, x, bias, output, integers)
        return
    o, i = integers.codes.shape
    codes, scale, zero = _packed(graph, path, integers)
    if any(node.op_type == "Gather" for node in graph.users(path)):
        # The runtime makes the other shape once, at load.
        shape = graph.constant(f"{path}.blocks", np.array([o, integers.scale.shape[1], -1]))
        codes = graph.give("Reshape", [codes, shape], graph.fresh())
    about = {"K": i, "N": o, "bits": integers.bits, "block_size": integers.group_size}
    about["accuracy_level"] = _ROUNDED_INPUT
    graph.give("MatMulNBits", [x, codes, scale, zero, "", bias], output, domain=DOMAIN, **about)


def _packed(graph: Graph, path: str, integers: Integers) -> tuple[str, str, str]:
    """Names of codes, scales and zero points; blocks of a row apart where no look-up reads them."""
    codes = _packed_rows(integers.codes.numpy(), integers.bits)
    if all(node.op_type != "Gather" for node in graph.users(path)):
        codes = codes.reshape(*integers.scale.shape, -1)
    return (
        graph.constant(f"{path}.codes", codes),
        graph.floats(f"{path}.scale", integers.scale.numpy()),
        graph.constant(f"{path}.zero", _packed_rows(integers.zero.numpy(), integers.bits)),
    )


def _multiply_integers(graph: Graph, path: str, x: str, bias: str, output: str, integers: Integers) -> None:
    """x, on its grid, times signed codes: a sum of integers, scaled once."""
    codes, step, zero = graph.codes(x)
    signed = (integers.codes.numpy().astype(np.int16) - 128).astype(np.int8)
    weight = graph.constant(f"{path}.codes", signed.T)
    scale = graph.floats(f"{path}.scale", integers.scale.numpy().reshape(-1))
    inputs = [codes, weight, step, scale, zero, "", bias]
    graph.give("MatMulIntegerToFloat", inputs, output, domain=DOMAIN)


def _packed_rows(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes [o n] packed row by row, lowest bits first; each row ends with its last byte."""
    gap = -codes.shape[1] % (8 // bits)
    whole = np.pad(codes, ((0, 0), (0, gap)))
    return pack_dense(whole, bits).reshape(len(codes), -1)
