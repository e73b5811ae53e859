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

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Level
from autoprune.space.storage import (
    FLOAT16,
    FLOAT32,
    STATIC8,
    GroupedIntegers,
    Storage,
    group_size_for,
    storages_of,
)
from autoprune.targets.compressed_tensors.format import integer_tensors, multiplied_tensors, scheme
from autoprune.targets.packed import torch_runner
from autoprune.targets.target import Runner
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit, Weight
from autoprune.targets.compressed_tensors.checks import OF_EMBEDDINGS, check_stitched

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_TEXT_BYTES: dict[Storage, int] = {GroupedIntegers(8): 227, FLOAT16: 0, FLOAT32: 0, STATIC8: 333}
"""Header text of the extra tensors of one compressed weight, measured (safetensors 0.8)."""
_TEXT_PACKED_BYTES = 342


class CompressedTensors:
    """Saved for transformers and what else reads the format; run by transformers, in float32."""

    name = "compressed-tensors"
    storages = frozenset(storages_of((2, 3, 4, 6, 8, STATIC8.name, 16, 32)))
    fast: frozenset[Storage] = frozenset()
    parts = False
    tolerance = 0.05
    # Of 8-bit activations alone, where a value half-way between two codes may fall to either; else 1e-4.

    def __init__(self) -> None:
        if importlib.util.find_spec("compressed_tensors") is None:
            raise AutopruneError(
                "target compressed-tensors needs a package that is not installed: "
                "pip install 'autoprune[compressed-tensors]'"
            )

    def offers(self, unit: Unit, level: Level) -> bool:
        """Every storage of a product's weight, 8 bits and more of an embedding; no row is removed.

        Of convolutions, and of an embedding that is an output layer's weight too, floats alone.
        """
        is_embedding = any(weight.is_embedding for weight in unit.weights)
        if level.ratio > 0 or (is_embedding and level.storage.rounds_inputs):
            return False
        if any(weight.is_conv or weight.tied for weight in unit.weights):
            return level.storage.is_float
        return level.storage in (OF_EMBEDDINGS if is_embedding else self.storages)

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.safetensors`, and `config.json` with the schemes of its modules.

        Raises:
            AutopruneError: when rows were removed, an embedding has fewer than 8 bits, or transformers has
                other names for the model's tensors than it has here.
        """
        from safetensors.torch import save_file

        from autoprune.compress.integers import Integers
        from autoprune.compress.stored import HalfFloats
        from autoprune.models.state import state_of

        check_stitched(stitched)
        tensors: dict[str, Tensor] = {}
        groups: dict[str, list[str]] = {}  # scheme as text -> paths
        for name, tensor in state_of(stitched.model).items():
            path, _, last = name.rpartition(".")
            weight = stitched.stored.get(path) if last == "weight" else None
            if isinstance(weight, Integers):
                grid = stitched.activations.get(path)
                parts = integer_tensors(weight) if grid is None else multiplied_tensors(weight, grid)
                tensors |= {f"{path}.{part}": x.contiguous() for part, x in parts.items()}
                groups.setdefault(json.dumps(scheme(weight, grid)), []).append(path)
            else:
                tensors[name] = (tensor.half() if isinstance(weight, HalfFloats) else tensor).contiguous()
        # transformers refuses a file that does not say which library wrote its tensors.
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        _write_config(stitched, groups, folder / CONFIG)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """What `from_pretrained` of transformers' class for the kind of task makes of the folder.

        Raises:
            AutopruneError: when a file is missing, damaged, or does not fit the other.
        """
        import torch

        from autoprune.models.sentence_head import attach_
        from autoprune.models.spec import Architecture

        torch.set_num_threads(threads)
        if not (folder / WEIGHTS).is_file():
            raise AutopruneError(f"{folder / WEIGHTS} is missing: {folder} is no compressed-tensors model")
        try:
            described = Architecture.read(folder)
        except AutopruneError as error:
            raise AutopruneError(
                f"{folder / WEIGHTS} cannot be loaded with the config beside it: {error}"
            ) from error
        model = _read(folder, described.kind)
        attach_(model, described.sentence)
        return torch_runner(model, described.kind)

    def defaults(self) -> None:
        """None: transformers takes float32 from the config."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The weights."""
        return [folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """Bytes of a unit that is offered at a level: zero points take a byte, packed rows whole words."""
        biases = sum(4 * weight.rows for weight in unit.weights if weight.has_bias)
        return biases + sum(
            _stored_bytes(weight, level, unit.group_size) + _text_bytes(level) for weight in unit.weights
        )


def _stored_bytes(weight: Weight, level: Level, wanted: int) -> int:
    """Bytes of one weight's tensors."""
    o, i = weight.rows, weight.columns
    if level.storage.is_float:
        return level.storage.size_bytes(o, i, group_size=wanted)
    if level.storage.rounds_inputs:
        return o * i + 2 * o + 5  # the input's scale and zero point
    groups = o * (i // group_size_for(i, wanted))
    bits = level.storage.bits
    packed = o * i if bits == 8 else 4 * o * math.ceil(i * bits / 32) + 16  # and the shape
    return packed + 3 * groups


def _write_config(stitched: Stitched, groups: dict[str, list[str]], path: Path) -> None:
    """The model's config, with the kind of task, the schemes and the modules each is for."""
    from autoprune.models.spec import KEY

    config: Any = stitched.model.config
    data = json.loads(config.to_json_string())
    data |= {"architectures": [type(stitched.model).__name__], "dtype": "float32"}
    data[KEY] = stitched.architecture.described()[KEY]
    if groups:
        schemes = {}
        for number, (text, paths) in enumerate(groups.items()):
            schemes[f"group_{number}"] = {"targets": paths, **json.loads(text)}
        formats = sorted({entry["format"] for entry in schemes.values()})
        data["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "format": formats[0] if len(formats) == 1 else "mixed-precision",
            "config_groups": schemes,
            "ignore": [],
        }
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path, kind: TaskKind) -> nn.Module:
    """The model that transformers makes of the folder, its weights floats already."""
    import torch

    from autoprune.models.outputs import outputs_of
    from autoprune.models.spec import auto_class

    path = folder / WEIGHTS
    try:
        with _without_bars():
            model, report = auto_class(kind).from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
            with torch.inference_mode():  # the first batch makes floats of the weights
                outputs_of(model.eval(), _anything(model.config, kind), kind)
    except Exception as error:  # transformers raises many kinds
        text = " ".join(str(error).split())[:400]
        raise AutopruneError(f"{path} cannot be loaded with the config beside it: {text}") from error
    # transformers draws what the file lacks at random, and says so in a log alone.
    if unfit := sorted(str(key) for keys in report.values() for key in keys):
        raise AutopruneError(f"{path} does not fit the config beside it: see {unfit[0]}")
    return model  # type: ignore[no-any-return]


def _anything(config: Any, kind: TaskKind) -> dict[str, Tensor]:
    """Inputs that a model of a kind takes."""
    import torch

    if kind.reads_images:
        size = config.image_size if isinstance(config.image_size, int) else max(config.image_size)
        return {"pixel_values": torch.zeros(1, config.num_channels, size, size)}
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    known = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {name: known[name] for name in kind.token_inputs(known)}


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars: compressed-tensors shows one for each of its steps, and cannot be told not to."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _text_bytes(level: Level) -> int:
    """Header text of the extra tensors of one compressed weight."""
    return _TEXT_BYTES.get(level.storage, _TEXT_PACKED_BYTES)
