"""OpenVINO on the CPU: our own integers as packed constants that its kernels read compressed.

Each compressed weight becomes Constant(u2..u8) -> Convert(f16) -> Subtract(zero points) ->
Multiply(f16 scales) -> Reshape -> Convert(f32), which the CPU plugin keeps packed. With 2, 4 and 8
bits it multiplies integers, rounding activations to 8 bits in groups as it goes ("dynamic
quantization", its default), which is where the speed comes from: without it no width beats float.
With 3 and 6 bits it unpacks to float at load, so those save bytes and no time. 2 bits become 4 at load.

A model is measured in float32. With no settings OpenVINO takes bfloat16 where the processor has it
(AVX512-BF16, AMX), and no note in the file makes it take float32 (of its CPU plugin `Config::applyRtInfo`
reads the precision of a cache and the group size of dynamic quantization alone), so every model must run
in both, and validation of an export measures both.

A convolution's are unpacked at load, whatever their width. Fastest, of convolutions too (2.4 to 3.3 times
float, measured), are 8-bit weights with 8-bit activations: Constant(i8) -> Convert(f32) -> Multiply(scale of
a row), and a FakeQuantize on the input, which the plugin turns into integer kernels with the rounding fused
into whatever comes before (OpenVINO's low precision transformations).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import FLOAT16, FLOAT32, STATIC8, Storage, storages_of
from autoprune.targets.openvino.graph import converted, drop_empty_, is_decoding, put_weights_
from autoprune.targets.target import Defaults, Runner
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit, Weight


# OpenVINO reports its use over the network, 36 requests a conversion, from threads that would run
# beside what is timed (0.6 s a conversion became 3 s). Where its reporter is missing it goes without;
# None makes an import fail (https://docs.python.org/3/reference/import.html#the-module-cache).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

GRAPH, WEIGHTS = "model.xml", "model.bin"

DECODING_GROUP_SIZE = 16
"""A language model's layers round so many inputs with one scale, half of OpenVINO's default: more exact, and
no slower (docs/decisions/019-rounding-and-speed-of-other-runtimes.md). The file notes it for OpenVINO."""
_GROUP_SIZE = "DYNAMIC_QUANTIZATION_GROUP_SIZE"

PRECISIONS = {"bf16": "bfloat16", "f16": "float16"}
"""OpenVINO's names of what it computes with, in words."""

_XML_BYTES: dict[Storage, int] = {FLOAT16: 367, FLOAT32: 0, STATIC8: 2950}
"""Text of the extra operations of one weight in the graph file, measured (OpenVINO 2026.4)."""
_XML_INTEGER_BYTES = 3880
_XML_TWO_BITS_BYTES = 430
"""What there is more of it where codes of 2 bits become codes of 4."""
_XML_KERNEL_BYTES: dict[Storage, int] = {FLOAT32: 0, FLOAT16: 93, STATIC8: 850}
"""What there is more of a convolution's in a storage."""
_XML_KERNEL_INTEGER_BYTES = 60
_XML_NEURONS_BYTES, _XML_HEADS_BYTES, _XML_GROUPS_BYTES = 3_000, 20_000, 45_000
"""Text of the operations that go with the last neuron or head (BERT), or group that shares keys (Llama)."""
_XML_PARTS_BYTES = 8_100
"""Text of the operations that look up a token in the part of a vocabulary that it is in."""


class OpenVino:
    """CPU plugin, float32 precision hint (bfloat16 is its default on some CPUs), one stream."""

    name = "openvino"
    storages = frozenset(storages_of((2, 3, 4, 6, 8, STATIC8.name, 16, 32)))
    fast: frozenset[Storage] = frozenset(storages_of((2, 4, 8, STATIC8.name)))
    parts = True
    tolerance = 0.1

    def offers(self, unit: Unit, level: Level) -> bool:
        """Every storage, of every unit."""
        return level.storage in self.storages

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Convert the stitched module, swap in its integers, write graph and weights."""
        import openvino as ov

        graph = converted(stitched, example)
        drop_empty_(graph)
        put_weights_(graph, stitched)
        if is_decoding(graph):
            graph.set_rt_info(DECODING_GROUP_SIZE, ["runtime_options", _GROUP_SIZE])
        ov.save_model(graph, folder / GRAPH, compress_to_fp16=False)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Compile the model; weights are memory-mapped from the file.

        Its threads may run anywhere: OpenVINO would bind those of each process to the first processors, where
        two workers wait for each other while other processors idle.
        """
        config = {
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return _loaded(folder, config)

    def defaults(self) -> Defaults | None:
        """Its precision on this processor, where that is not float32."""
        precision = _core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
        if precision == "f32":
            return None
        return Defaults(PRECISIONS.get(precision, precision), lambda folder: _loaded(folder, {}))

    def files(self, folder: Path) -> Sequence[Path]:
        """Graph and weights."""
        return [folder / GRAPH, folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """The weights, and the graph text of each that is compressed; less that of what has nothing left."""
        if unit.prunable and not unit.kept(level.ratio):
            return unit.size_bytes(level) - _emptied_bytes(unit)
        parts = _XML_PARTS_BYTES if unit.ranked and level != UNTOUCHED else 0
        return unit.size_bytes(level) + parts + sum(_text_bytes(weight, level) for weight in unit.weights)


def _loaded(folder: Path, config: dict[str, object]) -> Runner:
    """The model in a folder, compiled with some settings."""
    path = folder / GRAPH
    try:
        graph = _core().read_model(path)
        if config and is_decoding(graph):  # noted in the file, but for older ones
            config = config | {_GROUP_SIZE: DECODING_GROUP_SIZE}
        compiled = _core().compile_model(graph, "CPU", config)
    except RuntimeError as error:
        raise AutopruneError(f"{path} (with {WEIGHTS}) cannot be loaded by OpenVINO: {error}") from error
    return _runner(compiled, path, is_decoding=is_decoding(graph))


def _runner(compiled: Any, path: Path, *, is_decoding: bool) -> Runner:
    """A compiled graph as a function of its inputs by name; a language model's is a `Decoder`."""
    names = [port.get_any_name() for port in compiled.inputs]
    request = compiled.create_infer_request()

    def infer(inputs: Batch) -> list[NDArray[np.float32]]:
        try:
            request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            takes = ", ".join(f"{p.get_any_name()} {p.get_partial_shape()}" for p in compiled.inputs)
            given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
            raise AutopruneError(f"{path} takes {takes}; given were {given}: {error}") from error
        return [output.data for output in request.output_tensors]

    def run(batch: Batch) -> NDArray[np.float32]:
        if lacking := [name for name in names if name not in batch]:
            given = ", ".join(batch)
            raise AutopruneError(f"{path} needs input {lacking[0]!r}; given were {given}")
        return np.array(infer({name: batch[name] for name in names})[0], dtype=np.float32)

    if not is_decoding:
        return run
    from autoprune.targets.decoding import Decoder

    ports = [port.get_partial_shape() for port in compiled.inputs[1:]]
    shapes = [(shape[1].get_length(), shape[3].get_length()) for shape in ports]
    return Decoder(lambda ids, past: infer(dict(zip(names, [ids, *past], strict=True))), shapes)


def _text_bytes(weight: Weight, level: Level) -> int:
    """Text of what makes a weight of its integers or half floats, and rounds its input."""
    text = _XML_BYTES.get(level.storage, _XML_INTEGER_BYTES)
    text += _XML_TWO_BITS_BYTES if level.storage.bits == 2 else 0
    return text + (_XML_KERNEL_BYTES.get(level.storage, _XML_KERNEL_INTEGER_BYTES) if weight.is_conv else 0)


def _emptied_bytes(unit: Unit) -> int:
    """Bytes of graph text between a unit's weights, which disappears with the last of its pieces."""
    rows = {weight.rows for weight in unit.rows}
    if len(rows) > 1:
        return _XML_GROUPS_BYTES
    return _XML_HEADS_BYTES if max(rows) > unit.pieces else _XML_NEURONS_BYTES


@functools.cache
def _core() -> Any:
    import openvino as ov

    return ov.Core()
