"""gguf: one file that llama.cpp runs, for classifiers of the BERT architecture.

What the format's kinds of blocks can hold of our integers, in blocks of 32 weights of a row:

    bits 4        Q4_1: value = d * code + m. d is our scale, m = -scale * zero rounded to a half float: ours
                  to within 2^-11 of |scale * zero|. 5 bits a weight, since every block has its own d and m
    mxfp4         MXFP4: value = d * code, d a power of two, code a 4-bit float. Ours exactly: 4.25 bits a
                  weight, in a search only where the space file names it
    8 with 8-bit  Q8_0: value = d * code, code int8. Ours exactly, the row's scale in each block: 8.5 bits a
    activations   weight. llama.cpp rounds the input to 8 bits in blocks as it comes, finer than our grid of
                  a whole layer, and multiplies integers
    bits 16, 32   F16, F32: exactly

Other widths have no kind that could hold them as they are: the K-quants round scales to 4 or 6 bits, and 8
bits with a zero point reach beyond int8. So 2, 3, 6 and plain 8 bits are not offered, nor is a unit whose
groups are no whole blocks. llama.cpp's BERT has one width for all layers (`llama_model_bert`), so no rows
are removed.

Only BertForSequenceClassification is taken: embeddings, layers, pooler (tensor `cls`, tanh) and classifier
(`cls.output`, pooling type rank) are what llama.cpp computes, GELU by its tanh approximation. DistilBERT has
ReLU before its classifier, where llama.cpp has tanh. Segment types are zero there: pairs of texts are
refused. The vocabulary is written where the folder has a WordPiece `tokenizer.json`, so that llama.cpp takes
text; else the file takes tokens alone.

`load` runs the file with llama.cpp where `llama-cpp-python` is installed, which is compiled at install. Else
it decodes the file with the `gguf` package and runs it with torch: then bytes and logits are the file's own
(activations are not rounded), but milliseconds are torch's. llama.cpp was never faster than torch's float32
on the same CPU, so no width counts as fast (docs/decisions/019-rounding-and-speed-of-other-runtimes.md).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.space.fixed_grid_storages import MicroscalingFloats
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import STATIC8, GroupedIntegers, Storage, group_size_for, storages_of
from autoprune.targets.gguf.file import BLOCK, GgufFile, check_architecture, write_gguf
from autoprune.targets.target import Runner
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit


FILE = "model.gguf"

MXFP4 = MicroscalingFloats()

_BLOCK_BYTES: dict[Storage, int] = {GroupedIntegers(4): 20, STATIC8: 34, MXFP4: 17}
"""Of 32 weights: Q4_1, Q8_0 and MXFP4."""

ALIGNMENT = 32
"""Of a tensor in the file, in bytes (`general.alignment` of the format)."""


class Gguf:
    """A .gguf file on disk, llama.cpp (or torch, where that is missing) in memory."""

    name = "gguf"
    storages = frozenset(storages_of((4, 8, MXFP4.name, STATIC8.name, 16, 32)))
    fast: frozenset[Storage] = frozenset()
    parts = False
    tolerance = 0.1

    def __init__(self) -> None:
        if importlib.util.find_spec("gguf") is None:
            raise AutopruneError(
                "target gguf needs a package that is not installed: pip install 'autoprune[gguf]'"
            )

    def offers(self, unit: Unit, level: Level) -> bool:
        """4 bits, MXFP4 and 8 with 8-bit activations in whole blocks, and floats; no row is removed."""
        if (
            level.ratio > 0
            or level.storage not in self.storages
            or any(weight.is_conv for weight in unit.weights)
        ):
            return level == UNTOUCHED
        if level.storage.rounds_inputs:
            return all(weight.columns % BLOCK == 0 and not weight.is_embedding for weight in unit.weights)
        if level.storage == GroupedIntegers(4):
            return all(
                group_size_for(weight.columns, unit.group_size) % BLOCK == 0 for weight in unit.weights
            )
        if level.storage == MXFP4:
            return all(weight.columns % BLOCK == 0 for weight in unit.weights)
        return level.storage.is_float

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write `model.gguf`, with the vocabulary of a tokenizer in `folder`; and the config.

        Raises:
            AutopruneError: for another architecture, a level that is not offered, or pairs of texts.
        """
        _check_types(example)
        check_architecture(stitched.model)
        _check_levels(stitched)
        write_gguf(stitched, folder / FILE, tokenizer=folder / "tokenizer.json")
        stitched.model.config.save_pretrained(folder)  # type: ignore[union-attr, operator]

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The file in llama.cpp; in torch where llama.cpp is not installed.

        Raises:
            AutopruneError: when a file is missing, damaged, or does not fit the config beside it.
        """
        file = GgufFile(folder / FILE)
        if importlib.util.find_spec("llama_cpp") is None:
            import torch

            from autoprune.targets.packed import torch_runner

            torch.set_num_threads(threads)
            run: Runner = torch_runner(file.decoded())
        else:
            from autoprune.targets.gguf.llama_cpp import Llama

            run = Llama(folder / FILE, threads=threads)

        def checked(batch: Batch) -> NDArray[np.float32]:
            if "input_ids" not in batch:
                raise AutopruneError(f"the model needs input_ids, and got {', '.join(batch) or 'nothing'}")
            _check_types(batch)
            return run(batch)

        return checked

    def defaults(self) -> None:
        """None: `load` sets nothing of llama.cpp but lengths and threads."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The one file."""
        return [folder / FILE]

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """Bytes of a unit that is offered at a level: every block has its own scale."""
        if level.storage.is_float:
            return unit.size_bytes(level)
        biases = sum(4 * weight.rows for weight in unit.weights if weight.has_bias)
        blocks = [weight.rows * weight.columns // BLOCK for weight in unit.weights]
        return biases + sum(_aligned(count * _BLOCK_BYTES[level.storage]) for count in blocks)


def _aligned(size_bytes: int) -> int:
    """Bytes that a tensor takes in the file, where each begins at a multiple of `ALIGNMENT`."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _check_types(batch: Batch) -> None:
    """Raise where tokens have segment types that llama.cpp would not see."""
    types = batch.get("token_type_ids")
    if types is not None and types.any():
        raise AutopruneError(
            "target gguf takes single texts: llama.cpp gives every token of a BERT segment type 0, and these "
            "rows have others. Use target openvino, onnx or packed for pairs of texts"
        )


def _check_levels(stitched: Stitched) -> None:
    """Raise where a level is one that the format cannot hold."""
    elsewhere = "Search with this target, or export to openvino or packed"
    if pruned := [name for name, level in stitched.levels.items if level.ratio > 0]:
        raise AutopruneError(
            f"target gguf cannot store {pruned[0]} with rows removed: llama.cpp gives every layer of a BERT "
            f"the same width. {elsewhere}"
        )
    from autoprune.compress.fixed_grids import FixedGridWeight
    from autoprune.compress.integers import Integers

    for path, on_grid in stitched.stored_as(FixedGridWeight).items():
        if on_grid.storage != MXFP4 or on_grid.shape[1] % BLOCK:
            raise AutopruneError(
                f"target gguf cannot store {path} as {on_grid.storage.name} in rows of {on_grid.shape[1]}: "
                f"of such storages it has {MXFP4.name}, in rows of a multiple of {BLOCK}. {elsewhere}"
            )
    for path, weight in stitched.stored_as(Integers).items():
        if path in stitched.activations and weight.is_symmetric and weight.codes.shape[1] % BLOCK == 0:
            continue
        if weight.bits != 4 or weight.group_size % BLOCK:
            raise AutopruneError(
                f"target gguf cannot store {path} with {weight.bits} bits in groups of {weight.group_size}: "
                f"it has 4 bits in groups of a multiple of {BLOCK}, 8 with 8-bit activations, 16 and 32. "
                f"{elsewhere}"
            )
