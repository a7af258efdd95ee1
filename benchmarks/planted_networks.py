"""Pictures with planted evidence, and small networks trained on them from scratch.

A picture is 128 px of noise with one patterned patch of 12 px; which pattern it is decides the
class, so the patch is the only evidence and its place is known. The networks end in a grid of
8x8 cells of 16 px and differ in how they get there, which decides where a cell looks.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, PATCH, CLASSES = 128, 12, 4
#: The layer to explain, in every network: the last one with a grid.
LAYER = "features"
WEIGHTS = Path(__file__).resolve().parent / ".planted"
#: The patch stays this far from the border, so that the heat around it is not cut off.
_MARGIN = 20
_BATCH = 32


def patterns() -> Tensor:
    """Return (CLASSES, 3, PATCH, PATCH): stripes across, stripes down, a ring, a chequerboard."""
    row = torch.arange(PATCH)
    stripes = (row // 3 % 2 * 2.0 - 1).expand(PATCH, PATCH)
    middle = row - (PATCH - 1) / 2
    radius = (middle[:, None] ** 2 + middle**2).sqrt()
    ring = ((radius > 2.5) & (radius < 5)) * 2.0 - 1
    shapes = torch.stack([stripes.mT, stripes, ring, stripes * stripes.mT])
    return shapes[:, None].expand(-1, 3, -1, -1)


def pictures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pictures.

    Returns:
        Images (N, 3, SIZE, SIZE), classes (N,), and the patches' centres (N, 2), y and x in pixels
        (pixel i spans [i, i + 1]).
    """
    coarse = torch.randn(count, 3, 16, 16, generator=generator)
    images = functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear") * 0.5
    images += 0.3 * torch.randn(images.shape, generator=generator)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.randint(_MARGIN, SIZE - _MARGIN - PATCH + 1, (count, 2), generator=generator)
    contrast = 0.6 + 0.6 * torch.rand(count, generator=generator)
    patches = patterns()[classes] * contrast[:, None, None, None]
    for image, patch, (y, x) in zip(images, patches, corners.tolist(), strict=True):
        image[:, y : y + PATCH, x : x + PATCH] += patch
    return images, classes, corners + PATCH / 2


class _Block(nn.Module):
    """A residual block that halves the grid, with a projection shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv(inputs, outputs, stride=2),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


def _conv(inputs: int, outputs: int, stride: int, padding: int = 1) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU()


def _strided(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield from _conv(inputs, outputs, stride=2)


def _residual(inputs: int, outputs: int) -> Iterator[nn.Module]:
    if inputs == 3:
        yield from _conv(inputs, outputs, stride=2)
    else:
        yield _Block(inputs, outputs)


def _tensorflow(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield nn.ZeroPad2d((0, 1, 0, 1))  # "SAME" on an even size: only right and bottom
    yield from _conv(inputs, outputs, stride=2, padding=0)


def _pooled(inputs: int, outputs: int) -> Iterator[nn.Module]:
    yield from _conv(inputs, outputs, stride=1)
    yield nn.MaxPool2d(2)


#: By name: the layers of a stage, which halves the grid.
VARIANTS: dict[str, Callable[[int, int], Iterator[nn.Module]]] = {
    "strided": _strided,
    "residual": _residual,
    "tensorflow": _tensorflow,
    "pooled": _pooled,
}


def network(variant: str) -> nn.Module:
    """Return an untrained network of four stages, the mean over the grid and a linear layer."""
    widths = (3, 8, 16, 32, 64) if variant == "pooled" else (3, 16, 32, 64, 64)
    stages = [m for pair in itertools.pairwise(widths) for m in VARIANTS[variant](*pair)]
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(*stages))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(widths[-1], CLASSES))
    return model


def trained(variant: str, seed: int, steps: int) -> nn.Module:
    """Return a trained network in eval mode, from ``WEIGHTS`` where it was trained before."""
    file = WEIGHTS / f"{variant}-{seed}-{steps}.pt"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = network(variant)
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    start = time.perf_counter()
    loss = _train(model, steps, torch.Generator().manual_seed(seed))
    print(f"{variant} {seed}: loss {loss:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    WEIGHTS.mkdir(exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def _train(model: nn.Module, steps: int, generator: torch.Generator) -> float:
    """Train on fresh pictures at every step; return the mean loss of the last twentieth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        images, classes, _ = pictures(_BATCH, generator)
        loss = functional.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 20) :]
    return sum(last) / len(last)
