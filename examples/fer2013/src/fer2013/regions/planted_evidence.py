"""Test the tools on planted evidence: stripes in one known region determine the class.

A small network learns whether the stripes are vertical or horizontal. As nothing else in the images
depends on the class, heatmaps must highlight that region, and removing it must lower the score
most. The same network with shuffled weights must fail.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import camlens
from camlens import regions

from ..data.faces import SIDE

#: Minimal density of a map that finds the region; a uniform map has density 1.
LEAST_DENSITY = 3.0

_PERIOD = 4  # of the stripes in pixels
_STRENGTH = 0.35


def planted(images: Tensor, region: str, *, steps: int = 150) -> dict[str, Any]:
    """Plant evidence, train a network, and test whether Grad-CAM and ablation find the region.

    Args:
        images: (N, 1, 48, 48) in [0, 1]; the last 200, or a quarter, are test images.
        region: a region of the face template.
        steps: number of training steps with 64 images.

    Returns:
        ``region``; ``accuracy`` on test images, in [0, 1]; ``found``, the fraction of correctly
        classified test images whose heatmap has a density above 3 on the region and whose score
        falls most without it; ``density``, the mean density; ``found_shuffled`` and
        ``density_shuffled``, the same of all test images for shuffled weights.
    """
    held = min(200, len(images) // 4)
    mask = camlens.faces.face_template(SIDE).pick(region).masks[0]
    labels = torch.randint(2, (len(images),), generator=torch.Generator().manual_seed(0))
    pictures = plant(images, mask, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _trained(pictures[:-held], labels[:-held], steps)
        found = _judge(model, pictures[-held:], labels[-held:], region)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
        shuffled = _judge(model, pictures[-held:], None, region)
    del shuffled["accuracy"]
    return {"region": region, **found, **{f"{k}_shuffled": v for k, v in shuffled.items()}}


def plant(images: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Add stripes to (N, 1, H, W) images within the mask: horizontal for 0, vertical for 1."""
    step = torch.arange(images.shape[-1]) % _PERIOD < _PERIOD // 2
    stripes = (step.float() - 0.5) * 2 * _STRENGTH
    upright = stripes.expand(images.shape[-2:])
    pattern = torch.where(labels.view(-1, 1, 1, 1) == 1, upright, upright.T)
    return (images + mask * pattern).clamp(0, 1)


def _trained(pictures: Tensor, labels: Tensor, steps: int) -> nn.Module:
    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]

    model = nn.Sequential(
        *block(1, 16), nn.MaxPool2d(2), *block(16, 32), *block(32, 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        some = torch.randint(len(pictures), (64,))
        loss = nn.functional.cross_entropy(model(pictures[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _judge(
    model: nn.Module, pictures: Tensor, labels: Tensor | None, region: str
) -> dict[str, float]:
    """Return the accuracy, how often the region is found, and its mean density."""
    template = camlens.faces.face_template(SIDE)
    explanation = camlens.GradCAM(model)(pictures)
    scores = regions.score(explanation, template)
    ablation = camlens.faithfulness.ablate_regions(
        model, pictures, template, targets=explanation, placements=4
    )
    place = template.names.index(region)
    density = scores.density[:, 0, place].nan_to_num(0)  # a map without evidence finds nothing
    found = (density > LEAST_DENSITY) & (ablation.excess[:, 0].argmax(dim=-1) == place)
    right = torch.ones_like(found) if labels is None else explanation.targets[:, 0] == labels
    return {
        "accuracy": right.float().mean().item(),
        "found": found[right].float().mean().item(),
        "density": density[right].mean().item(),
    }
