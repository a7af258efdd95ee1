"""Slices of volumes: the slice with the most heat, and slices by index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Totals of slices that differ by less than this fraction are ties, broken towards the middle.
_TIE = 1e-5


def hottest(heatmaps: Tensor, *, axis: int = 0) -> Tensor:
    """Find the slice of each volume's heatmap with the most heat.

    Args:
        heatmaps: (N, K, D, H, W), not negative.
        axis: the axis along which volumes are cut: 0 for D, 1 for H, 2 for W.

    Returns:
        (N, K) int64 indices along the axis. Among slices with equal totals, the middle one; for a
        map without heat, the middle of the volume.

    Raises:
        ValueError: the shape or axis is wrong.

    Example:
        >>> heat = torch.zeros(1, 1, 5, 2, 2)
        >>> heat[0, 0, 3, 1, 1] = 1
        >>> hottest(heat).tolist()
        [[3]]
    """
    _check_axis(axis)
    if heatmaps.ndim != 5:
        raise ValueError(f"expected heatmaps as (N, K, D, H, W), got {tuple(heatmaps.shape)}")
    totals = heatmaps.movedim(2 + axis, 2).sum(dim=(-2, -1))
    ranks = (totals >= totals.amax(dim=-1, keepdim=True) * (1 - _TIE)).cumsum(dim=-1)
    middle = (ranks[..., -1:] + 1) // 2
    return (ranks >= middle).int().argmax(dim=-1)


def cut(
    volumes: Tensor,
    heatmaps: Tensor,
    *,
    slices: int | Sequence[int] | None = None,
    axis: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cut volumes and their heatmaps into slices.

    Args:
        volumes: (N, C, D, H, W).
        heatmaps: (N, K, D, H, W), not negative.
        slices: an index, or several, the same for all volumes. None: for each heatmap the slice
            with the most heat (:func:`hottest`).
        axis: the axis along which volumes are cut: 0 for D, 1 for H, 2 for W.

    Returns:
        The volumes' and the heatmaps' slices. Cut along D they are (N, K, C, H, W) and
        (N, K, H, W); with one index (N, 1, C, H, W) and (N, K, H, W); with S indices
        (N, 1, S, C, H, W) and (N, K, S, H, W).

    Raises:
        IndexError: the volumes have no such slice.
        ValueError: the axis is wrong, or the sequence of slices is empty.
    """
    _check_axis(axis)
    images = volumes.movedim(2 + axis, 1).unsqueeze(1)
    heat = heatmaps.movedim(2 + axis, 2)
    if slices is None:
        chosen = hottest(heatmaps, axis=axis)
        row = torch.arange(len(heat), device=heat.device)[:, None]
        target = torch.arange(heat.shape[1], device=heat.device)
        return images[:, 0][row, chosen], heat[row, target, chosen]
    indices = [slices] if isinstance(slices, int) else list(slices)
    if not indices:
        raise ValueError("expected at least one slice, got an empty sequence")
    count = heat.shape[2]
    if not all(-count <= index < count for index in indices):
        raise IndexError(
            f"expected slices from 0 to {count - 1} along axis {axis} of volumes of "
            f"{tuple(volumes.shape[2:])}, got {slices}"
        )
    if isinstance(slices, int):
        return images[:, :, indices[0]], heat[:, :, indices[0]]
    return images[:, :, indices], heat[:, :, indices]


def _check_axis(axis: int) -> None:
    if axis not in (0, 1, 2):
        raise ValueError(f"expected the axis to cut as 0, 1 or 2 for D, H or W, got {axis!r}")
