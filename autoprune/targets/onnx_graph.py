"""An exported ONNX graph with our own integers in place of float weights.

Shapes: o output features, i input features, g groups in a row, s = i / g weights in a group.

What a float weight's operators become:
weight-only integers    Gather -> GatherBlockQuantized, MatMul + Add and Gemm -> MatMulNBits, both of ONNX
                        Runtime's own domain, which hold `bits` bits a code and unpack as they compute
8-bit activations       QuantizeLinear (one for all layers that read the same grid) -> MatMulIntegerToFloat
half floats             Cast to float32, which the runtime does once, at load
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_dense
from autoprune.errors import AutopruneError

if TYPE_CHECKING:
    from autoprune.compress.activations import Activations
    from autoprune.compress.integers import Integers
    from autoprune.stitch import Stitched

PREFIX = "model."
"""The exported module is a wrapper that has the model under this name."""

BITS = frozenset({2, 4, 8})
GROUP_SIZES = frozenset({16, 32, 64, 128})
"""What the operators of weight-only integers take; blocks are powers of two from 16."""

_DOMAIN = "com.microsoft"
_ROUNDED_INPUT = 4
"""`accuracy_level` of MatMulNBits that rounds its input to 8 bits, a scale for every block of weights."""


def rewrite_(proto: Any, stitched: Stitched) -> None:
    """Put a stitched model's integers and half floats into its exported graph, in place.

    Raises:
        AutopruneError: when the graph has no such weight, or uses it in a way that is not known here.
    """
    from onnx import helper

    graph = _Graph(proto.graph)
    for path in stitched.half:
        graph.halve(path)
    grids = stitched.activations
    for path, one in stitched.integers.items():
        graph.compress(path, one, grids.get(path))
    graph.finish()
    if stitched.integers:
        proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


class _Graph:
    """The graph being edited: its nodes by the tensor that they give, and by those that they take."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {one.name: one for one in graph.initializer}
        self._giver = {name: node for node in graph.node for name in node.output}
        self._takers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._takers[name].append(node)

    def halve(self, path: str) -> None:
        """Store a weight as half floats; all that read it read a Cast of them."""
        from onnx import TensorProto, numpy_helper

        name = f"{PREFIX}{path}.weight"
        self._users(path)
        weight = numpy_helper.to_array(self._source(name)).astype(np.float16)
        self._give("Cast", [self._constant(f"{path}.half", weight)], name, to=TensorProto.FLOAT)

    def compress(self, path: str, integers: Integers, grid: Activations | None) -> None:
        """Compute with a weight's integers wherever the weight is used."""
        if grid is None and (integers.bits not in BITS or integers.group_size not in GROUP_SIZES):
            raise AutopruneError(
                f"{path} has {integers.bits} bits with a scale for {integers.group_size}; target onnx "
                f"takes {sorted(BITS)} bits with a scale for {sorted(GROUP_SIZES)}. Search with --target onnx"
            )
        for node in self._users(path):
            if node.op_type == "Gather":
                self._gather(path, node, integers)
            elif node.op_type == "Gemm":
                self._multiply(path, node.input[0], node.input[2], node.output[0], integers, grid)
            elif node.op_type == "Transpose":
                for product in self._takers[node.output[0]]:
                    bias, output = self._bias(path, product.output[0])
                    self._multiply(path, product.input[0], bias, output, integers, grid)
            else:
                raise AutopruneError(
                    f"ONNX's graph uses weight {path} in a {node.op_type}, which is not known"
                )

    def finish(self) -> None:
        """Keep what the outputs need alone, in an order in which each node follows those that it reads."""
        nodes = list(self._needed())
        names = {name for node in nodes for name in node.input}
        kept = [one for name, one in self._constants.items() if name in names]
        for node in nodes:
            node.ClearField("doc_string")
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(kept)

    def _needed(self) -> Iterator[Any]:
        """Depth first from the outputs, without recursion: graphs are deeper than Python's stack."""
        done: set[int] = set()
        stack = [(self._giver[one.name], False) for one in self._graph.output]
        while stack:
            node, is_ready = stack.pop()
            if id(node) in done:
                continue
            if is_ready:
                done.add(id(node))
                yield node
                continue
            stack.append((node, True))
            stack += [(self._giver[name], False) for name in node.input if name in self._giver]

    def _users(self, path: str) -> list[Any]:
        """Nodes that read a weight."""
        users = self._takers[f"{PREFIX}{path}.weight"]
        if not users:
            raise AutopruneError(f"ONNX's graph has no weight {path}")
        return users

    def _source(self, name: str) -> Any:
        """The constant behind a name: the exporter keeps equal weights once, and gives them as Identity."""
        while name not in self._constants:
            name = self._giver[name].input[0]
        return self._constants[name]

    def _bias(self, path: str, product: str) -> tuple[str, str]:
        """Name of what is added to a product, empty where nothing is, and of the sum."""
        bias = f"{PREFIX}{path}.bias"
        for node in self._takers[product]:
            if node.op_type == "Add" and bias in node.input:
                return bias, node.output[0]
        return "", product

    def _gather(self, path: str, node: Any, one: Integers) -> None:
        """Rows of an embedding, unpacked as they are looked up."""
        codes, zero = _packed_rows(one.codes.numpy(), one.bits), _packed_rows(one.zero.numpy(), one.bits)
        inputs = [
            self._constant(f"{path}.codes", codes),
            node.input[1],
            self._scale(path, one),
            self._constant(f"{path}.zero", zero),
        ]
        about = {"bits": one.bits, "block_size": one.group_size, "gather_axis": 0, "quantize_axis": 1}
        self._give("GatherBlockQuantized", inputs, node.output[0], domain=_DOMAIN, **about)

    def _multiply(
        self, path: str, x: str, bias: str, output: str, one: Integers, grid: Activations | None
    ) -> None:
        """x times a weight, and its bias added."""
        if grid is not None:
            self._multiply_integers(path, x, bias, output, one, grid)
            return
        o, i = one.codes.shape
        groups = one.scale.shape[1]
        codes = _packed_rows(one.codes.numpy(), one.bits).reshape(o, groups, -1)
        inputs = [
            x,
            self._constant(f"{path}.codes", codes),
            self._scale(path, one),
            self._constant(f"{path}.zero", _packed_rows(one.zero.numpy(), one.bits)),
            "",
            bias,
        ]
        about = {"K": i, "N": o, "bits": one.bits, "block_size": one.group_size}
        about["accuracy_level"] = _ROUNDED_INPUT
        self._give("MatMulNBits", inputs, output, domain=_DOMAIN, **about)

    def _multiply_integers(
        self, path: str, x: str, bias: str, output: str, one: Integers, grid: Activations
    ) -> None:
        """x, on the grid, times signed codes: a sum of integers, scaled once."""
        dequantize = self._giver[x]
        if dequantize.op_type != "DequantizeLinear":
            raise AutopruneError(
                f"ONNX's graph does not round the input of {path}, which has 8-bit activations"
            )
        rounded = self._giver[dequantize.input[0]]
        scale = self._constant(f"{rounded.input[0]}.scale.{grid.scale}", np.array(grid.scale, np.float32))
        zero = self._constant(f"{rounded.input[0]}.zero.{grid.zero}", np.array(grid.zero, np.uint8))
        name = f"{rounded.input[0]}.codes.{grid.scale}.{grid.zero}"
        if name not in self._giver:
            self._give("QuantizeLinear", [rounded.input[0], scale, zero], name)
        signed = (one.codes.numpy().astype(np.int16) - 128).astype(np.int8)
        inputs = [
            name,
            self._constant(f"{path}.codes", np.ascontiguousarray(signed.T)),
            scale,
            self._scale(path, one, flat=True),
            zero,
            "",
            bias,
        ]
        self._give("MatMulIntegerToFloat", inputs, output, domain=_DOMAIN)

    def _scale(self, path: str, one: Integers, *, flat: bool = False) -> str:
        """Half-float scales, which the runtime makes float32 at load as it folds constants."""
        from onnx import TensorProto

        scale = one.scale.numpy()
        half = self._constant(f"{path}.scale.half", scale.reshape(-1) if flat else scale)
        return self._give("Cast", [half], f"{path}.scale", to=TensorProto.FLOAT)

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(values, name)
        return name

    def _give(self, kind: str, inputs: list[str], output: str, **about: Any) -> str:
        """A new node for a tensor, instead of what gave it before."""
        from onnx import helper

        self._constants.pop(output, None)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self._giver[output] = helper.make_node(kind, inputs, [output], **about)
        return output


def _packed_rows(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes [o n] packed row by row, lowest bits first; each row ends with its last byte."""
    gap = -codes.shape[1] % (8 // bits)
    whole = np.pad(codes, ((0, 0), (0, gap)))
    return pack_dense(whole, bits).reshape(len(codes), -1)
