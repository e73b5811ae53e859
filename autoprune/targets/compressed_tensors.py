"""compressed-tensors: a folder that plain `transformers` loads, with our integers bit for bit.

`config.json` names a scheme for every compressed module, `model.safetensors` holds their integers:

    bits 2 to 6   `pack-quantized`: `weight_packed`, codes as a dense stream of bits in int32 words, a row at
                  a time; `weight_scale` half; `weight_zero_point` int8; `weight_shape`
    bits 8        `int-quantized`: `weight` int8, and scale and zero point as above
    8 with 8-bit  `int-quantized`: `weight` int8, one scale a row, no zero point; `input_scale` and
    activations   `input_zero_point`, one each for the whole layer, static
    bits 16       half floats, no scheme

The format's integers are signed: ours less 2^(bits - 1), codes and zero points alike. Its usual scheme for
integers with zero points (`strategy: group`, zero points packed too) is written by its own package but
refused by transformers, which expects them unpacked (compressed-tensors 0.18 to 0.20). Blocks of one row,
`strategy: block` with `block_structure: [1, group size]`, are the same arithmetic and load with difference
0.0 (0.15 to 0.20).

What plain `transformers` cannot load is not offered. It builds every layer from one config, so no rows are
removed. Embeddings are offered with 8 and 16 bits: it initializes an embedding's `weight` before it loads,
and packed ones have none. Weights become floats with the first batch, so nothing is faster than float
there, and 8-bit activations are rounded, not multiplied as integers. vLLM reads this format too and has
kernels for 8-bit weights with static 8-bit activations, but was not tried.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.compress.integers import group_size_for
from autoprune.errors import AutopruneError
from autoprune.space import Level, Width
from autoprune.targets.contract import Runner
from autoprune.targets.packed import torch_runner
from autoprune.task import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.compress.activations import Activations
    from autoprune.compress.integers import Integers
    from autoprune.stitch import Stitched
    from autoprune.units import Unit, Weight

WEIGHTS, CONFIG = "model.safetensors", "config.json"

_EMBEDDING_BITS = frozenset({8, 16, 32})
_TEXT_BYTES = {8: 227, 16: 0, 32: 0}
"""Header text of the extra tensors of one compressed weight, measured (safetensors 0.8)."""
_TEXT_PACKED_BYTES = 342
_TEXT_ACTIVATIONS_BYTES = 333


class CompressedTensors:
    """Saved for transformers and what else reads the format; run by transformers, in float32."""

    name = "compressed-tensors"
    bits = frozenset({2, 3, 4, 6, 8, 16, 32})
    fast: frozenset[Width] = frozenset()
    integer = True
    tolerance = 0.05
    # Of 8-bit activations alone, where a value half-way between two codes may fall to either; else 1e-4.

    def __init__(self) -> None:
        if importlib.util.find_spec("compressed_tensors") is None:
            raise AutopruneError(
                "target compressed-tensors needs a package that is not installed: "
                "pip install 'autoprune[compressed-tensors]'"
            )

    def offers(self, unit: Unit, level: Level) -> bool:
        """Every width of a product's weight, 8 bits and more of an embedding; no row is removed."""
        is_embedding = any(one.is_embedding for one in unit.weights)
        if level.ratio > 0 or (is_embedding and level.is_integer):
            return False
        return level.bits in (_EMBEDDING_BITS if is_embedding else self.bits)

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.safetensors`, and `config.json` with the schemes of its modules.

        Raises:
            AutopruneError: when rows were removed, or an embedding has fewer than 8 bits.
        """
        from safetensors.torch import save_file

        _check(stitched)
        tensors: dict[str, Tensor] = {}
        groups: dict[str, list[str]] = {}  # scheme as text -> paths
        for name, tensor in stitched.model.state_dict().items():
            path, _, last = name.rpartition(".")
            if last == "weight" and path in stitched.integers:
                one, grid = stitched.integers[path], stitched.activations.get(path)
                stored = _integer_tensors(one) if grid is None else _multiplied_tensors(one, grid)
                tensors |= {f"{path}.{part}": x.contiguous() for part, x in stored.items()}
                groups.setdefault(json.dumps(_scheme(one, grid)), []).append(path)
            else:
                is_half = last == "weight" and path in stitched.half
                tensors[name] = (tensor.half() if is_half else tensor).contiguous()
        # transformers refuses a file that does not say which library wrote its tensors.
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        _write_config(stitched.model, groups, folder / CONFIG)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """What `AutoModelForSequenceClassification.from_pretrained` makes of the folder, as a runner.

        Raises:
            AutopruneError: when a file is missing, damaged, or does not fit the other.
        """
        import torch

        torch.set_num_threads(threads)
        return torch_runner(_read(folder))

    def files(self, folder: Path) -> Sequence[Path]:
        """The weights."""
        return [folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """Bytes of a unit that is offered at a level: zero points take a byte, packed rows whole words."""
        biases = sum(4 * one.rows for one in unit.weights if one.has_bias)
        return biases + sum(
            _stored_bytes(one, level, unit.group_size) + _text_bytes(level) for one in unit.weights
        )


def _stored_bytes(one: Weight, level: Level, wanted: int) -> int:
    """Bytes of one weight's tensors."""
    o, i = one.rows, one.columns
    if level.bits >= 16:
        return o * i * level.bits // 8
    if level.is_integer:
        return o * i + 2 * o + 5  # the input's scale and zero point
    groups = o * (i // group_size_for(i, wanted))
    packed = o * i if level.bits == 8 else 4 * o * math.ceil(i * level.bits / 32) + 16  # and the shape
    return packed + 3 * groups


def _check(stitched: Stitched) -> None:
    """Raise where a level is one that transformers could not load."""
    from torch import nn

    if pruned := [name for name, level in stitched.levels.items if level.ratio > 0]:
        raise AutopruneError(
            f"target compressed-tensors cannot store {pruned[0]} with rows removed: transformers gives every "
            "layer the width in config.json. Search with this target, or export to openvino or packed"
        )
    for path, one in stitched.integers.items():
        is_embedding = isinstance(stitched.model.get_submodule(path), nn.Embedding)
        if is_embedding and one.bits not in _EMBEDDING_BITS:
            raise AutopruneError(
                f"target compressed-tensors cannot store the embedding {path} with {one.bits} bits, but with "
                "8, 16 or 32. Search with this target, or export to openvino or packed"
            )


def _integer_tensors(one: Integers) -> dict[str, Tensor]:
    """Tensors of a weight whose groups have zero points, by their names in the format."""
    import torch

    codes, zero = _signed(one.codes, one.bits), _signed(one.zero, one.bits)
    if one.bits == 8:
        return {"weight": codes, "weight_scale": one.scale, "weight_zero_point": zero}
    from compressed_tensors.compressors.pack_quantized.helpers import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
        pack_to_int32,
    )

    return {
        "weight_packed": pack_to_int32(codes, one.bits),
        "weight_scale": one.scale,
        "weight_zero_point": zero,
        "weight_shape": torch.tensor(one.codes.shape),
    }


def _multiplied_tensors(one: Integers, grid: Activations) -> dict[str, Tensor]:
    """Tensors of a weight that is multiplied with 8-bit activations, by their names in the format."""
    import torch

    return {
        "weight": _signed(one.codes, one.bits),
        "weight_scale": one.scale,
        "input_scale": torch.tensor([grid.scale]),
        "input_zero_point": torch.tensor([grid.zero - 128], dtype=torch.int8),
    }


def _signed(codes: Tensor, bits: int) -> Tensor:
    """Codes 0 .. 2^bits - 1 as the format's int8, zero in the middle."""
    import torch

    signed: Tensor = codes.to(torch.int16) - 2 ** (bits - 1)
    return signed.to(torch.int8)


def _scheme(one: Integers, grid: Activations | None) -> dict[str, Any]:
    """How the format describes a weight, and its input where that is rounded (`QuantizationScheme`)."""
    common = {"num_bits": one.bits, "type": "int", "dynamic": False}
    if grid is not None:
        return {
            "weights": common | {"strategy": "channel", "symmetric": True},
            "input_activations": common | {"strategy": "tensor", "symmetric": False},
            "format": "int-quantized",
        }
    groups = common | {"symmetric": False}
    if one.bits == 8:
        groups |= {"strategy": "group", "group_size": one.group_size}
        return {"weights": groups, "format": "int-quantized"}
    groups |= {"strategy": "block", "block_structure": [1, one.group_size]}
    return {"weights": groups, "format": "pack-quantized"}


def _write_config(model: nn.Module, groups: dict[str, list[str]], path: Path) -> None:
    """The model's config, with the schemes and the modules each is for."""
    config: Any = model.config
    data = json.loads(config.to_json_string())
    data |= {"architectures": [type(model).__name__], "dtype": "float32"}
    if groups:
        schemes = {}
        for number, (text, paths) in enumerate(groups.items()):
            schemes[f"group_{number}"] = {"targets": paths, **json.loads(text)}
        formats = sorted({one["format"] for one in schemes.values()})
        data["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "format": formats[0] if len(formats) == 1 else "mixed-precision",
            "config_groups": schemes,
            "ignore": [],
        }
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path) -> nn.Module:
    """The model that transformers makes of the folder, its weights floats already."""
    import torch
    import transformers
    from safetensors import SafetensorError

    path = folder / WEIGHTS
    if not path.is_file():
        raise AutopruneError(f"{path} is missing: {folder} is no compressed-tensors model")
    try:
        with _without_bars():
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
            with torch.inference_mode():  # the first batch makes floats of the weights
                model.eval()(input_ids=torch.zeros(1, 2, dtype=torch.int64))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:400]
        raise AutopruneError(f"{path} cannot be loaded with the config beside it: {text}") from error
    # transformers draws what the file lacks at random, and says so in a log alone.
    if unfit := sorted(str(key) for keys in report.values() for key in keys):
        raise AutopruneError(f"{path} does not fit the config beside it: see {unfit[0]}")
    return model  # type: ignore[no-any-return]


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars: compressed-tensors shows one for each of its steps, and cannot be told not to."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _text_bytes(level: Level) -> int:
    """Header text of the extra tensors of one compressed weight."""
    if level.is_integer:
        return _TEXT_ACTIVATIONS_BYTES
    return _TEXT_BYTES.get(level.bits, _TEXT_PACKED_BYTES)
