"""Measures where a layer's cells lie in the image, from the gradients of single cells.

The measurement uses the trained network, as the region that a cell responds to depends on its
weights, not only on strides and paddings. Image content attracts gradients. Two steps remove this
bias: every sample shifts its image cyclically by a random amount, since photographs have their
content in the middle; and samples come in pairs whose biases cancel: a cell, and the mirrored cell
of the mirrored image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..registration import Registration, Span, stretched_pitch

#: (images (R, ...), cells (R, d), signs (R, C)) -> (R, ...): the gradient by image r of the sum of
#: ``signs[r] * output[r]`` over the channels at cell ``cells[r]``.
Gradients = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Cells that the border moves by more than this fraction of a pitch are omitted if others remain.
_CLIPPED = 0.05
#: Cells with less than this fraction of the largest variance have lost a part beyond the border.
_NARROW = 0.7
#: Smallest number of pairs for a standard error.
_LEAST = 4


def measure_place(
    gradients: Gradients,
    images: Tensor,
    grid: tuple[int, ...],
    channels: int,
    *,
    proven: bool = False,
    span: Span | None = None,
    pairs: int = 32,
    rows: int = 8,
    seed: int = 0,
) -> Registration:
    """Measure a layer's registration: ``2 * pairs`` forward and backward passes of one image.

    Args:
        gradients: runs the model, see :data:`Gradients`. Row r belongs to image r % N.
        images: (N, C, *size); if there are more than ``rows``, the first ones are used; fewer are
            repeated.
        grid: cells of the layer, one number for each axis of ``size``.
        channels: channels of the layer.
        proven: whether a measurement showed that each cell responds to its own place.
        span: the part of the image that the grid covers; None: the whole image.
        pairs: number of pairs of samples, rounded up to a multiple of ``rows``. The standard errors
            decrease with its square root.
        rows: number of images in each call of ``gradients``.
        seed: seed of the random cells and signs; the global generator is not used.

    Returns:
        A registration of kind ``"measured"``, or of kind ``"stretched"`` without measurements if
        hardly any cell has a gradient.
    """
    source = images.detach()[torch.arange(rows, device=images.device) % len(images)]
    generator = torch.Generator("cpu").manual_seed(seed)
    calls = math.ceil(pairs / rows)
    cells = _draw_cells(grid, calls * rows, generator)
    sides: tuple[list[list[Tensor]], list[list[Tensor]]] = ([], [])
    for chosen in cells.split(rows):
        signs = torch.randint(2, (rows, channels), generator=generator, device="cpu") * 2 - 1
        signs = signs.to(images.device, images.dtype)
        shifted = _shift(source, generator)
        mirrored = shifted.flip(tuple(range(2, images.ndim)))
        opposite = torch.tensor(grid, device="cpu") - 1 - chosen
        batches = ((shifted, chosen), (mirrored, opposite))
        for side, (batch, at) in zip(sides, batches, strict=True):
            side.append(marginals(gradients(batch, at.to(images.device), signs)))
    axes = [
        torch.stack([torch.cat([spreads[axis] for spreads in side]) for side in sides], dim=1)
        for axis in range(len(grid))
    ]
    return fit(axes, cells, grid, proven=proven, span=span)


def _draw_cells(grid: tuple[int, ...], pairs: int, generator: torch.Generator) -> Tensor:
    """Draw (pairs, d) cells from the middle half of each axis, each index equally often."""
    axes = []
    for cells in grid:
        # At least three if possible: with fewer a pitch cannot be distinguished from noise.
        margin = max(min(round(cells / 4), (cells - 3) // 2), 0)
        inner = cells - 2 * margin
        repeats = math.ceil(pairs / inner)
        order = [torch.randperm(inner, generator=generator, device="cpu") for _ in range(repeats)]
        axes.append(torch.cat(order)[:pairs] + margin)
    return torch.stack(axes, dim=1)


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image cyclically by a random amount."""
    axes = tuple(range(1, images.ndim - 1))
    shifts = torch.rand(len(images), len(axes), generator=generator, device="cpu")
    by_image = (shifts * torch.tensor(images.shape[2:], device="cpu")).long().tolist()
    return torch.stack([i.roll(by, axes) for i, by in zip(images, by_image, strict=True)])


def marginals(gradients: Tensor) -> list[Tensor]:
    """Return the marginal distribution of the squared gradient along each axis.

    Args:
        gradients: (R, C, *size), with respect to the images.

    Returns:
        For each axis (R, size[axis]) float64 in main memory, with rows that sum to 1; rows without
        a gradient are NaN.
    """
    flat = gradients.detach().flatten(1).abs()
    largest = flat.amax(dim=1).view(-1, *(1,) * (gradients.ndim - 1))
    # Divided by the largest, as squares of small gradients would vanish.
    squares = (gradients.detach() / largest).square().float()
    spreads = []
    for axis in range(2, gradients.ndim):
        others = [a for a in range(1, gradients.ndim) if a != axis]
        spread = squares.sum(dim=others).cpu().double()
        spreads.append(spread / spread.sum(dim=1, keepdim=True))
    return spreads


def fit(
    spreads: Sequence[Tensor],
    cells: Tensor,
    grid: tuple[int, ...],
    *,
    proven: bool = False,
    span: Span | None = None,
) -> Registration:
    """Fit centres, pitch and receptive field to the squared gradients of single cells.

    The fit along each axis uses the pairs whose cells the image's border does not clip. The offset
    is the mean of the pairs' mean centroids; the pitch is the slope of half the difference of a
    pair's centroids over the distance of its cells from the middle. If the border clips too many
    cells, the offset is that of all pairs, corrected for the estimated clipping, and the pitch is
    that of a stretched map.

    Args:
        spreads: for each axis (P, 2, size[axis]), as :func:`marginals` returns them: of a cell,
            and of the mirrored cell of the mirrored image, for P pairs.
        cells: (P, d), the first cell of each pair; the second is ``grid - 1 - cells``.
        grid: cells along each axis.
        proven: whether a measurement showed that each cell responds to its own place.
        span: the part of the image that the grid covers; None: the whole image.

    Returns:
        A registration of kind ``"measured"``; ``"stretched"`` if fewer than four pairs have a
        gradient.

    Example:
        >>> spread = torch.zeros(4, 2, 16)
        >>> spread[:, 0, 3], spread[:, 1, 11] = 1, 1
        >>> cells = torch.zeros(4, 1, dtype=torch.long)
        >>> fit([spread], cells, (2,)).offset
        (-0.5,)
    """
    size = tuple(s.shape[-1] for s in spreads)
    alive = torch.stack([s.isfinite().all(dim=-1).all(dim=-1) for s in spreads]).all(dim=0)
    if alive.sum() < _LEAST:
        return Registration.stretched(size, grid, proven=proven, span=span)
    pitch = stretched_pitch(size, grid, span)
    axes = [_fit_axis(s[alive], cells[alive, a], grid[a], pitch[a]) for a, s in enumerate(spreads)]
    return Registration(
        kind="measured",
        size=size,
        grid=grid,
        span=span,
        proven=proven,
        offset=tuple(a.offset for a in axes),
        offset_error=tuple(a.offset_error for a in axes),
        pitch=tuple(a.pitch for a in axes),
        pitch_error=tuple(a.pitch_error for a in axes),
        receptive_field=tuple(a.receptive_field for a in axes),
    )


@dataclasses.dataclass(frozen=True)
class _Axis:
    offset: float
    offset_error: float
    pitch: float
    pitch_error: float | None
    receptive_field: float


def _fit_axis(spread: Tensor, cells: Tensor, count: int, pitch: float) -> _Axis:
    pixels = spread.shape[-1]
    position = torch.arange(pixels, dtype=spread.dtype, device=spread.device) + 0.5
    centroid = spread @ position
    # 1/12 is the variance within a pixel: a box of P pixels has a variance of P^2 / 12.
    square = spread @ position.square() + 1 / 12
    variance = square - centroid.square()
    distance = cells.to(spread.dtype) - (count - 1) / 2
    pitch_error = None
    clipped = _clipped(spread, variance, distance.abs(), pitch)
    free = clipped <= _CLIPPED * pitch
    if free.sum() >= _LEAST:
        centroid, square, distance = centroid[free], square[free], distance[free]
        if len(torch.cat([distance, -distance]).unique()) >= 3:
            apart = (centroid[:, 0] - centroid[:, 1]) / 2
            pitch, pitch_error = _slope(distance, apart, clipped[free])
        offsets = centroid.mean(dim=1) - pixels / 2
    else:
        low, high = _border_density(spread, max(1, round(pitch / 2)))
        offsets = (centroid - variance * (low - high)).mean(dim=1) - pixels / 2
    offset, error = offsets.mean().item(), (offsets.std() / len(offsets) ** 0.5).item()
    centre = pixels / 2 + offset + pitch * torch.stack([distance, -distance], dim=1)
    about = square - 2 * centre * centroid + centre.square()
    return _Axis(offset, error, pitch, pitch_error, (12 * about.mean()).sqrt().item())


def _slope(x: Tensor, y: Tensor, bias: Tensor) -> tuple[float, float]:
    """Return the slope of a line through the origin, and its error including the bias of ``y``."""
    weight = x.square().sum()
    slope = (x * y).sum() / weight
    noise = (y - slope * x).square().sum() / (len(x) - 1) / weight
    systematic = (x.abs() * bias).sum() / weight
    return slope.item(), (noise + systematic.square()).sqrt().item()


def _border_density(spread: Tensor, band: int) -> tuple[Tensor, Tensor]:
    """Return the mean densities in a band along the lower and the upper border, (P, 2) each."""
    return spread[..., :band].mean(dim=-1), spread[..., -band:].mean(dim=-1)


def _clipped(spread: Tensor, variance: Tensor, distance: Tensor, pitch: float) -> Tensor:
    """Estimate by how many pixels the image's border moves the centroids of pairs.

    Truncating a distribution where its density is p moves its mean by its variance times p; for a
    normal distribution this is exact. Strides and dilations can leave gaps at the border, so the
    density is the mean over a band along it. Cells with a part beyond the border are narrower than
    others.

    Returns:
        (P,), equal for all pairs of one distance from the middle; infinite for narrow cells.
    """
    band = max(1, round(max(pitch / 2, variance.mean().sqrt().item())))
    low, high = _border_density(spread, band)
    shift = (variance * (low + high)).mean(dim=1)
    levels, level = distance.unique(return_inverse=True)
    # The mean over the pairs of each level.
    share = nn.functional.one_hot(level, len(levels)).to(shift.dtype)
    share = share / share.sum(dim=0)
    width = variance.mean(dim=1) @ share
    means = (shift @ share).where(width >= _NARROW * width.max(), torch.inf)
    return means[level]
