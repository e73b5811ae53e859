"""How the zoo's models of images are trained, and what they get right. Shapes: n images, h x w pixels."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.evaluation.finetune import rate_share

log = logging.getLogger(__name__)
Images = dict[str, dict[str, Any]]
"""By split, the columns `image` (uint8 [n h w 3]) and `label` (n names)."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW, rates as in a fine-tune (warm-up, then a cosine to a tenth).

    mean, std: what pixels of 0 to 1 are normalised with. turned, shifted: largest rotation in degrees and
    shift in pixels of an image before it is shown. flipped: also mirrored and turned by right angles.
    """

    epochs: int
    rate: float
    decay: float
    mean: float
    std: float
    batch: int = 32
    smoothing: float = 0.1
    turned: float = 0.0
    shifted: float = 0.0
    flipped: bool = False


def train(model: nn.Module, data: Images, labels: tuple[str, ...], recipe: Recipe) -> dict[str, Any]:
    """Train in place; what it then gets right of validation and test, in percent."""
    start = time.perf_counter()
    torch.set_num_threads(1)  # sums in one order, so that the weights are the same again
    image, answer = _tensors(data["train"], labels)
    steps = recipe.epochs * (len(answer) // recipe.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: rate_share(k, steps))
    order = torch.cat([torch.randperm(len(answer)) for _ in range(recipe.epochs + 1)])
    model.train()
    for step in range(steps):
        rows = order[step * recipe.batch : (step + 1) * recipe.batch]
        logits = _logits(model, _normal(_varied(image[rows], recipe), recipe))
        loss = nn.functional.cross_entropy(logits, answer[rows], label_smoothing=recipe.smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            log.info("step %d of %d: loss %.3f", step, steps, loss.item())
    model.eval()
    right = {name: _right(model, *_tensors(data[name], labels), recipe) for name in ("validation", "test")}
    size = sum(parameter.numel() for parameter in model.parameters())
    return {"accuracy": right, "parameters": size, "seconds": round(time.perf_counter() - start)}


def _tensors(part: dict[str, Any], labels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Images as uint8 [n 3 h w], and the numbers of their classes [n]."""
    return (
        torch.from_numpy(part["image"]).permute(0, 3, 1, 2),
        torch.tensor([labels.index(name) for name in part["label"]]),
    )


def _normal(image: Tensor, recipe: Recipe) -> Tensor:
    """Pixels 0 to 255 as the model wants them."""
    return (image.float() / 255 - recipe.mean) / recipe.std


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    out = model(image)
    logits: Tensor = getattr(out, "logits", out)
    return logits


def _varied(image: Tensor, recipe: Recipe) -> Tensor:
    """Each image turned and shifted a little, or flipped, at random; black is what comes into view."""
    count, _, height, width = image.shape
    if recipe.flipped:
        quarters, mirrored = torch.randint(4, (count,)), torch.rand(count) < 0.5
        turned = [torch.rot90(picture, int(k), (1, 2)) for picture, k in zip(image, quarters, strict=True)]
        return torch.stack(
            [picture.flip(2) if m else picture for picture, m in zip(turned, mirrored, strict=True)]
        )
    angle = torch.deg2rad((2 * torch.rand(count) - 1) * recipe.turned)
    shift = (2 * torch.rand(count, 2) - 1) * recipe.shifted * 2 / torch.tensor([width, height])
    cos, sin = angle.cos(), angle.sin()
    top, low = torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)
    grid = nn.functional.affine_grid(torch.stack([top, low], 1), list(image.shape), align_corners=False)
    return nn.functional.grid_sample(image.float(), grid, align_corners=False)


def _right(model: nn.Module, image: Tensor, answer: Tensor, recipe: Recipe) -> float:
    """Share of images put into their class, percent."""
    with torch.inference_mode():
        parts = zip(image.split(100), answer.split(100), strict=True)
        hits = sum(int((_logits(model, _normal(x, recipe)).argmax(-1) == y).sum()) for x, y in parts)
    return 100 * hits / len(answer)
