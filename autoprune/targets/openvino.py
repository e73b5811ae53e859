"""OpenVINO on the CPU: our own integers as packed constants that its kernels read compressed.

Each compressed weight becomes Constant(u2..u8) -> Convert(f16) -> Subtract(zero points) ->
Multiply(f16 scales) -> Reshape -> Convert(f32), which the CPU plugin keeps packed. With 2, 4 and 8
bits it multiplies integers, rounding activations to 8 bits in groups as it goes ("dynamic
quantization", its default), which is where the speed comes from: without it no width beats float.
With 3 and 6 bits it unpacks to float at load, so those save bytes and no time.

Fastest are 8-bit weights with 8-bit activations: Constant(i8) -> Convert(f32) -> Multiply(scale of a row),
and a FakeQuantize on the input, which the plugin turns into integer kernels with the rounding fused into
whatever comes before (OpenVINO's low precision transformations).
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_openvino
from autoprune.errors import AutopruneError
from autoprune.space import INTEGER, Level, Width
from autoprune.targets.contract import Runner
from autoprune.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.integers import Integers
    from autoprune.stitch import Stitched
    from autoprune.units import Unit

# OpenVINO reports its use over the network, 36 requests a conversion, from threads that would run
# beside what is timed (0.6 s a conversion became 3 s). Where its reporter is missing it goes without;
# None makes an import fail (https://docs.python.org/3/reference/import.html#the-module-cache).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

GRAPH, WEIGHTS = "model.xml", "model.bin"

PREFIX = "self.model."
"""What comes before a weight's path in the graph's names."""

_XML_BYTES = {16: 367, 32: 0}
"""Text of the extra operations of one weight in the graph file, measured (OpenVINO 2026.4)."""
_XML_INTEGER_BYTES = 3965
_XML_ACTIVATIONS_BYTES = 2775


class OpenVino:
    """CPU plugin, float32 precision hint (bf16 is its default on some CPUs), one stream."""

    name = "openvino"
    bits = frozenset({2, 3, 4, 6, 8, 16, 32})
    fast: frozenset[Width] = frozenset({2, 4, 8, INTEGER})
    integer = True
    tolerance = 0.1

    def offers(self, unit: Unit, level: Level) -> bool:
        """Every width, of every unit."""
        return level.bits in self.bits

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Convert the stitched module, swap in its integers, write graph and weights."""
        import openvino as ov

        model = _converted(stitched, example)
        wanted = {f"{PREFIX}{path}.weight": one for path, one in stitched.integers.items()}
        multiplied = {f"{PREFIX}{path}.weight" for path in stitched.activations}
        halves = {f"{PREFIX}{path}.weight" for path in stitched.half}
        found: set[str] = set()
        for node in model.get_ops():
            name = node.get_friendly_name()
            if node.get_type_name() != "Constant" or name not in wanted.keys() | halves:
                continue
            found.add(name)
            if name in halves:
                new = _half_pattern(node)
            elif name in multiplied:
                new = _signed_pattern(wanted[name], list(node.get_output_shape(0)))
            else:
                new = _integer_pattern(wanted[name], list(node.get_output_shape(0)))
            node.output(0).replace(new.output(0))
        missing = (wanted.keys() | halves) - found
        if missing:
            raise AutopruneError(f"OpenVINO's graph has no weight {sorted(missing)[0]}")
        ov.save_model(model, folder / GRAPH, compress_to_fp16=False)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Compile the model; weights are memory-mapped from the file."""
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            compiled = _core().compile_model(folder / GRAPH, "CPU", config)
        except RuntimeError as error:
            raise AutopruneError(
                f"{folder / GRAPH} (with {WEIGHTS}) cannot be loaded by OpenVINO: {error}"
            ) from error
        names = [port.get_any_name() for port in compiled.inputs]
        request = compiled.create_infer_request()

        def run(batch: Batch) -> NDArray[np.float32]:
            if lacking := [name for name in names if name not in batch]:
                given = ", ".join(batch)
                raise AutopruneError(f"{folder / GRAPH} needs input {lacking[0]!r}; given were {given}")
            request.infer({name: batch[name] for name in names}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)

        return run

    def files(self, folder: Path) -> Sequence[Path]:
        """Graph and weights."""
        return [folder / GRAPH, folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """The weights, and the graph text of each that is compressed."""
        text = _XML_ACTIVATIONS_BYTES if level.is_integer else _XML_BYTES.get(level.bits, _XML_INTEGER_BYTES)
        return unit.size_bytes(level) + len(unit.weights) * text


@functools.cache
def _core() -> Any:
    import openvino as ov

    return ov.Core()


def _converted(stitched: Stitched, example: Batch) -> Any:
    """The module as an OpenVINO model; its weights are constants named after their paths."""
    import openvino as ov
    import torch

    from autoprune.architecture import Answering

    names = tuple(example)
    answering = Answering(stitched.model, stitched.architecture.kind, names)
    inputs = tuple(torch.from_numpy(x) for x in example.values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every Python branch on a shape
        converted = ov.convert_model(answering, example_input=inputs)
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    return converted


def _integer_pattern(integers: Integers, shape: list[int]) -> Any:
    """(codes - zero) * scale as operations on packed constants, in the weight's shape."""
    from openvino import opset13 as op

    o, i = integers.codes.shape
    g = integers.scale.shape[1]
    codes = _packed(integers.codes.numpy(), (o, g, i // g), integers.bits)
    zero = _packed(integers.zero.numpy(), (o, g, 1), integers.bits)
    scale = op.constant(integers.scale.numpy().reshape(o, g, 1))
    centred = op.subtract(op.convert(codes, "f16"), op.convert(zero, "f16"))
    whole = op.constant(np.array(shape, np.int64))
    return op.convert(op.reshape(op.multiply(centred, scale), whole, False), "f32")


def _signed_pattern(integers: Integers, shape: list[int]) -> Any:
    """code * scale with signed codes and one scale a row, as kernels of integers want it."""
    from openvino import opset13 as op

    signed = (integers.codes.numpy().astype(np.int16) - 128).astype(np.int8)
    codes = op.constant(signed.reshape(shape))
    scale = op.constant(integers.scale.numpy().astype(np.float32).reshape(-1, *[1] * (len(shape) - 1)))
    return op.multiply(op.convert(codes, "f32"), scale)


def _half_pattern(node: Any) -> Any:
    from openvino import opset13 as op

    return op.convert(op.constant(np.asarray(node.data).astype(np.float16)), "f32")


def _packed(codes: NDArray[np.uint8], shape: tuple[int, ...], bits: int) -> Any:
    """A constant of unsigned integers of `bits` bits."""
    import openvino as ov

    kinds = {2: ov.Type.u2, 3: ov.Type.u3, 4: ov.Type.u4, 6: ov.Type.u6, 8: ov.Type.u8}
    packed = np.ascontiguousarray(pack_openvino(codes, bits))
    # Not shared: the constant would outlive the array it points into.
    return ov.op.Constant(ov.Tensor(packed, list(shape), kinds[bits]), shared_memory=False)
