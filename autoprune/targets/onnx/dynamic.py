"""ONNX Runtime's own dynamic quantization of a model: what most people do to a network first.

Weights become 8-bit integers, and what a layer reads is rounded to 8 bits as it runs, on a grid from the
smallest to the largest value of that call, padding too: DynamicQuantizeLinear and MatMulInteger or
ConvInteger in place of MatMul, Gemm and Conv. Tables that are looked up in have one scale for all rows.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

WORDS = (
    "the original through ONNX Runtime\u2019s quantize_dynamic(per_channel=True, reduce_range=True): "
    "8-bit weights that use 7 of them, inputs rounded as they come; nothing trained or calibrated"
)


def quantize_dynamically(
    original: Path, made: Path, *, signed: bool = True, per_channel: bool = True, reduce_range: bool = True
) -> None:
    """Write the model of a file that has float weights to the file `made`, with 8-bit weights.

    Weights of 7 bits by default: products of signed ones are added in 16 bits on processors without VNNI,
    which cuts large sums off, and unsigned ones take longer (docs/decisions/045-dynamic-8-bit.md).

    The exporter leaves weights to be transposed where the model is loaded, and the quantizer takes those for
    no weights. So the runtime's basic optimizations come first, as its documentation has it.

    Args:
        signed: whether weights are signed, around zero.
        per_channel: whether each output has a scale.
        reduce_range: whether weights use 7 bits of the 8.

    Raises:
        Exception: whatever onnx, ONNX Runtime or its quantizer raise for a model that they cannot do.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="autoprune-") as name, _unheard():
        folded = Path(name) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(original, options, providers=["CPUExecutionProvider"])
        weights = QuantType.QInt8 if signed else QuantType.QUInt8
        quantize_dynamic(
            folded, made, weight_type=weights, per_channel=per_channel, reduce_range=reduce_range
        )


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Leave out what the quantizer tells the root logger: advice on how to call it."""

    def is_other(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in Path(record.pathname).parts

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # with none at all, `logging.warning` would add one that prints
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
        root.removeHandler(handler)
