"""Pictures with planted evidence, and small networks trained on them.

A picture is 48 x 48 pixels of noise with one patch of 8 x 8. The pattern of the patch determines
the class, so the patch is the only evidence, and its position is known.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, PATCH, CLASSES = 48, 8, 4


def patterns() -> Tensor:
    """Return (CLASSES, PATCH, PATCH): stripes across, stripes down, a frame, a chequerboard."""
    row = torch.arange(PATCH)
    stripes = (row // 2 % 2 * 2.0 - 1).expand(PATCH, PATCH)
    edge = (row - (PATCH - 1) / 2).abs()
    frame = (torch.maximum(edge[:, None], edge) > PATCH / 4) * 2.0 - 1
    return torch.stack([stripes.mT, stripes, frame, stripes * stripes.mT])


def pictures(count: int, seed: int, step: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (N, 3, SIZE, SIZE), classes (N,), and masks of the patches (N, SIZE, SIZE).

    The corners of the patches are at multiples of ``step`` pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.randint((SIZE - PATCH) // step + 1, (count, 2), generator=generator) * step
    masks = torch.zeros(count, SIZE, SIZE)
    for image, mask, pattern, (y, x) in zip(
        images, masks, patterns()[classes], corners.tolist(), strict=True
    ):
        image[:, y : y + PATCH, x : x + PATCH] += pattern
        mask[y : y + PATCH, x : x + PATCH] = 1
    return images, classes, masks


def convolutional() -> nn.Module:
    """Return an untrained network of three stages; layer ``features`` has a grid of 12 x 12."""
    stages: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
        stages += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        stages += [nn.MaxPool2d(2)] * (outputs == 16 or inputs == 16)
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(*stages))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(32, CLASSES))
    return model


def transformer() -> nn.Module:
    """Return an untrained vision transformer whose tokens coincide with the patches' positions.

    Raises:
        ImportError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            'a planted transformer needs timm: pip install "camlens[timm]"'
        ) from error
    model: nn.Module = timm.models.VisionTransformer(
        SIZE, PATCH, num_classes=CLASSES, embed_dim=48, depth=3, num_heads=3
    )
    return model


def _trained(
    make: Callable[[], nn.Module], steps: int, rate: float, loss: Callable[[nn.Module, int], Tensor]
) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for step in range(steps):
            optimizer.zero_grad()
            loss(model, 1000 + step).backward()
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()
    return model.eval()


@functools.cache
def trained() -> nn.Module:
    """Return a trained convolutional network in evaluation mode."""

    def loss(model: nn.Module, seed: int) -> Tensor:
        images, classes, _ = pictures(32, seed)
        return functional.cross_entropy(model(images), classes)

    return _trained(convolutional, 200, 3e-3, loss)


@functools.cache
def trained_transformer() -> nn.Module:
    """Return a trained transformer in evaluation mode, for pictures with ``step=PATCH``.

    Each logit independently predicts whether its pattern is present, and a quarter of the training
    pictures have no pattern. With a softmax over the four classes, the network could recognise one
    class by the absence of the others, and the patch would not be the only evidence.
    """

    def loss(model: nn.Module, seed: int) -> Tensor:
        images, classes, _ = pictures(32, seed, step=PATCH)
        present = functional.one_hot(classes, CLASSES).float()
        noise, nothing = torch.randn(8, 3, SIZE, SIZE) * 0.4, torch.zeros(8, CLASSES)
        images, present = torch.cat([images[8:], noise]), torch.cat([present[8:], nothing])
        return functional.binary_cross_entropy_with_logits(model(images), present)

    return _trained(transformer, 600, 2e-3, loss)


def shuffled(model: nn.Module) -> nn.Module:
    """Return a copy of the network with the values of each parameter in random order."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    for parameter in other.parameters():
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.data = parameter.data.flatten()[order].view(parameter.shape)
    return other


def density(heat: Tensor, masks: Tensor) -> Tensor:
    """Return (N,): the patch's share of a map's heat divided by its share of the area."""
    total = heat.flatten(1).sum(dim=1)
    share = (heat * masks).flatten(1).sum(dim=1) / total.where(total > 0, 1)
    return share / (masks.flatten(1).mean(dim=1))
