"""An ONNX graph that is being edited: its constants, and its nodes by the tensor that they give.

Names are the exporter's; a weight of the model is called after its path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError

if TYPE_CHECKING:
    from autoprune.compress.activations import Activations


PREFIX = "model."
"""The exported module is a wrapper that has the model under this name."""

DOMAIN = "com.microsoft"

TOP = 255
"""Largest code of 8 bits."""

_Bounds = tuple[float, float]


class Graph:
    """Nodes by the tensor that they give, and by those that they took as they were exported."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.constants = {initializer.name: initializer for initializer in graph.initializer}
        self.giver = {name: node for node in graph.node for name in node.output}
        self.outputs = {output.name for output in graph.output}
        self.widths: set[int] = set()
        """Bits of constants of less than a byte that no operator of ONNX Runtime's own unpacks."""
        self._takers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._takers[name].append(node)
        self._made: dict[tuple[Any, ...], str] = {}
        self._fresh = 0
        self._grids: dict[str, Activations] = {}  # by the exporter's codes
        self._rounded: dict[str, tuple[str, Activations]] = {}  # by what a layer reads: what was rounded

    # ---- what is there --------------------------------------------------------------------------

    def takers(self, name: str) -> list[Any]:
        """Nodes that read a tensor, as exported."""
        return self._takers[name]

    def users(self, path: str) -> list[Any]:
        """Nodes that read a weight.

        Raises:
            AutopruneError: when there are none.
        """
        users = self._takers[f"{PREFIX}{path}.weight"]
        if not users:
            raise AutopruneError(f"ONNX's graph has no weight {path}")
        return users

    def source(self, name: str) -> Any:
        """The constant behind a name: the exporter keeps equal weights once, and gives them as Identity."""
        while name not in self.constants:
            name = self.giver[name].input[0]
        return self.constants[name]

    def value(self, name: str) -> NDArray[Any] | None:
        """A tensor that no input changes; None for others."""
        from onnx import numpy_helper

        while name not in self.constants:
            node = self.giver.get(name)
            if node is None or node.op_type != "Identity":
                return None
            name = node.input[0]
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def bias(self, path: str, product: str) -> tuple[str, str]:
        """Name of what is added to a product, empty where nothing is, and of the sum."""
        bias = f"{PREFIX}{path}.bias"
        for node in self._takers[product]:
            if node.op_type == "Add" and bias in node.input:
                return bias, node.output[0]
        return "", product

    # ---- new things -----------------------------------------------------------------------------

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A constant, made where there is none of that name."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def packed(self, name: str, shape: tuple[int, ...], kind: int, data: bytes) -> str:
        """A constant of integers of less than a byte, from their bytes."""
        from onnx import helper

        self.constants[name] = helper.make_tensor(name, kind, shape, data, raw=True)
        return name

    def give(self, kind: str, inputs: list[str], output: str, **about: Any) -> str:
        """A new node for a tensor, instead of what gave it before."""
        from onnx import helper

        self.constants.pop(output, None)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.giver[output] = helper.make_node(kind, inputs, [output], **about)
        return output

    def fresh(self) -> str:
        """A name that nothing in the graph has yet."""
        self._fresh += 1
        return f"#{self._fresh}"

    def once(self, kind: str, inputs: list[str], **about: Any) -> str:
        """Output of a new node; nodes with the same inputs are made once."""
        key = (kind, *inputs, *sorted((name, str(value)) for name, value in about.items()))
        if key not in self._made:
            self._made[key] = self.give(kind, inputs, self.fresh(), **about)
        return self._made[key]

    def rewire(self, node: Any, inputs: list[str]) -> None:
        """Give what a node gives from other inputs."""
        new = type(node)()
        new.CopyFrom(node)
        new.input[:] = inputs
        self.giver[node.output[0]] = new

    def floats(self, name: str, values: NDArray[np.float16]) -> str:
        """Half floats, which the runtime makes float32 once, at load, as it folds constants."""
        from onnx import TensorProto

        return self.give("Cast", [self.constant(f"{name}.half", values)], name, to=TensorProto.FLOAT)

    def halve(self, path: str) -> None:
        """Store a weight as half floats; all that read it read a Cast of them."""
        from onnx import TensorProto, numpy_helper

        name = f"{PREFIX}{path}.weight"
        self.users(path)
        weight = numpy_helper.to_array(self.source(name)).astype(np.float16)
        self.give("Cast", [self.constant(f"{path}.half", weight)], name, to=TensorProto.FLOAT)

    # ---- inputs rounded to 8 bits ---------------------------------------------------------------

    def expect(self, path: str, x: str, grid: Activations) -> None:
        """Note that a layer rounds its input `x` to a grid.

        Raises:
            AutopruneError: when the graph does not.
        """
        dequantize = self.giver.get(x)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            raise AutopruneError(
                f"ONNX's graph does not round the input of {path}, which has 8-bit activations"
            )
        rounded = self.giver[dequantize.input[0]]
        self._grids[rounded.output[0]] = grid
        self._rounded[x] = (rounded.input[0], grid)

    def codes(self, x: str) -> tuple[str, str, str]:
        """Codes of a rounded input, and their grid's scale and zero point: one for all that read the same."""
        source, grid = self._rounded[x]
        name = _codes_name(source, grid)
        scale, zero = self.grid(grid)
        if name not in self.giver:
            self.give("QuantizeLinear", [source, scale, zero], name)
        return name, scale, zero

    def step(self, x: str) -> float:
        """Scale of the grid that a rounded input is on."""
        return self._rounded[x][1].scale

    def grid(self, grid: Activations) -> tuple[str, str]:
        """Names of a grid's scale and zero point."""
        scale = self.constant(f"scale.{grid.scale}", np.array(grid.scale, np.float32))
        return scale, self.constant(f"zero.{grid.zero}", np.array(grid.zero, np.uint8))

    def only_codes(self, output: str) -> tuple[str, Activations] | None:
        """Name and grid of the codes that are all that is read of a layer's output, None where more is.

        A function in between that cuts values off is left out where the grid ends there anyhow.
        """
        low, high = -np.inf, np.inf
        while (bounds := self._cut(output)) is not None:
            (node,) = self._takers[output]
            low, high, output = max(low, bounds[0]), min(high, bounds[1]), node.output[0]
        takers = self._takers[output]
        grids = {self._grids.get(node.output[0]) for node in takers}
        if output in self.outputs or len(grids) != 1 or (grid := grids.pop()) is None:
            return None
        ends = [round(min(max(end / grid.scale, -TOP), TOP)) + grid.zero for end in (low, high)]
        if ends[0] > 0 or ends[1] < TOP:
            return None
        return _codes_name(output, grid), grid

    def _cut(self, name: str) -> _Bounds | None:
        """Bounds between which a tensor's only reader leaves values as they are; None for other readers."""
        takers = self._takers[name]
        if len(takers) != 1 or name in self.outputs:
            return None
        if takers[0].op_type == "Relu":
            return 0.0, np.inf
        if takers[0].op_type != "Clip":
            return None
        given = [self.value(name) if name else None for name in takers[0].input[1:]]
        if any(value is None for value, name in zip(given, takers[0].input[1:], strict=True) if name):
            return None
        ends = [None if value is None else float(value) for value in given] + [None, None]
        return (-np.inf if ends[0] is None else ends[0]), (np.inf if ends[1] is None else ends[1])

    # ---- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Keep what the outputs need alone, in an order in which each node follows those that it reads."""
        nodes = list(self._needed())
        self._shorten_(nodes)
        names = {name for node in nodes for name in node.input}
        kept = [constant for name, constant in self.constants.items() if name in names]
        for node in nodes:
            node.ClearField("doc_string")
            node.ClearField("name")
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(kept)

    def _shorten_(self, nodes: list[Any]) -> None:
        """Number what passes from node to node: the exporter's names are paths, a third of a small file.

        Nodes need no names, and lose theirs.
        """
        given = (name for node in nodes for name in node.output if name and name not in self.outputs)
        short = {name: f"#{number}" for number, name in enumerate(given)}
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [short.get(name, name) for name in names]

    def _needed(self) -> Iterator[Any]:
        """Depth first from the outputs, without recursion: graphs are deeper than Python's stack."""
        done: set[int] = set()
        stack = [(self.giver[output.name], False) for output in self._graph.output]
        while stack:
            node, is_ready = stack.pop()
            if id(node) in done:
                continue
            if is_ready:
                done.add(id(node))
                yield node
                continue
            stack.append((node, True))
            stack += [(self.giver[name], False) for name in node.input if name in self.giver]


def _codes_name(tensor: str, grid: Activations) -> str:
    return f"{tensor}.codes.{grid.scale}.{grid.zero}"
