"""Convolutions with our own integers, in an exported ONNX graph.

Shapes: b rows, c input and o output channels, h by w spots, q = kh kw taps of a kernel; a weight as a matrix
has a column for each channel and tap, [o, c q]; g groups of a row.

weight-only integers    Cast, Sub, Mul and Reshape in front of the Conv, which the runtime computes once, at
                        load, so that it is as fast as with float weights: the bytes are real, no time is won.
                        (DequantizeLinear it would compute with every batch.)
8-bit activations       multiplied as integers, in the first way that fits:
    QLinearConv             where only codes on a single grid are read of what comes out: what the next layers
                            would round to is given at once
    MatMulIntegerToFloat    on the codes that lie under the kernel, side by side [b h w q c]: exact, since it
                            gives float32 (ConvInteger, made for this, takes 10 to 20 times as long)
    Conv                    on rounded floats: depthwise, few channels, large kernels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_dense
from autoprune.targets.onnx.graph import DOMAIN, PREFIX, Graph

if TYPE_CHECKING:
    from autoprune.compress.integers import Integers


FEWEST_CHANNELS = 8
"""Of the input, from where on products of integers gain: with 3 they took three times as long as floats."""

LARGEST_KERNEL = 9
"""Taps that are laid side by side; a Slice for each."""

_KINDS = {2: "UINT2", 4: "UINT4"}
_END = 2**31 - 1
"""To the end of an axis, for a Slice."""


@dataclass(frozen=True)
class _Window:
    """Geometry of a convolution: kernel size; stride, dilation, padding (before, after) of both axes."""

    size: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @classmethod
    def of(cls, node: Any) -> _Window:
        attributes = {attribute.name: tuple(attribute.ints) for attribute in node.attribute}
        size = attributes["kernel_shape"]
        return cls(
            size,
            attributes.get("strides", (1, 1)),
            attributes.get("dilations", (1, 1)),
            attributes.get("pads", (0, 0, 0, 0)),
        )

    @property
    def taps(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def is_plain(self) -> bool:
        """Whether it is a product of each spot by itself."""
        return self.taps == 1 and self.strides == (1, 1) and not any(self.pads)


def convolve(graph: Graph, path: str, node: Any, integers: Integers, *, rounded: bool) -> None:
    """Slide a weight's integers instead of its floats."""
    window = _Window.of(node)
    if not rounded:
        _unpack(graph, path, integers, window)
        return
    is_depthwise = any(about.name == "group" and about.i > 1 for about in node.attribute)
    signed = (integers.codes.numpy().astype(np.int16) - 128).astype(np.int8)
    kernel = signed.reshape(len(signed), -1, *window.size)
    if not _to_codes(graph, path, node, integers, kernel):
        if is_multiplied(integers.codes.shape[1], window.taps, depthwise=is_depthwise):
            _multiply(graph, path, node, integers, kernel)
        else:
            _on_floats(graph, path, node, integers, kernel)


def is_multiplied(columns: int, taps: int, *, depthwise: bool) -> bool:
    """Whether integers of a weight with so many columns are multiplied also where floats must come out."""
    return not depthwise and columns // taps >= FEWEST_CHANNELS and taps <= LARGEST_KERNEL


# ---- weight-only integers ----------------------------------------------------------------------------


def _unpack(graph: Graph, path: str, integers: Integers, window: _Window) -> None:
    """(codes - zero) * scale in the kernel's shape."""
    from onnx import TensorProto

    o, g = integers.scale.shape
    codes = _codes(graph, f"{path}.codes", integers.codes.numpy().reshape(o, g, -1), integers.bits)
    zero = _codes(graph, f"{path}.zero", integers.zero.numpy().reshape(o, g, 1), integers.bits)
    scale = graph.floats(f"{path}.scale", integers.scale.numpy().reshape(o, g, 1))
    codes, zero = (graph.give("Cast", [name], graph.fresh(), to=TensorProto.FLOAT) for name in (codes, zero))
    centred = graph.give("Sub", [codes, zero], graph.fresh())
    scaled = graph.give("Mul", [centred, scale], graph.fresh())
    shape = graph.constant(_name("shape", o, *window.size), np.array([o, -1, *window.size]))
    graph.give("Reshape", [scaled, shape], f"{PREFIX}{path}.weight")


def _codes(graph: Graph, name: str, codes: NDArray[np.uint8], bits: int) -> str:
    """A constant of unsigned integers of `bits` bits."""
    from onnx import TensorProto

    if bits == 8:
        return graph.constant(name, codes)
    gap = -codes.size % (8 // bits)
    packed = pack_dense(np.pad(codes.reshape(-1), (0, gap)), bits)
    graph.widths.add(bits)
    return graph.packed(name, codes.shape, getattr(TensorProto, _KINDS[bits]), packed.tobytes())


# ---- 8-bit activations -------------------------------------------------------------------------------


def _to_codes(graph: Graph, path: str, node: Any, integers: Integers, kernel: NDArray[np.int8]) -> bool:
    """Codes to codes, where nothing else is read of the output; whether it is so."""
    output = graph.only_codes(node.output[0])
    if output is None:
        return False
    name, grid = output
    scale = integers.scale.numpy().reshape(-1)
    bias = graph.value(node.input[2]) if len(node.input) > 2 else np.zeros(len(kernel), np.float32)
    steps = scale.astype(np.float64) * graph.step(node.input[0])
    whole = np.rint(bias / steps) if bias is not None else None
    if whole is None or np.abs(whole).max(initial=0) > 2**30:
        return False
    codes, step, zero = graph.codes(node.input[0])
    inputs = [
        codes,
        step,
        zero,
        graph.constant(f"{path}.codes", kernel),
        graph.floats(f"{path}.scale", scale),
        # Each its own: where the runtime makes the codes unsigned at load, it replaces this, too.
        graph.constant(f"{path}.s", np.array(0, np.int8)),
        *graph.grid(grid),
        graph.constant(f"{path}.bias", whole.astype(np.int32)),
    ]
    about = {a.name: list(a.ints) if a.ints else a.i for a in node.attribute}
    graph.give("QLinearConv", inputs, name, **about)
    return True


def _multiply(graph: Graph, path: str, node: Any, integers: Integers, kernel: NDArray[np.int8]) -> None:
    """All taps' codes side by side, times the weight [q c o]."""
    codes, step, zero = graph.codes(node.input[0])
    laid = _laid(graph, codes, zero, _Window.of(node))
    weight = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    inputs = [
        laid,
        graph.constant(f"{path}.codes", weight),
        step,
        graph.floats(f"{path}.scale", integers.scale.numpy().reshape(-1)),
        zero,
        "",
        node.input[2] if len(node.input) > 2 else "",
    ]
    product = graph.give("MatMulIntegerToFloat", inputs, graph.fresh(), domain=DOMAIN)
    graph.give("Transpose", [product], node.output[0], perm=[0, 3, 1, 2])


def _laid(graph: Graph, codes: str, zero: str, window: _Window) -> str:
    """Codes [b c h w] as [b h' w' q c]: of each spot of the output those that lie under the kernel."""
    last = graph.once("Transpose", [codes], perm=[0, 2, 3, 1])
    if window.is_plain:
        return last
    if any(window.pads):
        top, left, bottom, right = window.pads
        pads = graph.constant(_name("pads", *window.pads), np.array([0, top, left, 0, 0, bottom, right, 0]))
        last = graph.once("Pad", [last, pads, zero])
    axes = graph.constant("axes", np.array([1, 2]))
    step = graph.constant(_name("at", *window.strides), np.array(window.strides))
    taps = []
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            ends = zip(*(_span(window, axis, place) for axis, place in enumerate((row, column))), strict=True)
            names = [graph.constant(_name("at", *edge), np.array(edge)) for edge in ends]
            taps.append(graph.once("Slice", [last, *names, axes, step]))
    return graph.once("Concat", taps, axis=3) if len(taps) > 1 else taps[0]


def _name(what: str, *numbers: int) -> str:
    """A constant that several layers share."""
    return f"{what}.{'_'.join(map(str, numbers))}"


def _span(window: _Window, axis: int, tap: int) -> tuple[int, int]:
    """From where to where along an axis a tap of the kernel gets; the end counted from behind."""
    gap = window.dilations[axis]
    return tap * gap, (tap - window.size[axis] + 1) * gap or _END


def _on_floats(graph: Graph, path: str, node: Any, integers: Integers, kernel: NDArray[np.int8]) -> None:
    """Codes as floats, with a weight that the runtime makes floats of once, the grid's scale in it.

    No DequantizeLinear: of a Conv behind one the runtime may round the weight once more, as it sees fit.
    """
    from onnx import TensorProto

    codes, step, zero = graph.codes(node.input[0])
    floats = graph.give("Cast", [codes], graph.fresh(), to=TensorProto.FLOAT)
    if graph.value(zero):
        shift = graph.constant(f"{zero}.float", np.asarray(graph.value(zero), np.float32))
        floats = graph.give("Sub", [floats, shift], graph.fresh())
    scale = graph.floats(f"{path}.scale", integers.scale.numpy().reshape(-1, 1, 1, 1))
    scale = graph.give("Mul", [scale, step], graph.fresh())
    weight = graph.give(
        "Cast", [graph.constant(f"{path}.codes", kernel)], graph.fresh(), to=TensorProto.FLOAT
    )
    weight = graph.give("Mul", [weight, scale], graph.fresh())
    graph.rewire(node, [floats, weight, *node.input[2:]])
