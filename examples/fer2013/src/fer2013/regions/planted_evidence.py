"""A test of the tools themselves: evidence planted in one known region must be found there.

Stripes are laid over one region of each face, upright or level, and a small network learns to tell
which. Nothing else in the picture says anything, so a method that works points at that
region, and taking it away is what costs the score. The same network with its weights shuffled
has learnt nothing, and must not pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import camlens
from camlens import regions

from ..data.faces import SIDE

#: A map that knows nothing has density 1.
LEAST_DENSITY = 3.0

_PERIOD = 4  # pixels of one dark and light stripe
_STRENGTH = 0.35


def planted(images: Tensor, region: str, *, seed: int = 0, steps: int = 150) -> dict[str, Any]:
    """Plant evidence, train a network on it, and look where Grad-CAM and the check find it.

    Args:
        images: (N, 1, 48, 48) in [0, 1]; the last 200 are not trained on.
        region: a region of the face template.
        seed: of everything random.
        steps: training steps of 64 pictures.

    Returns:
        ``region``; ``accuracy`` of the trained network on new pictures, in [0, 1]; ``found``, the
        share of the correctly classified pictures whose heatmap has a density over 3 on the region
        and whose score falls most without that region; ``density``, the mean on the region;
        ``found_shuffled`` and ``density_shuffled``, the same of all pictures, by the network with
        shuffled weights.
    """
    held = min(200, len(images) // 4)
    mask = camlens.faces.face_template(SIDE).pick(region).masks[0]
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (len(images),), generator=random)
    pictures = plant(images, mask, labels)
    # The default generator is used by layers; the caller's is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _trained(pictures[:-held], labels[:-held], steps)
        found = _judge(model, pictures[-held:], labels[-held:], region)
        _shuffle(model)
        shuffled = _judge(model, pictures[-held:], None, region)
    del shuffled["accuracy"]
    return {"region": region, **found, **{f"{k}_shuffled": v for k, v in shuffled.items()}}


def plant(images: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Lay stripes over (N, 1, H, W) images where the mask is: level for 0, upright for 1."""
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
    """Return accuracy, how often the planted region is found, and its mean density."""
    template = camlens.faces.face_template(SIDE)
    explanation = camlens.GradCAM(model)(pictures)
    scores = regions.score(explanation, template)
    ablation = camlens.faithfulness.ablate_regions(
        model, pictures, template, targets=explanation, placements=4
    )
    place = template.names.index(region)
    density = scores.density[:, 0, place].nan_to_num(0)  # no evidence is not found
    found = (density > LEAST_DENSITY) & (ablation.excess[:, 0].argmax(dim=-1) == place)
    right = torch.ones_like(found) if labels is None else explanation.targets[:, 0] == labels
    return {
        "accuracy": right.float().mean().item(),
        "found": found[right].float().mean().item(),
        "density": density[right].mean().item(),
    }


def _shuffle(model: nn.Module) -> None:
    """Permute the values inside each of a network's weights."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
