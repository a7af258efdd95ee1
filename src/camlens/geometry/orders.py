"""Orders in which a sequence of tokens may cover an image: row by row, or window by window."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from .. import layouts
from ..layouts import Layout

#: Largest usual number of class, distillation and register tokens; more are tried with few grids.
EXTRA = 16


@dataclasses.dataclass(frozen=True)
class Order:
    """The positions of a sequence's tokens in the image.

    Attributes:
        grid: patches along each axis of the image.
        places: (d, tokens), the position of each token along the image axes, from 0 to 1; NaN for
            tokens that are not patches.
        prefix: number of tokens before the patches.
        window: patches of a window along each axis, if windows order the patches.
        levels: see :func:`layouts.windows`.
        cells_first: see :func:`layouts.windows`.
    """

    grid: tuple[int, ...]
    places: Tensor
    prefix: int = 0
    window: tuple[int, ...] = ()
    levels: int = 1
    cells_first: bool = False

    def layout(self, batch: int, sequence: int) -> Layout | None:
        """Return the layout of an output with these dimensions, or None."""
        if self.window and (batch, sequence) == (0, 1):
            return layouts.windows(
                self.window, self.grid, levels=self.levels, cells_first=self.cells_first
            )
        if self.window or batch == 2:
            return None
        return layouts.tokens(
            self.prefix,
            self.grid,
            suffix=self.places.shape[1] - self.prefix - math.prod(self.grid),
            batch_first=batch == 0,
            channels_first=sequence == 2,
        )


def _rows(grid: tuple[int, ...]) -> Tensor:
    """Return the (d, cells) positions of a grid's cells, from 0 to 1, in row-major order."""
    steps = [(torch.arange(side, dtype=torch.float32, device="cpu") + 0.5) / side for side in grid]
    return torch.stack(torch.meshgrid(*steps, indexing="ij")).flatten(1)


def _sequence(grid: tuple[int, ...], prefix: int, suffix: int) -> Order:
    places = functional.pad(_rows(grid), (prefix, suffix), value=math.nan)
    return Order(grid, places, prefix)


@functools.lru_cache(maxsize=256)
def usual(count: int, size: tuple[int, ...]) -> tuple[Order, ...]:
    """Return orders of prefix tokens and a grid that divides the image, by rows or by windows."""
    grids = [grid for grid in _divided(count, size) if count - math.prod(grid) <= EXTRA]
    plain = [_sequence(grid, count - math.prod(grid), 0) for grid in grids]
    return (*plain, *(order for g in grids if math.prod(g) == count for order in _by_windows(g)))


def _by_windows(grid: tuple[int, ...]) -> Iterator[Order]:
    for side in range(2, min(g for g in grid if g > 1) + 1):
        for levels in range(1, 6):
            if any(g > 1 and g % side**levels for g in grid):
                break
            window = tuple(side if g > 1 else 1 for g in grid)
            for cells_first in (False, True):
                if side**levels == max(grid) == min(grid) and levels == 1:
                    continue  # a single window
                layout = layouts.windows(window, grid, levels=levels, cells_first=cells_first)
                # The layout of the tokens' indices gives the token of each cell.
                index = layout(torch.arange(math.prod(grid), device="cpu")[None, :, None]).flatten()
                rows = _rows(grid)
                places = torch.empty_like(rows)
                places[:, index] = rows
                yield Order(grid, places, 0, window, levels, cells_first)


def shifted(count: int, size: tuple[int, ...]) -> Iterator[Order]:
    """Yield orders of any grid with a few other tokens around it, then with many."""
    for others in range(min(EXTRA, count - 4) + 1):
        for grid in _factors(count - others, len(size)):
            if all(g <= s for g, s in zip(grid, size, strict=True)) and _aspect(grid, size) < 1:
                for prefix in range(others + 1):
                    yield _sequence(grid, prefix, others - prefix)
    for grid in _divided(count, size):
        if (others := count - math.prod(grid)) > EXTRA:
            for prefix in (*range(EXTRA + 1), others):
                yield _sequence(grid, prefix, others - prefix)


def _factors(count: int, axes: int) -> Iterator[tuple[int, ...]]:
    """Yield all grids of ``count`` cells."""
    if axes == 1:
        yield (count,)
        return
    for side in range(1, count + 1):
        if count % side == 0:
            yield from ((side, *rest) for rest in _factors(count // side, axes - 1))


@functools.lru_cache(maxsize=256)
def _divided(count: int, size: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return grids of patches that tile the image, with ``count / 8`` to ``count`` patches."""
    sides = [sorted({side // patch for patch in range(1, side + 1)}) for side in size]
    grids = [
        grid for grid in itertools.product(*sides) if max(4, count / 8) <= math.prod(grid) <= count
    ]
    return tuple(sorted(grids, key=lambda grid: (-math.prod(grid), _aspect(grid, size), grid)))


def _aspect(grid: tuple[int, ...], size: tuple[int, ...]) -> float:
    """Return the log ratio of the cells' largest and smallest side; 0 for equal sides."""
    pitches = [math.log(s / g) for g, s in zip(grid, size, strict=True)]
    return max(pitches) - min(pitches)
