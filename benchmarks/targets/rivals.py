"""What a user would pick instead: the common tools, each applied to the same fitted teacher.

Every tool is used as its own documentation shows, where it leaves a choice at the better one: NNCF's
4 bits in groups of 64 with the embeddings (its default keeps those at 8 bits), ONNX Runtime's 8 bits
per channel on a graph of the older exporter, which it runs faster than the newer one's.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.targets.openvino.target import GRAPH, OpenVino
from autoprune.targets.packed import torch_runner
from autoprune.tasks.task import Batch, Task

OPENVINO, ONNX_RUNTIME, TORCH = "OpenVINO", "ONNX Runtime", "torch"

CALIBRATION_ROWS = 300
"""NNCF's own default number of samples."""

INT4_GROUP = 64
ONNX_GRAPH, TORCH_STATE = "model.onnx", "state.pt"


@dataclass(frozen=True)
class Source:
    """What every tool starts from. teacher_folder: the teacher as `save_pretrained` wrote it."""

    teacher: nn.Module
    teacher_folder: Path
    example: Batch
    task: Task

    def calibration(self) -> list[Batch]:
        """Single training rows, each at its own length: no padding is calibrated on."""
        data = self.task.train
        rows = np.random.default_rng(0).permutation(len(data))[:CALIBRATION_ROWS]
        batches = [(int(data.lengths[row]), self.task.batch(data, [int(row)])) for row in rows]
        return [{name: x[:, :length] for name, x in batch.items()} for length, batch in batches]


@dataclass(frozen=True)
class Rival:
    """One tool's model. make: writes it into a folder; load and files: of that folder."""

    name: str
    runtime: str
    how: str
    make: Callable[[Source, Path], None]
    load: Callable[[Path], Callable[[Batch], NDArray[np.float32]]]
    files: Callable[[Path], Sequence[Path]]

    def saved(self, source: Source, folder: Path) -> None:
        """Make it, without a word.

        Raises:
            AutopruneError: where the tool is not installed, or fails; a benchmark goes on without it.
        """
        try:
            with silent():
                self.make(source, folder)
        except ImportError as error:
            raise AutopruneError(f"{error}; pip install 'autoprune[bench]' brings it") from error
        except Exception as error:
            raise AutopruneError(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps bars, warnings and advice of other tools away from the results."""
    held = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(held)


# ---- OpenVINO, with and without NNCF ------------------------------------------------------------


def _convert(source: Source) -> Any:
    import openvino as ov

    inputs = {name: torch.from_numpy(x) for name, x in source.example.items()}
    with torch.no_grad():
        return ov.convert_model(source.teacher, example_input=inputs)


def _openvino_float(source: Source, folder: Path) -> None:
    import openvino as ov

    ov.save_model(_convert(source), folder / GRAPH, compress_to_fp16=False)


def _nncf_weights(source: Source, folder: Path, mode: str, **options: object) -> None:
    import nncf
    import openvino as ov

    model = nncf.compress_weights(_convert(source), mode=nncf.CompressWeightsMode[mode], **options)
    ov.save_model(model, folder / GRAPH)


def _nncf_int8(source: Source, folder: Path) -> None:
    _nncf_weights(source, folder, "INT8_ASYM")


def _nncf_int4(source: Source, folder: Path) -> None:
    _nncf_weights(source, folder, "INT4_ASYM", group_size=INT4_GROUP, ratio=1.0, all_layers=True)


def _nncf_static(source: Source, folder: Path) -> None:
    import nncf
    import openvino as ov

    rows = source.calibration()
    model = nncf.quantize(
        _convert(source), nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
    )
    ov.save_model(model, folder / GRAPH)


# ---- ONNX Runtime -------------------------------------------------------------------------------


def _onnx_float(source: Source, folder: Path) -> None:
    # Names are given to inputs in the order of the module's arguments, not in that of `kwargs`.
    order = [name for name in inspect.signature(source.teacher.forward).parameters if name in source.example]
    axes = {name: {0: "batch", 1: "sequence"} for name in order} | {"logits": {0: "batch"}}
    torch.onnx.export(
        source.teacher,
        (),
        folder / ONNX_GRAPH,
        kwargs={name: torch.from_numpy(source.example[name]) for name in order},
        input_names=order,
        output_names=["logits"],
        dynamic_axes=axes,
        dynamo=False,
    )


def _onnx_dynamic(source: Source, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _onnx_float(source, folder)
    whole = (folder / ONNX_GRAPH).rename(folder / "float.onnx")
    # Its advice to run quant_pre_process first changes nothing here (15.4 ms against 15.3, MiniLM).
    quantize_dynamic(whole, folder / ONNX_GRAPH, per_channel=True, weight_type=QuantType.QInt8)


def _onnx_load(folder: Path) -> Callable[[Batch], NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / ONNX_GRAPH, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(batch: Batch) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {name: batch[name] for name in names})[0], np.float32)

    return run


def _onnx_files(folder: Path) -> Sequence[Path]:
    return [folder / ONNX_GRAPH]


# ---- torch --------------------------------------------------------------------------------------


def _teacher(folder: Path) -> nn.Module:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval()


def _torch_float(source: Source, folder: Path) -> None:
    source.teacher.save_pretrained(folder)  # type: ignore[operator]


def _torch_load(folder: Path) -> Callable[[Batch], NDArray[np.float32]]:
    torch.set_num_threads(1)
    return torch_runner(_teacher(folder))


def _torch_files(folder: Path) -> Sequence[Path]:
    return [folder / "model.safetensors"]


def _dynamic(model: nn.Module) -> nn.Module:
    small: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
        model, {nn.Linear}, dtype=torch.qint8
    )
    return small


def _torch_dynamic(source: Source, folder: Path) -> None:
    (folder / "teacher").symlink_to(source.teacher_folder.resolve())
    torch.save(_dynamic(source.teacher).state_dict(), folder / TORCH_STATE)


def _torch_dynamic_load(folder: Path) -> Callable[[Batch], NDArray[np.float32]]:
    torch.set_num_threads(1)
    with silent():
        model = _dynamic(_teacher(folder / "teacher"))
        model.load_state_dict(torch.load(folder / TORCH_STATE, weights_only=True))
    return torch_runner(model)


def _torch_dynamic_files(folder: Path) -> Sequence[Path]:
    return [folder / TORCH_STATE]


OPENVINO_FLOAT, NNCF_STATIC, TORCH_FLOAT = "fp32 OpenVINO", "NNCF static int8", "fp32 torch"

_OV = OpenVino()
RIVALS = (
    Rival(OPENVINO_FLOAT, OPENVINO, "convert_model", _openvino_float, _OV.load, _OV.files),
    Rival("NNCF weights int8", OPENVINO, "compress_weights(INT8_ASYM)", _nncf_int8, _OV.load, _OV.files),
    Rival("NNCF weights int4", OPENVINO,
          f"compress_weights(INT4_ASYM, group_size={INT4_GROUP}, ratio=1, all_layers=True)",
          _nncf_int4, _OV.load, _OV.files),
    Rival(NNCF_STATIC, OPENVINO,
          f"quantize(model_type=TRANSFORMER), {CALIBRATION_ROWS} training rows of natural length",
          _nncf_static, _OV.load, _OV.files),
    Rival("fp32 ONNX Runtime", ONNX_RUNTIME, "torch.onnx.export(dynamo=False)",
          _onnx_float, _onnx_load, _onnx_files),
    Rival("ONNX Runtime int8", ONNX_RUNTIME, "quantize_dynamic(per_channel=True, weight_type=QInt8)",
          _onnx_dynamic, _onnx_load, _onnx_files),
    Rival(TORCH_FLOAT, TORCH, "eager", _torch_float, _torch_load, _torch_files),
    Rival("torch int8", TORCH, "torch.ao.quantization.quantize_dynamic of every Linear",
          _torch_dynamic, _torch_dynamic_load, _torch_dynamic_files),
)  # fmt: skip
"""The references come first of their runtime; ratios are taken to `OPENVINO_FLOAT` and `TORCH_FLOAT`."""
