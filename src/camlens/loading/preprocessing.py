"""Convert a picture to a model's input: resize, crop and normalise."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .photographs import MAX_PIXELS

__all__ = ["Preprocessing"]

INTERPOLATIONS = ("bilinear", "bicubic")
FITS = ("cover", "stretch", "keep")

#: Pictures whose aspect ratio exceeds the model input's by this factor are cropped before they are
#: resized: the rest would be cropped anyway, and a picture of 1 x 60000 pixels would take
#: gigabytes.
_LONGEST = 8

#: Weights of red, green and blue in a grey value (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resizes, centre-crops and normalises pictures, as torchvision's weights require.

    Attributes:
        size: (H, W) of the model's input in pixels, the centre crop; None: no crop.
        resize: (H, W) of the resize before the crop; None: same as ``size``.
        fit: how a picture is resized. ``"cover"``: to the smallest size with the same aspect ratio
            that covers ``resize``, like torchvision's ``Resize(n)`` for (n, n).
            ``"stretch"``: to ``resize`` exactly, like ``Resize((h, w))``. ``"keep"``: not at all.
        mean: subtracted from values in [0, 1]; one per channel or one for all.
        std: divides the result; one per channel or one for all.
        channels: 3 for RGB, 1 for grey.
        interpolation: ``"bilinear"`` or ``"bicubic"``, both with antialiasing.

    Raises:
        ValueError: a value is out of range, or mean and std do not match the channels.

    Example:
        >>> preprocess = Preprocessing(size=(1, 1), mean=(0.5,), std=(0.5,))
        >>> values, picture = preprocess(torch.tensor([[[0, 255, 0]]] * 3, dtype=torch.uint8))
        >>> picture.flatten().tolist(), values.flatten().tolist()
        ([255, 255, 255], [1.0, 1.0, 1.0])
        >>> preprocess.box((1, 3))
        (0.0, 1.0, 1.0, 1.0)
    """

    size: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
    fit: str = "cover"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: int = 3
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("size", "resize"):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or min(value) < 1):
                raise ValueError(f"expected {name} as (H, W) of at least 1 pixel, got {value}")
        if self.fit not in FITS or (self.fit == "keep" and self.resize is not None):
            raise ValueError(
                f"expected fit to be one of {FITS}, and no resize if 'keep', got {self.fit!r} with "
                f"resize={self.resize}"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"expected 1 channel (grey) or 3 (RGB), got {self.channels}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ValueError(
                    f"expected one {name} for all channels or one for each of {self.channels}, "
                    f"got {len(getattr(self, name))}"
                )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"expected std > 0, got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"expected one of {INTERPOLATIONS}, got {self.interpolation!r}")

    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model's input for a picture.

        Args:
            picture: (3, H, W) uint8 RGB, as :func:`camlens.loading.read_photograph` returns it.

        Returns:
            The input, (channels, h, w) float32, and the picture before normalisation, (3, h, w)
            uint8: resized, cropped and, for a model with grey input, grey.

        Raises:
            TypeError: the picture is not uint8.
            ValueError: the picture is not (3, H, W), or would be resized to more than
                :data:`~camlens.loading.MAX_PIXELS`.
        """
        if picture.dtype != torch.uint8:
            raise TypeError(f"expected a uint8 picture, got {picture.dtype}")
        if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
            raise ValueError(f"expected a picture as (3, H, W), got {tuple(picture.shape)}")
        way = self._way(*picture.shape[-2:])
        picture = _middle(self._resized(_middle(picture, way.cut), way.resized), way.crop)
        if self.channels == 1:
            luma = torch.tensor(_LUMA).view(3, 1, 1)
            grey = (picture * luma).sum(dim=0, keepdim=True)
            picture = grey.add(0.5).clamp(0, 255).to(torch.uint8).expand(3, -1, -1)
        values = picture[: self.channels].float() / 255
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return (values - mean) / std, picture.contiguous()

    def values(self, picture: Tensor) -> Tensor:
        """Return only the input, (channels, h, w) float32."""
        return self(picture)[0]

    def seen(self, picture: Tensor) -> Tensor:
        """Return only the picture before normalisation, (3, h, w) uint8."""
        return self(picture)[1]

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of a photograph that the model's input shows.

        Args:
            size: (H, W) of the upright photograph in pixels, as
                :func:`camlens.loading.read_photograph` returns it.

        Returns:
            (top, left, height, width) in pixels of the photograph, whose pixel (y, x) covers
            [y, y + 1) and [x, x + 1). Row i of h rows of the input shows the photograph from
            ``top + i * height / h`` to ``top + (i + 1) * height / h``, and columns likewise. The
            box extends beyond the photograph if a crop larger than the picture adds a black border.
        """
        way = self._way(*size)
        (top, height), (left, width) = (
            (_start(whole, cut) + _start(resized, crop) * cut / resized, crop * cut / resized)
            for whole, cut, resized, crop in zip(size, way.cut, way.resized, way.crop, strict=True)
        )
        return top, left, height, width

    def _way(self, h: int, w: int) -> _Way:
        """Return the sizes of a picture of (h, w) pixels after each step."""
        goal = self.resize or self.size
        if goal is None or self.fit == "keep":
            return _Way(cut=(h, w), resized=(h, w), crop=self.size or (h, w))
        if self.fit == "stretch":
            return _Way(cut=(h, w), resized=goal, crop=self.size or goal)
        if self.size is not None:
            tallest, widest = (max(a, b) for a, b in zip(goal, self.size, strict=True))
            h = min(h, math.ceil(w * _LONGEST * max(1, tallest / goal[1])))
            w = min(w, math.ceil(h * _LONGEST * max(1, widest / goal[0])))
        # As in torchvision, the longer side is rounded down.
        tall = goal[0] * w >= goal[1] * h
        resized = (goal[0], int(goal[0] * w / h)) if tall else (int(goal[1] * h / w), goal[1])
        if math.prod(resized) > MAX_PIXELS:
            raise ValueError(
                f"a picture of {h} x {w} pixels would be resized to {resized[0]} x {resized[1]}, "
                f"more than {MAX_PIXELS // 10**6} megapixels: crop it first"
            )
        return _Way(cut=(h, w), resized=resized, crop=self.size or resized)

    def _resized(self, picture: Tensor, size: tuple[int, int]) -> Tensor:
        if size == tuple(picture.shape[-2:]):
            return picture
        values = interpolate(
            picture[None].float(),
            size,
            mode=self.interpolation,
            align_corners=False,
            antialias=True,
        )
        # Round half to even, as in torchvision.
        return values[0].round_().clamp_(0, 255).to(torch.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Way:
    """Sizes (H, W) of a picture after each step: the first cut, the resize and the centre crop."""

    cut: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]


def _middle(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the centre crop of a picture, with a black border if the picture is smaller."""
    sides: list[int] = []
    for whole, part in zip(picture.shape[-2:], size, strict=True):
        before = max(-_start(whole, part), 0)
        sides = [before, max(part - whole - before, 0), *sides]
    if any(sides):
        picture = pad(picture, sides)
    top, left = (
        max(_start(whole, part), 0) for whole, part in zip(picture.shape[-2:], size, strict=True)
    )
    return picture[:, top : top + size[0], left : left + size[1]]


def _start(whole: int, part: int) -> int:
    """Return the centre crop's start, rounded as in torchvision; negative if the crop is larger."""
    return round((whole - part) / 2) if whole >= part else -((part - whole) // 2)
