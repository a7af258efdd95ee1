"""Chooses how to read an output (as batch, channels and space) from the measured centres.

A reading claims that the centres along a dimension follow one axis of the image evenly, and no
other axis. Its `purity` is the share of the centres' variance that the claim explains. Its `slope`
is the speed at which the centres move, relative to evenly spaced cells: 1 for cells that respond to
their own place only, 0 for cells that respond to the whole image.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .. import layouts
from ..layouts import Layout
from ..registration import Span
from . import orders
from .orders import Order
from .responses import Response
from .spread import CROSSED, claim, crossed, folded, is_local, variance

#: Largest distance of the cells' centre from the image's, as a fraction of it, plus half a cell.
OFF_CENTRE = 0.1
#: Smallest share of the variance at which a claim holds.
PURITY = 0.75
#: Smallest slope at which a claim holds.
SLOPE = 0.25
#: Smallest share of the variance over all dimensions that a usual reading must explain.
SHARE = 0.3
#: The same for a reading that few networks use.
RARE = 0.85
#: Share at which a reading overrides the layout that modules of the same shape suggest.
SURE = 0.95
#: Purity at which the search for other readings stops.
CERTAIN = 0.9
#: Margin by which a reading must explain more than a more usual one.
MARGIN = 0.1
#: Largest unexplained share of an order of tokens, relative to that of a more usual order.
CLEARER = 0.6
#: Other tokens this far from the middle, in variances of the patches, count as patches as well.
STRAY = 0.7


@dataclasses.dataclass(frozen=True)
class Fit:
    """A reading of an output and how well it explains the centres.

    Attributes:
        layout: the reading.
        grid: cells along each axis of the image.
        channels: number of channels.
        purity: smallest share of explained variance over the axes with more than one cell.
        slope: smallest relative speed of the centres over those axes.
        share: share of the variance explained over all dimensions, channels included.
        usual: whether most networks use this reading; others must explain more.
    """

    layout: Layout
    grid: tuple[int, ...]
    channels: int
    purity: float
    slope: float
    share: float
    usual: bool

    @property
    def holds(self) -> bool:
        """Whether the measured centres support this reading."""
        least = SHARE if self.usual else RARE
        return self.purity >= PURITY and self.slope >= SLOPE and self.share >= least


def dense(response: Response, size: Sequence[int]) -> Iterator[Fit]:
    """Yield the readings whose spatial axes are dimensions of the output, usual ones first."""
    d = len(size)
    dims = [dim for dim in range(len(response.shape)) if dim != response.batch]
    if len(dims) != d + 1:
        return
    few = sparse(response)
    total = sum(variance(response.centres[dim]) for dim in dims) + 1e-12
    for turn in itertools.permutations(range(d)):
        for place in (0, d, *range(1, d)):  # of the channels among the dimensions
            rest = [dim for i, dim in enumerate(dims) if i != place]
            space = tuple(rest[i] for i in turn)
            grid = tuple(response.shape[dim] for dim in space)
            first = place == 0 and turn == tuple(range(d))
            if few and not first and min(grid) < 4:
                continue
            if turn != tuple(range(d)) and any(g > s for g, s in zip(grid, size, strict=True)):
                continue  # finer than the pixels: a fold of several axes in another order
            claims = [
                claim(response.centres[dim], axis)
                for axis, dim in enumerate(space)
                if response.shape[dim] > 1 and size[axis] > 1
            ]
            if len(claims) == 1 and max(grid) < 4 and not first:
                continue  # channels of a single cell may respond to different places
            purity = min((made.purity for made in claims), default=0.0)
            slope = min((made.slope for made in claims), default=0.0)
            share = sum(made.explained for made in claims) / total
            layout = arrangement(response.batch, dims[place], space)
            usual = place in (0, 0 if few else d) and turn == tuple(range(d))
            fold = any(folded(response.centres[dim], a) for a, dim in enumerate(space))
            if usual or (len(claims) == sum(length > 1 for length in size) and not fold):
                channels = response.shape[dims[place]]
                yield Fit(layout, grid, channels, purity, slope, share, usual)


def arrangement(batch: int, channels: int, space: tuple[int, ...]) -> Layout:
    """Return the layout with these dimensions: ``nchw`` or ``nhwc`` if they fit."""
    d = len(space)
    if (batch, channels, space) == (0, 1, tuple(range(2, 2 + d))):
        return layouts.nchw
    if (batch, channels, space) == (0, 1 + d, tuple(range(1, 1 + d))):
        return layouts.nhwc
    return layouts.permuted(batch, channels, space)


def covers_image(
    response: Response, grid: Sequence[int], span: Span | None, size: tuple[int, ...]
) -> bool:
    """Return whether the mean of the cells' centres is where it is expected along each axis.

    Cells that cover the whole image have the image's centre as their mean; strides and paddings
    move it by up to half a cell.

    Args:
        response: the layer's measured response.
        grid: its cells along each axis.
        span: the part of the image that they cover; None: the whole image.
        size: lengths of the image's axes.
    """
    for axis, cells in enumerate(grid):
        first, last = (0.0, 1.0) if span is None else (end / size[axis] for end in span[axis])
        places = first + (torch.arange(cells, device="cpu") + 0.5) / cells * (last - first)
        inside = places[(places > 0) & (places < 1)]
        middles = [centres[:, axis].nanmean() for centres in response.centres.values()]
        distance = min(abs(middle.item() - inside.mean().item()) for middle in middles)
        if not distance <= OFF_CENTRE + 0.5 / cells:  # NaN if no cell lies in the image
            return False
    return True


def sequences(
    response: Response, size: tuple[int, ...], likely: Sequence[Order] = ()
) -> list[tuple[Fit, Order]]:
    """Return the best reading as a sequence of tokens, for each dimension that is local.

    Args:
        response: the layer's measured response.
        size: lengths of the image's axes.
        likely: orders found for other layers, which are tried first.
    """
    dims = [dim for dim in range(len(response.shape)) if dim != response.batch]
    readings = []
    for dim, channels in (dims, dims[::-1]) if len(dims) == 2 else ():
        centres = response.centres[dim]
        if not is_local(centres):
            continue
        count = response.shape[dim]
        same = [order for order in likely if order.places.shape[1] == count]
        best: tuple[float, float, Order] | None = None
        for stage in ((*same, *orders.usual(count, size)), orders.shifted(count, size)):
            for order, purity, slope in _fits(centres, stage):
                if best is None or 1 - purity < CLEARER * (1 - best[0]):
                    best = purity, slope, order
            if best and best[0] >= CERTAIN:
                break
        if best and len(size) == 1 and not 8 <= best[2].grid[0] < count:
            continue  # the signal's axis itself, or too few cells to distinguish from it
        if best and (layout := best[2].layout(response.batch, dim)):
            purity, slope, order = best
            own = variance(centres)
            share = purity * own / (own + variance(response.centres[channels]) + 1e-12)
            patches, d = math.prod(order.grid), len(size)
            usual = d > 1 and not order.window and order.prefix + patches == count
            fit = Fit(layout, order.grid, response.shape[channels], purity, slope, share, usual)
            readings.append((fit, order))
    return readings


def _fits(centres: Tensor, candidates: Iterable[Order]) -> Iterator[tuple[Order, float, float]]:
    """Yield the purity and slope of each order, the smallest over its axes."""
    mean = centres.nanmean(0)
    heard = mean.isfinite().all(0)
    mean = mean.nan_to_num()
    pending = iter(candidates)
    while chunk := list(itertools.islice(pending, 64)):
        places = torch.stack([order.places for order in chunk])  # (orders, d, tokens)
        patches = places[:, :1].isfinite() & heard
        count = patches.sum(-1, keepdim=True).clamp_min(1)
        offset = ((mean * patches).sum(-1, keepdim=True)) / count
        places = places.nan_to_num()
        places = (places - (places * patches).sum(-1, keepdim=True) / count) * patches
        moved = (mean - offset) * patches
        product = (moved * places).sum(-1)  # (orders, d)
        power = places.square().sum(-1)
        total = moved.square().sum(-1).clamp_min(1e-12)
        explained = torch.where(product > 0, product.square() / power.clamp_min(1e-12), 0.0)
        claimed = power > 1e-9
        purity = torch.where(claimed, explained / total, 1.0).amin(1)
        # Centres must not move along axes of a single cell either.
        purity = torch.minimum(purity, explained.sum(1) / total.sum(1))
        slope = torch.where(claimed, product / power.clamp_min(1e-12), 1.0).amin(1)
        # Other tokens respond to the whole image: those with a place of their own are patches.
        others = ~patches & heard
        strayed = ((mean - 0.5).square() * others).sum((1, 2))
        strayed = strayed / others.sum((1, 2)).clamp_min(1)
        strays = strayed > STRAY * (total.sum(1) / count[:, 0, 0])
        # Tokens that do not respond at all are not patches.
        present = count[:, 0, 0] / count.new_tensor([math.prod(o.grid) for o in chunk])
        purity = torch.where(strays | (present < 0.5), 0.0, purity * present.clamp_max(1.0))
        yield from zip(chunk, purity.tolist(), slope.tolist(), strict=True)


def contradicts(response: Response, layout: Layout, *, by_kind: bool) -> bool:
    """Return whether the measured centres contradict a reading that they do not support.

    Args:
        response: the layer's measured response.
        layout: the reading.
        by_kind: whether the reading follows from the kind of module, such as a convolution. A
            convolution's channels may respond to different places, depending on its kernels.
    """
    dims = range(len(response.shape))
    if layout not in (layouts.nchw, layouts.nhwc):
        return False  # taken from another layer of this shape, whose centres support it
    space = dims[2:] if layout is layouts.nchw else dims[1:-1]
    if sparse(response):
        return False
    channels = response.centres[1 if layout is layouts.nchw else dims[-1]]
    cells = math.prod(response.shape[dim] for dim in space)
    if not by_kind and cells > 1 and is_local(channels, CROSSED, alike=0.9):
        return True
    return any(
        crossed(response.centres[dim], axis) and claim(response.centres[dim], axis).purity < PURITY
        for axis, dim in enumerate(space)
    )


def sparse(response: Response) -> bool:
    """Return whether too few units respond for sums over a dimension to be reliable."""
    heard = [centres.isfinite().all(0).all(0) for centres in response.centres.values()]
    return any(dim.float().mean() < 0.8 for dim in heard)
