"""Predict logits, averaged over views of each image (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm import tqdm

from ..data.faces import Faces, to_batch

#: The ways of averaging, as described in results. Weights files contain these words.
MEANINGS = {
    "single": "the picture itself",
    "mirror": "mean of the logits over the picture and its mirror image",
    "ten-crop": "mean of the logits over ten crops: corners, centre, and their mirror images",
}

#: The data types of inference; bfloat16 uses torch's autocast.
PRECISIONS = ("float32", "bfloat16")

_BATCH = 256


def averaged_logits(
    model: nn.Module, images: Tensor, averaging: str, *, crop: int | None = None
) -> Tensor:
    """Return (N, 7) logits, averaged over views of each image.

    Args:
        model: (N, 1, H, W) -> (N, 7) logits.
        images: (N, 1, 48, 48).
        averaging: one of :data:`MEANINGS`.
        crop: side of the ten crops in pixels; default 44, as in publications.
    """
    if averaging == "single":
        logits: Tensor = model(images)
        return logits
    views: Sequence[Tensor] = (images, images.flip(-1))
    if averaging == "ten-crop":
        views = v2.functional.ten_crop(images, [crop or 44, crop or 44])
    # Averages in bfloat16, with 8 significant bits, would tie classes.
    return torch.stack([model(view).float() for view in views]).mean(dim=0)


def predict(
    model: nn.Module,
    faces: Faces,
    *,
    averaging: str = "mirror",
    crop: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Tensor:
    """Return (N, 7) float32 logits on the CPU, with a progress bar in terminals.

    Args:
        model: (N, 1, 48, 48) in [0, 1] -> (N, 7) logits.
        faces: the images.
        averaging: one of :data:`MEANINGS`.
        crop: side of the ten crops in pixels.
        device: torch device.
        precision: one of :data:`PRECISIONS`.

    Raises:
        ValueError: there are no images.
    """
    if not len(faces):
        raise ValueError("expected at least one image to predict, got none")
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    batches = to_batch(faces.images).split(_BATCH)
    halved = precision == "bfloat16"
    kind = torch.device(device).type
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=halved):
        parts = [
            averaged_logits(model, batch.to(device), averaging, crop=crop).float().cpu()
            for batch in tqdm(batches, averaging, unit="batch", leave=False, disable=None)
        ]
    return torch.cat(parts)
