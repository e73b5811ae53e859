"""torch on an NVIDIA GPU: our packed layout on disk, 8-bit integers multiplied on tensor cores.

Not yet run on a GPU: its arithmetic was checked on the CPU alone, where the same operations exist, and its
speed not at all, so `fast` is empty.

A layer with 8-bit weights and 8-bit activations multiplies integers with `torch._int_mm`, which is what
torchao's int8 layers call too; `torch.compile` fuses the rounding before it and the scaling after it.
`_int_mm` wants rows and columns in multiples of 8 there, and more than 16 rows of input.

All other widths are bytes on disk and floats on the GPU, as with target packed. torchao (0.18) has kernels
for integer weights and float activations, but none for these: its int8 layer with groups makes a float weight
before each product, and its int4 layer rounds scales and activations to bfloat16. So nothing of it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.integers import Integers
from autoprune.core.errors import AutopruneError
from autoprune.models.outputs import outputs_of
from autoprune.space.levels import Level
from autoprune.space.storage import Storage
from autoprune.targets.packed import Packed, read_packed
from autoprune.targets.target import Runner
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.activations import Activations
    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit


PAST = "past_tokens"
"""How many tokens came before those of a language model's batch."""

_MULTIPLE = 8
_FEWEST_ROWS = 17


class Torch:
    """Safetensors on disk, a compiled torch module on the first CUDA device."""

    name = "torch"
    storages = Packed.storages
    fast: frozenset[Storage] = frozenset()
    parts = True
    tolerance = 0.05

    def __init__(self, builder: str | None = None) -> None:
        if not torch.cuda.is_available():
            raise AutopruneError(
                "target torch runs on an NVIDIA GPU, and torch sees none here (its version is "
                f"{torch.__version__}): it needs one, its driver, and a CUDA build of torch. "
                "Without, use target openvino, or packed for torch on the CPU"
            )
        self._packed = Packed(builder=builder)

    def offers(self, unit: Unit, level: Level) -> bool:
        """Every storage; 8-bit activations where the integer kernel takes the shapes."""
        if not level.storage.rounds_inputs:
            return level.storage in self.storages
        shapes = unit.shapes(level.ratio).values()
        fits = all(o % _MULTIPLE == 0 and i % _MULTIPLE == 0 for o, i in shapes)
        return fits and not any(weight.is_embedding or weight.is_conv for weight in unit.weights)

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write what target packed writes."""
        self._packed.save(stitched, folder, example)

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The module on the GPU, compiled; the first batch waits for the compiler."""
        torch.set_num_threads(threads)
        stitched = read_packed(folder, builder=self._packed.builder)
        kind = stitched.architecture.kind
        model = with_integer_products(stitched).to("cuda")
        compiled = compiled_apart(model, kind)

        def run(batch: Batch) -> NDArray[np.float32]:
            if kind.is_tokenized and "input_ids" not in batch:
                raise AutopruneError(f"the model needs input_ids, and got {', '.join(batch) or 'nothing'}")
            inputs = {name: torch.from_numpy(x).to("cuda") for name, x in batch.items() if name != PAST}
            if PAST in batch:  # without a cache all that came before is computed again
                before = inputs["input_ids"].new_zeros(len(inputs["input_ids"]), int(batch[PAST]))
                inputs["input_ids"] = torch.cat([before, inputs["input_ids"]], 1)
            with torch.inference_mode():
                return np.asarray(compiled(inputs).float().cpu().numpy(), np.float32)

        return run

    def defaults(self) -> None:
        """None: autoprune itself runs it."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return self._packed.files(folder)

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """As in target packed."""
        return self._packed.size_bytes(unit, level)


def compiled_apart(
    model: nn.Module, kind: TaskKind, backend: str | Callable[..., Any] = "inductor"
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """A function from inputs to a model's answers, compiled whatever models this process compiled before.

    The compiler keeps what it made with the code that it began at, eight versions at most, and runs all later
    ones uncompiled. That code is the same for all models of a class, so each gets a copy here.
    """

    def answers(inputs: Mapping[str, Tensor]) -> Tensor:
        return outputs_of(model, inputs, kind)

    code = answers.__code__.replace(co_name=f"answers_{next(_COMPILED)}")
    apart = FunctionType(code, answers.__globals__, closure=answers.__closure__)
    compiled: Callable[[Mapping[str, Tensor]], Tensor] = torch.compile(apart, dynamic=True, backend=backend)
    return compiled


_COMPILED = itertools.count()


class IntegerProduct(nn.Module):
    """A Linear that rounds its input to 8 bits and multiplies integers.

    Shapes: n rows of input, i its features, o output features. With codes x of the input, its scale a and
    zero point z, and signed codes w of the weight with a scale b for each row of it,
    y = a b (x w^T - z sum_i w) + bias (Jacob et al., arXiv 1712.05877, eq. 7).
    """

    codes: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, weight: Integers, grid: Activations, bias: Float[Tensor, " o"] | None) -> None:
        super().__init__()
        codes = weight.codes.to(torch.int16) - 128
        self.grid = grid
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scale", grid.scale * weight.scale[:, 0].float())
        self.register_buffer("shift", (grid.zero - 128) * codes.sum(1, dtype=torch.int32))

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        flat = x.reshape(-1, x.shape[-1])
        count = flat.shape[0]
        # Signed codes; times the inverse and rounded after the zero point, as the model was tuned with.
        rounded = (flat * (1.0 / self.grid.scale)).round() + (self.grid.zero - 128)
        codes = rounded.clamp(-128, 127).to(torch.int8)
        if count < _FEWEST_ROWS:
            codes = nn.functional.pad(codes, (0, 0, 0, _FEWEST_ROWS - count))
        product = torch._int_mm(codes, self.codes.t())[:count]
        out = (product - self.shift) * self.scale
        return (out if self.bias is None else out + self.bias).reshape(*x.shape[:-1], -1)


def with_integer_products(stitched: Stitched) -> nn.Module:
    """The model, which is changed, with an `IntegerProduct` for each layer with 8-bit activations."""
    integers = stitched.stored_as(Integers)
    for path, grid in stitched.activations.items():
        if isinstance(stitched.model.get_submodule(path), nn.Conv2d):
            continue  # it rounds its input and computes with floats
        parent, _, name = path.rpartition(".")
        bias: Tensor | None = stitched.model.get_submodule(path).bias  # type: ignore[assignment]
        setattr(stitched.model.get_submodule(parent), name, IntegerProduct(integers[path], grid, bias))
    return stitched.model
