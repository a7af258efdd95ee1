"""Overlays of a batch: camlens draws all at once, grad-cam one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import ratios
from networks import Case, load
from peers import bare_forward
from pytorch_grad_cam.utils.image import show_cam_on_image

import camlens


def overlay_shares(case: Case, device: str, rounds: int) -> dict[str, float]:
    """Return the time to draw the batch's overlays over that of the forward pass."""
    loaded = load(case, device)
    calls = overlays(case, device)
    return ratios(bare_forward(loaded), calls, device, rounds)


def overlays(case: Case, device: str) -> dict[str, Callable[[], Any]]:
    """Each tool starts from its own kind of images and heatmaps: tensors, or arrays (H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, case.size, case.size, generator=generator)
    heatmaps = torch.rand(case.batch, 1, case.size, case.size, generator=generator)
    arrays = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    masks = heatmaps[:, 0].numpy()
    images, heatmaps = images.to(device), heatmaps.to(device)

    def one_at_a_time() -> Any:
        return [show_cam_on_image(a, m, use_rgb=True) for a, m in zip(arrays, masks, strict=True)]

    return {
        "camlens": lambda: camlens.overlay(images, heatmaps),
        "grad-cam": one_at_a_time,
    }
