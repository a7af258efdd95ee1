"""Pictures of concepts, drawn in one colour each over the image."""

from __future__ import annotations

import torch
from torch import Tensor

from .overlays import as_rgb

#: Colours that remain distinct with colour blindness (Okabe and Ito 2008), without black.
COLORS = (
    *((0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45), (0.94, 0.89, 0.26)),
    *((0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65)),
)


def concepts(images: Tensor, heat: Tensor, *, alpha: float = 0.6) -> Tensor:
    """Draw each image's concepts in colours; each pixel shows its strongest concept.

    Args:
        images: (N, 1, H, W) grey or (N, 3, H, W) RGB, uint8, or floating point in [0, 1].
        heat: (N, F, H, W) in [0, 1], for at most as many concepts as there are ``COLORS`` (7).
        alpha: weight of the colour where the concept's heat is 1; the image, drawn in grey, has the
            remaining weight.

    Returns:
        (N, 3, H, W) uint8 on the images' device.

    Raises:
        TypeError: the images are neither uint8 nor floating point.
        ValueError: a shape or range is wrong, or there are too many concepts.

    Example:
        >>> heat = torch.zeros(1, 2, 1, 2)
        >>> heat[0, 0, 0, 0] = 1.0
        >>> concepts(torch.zeros(1, 3, 1, 2), heat, alpha=1.0).tolist()
        [[[[230, 0]], [[158, 0]], [[0, 0]]]]
    """
    grey = as_rgb(images).mean(dim=1, keepdim=True)
    n, size = len(grey), grey.shape[2:]
    if heat.ndim != 4 or len(heat) != n or heat.shape[2:] != size:
        raise ValueError(
            f"expected heat of concepts as ({n}, F, {size[0]}, {size[1]}), got {tuple(heat.shape)}"
        )
    if not 1 <= heat.shape[1] <= len(COLORS):
        raise ValueError(
            f"expected 1 to {len(COLORS)} concepts, one for each colour, got {heat.shape[1]}"
        )
    strength, which = heat.float().max(dim=1, keepdim=True)
    table = torch.tensor(COLORS, device=heat.device)
    colors = table[which.squeeze(1)].movedim(-1, 1)
    weight = alpha * strength.clamp(0, 1)
    blended = grey * (1 - weight) + colors * weight
    return blended.mul(255).add_(0.5).to(torch.uint8)
