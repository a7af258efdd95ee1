"""Contact sheets: pictures in rows and columns, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .figures import Figure


def sheet(
    pictures: Tensor,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    scale: float = 1.0,
    colorbar: str = "",
) -> Figure:
    """Arrange pictures in a labelled contact sheet.

    Args:
        pictures: (rows, columns, 3, H, W) uint8, such as an overlay's (N, K, 3, H, W).
        rows: a label for each row, drawn on its left.
        columns: a label for each column, drawn above it.
        title: the title of the sheet.
        scale: size of a picture's pixel in pixels of the sheet; integers give sharp pixels.
        colorbar: name of a matplotlib colormap to draw below the pictures, from no evidence to each
            map's maximum; "" for none.

    Returns:
        A matplotlib figure. A notebook displays it at the end of a cell;
        ``figure.savefig("sheet.png")`` writes it to a file.

    Raises:
        ValueError: the shape or scale is wrong, or the number of labels differs from the number of
            rows or columns.
    """
    if pictures.ndim != 5 or pictures.shape[2] != 3 or pictures.dtype != torch.uint8:
        raise ValueError(
            "expected pictures as (rows, columns, 3, H, W) uint8, got "
            f"{tuple(pictures.shape)} {pictures.dtype}"
        )
    if scale <= 0:
        raise ValueError(f"expected a scale > 0, got {scale}")
    r, c, _, h, w = pictures.shape
    for labels, count, kind in ((rows, r, "row"), (columns, c, "column")):
        if labels and len(labels) != count:
            raise ValueError(f"expected {count} {kind} labels, got {len(labels)}")
    gap = max(2, w // 32)
    canvas = pictures.new_full((3, r * (h + gap) - gap, c * (w + gap) - gap), 255)
    for top in range(r):
        y = top * (h + gap)
        canvas[:, y : y + h].unfold(2, w, w + gap).copy_(pictures[top].permute(1, 2, 0, 3))
    return _labelled(
        canvas,
        (h + gap, w + gap),
        rows=rows,
        columns=columns,
        title=title,
        scale=scale,
        colorbar=colorbar,
    )


def _labelled(
    canvas: Tensor,
    pitch: tuple[int, int],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    scale: float,
    colorbar: str,
) -> Figure:
    """Draw the canvas with labels around it; ``pitch`` is the pictures' spacing in pixels."""
    from .figures import Figure

    figure = Figure(dpi=100)
    height, width = canvas.shape[1] * scale, canvas.shape[2] * scale
    longest = max((len(line) for label in rows for line in label.split("\n")), default=0)
    most = max((label.count("\n") + 1 for label in columns), default=0)
    left, top = 10 + 8 * longest, 10 + 17 * most + (30 if title else 0)
    below = 48 if colorbar else 10
    total = (left + width + 10, top + height + below)
    figure.set_size_inches(total[0] / 100, total[1] / 100)
    box = (left / total[0], below / total[1], width / total[0], height / total[1])
    axes = figure.add_axes(box)
    axes.imshow(canvas.permute(1, 2, 0).cpu().numpy(), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    at = [(i + 0.5) * pitch[1] for i in range(len(columns))]
    for x, label in zip(at, columns, strict=True):
        axes.text(x, -4, label, ha="center", va="bottom", fontsize=9, parse_math=False)
    for i, label in enumerate(rows):
        y = (i + 0.5) * pitch[0]
        axes.text(-8, y, label, ha="right", va="center", fontsize=9, parse_math=False)
    if title:
        at_top = 1 - 8 / total[1]
        figure.text(0.5, at_top, title, ha="center", va="top", fontsize=12, parse_math=False)
    if colorbar:
        length = min(width, 240)
        bar = figure.add_axes((left / total[0], 26 / total[1], length / total[0], 10 / total[1]))
        bar.imshow([range(256)], cmap=colorbar, aspect="auto")
        bar.set_axis_off()
        for x, text, side in ((0, "no evidence", "left"), (255, "the map's maximum", "right")):
            bar.text(x, 1.2, text, ha=side, va="top", fontsize=8)
    return figure
