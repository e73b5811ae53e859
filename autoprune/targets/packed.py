"""Our own safetensors layout: 2 to 8 bit integers really packed. Smallest file, float kernels.

`<path>.weight.codes` holds a weight's codes as one dense stream of bits, `.scale` its half-float
scales [o g], `.zero` its zero points, packed like the codes. Shapes and bits are in the file's
metadata under "autoprune". Everything else is stored under its own name, so a model is rebuilt from
its `config.json` and this file: modules get the shapes the file has, then a strict load.

With storage "entropy" a tensor that gets smaller by it is a Zstandard stream (`compress.entropy`); the
metadata's "coded" says which, and what it was. What is loaded is the same, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress import entropy
from autoprune.compress.activations import Activations
from autoprune.compress.packing import pack_dense
from autoprune.errors import AutopruneError
from autoprune.space import Level, Width
from autoprune.targets.contract import Runner
from autoprune.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.compress.integers import Integers
    from autoprune.stitch import Stitched
    from autoprune.units import Unit

WEIGHTS = "model.safetensors"

PLAIN, ENTROPY = "plain", "entropy"
STORAGES = (PLAIN, ENTROPY)
"""Tensors as they are, or entropy-coded where that makes them smaller."""


class Packed:
    """Safetensors on disk, a plain torch module in memory.

    storage: how `save` stores; `load` reads either.
    """

    name = "packed"
    bits = frozenset({2, 3, 4, 6, 8, 16, 32})
    fast: frozenset[Width] = frozenset()
    integer = True
    tolerance = 1e-4

    def __init__(self, storage: str = PLAIN) -> None:
        self.storage = storage

    def offers(self, unit: Unit, level: Level) -> bool:
        """Whatever is a level; 8-bit activations, which torch computes no faster, only where trained for.

        A search for this target has no use for them, but a model made for another can be kept in it.
        """
        return level.bits in self.bits and not level.is_integer

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.safetensors` and the config that `load` builds the module from."""
        write_packed(stitched, folder / WEIGHTS, storage=self.storage)
        stitched.model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Rebuild the module and run it with torch."""
        import torch

        torch.set_num_threads(threads)
        return torch_runner(read_packed(folder).model)

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return [folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """The weights, and the header text of the extra tensors of each that is compressed."""
        return unit.size_bytes(level) + len(unit.weights) * {16: 0, 32: 0}.get(level.bits, 303)


def torch_runner(model: Any) -> Runner:
    """A torch module as a runner."""
    import torch

    def run(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(x) for name, x in batch.items()}).logits
            return np.asarray(logits.float().numpy(), dtype=np.float32)

    return run


def write_packed(stitched: Stitched, path: Path, *, storage: str = PLAIN) -> None:
    """Write a stitched model's tensors, integers packed, and coded where `storage` asks for it."""
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
    levels = {name: [level.ratio, level.width] for name, level in stitched.levels.items}
    grids = {path: [one.scale, one.zero] for path, one in stitched.activations.items()}
    about = {"version": 1, "integers": shapes, "levels": levels, "activations": grids}
    if storage == ENTROPY:
        tensors, about["coded"] = entropy.code_all(tensors, stitched.integers)
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
    from safetensors import SafetensorError, safe_open

    from autoprune.stitch import Stitched

    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["autoprune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise AutopruneError(f"{path} is not a packed model that can be read: {error}") from error
    model = _module(folder)
    try:
        limits = {name: own.numel() for name, own in model.state_dict().items()}
        stored = entropy.Stored(tensors, about.get("coded", {}), limits)
        integers = {
            stem: stored.take_integers(f"{stem}.weight", tuple(one["shape"]), one["bits"])
            for stem, one in about["integers"].items()
        }
        state = {f"{stem}.weight": one.dequantize() for stem, one in integers.items()}
        levels = _levels(about["levels"])
        grids = {p: Activations(float(s), int(z)) for p, (s, z) in about.get("activations", {}).items()}
        rest = {name: stored.take(name, name) for name in list(tensors)}
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AutopruneError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise AutopruneError(f"{path}: its tensors do not fit their description: {what}") from error
    half = frozenset(
        name.removesuffix(".weight")
        for name, t in rest.items()
        if t.dtype.itemsize == 2 and name.endswith(".weight")
    )
    state |= {name: t.float() for name, t in rest.items()}
    _fill_(model, state, grids, path)
    return Stitched(model, integers, half, {}, levels)


def _module(folder: Path) -> Any:
    """The model that `config.json` describes, uncompressed, its weights still to come."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = transformers.AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise AutopruneError(f"{folder / 'config.json'} describes no model: {error}") from error
    return model.eval()


def _fill_(model: Any, state: dict[str, Tensor], grids: dict[str, Activations], path: Path) -> None:
    """Give the model's Linear modules the file's shapes and grids, load strictly, and see that it runs."""
    import torch

    from autoprune.stitch import replace_

    own = model.state_dict()
    if unlike := sorted(own.keys() ^ state.keys()):
        where = "not in the file" if unlike[0] in own else "not in the model"
        raise AutopruneError(f"{path} does not fit the config beside it: {unlike[0]} is {where}")
    try:
        for name, tensor in state.items():
            stem, _, last = name.rpartition(".")
            is_new = tensor.ndim == 2 and (own[name].shape != tensor.shape or stem in grids)
            if last == "weight" and is_new and isinstance(model.get_submodule(stem), torch.nn.Linear):
                replace_(model, stem, tensor, state.get(f"{stem}.bias"), grids.get(stem))
        model.load_state_dict(state, strict=True)
        with torch.inference_mode():
            shape = tuple(model(input_ids=torch.zeros(1, 2, dtype=torch.int64)).logits.shape)
    except RuntimeError as error:
        raise AutopruneError(f"{path} does not fit the config beside it: {error}") from error
    if shape != (1, model.config.num_labels):
        raise AutopruneError(
            f"{path} gives {shape[-1]} logits; its config has {model.config.num_labels} labels"
        )


def _levels(data: dict[str, list[Any]]) -> Any:
    from autoprune.space import Candidate, Level

    return Candidate(tuple((name, Level.of(float(r), width)) for name, (r, width) in data.items()))
