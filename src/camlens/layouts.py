"""Layouts, which turn a layer's output into maps (N, C, *grid)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from torch import Tensor

#: Turns a layer's output into (N, C, *grid), one grid axis for each axis of the image.
Layout = Callable[[Tensor], Tensor]


def nchw(output: Tensor) -> Tensor:
    """Return (N, C, *grid) unchanged: the layout of convolutions of images, signals and volumes."""
    return output


def nhwc(output: Tensor) -> Tensor:
    """Turn (N, *grid, C), as in Swin and ConvNeXt blocks, into (N, C, *grid)."""
    return output.movedim(-1, 1)


@dataclasses.dataclass(frozen=True)
class _Permuted:
    batch: int
    channels: int
    space: tuple[int, ...]

    def __call__(self, output: Tensor) -> Tensor:
        maps: Tensor = output.permute(self.batch, self.channels, *self.space)
        return maps

    def __repr__(self) -> str:
        return f"permuted({self.batch}, {self.channels}, {self.space})"


def permuted(batch: int, channels: int, space: Sequence[int]) -> Layout:
    """Return a layout that permutes the output's dimensions.

    Args:
        batch: dimension of the images.
        channels: dimension of the channels.
        space: spatial dimensions, in the order of the image's axes.

    Example:
        >>> import torch
        >>> permuted(0, 1, (3, 2))(torch.zeros(2, 8, 5, 4)).shape  # width before height
        torch.Size([2, 8, 4, 5])
    """
    return _Permuted(batch, channels, tuple(space))


@dataclasses.dataclass(frozen=True)
class _Tokens:
    prefix: int
    grid: tuple[int, ...]
    suffix: int = 0
    batch_first: bool = True
    channels_first: bool = False

    def __call__(self, output: Tensor) -> Tensor:
        maps = output if self.batch_first else output.movedim(1, 0)
        maps = maps if self.channels_first else maps.transpose(1, 2)  # (N, C, tokens)
        expected = self.prefix + math.prod(self.grid) + self.suffix
        if maps.ndim != 3 or maps.shape[2] != expected:
            raise ValueError(f"{self} expected {expected} tokens, got {tuple(output.shape)}")
        patches = maps[:, :, self.prefix : expected - self.suffix]
        grid: Tensor = patches.unflatten(2, self.grid)
        return grid

    def __repr__(self) -> str:
        options = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)[2:]
            if getattr(self, field.name) != field.default
        ]
        return f"tokens({', '.join([str(self.prefix), str(self.grid), *options])})"


def tokens(
    prefix: int,
    grid: Sequence[int],
    *,
    suffix: int = 0,
    batch_first: bool = True,
    channels_first: bool = False,
) -> Layout:
    """Return the layout of a transformer's tokens, (N, prefix + patches + suffix, C).

    Args:
        prefix: number of class, distillation or register tokens before the patches.
        grid: patches along each axis of the image, such as (h, w), in row-major order.
        suffix: number of tokens after the patches, such as YOLOS's detection tokens.
        batch_first: False for (tokens, N, C), as ``nn.MultiheadAttention`` takes by default.
        channels_first: True for (N, C, tokens), or (C, N, tokens) without ``batch_first``.

    Example:
        >>> import torch
        >>> tokens(1, (14, 14))(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """
    return _Tokens(prefix, tuple(grid), suffix, batch_first, channels_first)


@dataclasses.dataclass(frozen=True)
class _Reordered:
    grid: tuple[int, ...]
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    text: str
    sequence: _Tokens

    def __call__(self, output: Tensor) -> Tensor:
        cells = self.sequence(output).unflatten(2, self.sizes)
        cells = cells.permute(0, 1, *(2 + position for position in self.order))
        grid: Tensor = cells.flatten(2).unflatten(2, self.grid)
        return grid

    def __repr__(self) -> str:
        return self.text


def windows(
    window: Sequence[int],
    grid: Sequence[int],
    *,
    levels: int = 1,
    cells_first: bool = False,
    prefix: int = 0,
) -> Layout:
    """Return the layout of tokens (N, prefix + patches, C) whose patches are ordered by windows.

    Args:
        window: patches along each axis of a window, such as (2, 2).
        grid: patches along each axis of the image.
        levels: depth of nested windows of the same shape.
        cells_first: False if the patches of one window are consecutive; True if the first patches
            of all windows come first, then all second ones (Hiera, whose pooling takes the maximum
            over blocks of consecutive tokens).
        prefix: number of tokens before the patches.

    Raises:
        ValueError: the windows do not divide the grid.

    Example:
        >>> import torch
        >>> rows = torch.arange(16.0).view(1, 4, 4)
        >>> by_windows = rows.unflatten(2, (2, 2)).unflatten(1, (2, 2)).transpose(2, 3)
        >>> windows((2, 2), (4, 4))(by_windows.reshape(1, 16, 1))[0, 0].equal(rows[0])
        True
    """
    window, grid = tuple(window), tuple(grid)
    blocks = [side**levels for side in window]
    if len(window) != len(grid) or any(g % b for g, b in zip(grid, blocks, strict=True)):
        raise ValueError(f"windows of {window} in {levels} levels do not divide a grid of {grid}")
    d = len(grid)
    coarse = tuple(g // b for g, b in zip(grid, blocks, strict=True))
    # Groups of d factors, from the coarsest step of a coordinate to the finest.
    steps = [coarse, *[window] * levels]
    memory = list(reversed(range(levels + 1))) if cells_first else list(range(levels + 1))
    sizes = tuple(side for step in memory for side in steps[step])
    order = tuple(memory.index(step) * d + axis for axis in range(d) for step in range(levels + 1))
    options = [
        f"{key}={value}"
        for key, value, default in (
            ("levels", levels, 1),
            ("cells_first", cells_first, False),
            ("prefix", prefix, 0),
        )
        if value != default
    ]
    text = f"windows({', '.join([str(window), str(grid), *options])})"
    return _Reordered(grid, sizes, order, text, _Tokens(prefix, (math.prod(grid),)))


def groups(count: int, inner: Layout = nchw) -> Layout:
    """Return the layout of (N * count, ...), in which each image has ``count`` consecutive rows.

    Args:
        count: number of rows of an image, such as frames, crops or windows.
        inner: the layout of a single row.

    Returns:
        A layout to (N, count * C, *grid): the maps of an image's rows become channels.

    Example:
        >>> import torch
        >>> groups(5)(torch.zeros(10, 8, 4, 4)).shape
        torch.Size([2, 40, 4, 4])
    """

    def layout(output: Tensor) -> Tensor:
        maps: Tensor = inner(output).unflatten(0, (-1, count)).flatten(1, 2)
        return maps

    return layout


def read(
    output: Tensor, layout: Layout | None, name: str, n: int, *, axes: int | None = None
) -> Tensor:
    """Apply a layout and check that the result is (N, C, *grid).

    Args:
        output: the layer's output.
        layout: how to read it; None reads (N, C, *grid).
        name: the layer's name, for the error message.
        n: number of images N.
        axes: number of spatial axes of the images; None accepts one to three.

    Raises:
        ValueError: the layout does not fit the output, or its result is not (N, C, *grid).
    """
    layout = layout or nchw
    try:
        maps = layout(output)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise ValueError(
            f"layer {name!r} returns {tuple(output.shape)}, which the layout {_text(layout)} "
            f"cannot read: {error}. {_expected(n, axes)}"
        ) from error
    dims = (3, 4, 5) if axes is None else (2 + axes,)
    if not isinstance(maps, Tensor) or maps.ndim not in dims or len(maps) != n:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"layer {name!r} returns {tuple(output.shape)}, which the layout {_text(layout)} turns "
            f"into {got}. {_expected(n, axes)}"
        )
    return maps


def _expected(n: int, axes: int | None) -> str:
    grid = {None: "*grid", 1: "l", 2: "h, w", 3: "d, h, w"}[axes]
    return (
        f"Expected (N, C, {grid}) with N = {n}: pass layout= with a function that returns it (see "
        "camlens.layouts), or choose another layer"
    )


def _text(layout: Layout) -> str:
    return getattr(layout, "__name__", None) or repr(layout)
