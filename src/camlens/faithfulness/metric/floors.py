"""Floors: maps made without the network, such as noise or edges, which a method has to beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ... import heatmap
from ...explainers.base import without_autocast
from ..infill import blurred
from .noise import noise_of_each


def random_maps(images: Tensor, seeds: Tensor) -> Tensor:
    """Return uniform noise, different for each image."""
    return noise_of_each(torch.rand, (1, *images.shape[2:]), seeds).to(images.device)


def blurred_random_maps(images: Tensor, seeds: Tensor) -> Tensor:
    """Return noise as smooth as a map on a coarse grid: blurred and rescaled to [0, 1]."""
    with without_autocast(images):  # rounding would create ties
        smooth = blurred(random_maps(images, seeds))
    axes = tuple(range(2, smooth.ndim))
    least, most = smooth.amin(dim=axes, keepdim=True), smooth.amax(dim=axes, keepdim=True)
    return (smooth - least) / (most - least).where(most > least, 1)


def centre_maps(images: Tensor, seeds: Tensor) -> Tensor:
    """Return a centred Gaussian with a standard deviation of a quarter of each side."""
    heat = torch.ones((), device=images.device, dtype=torch.float32)
    for length in images.shape[2:]:
        places = torch.arange(length, device=images.device, dtype=torch.float32)
        middle = (places + 0.5) / length - 0.5
        heat = heat.unsqueeze(-1) * (-8 * middle.square()).exp()
    return heat.expand(len(images), 1, *images.shape[2:])


def edge_maps(images: Tensor, seeds: Tensor) -> Tensor:
    """Return the magnitude of the Sobel gradient of the channels' mean."""
    grey = images.float().mean(dim=1, keepdim=True)
    total = torch.zeros_like(grey)
    axes = range(2, grey.ndim)
    for axis in axes:
        part = grey
        for other in axes:
            part = _sobel(part, other, derivative=other == axis)
        total += part.square()
    return heatmap.scale(total.sqrt())


def input_maps(images: Tensor, seeds: Tensor) -> Tensor:
    """Return each pixel's distance from the image's mean colour, summed over the channels."""
    values = images.float()
    mean = values.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
    return heatmap.scale((values - mean).abs().sum(dim=1, keepdim=True))


#: Maps made without the network: uniform noise, blurred noise, a centred Gaussian, the image's
#: edges, and the image's distance from its mean colour.
FLOORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "random": random_maps,
    "blurred_random": blurred_random_maps,
    "centre": centre_maps,
    "edges": edge_maps,
    "input": input_maps,
}


def _sobel(values: Tensor, axis: int, *, derivative: bool) -> Tensor:
    """Convolve one axis with (-1, 0, 1) or (1, 2, 1), replicating the border."""
    length = values.shape[axis]
    sides = [0, 0] * (values.ndim - 2)
    position = 2 * (values.ndim - 1 - axis)
    sides[position : position + 2] = [1, 1]
    wide = pad(values, sides, mode="replicate")
    before, middle, after = (wide.narrow(axis, start, length) for start in range(3))
    return after - before if derivative else before + 2 * middle + after
