"""Our own safetensors layout: 2 to 8 bit integers really packed. Smallest file, float kernels.

`<path>.weight.codes` holds a weight's codes as one dense stream of bits, `.scale` its half-float
scales [o g], `.zero` its zero points, packed like the codes. Shapes and bits are in the file's
metadata under "autoprune". Everything else is stored under its own name, so a model is rebuilt from
its `config.json` and this file: modules get the shapes the file has, then a strict load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.packing import pack_dense, unpack_dense
from autoprune.errors import AutopruneError
from autoprune.targets.contract import Runner
from autoprune.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.compress.integers import Integers
    from autoprune.stitch import Stitched

WEIGHTS = "model.safetensors"


class Packed:
    """Safetensors on disk, a plain torch module in memory."""

    name = "packed"
    bits = frozenset({2, 3, 4, 6, 8, 16, 32})
    fast_bits: frozenset[int] = frozenset()
    tolerance = 1e-4

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.safetensors` and the config that `load` builds the module from."""
        write_packed(stitched, folder / WEIGHTS)
        stitched.model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Rebuild the module and run it with torch."""
        import torch

        torch.set_num_threads(threads)
        return torch_runner(read_packed(folder).model)

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return [folder / WEIGHTS]

    def overhead_bytes(self, bits: int) -> int:
        """Header text of the extra tensors of one compressed weight."""
        return {16: 0, 32: 0}.get(bits, 303)


def torch_runner(model: Any) -> Runner:
    """A torch module as a runner."""
    import torch

    def run(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(x) for name, x in batch.items()}).logits
            return np.asarray(logits.float().numpy(), dtype=np.float32)

    return run


def write_packed(stitched: Stitched, path: Path) -> None:
    """Write a stitched model's tensors, integers packed."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    shapes: dict[str, dict[str, Any]] = {}
    for name, tensor in stitched.model.state_dict().items():
        stem = name.removesuffix(".weight")
        if name.endswith(".weight") and stem in stitched.integers:
            one = stitched.integers[stem]
            tensors |= _pack(name, one)
            shapes[stem] = {"shape": list(one.codes.shape), "bits": one.bits}
        else:
            is_half = name.endswith(".weight") and stem in stitched.half
            tensors[name] = (tensor.half() if is_half else tensor).contiguous()
    levels = {name: [level.ratio, level.bits] for name, level in stitched.levels.items}
    about = {"version": 1, "integers": shapes, "levels": levels}
    save_file(tensors, path, metadata={"autoprune": json.dumps(about, separators=(",", ":"))})


def _pack(name: str, one: Integers) -> dict[str, Tensor]:
    import torch

    return {
        f"{name}.codes": torch.from_numpy(pack_dense(one.codes.numpy(), one.bits)),
        f"{name}.scale": one.scale.contiguous(),
        f"{name}.zero": torch.from_numpy(pack_dense(one.zero.numpy(), one.bits)),
    }


def read_packed(folder: Path) -> Stitched:
    """The stitched model that was written into `folder`, exactly.

    Raises:
        AutopruneError: when a file is missing, damaged, or does not fit its config.
    """
    import torch
    import transformers
    from safetensors import SafetensorError, safe_open

    from autoprune.stitch import Stitched

    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["autoprune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise AutopruneError(f"{path} is not a packed model that can be read: {error}") from error
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = transformers.AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise AutopruneError(f"{folder / 'config.json'} describes no model: {error}") from error
    try:
        integers = {
            stem: _unpack(tensors, f"{stem}.weight", tuple(one["shape"]), one["bits"])
            for stem, one in about["integers"].items()
        }
        state = {f"{stem}.weight": one.dequantize() for stem, one in integers.items()}
        levels = _levels(about["levels"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise AutopruneError(f"{path}: its integers do not fit their description: {error!r}") from error
    half = frozenset(
        name.removesuffix(".weight") for name, t in tensors.items()
        if t.dtype.itemsize == 2 and name.endswith(".weight")
    )  # fmt: skip
    state |= {name: t.float() for name, t in tensors.items()}
    _fill_(model.eval(), state, path)
    return Stitched(model, integers, half, {}, levels)


def _unpack(tensors: dict[str, Tensor], name: str, shape: tuple[int, int], bits: int) -> Integers:
    """One weight's integers; its three tensors are taken out of `tensors`."""
    import torch

    from autoprune.compress.integers import Integers

    scale = tensors.pop(f"{name}.scale")
    codes, zero = tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.zero")
    return Integers(
        torch.from_numpy(unpack_dense(codes.numpy(), bits, shape[0] * shape[1])).reshape(shape),
        scale,
        torch.from_numpy(unpack_dense(zero.numpy(), bits, scale.numel())).reshape(scale.shape),
        bits,
    )


def _fill_(model: Any, state: dict[str, Tensor], path: Path) -> None:
    """Give the model's Linear modules the file's shapes, load strictly, and see that it runs."""
    import torch

    from autoprune.stitch import replace_

    own = model.state_dict()
    if unlike := sorted(own.keys() ^ state.keys()):
        where = "not in the file" if unlike[0] in own else "not in the model"
        raise AutopruneError(f"{path} does not fit the config beside it: {unlike[0]} is {where}")
    try:
        for name, tensor in state.items():
            stem, _, last = name.rpartition(".")
            resized = last == "weight" and tensor.ndim == 2 and own[name].shape != tensor.shape
            if resized and isinstance(model.get_submodule(stem), torch.nn.Linear):
                replace_(model, stem, tensor, state.get(f"{stem}.bias"))
        model.load_state_dict(state, strict=True)
        with torch.inference_mode():
            shape = tuple(model(input_ids=torch.zeros(1, 2, dtype=torch.int64)).logits.shape)
    except RuntimeError as error:
        raise AutopruneError(f"{path} does not fit the config beside it: {error}") from error
    if shape != (1, model.config.num_labels):
        raise AutopruneError(
            f"{path} gives {shape[-1]} logits; its config has {model.config.num_labels} labels"
        )


def _levels(data: dict[str, list[float]]) -> Any:
    from autoprune.space import Candidate, Level

    return Candidate(tuple((name, Level(r, int(b))) for name, (r, b) in data.items()))
