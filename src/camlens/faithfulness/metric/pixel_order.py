"""Rank a map's pixels by value, with random order among ties."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(maps: Tensor, seeds: Tensor) -> Tensor:
    """Return each pixel's rank in a map, from the largest value down.

    Pixels of equal value, such as those where a map is zero, are in random order. In index order
    they would be changed row by row from the top of the image, and the metric would measure that
    order instead of the map.

    Args:
        maps: (N, M, *size), any range.
        seeds: (N,) int64: each image's seed for the order of ties, the same for all its maps.

    Returns:
        (N, M, *size) int64: 0 for the largest value.

    Example:
        >>> ranks(torch.tensor([[[0.1, 0.9, 0.5]]]), torch.tensor([0])).tolist()
        [[[2, 0, 1]]]
    """
    n, m = maps.shape[:2]
    flat = maps.flatten(2)
    pixels = flat.shape[2]
    # On the CPU, so that a seed gives the same order on every device.
    shuffles = torch.stack(
        [
            torch.randperm(pixels, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
            for seed in seeds.tolist()
        ]
    )
    shuffles = shuffles.to(maps.device).unsqueeze(1).expand(n, m, pixels)
    order = flat.gather(2, shuffles).argsort(dim=2, descending=True, stable=True)
    order = shuffles.gather(2, order)
    places = torch.empty_like(order)
    places.scatter_(2, order, torch.arange(pixels, device=maps.device).expand_as(order))
    return places.view(maps.shape)
