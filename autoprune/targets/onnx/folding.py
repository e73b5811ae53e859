"""Constant folding of an exported ONNX graph, and padding moved into convolutions.

The exporter writes padding as a dozen operators on constants, for every convolution that has some before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_BYTES = 1024
"""Of a value that is kept instead of what computes it: shapes and amounts, not masks."""

_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"})


def simplify_(proto: Any) -> None:
    """Compute what no input and no weight changes, and move padding into convolutions, in place."""
    _fold_(proto)
    for node in proto.graph.node:
        if node.op_type == "Conv":
            _number_pads_(node)
    _merge_pads_(proto.graph)


def _fold_(proto: Any) -> None:
    from onnx import numpy_helper

    graph = proto.graph
    known: set[str] = set()
    fixed = []
    for node in graph.node:
        is_known = all(name in known for name in node.input if name) and node.op_type not in _RANDOM
        if is_known and not any(
            attribute.type in (5, 10) for attribute in node.attribute
        ):  # a branch or a loop
            fixed.append(node)
            known.update(node.output)
    values = _computed(proto, fixed)
    small = {name for name, value in values.items() if value.nbytes <= _LARGEST_BYTES}
    gone = {id(node) for node in fixed if small.issuperset(node.output)}
    nodes = [node for node in graph.node if id(node) not in gone]
    shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    renamed = {}
    for name in sorted(small):
        value = values[name]
        renamed[name] = shared.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
    outputs = {output.name for output in graph.output}
    read = {renamed.get(name, name) for node in nodes for name in node.input} | (outputs & small)
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    kept = [numpy_helper.from_array(values[name], name) for name in sorted(read & small)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _computed(proto: Any, nodes: list[Any]) -> dict[str, NDArray[Any]]:
    """Values of the outputs of nodes that read nothing but each other."""
    import onnxruntime
    from onnx import helper

    names = [name for node in nodes for name in node.output if name]
    if not names:
        return {}
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "constants", [], outputs)
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    computed = dict(zip(names, session.run(None, {}), strict=True))
    return {name: value for name, value in computed.items() if isinstance(value, np.ndarray)}


def _merge_pads_(graph: Any) -> None:
    """Leave out padding of nothing; make padding with zeros part of the convolutions that alone read it."""
    from onnx import numpy_helper

    values = {initializer.name: initializer for initializer in graph.initializer}
    takers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    gone = []
    for node in graph.node:
        if node.op_type != "Pad" or node.input[1] not in values or node.output[0] in outputs:
            continue
        if any(about.s not in (b"constant", b"") for about in node.attribute) or len(node.input) > 3:
            continue
        pads = numpy_helper.to_array(values[node.input[1]])
        readers = takers[node.output[0]]
        convolutions = [
            convolution for reader in readers for convolution in _convolutions(reader, takers, outputs)
        ]
        fits = None not in convolutions and pads.shape == (8,) and not pads[[0, 1, 4, 5]].any()
        value = numpy_helper.to_array(values[node.input[2]]) if len(node.input) == 3 and node.input[2] else 0
        if pads.any() and not (fits and np.all(value == 0) and (pads >= 0).all()):
            continue
        if pads.any():
            for convolution in {id(convolution): convolution for convolution in convolutions}.values():
                _pad_(convolution, [int(n) for n in pads[[2, 3, 6, 7]]])
        for reader in readers:
            for place, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[place] = node.input[0]
        takers.setdefault(node.input[0], []).extend(readers)
        gone.append(node)
    for node in gone:
        graph.node.remove(node)


def _convolutions(node: Any, takers: dict[str, list[Any]], outputs: set[str]) -> list[Any]:
    """Convolutions that a node is, or that alone read it through a rounding; [None] where others do."""
    if node.op_type == "Conv":
        return [node]
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.output[0] in outputs:
        return [None]
    return [
        convolution
        for reader in takers.get(node.output[0], ())
        for convolution in _convolutions(reader, takers, outputs)
    ]


def _number_pads_(conv: Any) -> None:
    """Padding as numbers, where the exporter wrote a name for it: torch's "valid", or "same" with steps of 1.

    Of an odd number "same" has one more behind than before.
    """
    about = {attribute.name: attribute for attribute in conv.attribute}
    kind = about["auto_pad"].s if "auto_pad" in about else b"NOTSET"
    if kind in (b"SAME_UPPER", b"SAME_LOWER"):
        size = about["kernel_shape"].ints
        gaps = about["dilations"].ints if "dilations" in about else [1] * len(size)
        whole = [gap * (n - 1) for n, gap in zip(size, gaps, strict=True)]
        less, more = [n // 2 for n in whole], [n - n // 2 for n in whole]
        _pad_(conv, less + more if kind == b"SAME_UPPER" else more + less)
    if "auto_pad" in about:
        conv.attribute.remove(about["auto_pad"])


def _pad_(conv: Any, more: list[int]) -> None:
    """Pad a convolution's input (top, left, bottom, right) more."""
    from onnx import helper

    old = next((attribute for attribute in conv.attribute if attribute.name == "pads"), None)
    if old is None:
        conv.attribute.append(helper.make_attribute("pads", more))
    else:
        old.ints[:] = [a + b for a, b in zip(old.ints, more, strict=True)]
