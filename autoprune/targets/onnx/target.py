"""ONNX Runtime on the CPU: our own integers in the operators that it has for them.

The legacy exporter is used, with attention as plain products ("eager"): its files run
fastest, and it takes the least time (docs/decisions/018-onnx-exporter-and-widths.md).

8-bit weights with 8-bit activations are multiplied as integers on the static grids of the stitched model.
Weight-only integers round their input to 8 bits by blocks as they go, as OpenVINO does, because without
that no width beats float; those of convolutions are unpacked at load, and save bytes alone. 3 and 6 bits
have no storage there, and scales must be of 16 weights or more, but for convolutions. The biases of those
that go from codes to codes become whole numbers, as in every integer convolution, which moves some values
to the next code.

Embeddings of 2 bits need ONNX Runtime 1.30 where the file runs (1.26 refuses it), convolutions of 2 bits the
operators of ONNX 25, all else 1.24.

A language model is one graph for windows and for steps after a past (`decoding`); its outputs beside the
logits are the keys and values to go on from.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Level
from autoprune.space.storage import STATIC8, Storage, storages_of
from autoprune.targets.onnx.layers import BITS, GROUP_SIZES, rewrite_
from autoprune.targets.target import Defaults, Runner
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit


GRAPH = "model.onnx"

TOKEN_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
"""Inputs with a place for each token."""

_OPSET = 20
"""The newest that the legacy exporter knows."""

_LARGEST_BYTES = 2**31 - 1
"""Of a protobuf message, and so of a model in one file (https://protobuf.dev/programming-guides/limits)."""


class Onnx:
    """CPU execution provider; graph and weights in one file.

    Raises:
        AutopruneError: when its packages are not installed.
    """

    name = "onnx"
    storages = frozenset(storages_of((*BITS, STATIC8.name, 16, 32)))
    fast: frozenset[Storage] = frozenset(storages_of((4, 8, STATIC8.name)))
    # Faster than the model's own float32 (docs/decisions/018-onnx-exporter-and-widths.md).
    parts = True
    tolerance = 0.1

    def __init__(self) -> None:
        if lacking := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
            raise AutopruneError(
                f"target onnx needs {' and '.join(lacking)}, not installed: pip install 'autoprune[onnx]'"
            )

    def offers(self, unit: Unit, level: Level) -> bool:
        """Its storages; weight-only integers where every ratio leaves groups that its operators know.

        Convolutions have no such operators, and any groups.
        """
        from autoprune.space.storage import group_size_for

        if level.storage.rounds_inputs:
            return not any(weight.is_embedding for weight in unit.weights)
        if level.storage not in self.storages or level.storage.is_float:
            return level.storage in self.storages
        products = [weight.path for weight in unit.weights if not weight.is_conv]
        columns = {unit.shapes(ratio)[path][1] for ratio in unit.ratios for path in products}
        return {group_size_for(i, unit.group_size) for i in columns if i} <= GROUP_SIZES

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Export the stitched module, swap in its integers, check the graph, write one file.

        Raises:
            AutopruneError: when the model cannot be exported, or is too large for one file.
        """
        import onnx

        proto = onnx.load_from_string(_exported(stitched, example))
        rewrite_(proto, stitched)
        onnx.checker.check_model(proto)
        (folder / GRAPH).write_bytes(proto.SerializeToString())

    def save_dynamic(self, original: Path, folder: Path) -> str:
        """As `QuantizesDynamically` promises, by ONNX Runtime's `quantize_dynamic`."""
        from autoprune.targets.onnx.dynamic import WORDS, quantize_dynamically

        quantize_dynamically(original / GRAPH, folder / GRAPH)
        return WORDS

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Open a session that neither prints nor spins."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return _opened(folder / GRAPH, options)

    def defaults(self) -> Defaults | None:
        """None: a session with no settings computes the same (w8a8 too: `integers.PRODUCT_REACH`)."""
        return None

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return [folder / GRAPH]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """The weights and the text of their operators."""
        from autoprune.targets.onnx.sizes import size_bytes

        return size_bytes(unit, level)


def _opened(path: Path, options: Any) -> Runner:
    """The model of a file; options: of the session, None for ONNX Runtime's own."""
    import onnxruntime

    errors = _runtime_errors()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise AutopruneError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    names = [node.name for node in session.get_inputs()]

    def call(given: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        if lacking := [name for name in names if name not in given]:
            raise AutopruneError(f"{path} takes {', '.join(names)}; {', '.join(lacking)} is not given")
        try:
            outputs = session.run(None, {name: given[name] for name in names})
        except errors as error:
            shapes = ", ".join(f"{name} {list(given[name].shape)}" for name in names)
            raise AutopruneError(f"{path} cannot be run on {shapes}: {error}") from error
        return [np.array(output, dtype=np.float32) for output in outputs]

    heads = [tuple(node.shape[1::2]) for node in session.get_inputs() if node.name.startswith("past.")]
    if heads:
        from autoprune.targets.decoding import Decoder

        return Decoder(lambda ids, past: call(dict(zip(names, [ids, *past], strict=True))), heads)
    return lambda batch: call(batch)[0]


def _exported(stitched: Stitched, example: Batch) -> bytes:
    """The module as an ONNX graph whose weights are named after their paths.

    Raises:
        AutopruneError: when torch cannot trace it, or it is too large for one file.
    """
    import torch

    kind = type(stitched.model).__name__
    size = sum(parameter.numel() * parameter.element_size() for parameter in stitched.model.parameters())
    if size > _LARGEST_BYTES:
        raise AutopruneError(
            f"{kind} has {size / 1e9:.1f} GB of weights; a file of target onnx holds "
            f"{_LARGEST_BYTES / 1e9:.1f} GB at most. Choose --target openvino"
        )
    model: Any = copy.deepcopy(stitched.model)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    file = io.BytesIO()
    log: Any = torch._C._jit_onnx_log  # prints the whole graph of what cannot be exported (torch 2.13)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every Python branch on a shape
        traced = _traced(model, stitched.architecture.kind, example)
        try:
            torch._C._jit_onnx_log = lambda *told: None
            torch.onnx.export(
                traced.module,
                traced.inputs,
                file,  # type: ignore[arg-type]  # the legacy exporter takes files too
                input_names=list(traced.input_axes),
                output_names=list(traced.output_axes),
                dynamic_axes=traced.input_axes | traced.output_axes,
                opset_version=_OPSET,
                do_constant_folding=False,  # it would take the names from transposed weights
                dynamo=False,
            )
        except Exception as error:  # whatever a module's own code raises where it is traced
            raise AutopruneError(f"{kind} cannot be exported to ONNX by torch: {error}") from error
        finally:
            torch._C._jit_onnx_log = log
    return file.getvalue()


_Axes = dict[str, Mapping[int, str]]


@dataclass(frozen=True)
class _Traced:
    """A module to be traced, what with, and which axes of its inputs and outputs may have any length."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_axes: _Axes
    output_axes: _Axes


def _traced(model: nn.Module, kind: TaskKind, example: Batch) -> _Traced:
    import torch

    from autoprune.models.outputs import Answering
    from autoprune.targets.decoding import Decoding

    tensors = tuple(torch.from_numpy(x) for x in example.values())
    rows = {0: "batch"}
    tokens = rows | {1: "sequence"}
    if kind.predicts_next_token:
        decoding = Decoding(model)
        inputs: _Axes = {
            name: tokens if name == "input_ids" else rows | {2: "past"} for name in decoding.inputs
        }
        outputs: _Axes = {
            name: tokens if name == "logits" else rows | {2: "present"} for name in decoding.outputs
        }
        return _Traced(decoding, decoding.example(tensors[0]), inputs, outputs)
    axes: _Axes = {name: tokens if name in TOKEN_INPUTS else rows for name in example}
    module = Answering(model, kind, tuple(example))
    has_places = kind.answers_each_token or (
        kind.is_own and tokens in axes.values() and module(*tensors).ndim > 2
    )
    answer = "sentence_embedding" if kind.gives_vectors else "logits"
    return _Traced(module, tensors, axes, {answer: tokens if has_places else rows})


@functools.cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file or an input; they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("NoSuchFile", "NoModel", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented")
    return tuple(getattr(state, name) for name in (*names, "Fail", "RuntimeException"))
