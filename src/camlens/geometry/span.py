"""Measures which part of the images a model covers, if it pads, crops or resizes them itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..registration import Span

#: The span of a layer if it could not be measured.
UNKNOWN: Span = ()

#: Largest number of rows that are measured along each axis.
_ROWS = 32
#: Rows follow the line within this distance, in pixels or in rows, whichever is longer; smaller
#: changes of span are ignored.
_NEAR = 0.5


def span(inputs: Tensor, images: Tensor, padding: Sequence[float]) -> Span | None:
    """Return the part of the images that the input of a model's first layer covers.

    Padding, cropping and resizing keep each row of pixels in one place, so the centroids of the
    rows' squared gradients follow a line along each axis. Rows of padding have no gradient, or that
    of other rows.

    Args:
        inputs: (N, C, *size) or (N, *size, C), which the model made of the images, with its graph.
        images: (N, C, *size), which require gradients.
        padding: rows at each end along each axis that do not count, see
            :class:`camlens.intercept.FirstInput`.

    Returns:
        For each axis the positions where the first row of ``inputs`` begins and the last one ends;
        None if it is the whole image; ``UNKNOWN`` if the rows follow no line.
    """
    for first in (2, 1):
        dims = range(first, first + images.ndim - 2)
        lines = [_line(*_centroids(inputs, images, axis, dim)) for axis, dim in enumerate(dims)]
        complete = [line for line in lines if line is not None]
        if len(complete) == len(lines):
            break
    else:
        return UNKNOWN
    ends: list[tuple[float, float]] = []
    whole = True
    for (start, slope), dim, side, lacking in zip(
        complete, dims, images.shape[2:], padding, strict=True
    ):
        stop = start + slope * inputs.shape[dim]
        near = max(_NEAR, (lacking + _NEAR) * abs(slope))
        whole &= abs(start) <= near and abs(stop - side) <= near
        ends.append((round(start, 3) + 0.0, round(stop, 3) + 0.0))  # without a negative zero
    return None if whole else tuple(ends)


def _centroids(inputs: Tensor, images: Tensor, axis: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return rows of ``inputs`` with a gradient, and where it lies along an axis of the images.

    Args:
        inputs: see :func:`span`.
        images: see :func:`span`.
        axis: axis of the images' size.
        dim: the same axis of ``inputs``.

    Returns:
        The rows' middles in rows and their centroids in pixels, (R,) float64 each.
    """
    length, side = inputs.shape[dim], images.shape[axis + 2]
    rows = torch.linspace(0, length - 1, min(length, _ROWS), device="cpu").round().long().unique()
    others = [other for other in range(images.ndim) if other != axis + 2]
    place = torch.arange(side, dtype=torch.float64, device="cpu") + 0.5
    generator = torch.Generator("cpu").manual_seed(0)
    weights = []
    for row in rows.tolist():
        values = inputs.select(dim, row)
        signs = torch.randint(2, values.shape, generator=generator, device="cpu") * 2 - 1
        score = (values * signs.to(values)).sum()
        (gradient,) = torch.autograd.grad(
            score, [images], retain_graph=True, materialize_grads=True
        )
        weights.append(gradient.float().square().sum(others).cpu().double())
    weight = torch.stack(weights)
    # All rows share the gradient of statistics of the whole image, such as its mean.
    weight = (weight - weight.median(0, keepdim=True).values).clamp_min(0)
    total = weight.sum(1)
    heard = total > 0
    return rows[heard].double() + 0.5, (weight @ place / total)[heard]


def _line(at: Tensor, centre: Tensor) -> tuple[float, float] | None:
    """Return start and slope of the line that most rows follow; None if there is none."""
    apart = max(1, len(at) // 4)
    if len(at) <= apart:
        return None
    slope = ((centre[apart:] - centre[:-apart]) / (at[apart:] - at[:-apart])).median()
    start = (centre - slope * at).median()
    for _ in range(2):
        close = (centre - slope * at - start).abs() <= _NEAR * slope.abs().clamp_min(1)
        if slope.abs() < 1e-3 or close.sum() <= max(1, len(at) / 2):
            return None
        moved = at[close] - at[close].mean()
        slope = (moved * centre[close]).sum() / moved.square().sum()
        start = centre[close].mean() - slope * at[close].mean()
    return float(start), float(slope)
