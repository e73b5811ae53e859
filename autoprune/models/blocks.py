"""The consecutive blocks of a model, and how units are shared out among workers by block."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from autoprune.models.unit import Unit


def block_of(model: nn.Module, unit: Unit) -> str:
    """Path of the smallest block that holds a whole unit; empty where there is none."""
    paths = [weight.path.split(".") for weight in unit.weights]
    if any(weight.tied for weight in unit.weights):
        return ""
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    shared = [parts[0] for parts in same]
    for end in range(len(shared), 0, -1):
        if isinstance(model.get_submodule(".".join(shared[: end - 1])), nn.ModuleList):
            return ".".join(shared[:end])
    return ""


def by_block(model: nn.Module, units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units of each block, in order; units outside all blocks stand under the empty path."""
    by_block: dict[str, list[Unit]] = {}
    for unit in units:
        by_block.setdefault(block_of(model, unit), []).append(unit)
    return by_block


def shares(model: nn.Module, units: Sequence[Unit], count: int) -> list[tuple[Unit, ...]]:
    """At most `count` shares of the units: whole consecutive blocks, about the same work in each share.

    Work is counted in weights, as their moments are what takes time; rows that are looked up take none.
    """
    blocks = list(by_block(model, units).values())
    work = [sum(_work(unit) for unit in block) for block in blocks]
    total, before = max(1, sum(work)), 0
    dealt: list[list[Unit]] = [[] for _ in range(count)]
    for block, size in zip(blocks, work, strict=True):
        middle = before + size / 2
        dealt[min(count - 1, int(count * middle / total))] += block
        before += size
    return [tuple(block) for block in dealt if block]


def _work(unit: Unit) -> int:
    return sum(
        weight.rows * weight.columns for weight in unit.weights if weight.tied or not weight.is_embedding
    )
