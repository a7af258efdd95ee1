"""Preprocessing: from a picture to a model's input."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["Preprocessing"]

INTERPOLATIONS = ("bilinear", "bicubic")

#: Pictures with a larger aspect ratio are cropped before they are resized: the rest would be cut
#: off anyway, and a picture of 1 x 60000 pixels would take gigabytes.
_LONGEST = 8

#: Weights of red, green and blue in a grey value (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, centre-crop and normalise, as torchvision's weights require.

    Attributes:
        size: (H, W) of the model's input in pixels; None keeps the picture's size.
        resize: (H, W) that the resized picture covers before the crop; None: as ``size``.
        mean: of values in [0, 1], per channel or one for all; subtracted.
        std: divides the result, per channel or one for all.
        channels: 3 for RGB, 1 for grey.
        interpolation: ``"bilinear"`` or ``"bicubic"``, both with antialiasing.

    Raises:
        ValueError: a value is out of range, or mean and std do not fit the channels.

    Example:
        >>> preprocess = Preprocessing(size=(1, 1), mean=(0.5,), std=(0.5,))
        >>> values, picture = preprocess(torch.tensor([[[0, 255, 0]]] * 3, dtype=torch.uint8))
        >>> picture.flatten().tolist(), values.flatten().tolist()
        ([255, 255, 255], [1.0, 1.0, 1.0])
    """

    size: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
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
            picture: (3, H, W) uint8 RGB, as :func:`camlens.loading.read_photograph` gives it.

        Returns:
            The input, (channels, h, w) float32, and the picture before normalisation, (3, h, w)
            uint8: resized, cropped and, for a model of grey pictures, grey.

        Raises:
            TypeError: the picture is not uint8.
            ValueError: the picture is not (3, H, W).
        """
        if picture.dtype != torch.uint8:
            raise TypeError(f"expected a uint8 picture, got {picture.dtype}")
        if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
            raise ValueError(f"expected a picture as (3, H, W), got {tuple(picture.shape)}")
        if self.size is not None:
            picture = self._middle(self._resized(picture), self.size)
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

    def _resized(self, picture: Tensor) -> Tensor:
        """Return the picture at the smallest size that covers ``resize``, proportions kept."""
        goal = self.resize or self.size
        if goal is None:
            return picture
        h, w = picture.shape[-2:]
        picture = self._middle(picture, (min(h, w * _LONGEST), min(w, h * _LONGEST)))
        h, w = picture.shape[-2:]
        # Rounded as in torchvision: the longer side down.
        tall = goal[0] * w >= goal[1] * h
        size = (goal[0], int(goal[0] * w / h)) if tall else (int(goal[1] * h / w), goal[1])
        if size == (h, w):
            return picture
        values = interpolate(
            picture[None].float(),
            size,
            mode=self.interpolation,
            align_corners=False,
            antialias=True,
        )
        # Half to even, as in torchvision.
        return values[0].round_().clamp_(0, 255).to(torch.uint8)

    @staticmethod
    def _middle(picture: Tensor, size: tuple[int, int]) -> Tensor:
        top, left = (
            round((whole - part) / 2) for whole, part in zip(picture.shape[-2:], size, strict=True)
        )
        return picture[:, top : top + size[0], left : left + size[1]]
