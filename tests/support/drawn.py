"""Weights and moments that are drawn, for tests of what they are stored as."""

from __future__ import annotations

import torch
from torch import Tensor


def random_weight(o: int, i: int, seed: int = 0) -> Tensor:
    """Rows of deviations from a half to two [o i]."""
    return torch.randn(o, i, generator=torch.manual_seed(seed)) * torch.linspace(0.5, 2, o)[:, None]


def random_moment(i: int, seed: int = 1) -> Tensor:
    """Of correlated inputs [i i]."""
    draws = torch.manual_seed(seed)
    x = torch.randn(4 * i, i, generator=draws) @ torch.randn(i, i, generator=draws)
    return x.T @ x / len(x)
