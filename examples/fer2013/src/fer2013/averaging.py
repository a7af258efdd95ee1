"""Which views of a face a network's logits are averaged over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

#: Each way in words, for reports.
MEANINGS = {
    "single": "the picture itself",
    "mirror": "mean of the logits over the picture and its mirror image",
    "ten-crop": "mean of the logits over ten crops: corners, centre, and their mirror images",
}


def averaged_logits(
    model: nn.Module, images: Tensor, averaging: str, *, crop: int | None = None
) -> Tensor:
    """Return (N, 7) logits, averaged over views of each face.

    Args:
        model: (N, 1, H, W) -> (N, 7) logits.
        images: (N, 1, 48, 48).
        averaging: one of :data:`MEANINGS`.
        crop: side of the ten crops in pixels; default 44, as published networks take them.

    Raises:
        ValueError: there is no such way.
    """
    if averaging not in MEANINGS:
        raise ValueError(f"expected an averaging out of {', '.join(MEANINGS)}, got {averaging!r}")
    if averaging == "single":
        logits: Tensor = model(images)
        return logits
    views: Sequence[Tensor] = (images, images.flip(-1))
    if averaging == "ten-crop":
        views = v2.functional.ten_crop(images, [crop or 44, crop or 44])
    # bfloat16 has 8 bits, so that a mean in it would tie classes that the views tell apart.
    return torch.stack([model(view).float() for view in views]).mean(dim=0)
