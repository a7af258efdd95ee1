"""Statistics of measured centres: how well a dimension's indices follow each image axis.

Centres are (2, d, n) tensors: two independent draws, d image axes, n indices of a dimension of a
layer's output; NaN where nothing responds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Smallest variance of centres that differ along a dimension, as a fraction of that of evenly
#: spread cells.
LOCAL = 0.02
#: Smallest variance that contradicts a reading in which they do not differ. It is larger, as units
#: that respond in few places shift centres too.
CROSSED = 0.6


class Claim(NamedTuple):
    """How well centres follow one image axis."""

    purity: float
    slope: float
    explained: float  # variance


def claim(centres: Tensor, axis: int) -> Claim:
    """Return how well centres (2, d, n) follow one image axis and no other."""
    mean = centres.nanmean(0)
    length = mean.shape[1]
    heard = mean.isfinite().all(0)
    if heard.sum() < max(2, length / 2):
        return Claim(0.0, 0.0, 0.0)
    places = _centred(
        ((torch.arange(length, dtype=mean.dtype, device=mean.device) + 0.5) / length)[heard]
    )
    mean = _centred(mean[:, heard])
    product, power = mean[axis] @ places, places @ places
    explained = product.clamp_min(0) ** 2 / power
    purity = explained / mean.square().sum().clamp_min(1e-12)
    return Claim(float(purity), float(product / power), float(explained / heard.sum()))


def variance(centres: Tensor) -> float:
    """Return the variance of centres (2, d, n) over the dimension, summed over image axes."""
    mean = centres.nanmean(0)
    heard = mean.isfinite().all(0)
    if heard.sum() < 2:
        return 0.0
    return float(_centred(mean[:, heard]).square().mean(1).sum())


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(-1, keepdim=True)


def is_local(centres: Tensor, spread: float = LOCAL, *, alike: float = 0.5) -> bool:
    """Return whether centres (2, d, n) differ along the dimension, consistently in both draws.

    Args:
        centres: centres of both draws.
        spread: smallest variance, as a fraction of that of cells spread evenly over the image.
        alike: smallest correlation between the draws.
    """
    shared, correlation = _shared(centres)
    # The correlation of two values is always 1 or -1.
    spread = max(spread, 0.3) if centres.shape[2] == 2 else spread
    return bool(((12 * shared > spread) & (correlation > alike)).any())


def _shared(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return covariance and correlation of the two draws of centres (2, d, n), by image axis."""
    heard = centres.isfinite().all(0).all(0)
    if heard.sum() < 2:
        nothing = centres.new_zeros(centres.shape[1])
        return nothing, nothing
    first, second = _centred(centres[..., heard])
    shared = (first * second).mean(1)
    power = (first.square().mean(1) * second.square().mean(1)).sqrt()
    return shared, shared / power.clamp_min(1e-12)


def crossed(centres: Tensor, axis: int) -> bool:
    """Return whether centres (2, d, n) move far along an image axis other than the one given."""
    others = torch.cat([centres[:, :axis], centres[:, axis + 1 :]], dim=1)
    return others.shape[1] > 0 and is_local(others, CROSSED, alike=0.9)


def folded(centres: Tensor, axis: int) -> bool:
    """Return whether another image axis is folded into a dimension, as in strips of windows."""
    others = torch.cat([centres[:, :axis], centres[:, axis + 1 :]], dim=1)
    alike = _shared(others)[1] > 2.5 / centres.shape[2] ** 0.5
    # Cells in a strip's row have the same centre, so steps differ in length in both draws.
    steps = centres[:, axis : axis + 1].diff()
    uneven = _shared(steps)[0] > 0.1 * steps.nanmean() ** 2
    return bool(alike.any() or (uneven.any() and steps.shape[2] > 3))
