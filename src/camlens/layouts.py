"""How a layer's output is read as (N, C, *grid): stub until the branch axes is merged."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Layout = Callable[[Tensor], Tensor]


def nchw(output: Tensor) -> Tensor:
    return output


def nhwc(output: Tensor) -> Tensor:
    return output.movedim(-1, 1)


def tokens(prefix: int, grid: tuple[int, ...]) -> Layout:
    def layout(output: Tensor) -> Tensor:
        patches = output[:, prefix:].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *grid)

    return layout


def read(output: Tensor, layout: Layout | None, name: str, n: int) -> Tensor:
    maps = output if layout is None else layout(output)
    if len(maps) != n:
        raise ValueError(f"layer {name!r} gives {len(maps)} rows for {n} images")
    return maps
