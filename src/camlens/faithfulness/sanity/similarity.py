"""Similarity of two maps: Spearman's rank correlation and structural similarity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ... import heatmap

_WINDOW = 7


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """Return Spearman's rank correlation of maps; equal values share their mean rank.

    Args:
        one: (N, K, *size) maps, which may be signed.
        other: maps of the same shape.

    Returns:
        (N, K) in [-1, 1]; NaN if a map is constant.

    Raises:
        ValueError: the shapes differ, or a map contains NaN or infinity.

    Example:
        >>> spearman(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 4.0, 9.0]]])).item()
        1.0
    """
    _check_pair(one, other)
    x, y = (_standard_ranks(maps) for maps in (one, other))
    return (x * y).sum(dim=2).float()


def of_pairs(maps: Tensor, similarity: str) -> Tensor:
    """Return (N, K, K): the similarity of every pair of an image's K maps.

    Args:
        maps: (N, K, *size).
        similarity: a name of :data:`SIMILARITIES`.

    Example:
        >>> of_pairs(torch.tensor([[[1.0, 2.0, 3.0], [2.0, 4.0, 3.0]]]), "spearman")[0].tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    if similarity == "spearman":  # rank each map once, one image at a time to save memory
        ranks = (_standard_ranks(image.unsqueeze(0))[0] for image in maps)
        return torch.stack([rows @ rows.mT for rows in ranks]).float()
    alike = similarity_by_name(similarity)
    return torch.stack(
        [alike(maps, maps[:, k : k + 1].expand_as(maps)) for k in range(maps.shape[1])], dim=2
    )


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean structural similarity of heatmaps over windows of 7 x 7 pixels.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    TIP 2004, equation 13, with uniform windows inside the map, like scikit-image's default. Each
    map is divided by its maximum first.

    Args:
        one: (N, K, H, W) maps; negative values count as zero.
        other: maps of the same shape.

    Returns:
        (N, K) in [-1, 1]; NaN if a map has no positive value.

    Raises:
        ValueError: the maps are of signals or volumes, or smaller than a window; the shapes differ,
            or a map contains NaN or infinity.

    Example:
        >>> maps = torch.rand(1, 1, 9, 9)
        >>> round(ssim(maps, maps).item(), 3)
        1.0
    """
    _check_pair(one, other)
    if one.ndim != 4 or min(one.shape[2:]) < _WINDOW:
        raise ValueError(
            f"expected maps (N, K, H, W) of at least {_WINDOW} pixels for structural similarity, "
            f'got {tuple(one.shape)}: choose similarity="spearman"'
        )
    known = heatmap.evidence(one) & heatmap.evidence(other)
    x, y = (heatmap.scale(maps).double() for maps in (one, other))
    many = _WINDOW**2

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values, _WINDOW, 1)

    mean_x, mean_y = mean(x), mean(y)
    unbiased = many / (many - 1)
    var_x = unbiased * (mean(x * x) - mean_x**2)
    var_y = unbiased * (mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    light, contrast = 0.01**2, 0.03**2
    ratio = (2 * mean_x * mean_y + light) * (2 * covariance + contrast)
    ratio = ratio / ((mean_x**2 + mean_y**2 + light) * (var_x + var_y + contrast))
    return ratio.mean(dim=(2, 3)).float().where(known, torch.nan)


#: Measures of similarity, by name.
SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"spearman": spearman, "ssim": ssim}


def similarity_by_name(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a measure of similarity.

    Raises:
        ValueError: the name is not in :data:`SIMILARITIES`.
    """
    if name not in SIMILARITIES:
        raise ValueError(f"expected similarity to be one of {tuple(SIMILARITIES)}, got {name!r}")
    return SIMILARITIES[name]


def _check_pair(one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape or one.ndim < 3:
        raise ValueError(
            f"expected maps (N, K, *size) of one shape, got {tuple(one.shape)} and "
            f"{tuple(other.shape)}: resize one, for example by camlens.heatmap.resize(maps, size)"
        )
    if not (one.isfinite().all() and other.isfinite().all()):  # NaN would have a rank
        raise ValueError("expected finite maps to compare, got NaN or infinity")


def _standard_ranks(maps: Tensor) -> Tensor:
    """Return ranks (N, K, pixels) of mean 0 and length 1; NaN if a map is constant."""
    ranks = _mean_ranks(maps.flatten(2))
    ranks = ranks - ranks.mean(dim=2, keepdim=True)
    length = ranks.square().sum(dim=2, keepdim=True).sqrt()
    return ranks / length.where(length > 0, torch.nan)


def _mean_ranks(values: Tensor) -> Tensor:
    """Return the rank of each value along the last axis; equal values share the mean of theirs."""
    ordered, places = values.contiguous().sort(dim=-1)
    # Searching for sorted values is faster than for values in pixel order.
    below = torch.searchsorted(ordered, ordered)
    upto = torch.searchsorted(ordered, ordered, right=True)
    ranks = torch.empty_like(below).scatter_(-1, places, below + upto + 1)
    return ranks.double() / 2
