"""Our own safetensors layout: 2 to 8 bit integers really packed. Smallest file, float kernels.

`<path>.weight.codes` holds a weight's codes as one dense stream of bits, `.scale` its half-float scales
[o g], `.zero` its zero points, packed like the codes; other storages have the parts that `Storage.parts`
names. The metadata under "autoprune" has shapes, bits or storages, and each unit's level but untouched. All
else is stored under its own name: a model is rebuilt from `config.json` and this file (`packed_module`). With
storage "entropy" a tensor that gets smaller by it is a Zstandard stream (`compress.entropy`), named in
"coded"; loaded it is the same bits.
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
from autoprune.compress.integers import Integers
from autoprune.compress.packing import pack_dense
from autoprune.compress.stored import HalfFloats, StoredWeight
from autoprune.compress.ways import way_of
from autoprune.core.errors import AutopruneError
from autoprune.models.spec import Architecture
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import OPTIONAL, STATIC8, Storage, storage_of, storages_of
from autoprune.targets.packed_header import header_bytes
from autoprune.targets.packed_module import PLACES, check_answers, empty_module, fill_
from autoprune.targets.target import ENTROPY, PLAIN, Runner
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit

WEIGHTS = "model.safetensors"


class Packed:
    """Safetensors on disk, a plain torch module in memory.

    storage: how `save` stores; `load` reads either. builder: function that may be called for a model that
    is not from transformers.
    """

    name = "packed"
    storages = frozenset(storages_of((2, 3, 4, 6, 8, STATIC8.name, 16, 32))) | frozenset(OPTIONAL)
    fast: frozenset[Storage] = frozenset()
    parts = True
    tolerance = 1e-4

    def __init__(self, storage: str = PLAIN, builder: str | None = None) -> None:
        self.storage, self.builder = storage, builder

    def offers(self, unit: Unit, level: Level) -> bool:
        """Whatever is a level; 8-bit activations, which torch computes no faster, only where trained for.

        A search for this target has no use for them, but a model made for another can be kept in it.
        """
        return level.storage in self.storages and not level.storage.rounds_inputs

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.safetensors` and the config that `load` builds the module from."""
        write_packed(stitched, folder / WEIGHTS, storage=self.storage)
        stitched.architecture.write(folder)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """Rebuild the module and run it with torch."""
        import torch

        torch.set_num_threads(threads)
        stitched = read_packed(folder, builder=self.builder)
        return torch_runner(stitched.model, stitched.architecture.kind)

    def defaults(self) -> None:
        """None: autoprune itself runs it."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return [folder / WEIGHTS]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """The weights, and what the header says of them more than of the original's."""
        return unit.size_bytes(level) + header_bytes(unit, level)


def torch_runner(model: Any, kind: TaskKind = TEXT_CLASSIFICATION) -> Runner:
    """A torch module as a runner, for a kind of task."""
    import torch

    from autoprune.models.outputs import outputs_of

    def run(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            past = batch.get("past_tokens")
            inputs = {name: torch.from_numpy(x) for name, x in batch.items() if name != "past_tokens"}
            if past is not None:  # without a cache all that came before is computed again
                before = torch.zeros(len(inputs["input_ids"]), int(past), dtype=torch.int64)
                inputs["input_ids"] = torch.cat([before, inputs["input_ids"]], 1)
            logits = outputs_of(model, inputs, kind)
            return np.asarray(logits.float().numpy(), dtype=np.float32)

    return run


def write_packed(stitched: Stitched, path: Path, *, storage: str = PLAIN) -> None:
    """Write a stitched model's tensors, integers packed, and coded where `storage` asks for it."""
    from safetensors.torch import save_file

    from autoprune.models.state import state_of

    tensors: dict[str, Tensor] = {}
    shapes: dict[str, dict[str, Any]] = {}
    for name, tensor in state_of(stitched.model).items():
        stem = name.removesuffix(".weight")
        weight = stitched.stored.get(stem) if name.endswith(".weight") else None
        tensors |= packed_tensors(name, tensor, weight)
        if weight is not None and not weight.storage.is_float:
            how = {"bits": weight.bits} if isinstance(weight, Integers) else {"storage": weight.storage.name}
            shapes[stem] = {"shape": list(weight.shape), **how}
    changed = {name: level for name, level in stitched.levels.items if level != UNTOUCHED}
    levels = {name: [level.ratio, level.storage.written] for name, level in changed.items()}
    grids = {path: [grid.scale, grid.zero] for path, grid in stitched.activations.items()}
    about = {"version": 1, "integers": shapes, "levels": levels, "activations": grids}
    if storage == ENTROPY:
        tensors, coded = entropy.code_all(tensors, stitched.stored)
        about |= {"coded": coded} if coded else {}
    save_file(tensors, path, metadata={"autoprune": json.dumps(about, separators=(",", ":"))})


def packed_tensors(name: str, tensor: Tensor, weight: StoredWeight | None = None) -> dict[str, Tensor]:
    """What a plain file has of a model's tensor: of a weight that is stored in parts these, packed."""
    import torch

    if weight is None or weight.storage.is_float:
        return {name: (tensor.half() if isinstance(weight, HalfFloats) else tensor).contiguous()}
    widths = weight.widths()
    return {
        f"{name}.{part}": torch.from_numpy(pack_dense(tensor.numpy(), widths[part]))
        if part in widths
        else tensor.contiguous()
        for part, tensor in weight.tensors().items()
    }


def read_packed(folder: Path, *, builder: str | None = None) -> Stitched:
    """The stitched model that was written into `folder`, exactly.

    Args:
        builder: of a model that is not from transformers the function that may be called for an empty one;
            a file alone makes nothing run.

    Raises:
        AutopruneError: when a file is missing, damaged, or does not fit its config.
    """
    from safetensors import SafetensorError, safe_open

    from autoprune.compress.stitch import Stitched
    from autoprune.models.split_embedding import limits_of_parts

    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["autoprune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise AutopruneError(f"{path} is not a packed model that can be read: {error}") from error
    architecture = Architecture.read(folder)
    model = empty_module(folder, architecture, builder)
    try:
        limits = {name: own.numel() for name, own in model.state_dict().items()}
        limits |= limits_of_parts(model)
        limits |= {f"{name.removesuffix('.weight')}{PLACES}": size for name, size in limits.items()}
        stored = entropy.CodedFile(tensors, about.get("coded", {}), limits)
        weights = {stem: _taken(stored, stem, entry) for stem, entry in about["integers"].items()}
        state = {f"{stem}.weight": weight.dequantize() for stem, weight in weights.items()}
        levels = _levels(about["levels"])
        grids = {p: Activations(float(s), int(z)) for p, (s, z) in about.get("activations", {}).items()}
        rest = {name: stored.take(name, name) for name in list(tensors)}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AutopruneError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise AutopruneError(f"{path}: its tensors do not fit their description: {what}") from error
    stored_weights: dict[str, StoredWeight] = weights | {
        name.removesuffix(".weight"): HalfFloats(t.flatten(1) if t.ndim > 1 else t[:, None])
        for name, t in rest.items()
        if t.dtype.itemsize == 2 and name.endswith(".weight")
    }
    state |= {name: t.float() if t.is_floating_point() else t for name, t in rest.items()}
    fill_(model, state, grids, path)
    check_answers(model, architecture, path)
    return Stitched(model, stored_weights, levels, architecture)


def _taken(file: entropy.CodedFile, stem: str, entry: dict[str, Any]) -> StoredWeight:
    """A weight as the file describes it."""
    rows, columns = (int(size) for size in entry["shape"])
    if "storage" not in entry:
        return file.take_integers(f"{stem}.weight", (rows, columns), entry["bits"])
    storage = storage_of(entry["storage"])
    if storage not in OPTIONAL:
        raise ValueError(f"{stem} is stored as {storage.name}, which has no parts")
    weight = way_of(storage).read(file.parts_of(f"{stem}.weight"), storage, (rows, columns))
    assert weight is not None  # only float32 has no stored weight
    return weight


def _levels(data: dict[str, list[Any]]) -> Any:
    from autoprune.space.levels import Candidate, Level

    return Candidate(tuple((name, Level.of(float(r), written)) for name, (r, written) in data.items()))
