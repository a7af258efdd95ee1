"""Draw one photograph's maps: on the photograph at its own size, and side by side in a sheet."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..explanation import Explanation
from ..render import contours, overlay, sheet, signed

#: (top, left, height, width) of the model's picture in the photograph's pixels.
Box = tuple[float, float, float, float]

#: Brightness of the parts of a photograph that the model did not see.
_UNSEEN = 0.35

#: Smallest and largest length of a picture's longer side in a sheet, in pixels.
_LEAST, _MOST = 224, 384

#: The colormap of overlays.
_COLORMAP = "turbo"


def drawn(photograph: Tensor, box: Box, explanation: Explanation) -> dict[str, Tensor]:
    """Draw the K maps of one image on the photograph at its own size.

    Pixels outside the box, which the model did not see, are darkened.

    Args:
        photograph: (3, H, W) uint8.
        box: position of the model's picture in the photograph.
        explanation: the explanation of this image.

    Returns:
        (K, 3, H, W) uint8 by kind: ``"overlay"``, ``"contours"``, and ``"signed"`` for explanations
        with gradients of the image.
    """
    size = (photograph.shape[-2], photograph.shape[-1])
    seen = placed(torch.ones(1, 1, 1), size, box)[0] > 0
    dark = (photograph.float() * _UNSEEN).to(torch.uint8)
    pictures: dict[str, list[Tensor]] = {"overlay": [], "contours": []}
    for heat in explanation.heatmaps[0]:  # one at a time: a photograph may be large
        on_photograph = placed(heat[None], size, box)[None]
        for kind, draw in (("overlay", overlay), ("contours", contours)):
            picture = draw(photograph[None], on_photograph)[0, 0]
            pictures[kind].append(torch.where(seen, picture, dark))
    by_kind = {kind: torch.stack(each) for kind, each in pictures.items()}
    gradients = explanation.gradients
    if gradients is not None and gradients.shape[2] in (1, 3):
        by_kind["signed"] = torch.stack(
            [
                torch.where(seen, placed(picture.float(), size, box).round().to(torch.uint8), dark)
                for picture in signed(gradients)[0]
            ]
        )
    return by_kind


def placed(values: Tensor, size: tuple[int, int], box: Box) -> Tensor:
    """Resize and place values (C, h, w) of the model's picture in the photograph, zero elsewhere.

    Example:
        >>> placed(torch.ones(1, 2, 2), (2, 4), (0.0, 1.0, 2.0, 2.0))[0].tolist()
        [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """
    top, left = round(box[0]), round(box[1])
    height = max(round(box[0] + box[2]) - top, 1)
    width = max(round(box[1] + box[3]) - left, 1)
    if (height, width) != tuple(values.shape[-2:]):
        values = interpolate(values[None], (height, width), mode="bilinear", antialias=True)[0]
    canvas = values.new_zeros(len(values), *size)
    rows = slice(max(top, 0), min(top + height, size[0]))
    columns = slice(max(left, 0), min(left + width, size[1]))
    canvas[:, rows, columns] = values[
        :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return canvas


def side_by_side(
    photograph: Tensor,
    pictures: Sequence[tuple[str, Tensor]],
    rows: Sequence[str],
    title: str,
) -> bytes:
    """Return a PNG of a photograph and its maps side by side, with a colour bar.

    Args:
        photograph: (3, H, W) uint8.
        pictures: M columns: their labels, and (K, 3, H, W) uint8.
        rows: labels of the K targets.
        title: the title of the sheet.
    """
    size = _shown((photograph.shape[-2], photograph.shape[-1]))
    columns = [photograph.expand(len(rows), -1, -1, -1), *(each for _, each in pictures)]
    small = torch.stack([_resized(each, size) for each in columns], dim=1)
    wide = (size[1] + 8) * len(columns)
    figure = sheet(
        small,
        rows=["\n".join(_elided(line, 28) for line in row.split("\n")) for row in rows],
        columns=["photograph", *(label for label, _ in pictures)],
        title=_elided(title, max(24, wide // 8)),
        colorbar=_COLORMAP,
    )
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks, drawn as boxes
        figure.savefig(stream, format="png")
    return stream.getvalue()


def png(picture: Tensor) -> bytes:
    """Encode a (3, H, W) uint8 picture."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = picture.permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(stream, "PNG")
    return stream.getvalue()


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    longest = max(size)
    if longest > _MOST:
        scale: Any = _MOST / longest
    else:
        scale = math.ceil(_LEAST / longest)  # an integer, so that pixels stay sharp
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    if size[0] >= pictures.shape[-2]:
        return interpolate(pictures, size, mode="nearest")
    small = interpolate(pictures.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def _elided(text: str, most: int) -> str:
    """Shorten text to at most ``most`` characters by removing its middle."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}\u2026{text[-end:]}"
