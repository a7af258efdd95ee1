"""Named regions of images, signals or volumes, as masks in [0, 1]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .. import render

#: Name of the region of the pixels that belong to no other region.
BACKGROUND = "background"

#: Names of the spatial axes, by their number.
_LETTERS = {1: "L", 2: "HW", 3: "DHW"}

#: Colours of drawn outlines, red, green and blue; after Okabe and Ito 2008, for the colour-blind.
COLORS = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.94, 0.89, 0.26),
    (0.80, 0.47, 0.65),
    (0.00, 0.62, 0.45),
    (0.84, 0.37, 0.00),
    (0.00, 0.45, 0.70),
    (1.00, 1.00, 1.00),
)


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Regions:
    """Named regions of N images, as masks; with N = 1 one set for any number of images.

    Masks may be soft and may overlap. If a region is absent from an image, its mask is zero there
    and all its scores are NaN.

    Args:
        names: R distinct names.
        masks: ``(N, R, *size)``, or ``(R, *size)`` for one set of masks; boolean, or floating
            point in [0, 1]: the fraction of the pixel that belongs to the region.
        axes: number of spatial axes: 1 for signals (N, R, L), 2 for images (N, R, H, W), 3 for
            volumes (N, R, D, H, W). By default 3 for five-dimensional masks, otherwise 2.

    Attributes:
        names: R names.
        masks: ``(N, R, *size)`` float32 in [0, 1].

    Raises:
        TypeError: the masks are not a boolean or floating-point tensor, or a name is not a string.
        ValueError: the shape or range is wrong, a dimension is empty, a name is repeated, or the
            number of names is not the number of masks.

    Example:
        >>> upper = torch.tensor([[True, True], [False, False]])
        >>> Regions(["upper", "lower"], torch.stack([upper, ~upper]))
        Regions(upper, lower: 1 x (2, 2), on cpu)
    """

    names: tuple[str, ...]
    masks: Tensor

    def __init__(self, names: Sequence[str], masks: Tensor, *, axes: int | None = None) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"expected names as a sequence of strings, got {names!r}")
        if not isinstance(masks, Tensor):
            raise TypeError(
                f"expected masks as a tensor, got {type(masks).__name__}: convert with "
                "torch.as_tensor"
            )
        if not (masks.is_floating_point() or masks.dtype == torch.bool):
            raise TypeError(
                f"expected boolean masks or floating point in [0, 1], got {masks.dtype}: for a map "
                "of labels see Regions.from_labels"
            )
        axes = _axes(axes, 3 if masks.ndim == 5 else 2)
        masks = masks.unsqueeze(0) if masks.ndim == axes + 1 else masks
        if masks.ndim != axes + 2 or 0 in masks.shape:
            size = ", ".join(_LETTERS[axes])
            raise ValueError(
                f"expected masks as (N, R, {size}) or (R, {size}) with no dimension empty, got "
                f"{tuple(masks.shape)}; for signals or volumes pass axes=1 or axes=3"
            )
        if len(names) != masks.shape[1]:
            raise ValueError(f"expected a name for each of {masks.shape[1]} masks, got {names}")
        if repeated := sorted({name for name in names if list(names).count(name) > 1}):
            raise ValueError(f"expected distinct names, but {repeated} recur: merge the masks")
        masks = masks.float()
        render.check_range(masks, "masks", "a mask is the fraction of a pixel in the region")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "masks", masks.clamp(0, 1))

    @classmethod
    def from_boxes(
        cls, names: Sequence[str], boxes: Tensor | Sequence[object], size: Sequence[int]
    ) -> Regions:
        """Make rectangular regions.

        Args:
            names: R names.
            boxes: (N, R, 2 * axes) or (R, 2 * axes) in pixels. For images: left, top, right and
                bottom edge; for signals: start and end; for volumes: left, top, front, right,
                bottom and back. A pixel on an edge belongs to the box by the fraction covered;
                parts outside the image are ignored.
            size: (H, W) of images, (L,) of signals, (D, H, W) of volumes.

        Raises:
            ValueError: a shape is wrong, a value is not finite, or edges are in the wrong order.

        Example:
            >>> Regions.from_boxes(["left"], [[0, 0, 1.5, 1]], (1, 3)).masks.flatten().tolist()
            [1.0, 0.5, 0.0]
        """
        axes = _axes(len(size), len(size))
        edges = torch.as_tensor(boxes, dtype=torch.float32)
        edges = edges.unsqueeze(0) if edges.ndim == 2 else edges
        if edges.ndim != 3 or edges.shape[2] != 2 * axes:
            numbers = 2 * axes
            raise ValueError(
                f"expected boxes as (N, R, {numbers}) or (R, {numbers}) for images of the size "
                f"{tuple(size)}, got {tuple(edges.shape)}"
            )
        low, high = edges[..., :axes], edges[..., axes:]
        if not (edges.isfinite().all() & (low <= high).all()):
            raise ValueError(
                "expected each box as left <= right and top <= bottom, all finite: a box of left, "
                "top, width and height is left, top, left + width, top + height"
            )
        masks = edges.new_ones(edges.shape[:2])
        for axis, length in enumerate(size):
            start = torch.arange(length).to(edges)
            # Boxes start with x, which is the last axis of an image.
            first, last = (bound[..., axes - 1 - axis, None] for bound in (low, high))
            covered = (torch.minimum(last, start + 1) - torch.maximum(first, start)).clamp(0, 1)
            covered = covered.view(*edges.shape[:2], *[1] * axis, length)
            masks = masks.unsqueeze(-1) * covered
        return cls(tuple(names), masks, axes=axes)

    @classmethod
    def from_labels(
        cls, names: Mapping[int, str], labels: Tensor, *, axes: int | None = None
    ) -> Regions:
        """Make regions from a label map, such as the result of face parsing or segmentation.

        Args:
            names: region names by label; several labels may share a name, and labels without a name
                belong to no region (see :meth:`with_background`).
            labels: ``(N, *size)`` or ``(*size)`` integers.
            axes: number of spatial axes; by default 3 for four-dimensional labels, otherwise 2.

        Raises:
            TypeError: the labels are not integers.
            ValueError: the shape is wrong, or there are no names.

        Example:
            >>> parts = {1: "eyes", 2: "eyes", 3: "mouth"}
            >>> Regions.from_labels(parts, torch.tensor([[0, 1, 2, 3]])).masks[0, :, 0].tolist()
            [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        """
        if not isinstance(labels, Tensor) or not isinstance(names, Mapping):
            raise TypeError(
                "expected names as a dict from label to name, and labels as a tensor, got "
                f"{type(names).__name__} and {type(labels).__name__}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"expected labels as integers, got {labels.dtype}")
        axes = _axes(axes, 3 if labels.ndim == 4 else 2)
        # As int64: in uint8, 300 would equal 44, and -1 would equal 255.
        labels = (labels.unsqueeze(0) if labels.ndim == axes else labels).long()
        if labels.ndim != axes + 1 or not names:
            size = ", ".join(_LETTERS[axes])
            raise ValueError(
                f"expected labels as (N, {size}) or ({size}) and at least one name, got "
                f"{tuple(labels.shape)} and {dict(names)}"
            )
        parts: dict[str, Tensor] = {}
        for label, name in names.items():
            mask = labels == label
            parts[name] = parts[name] | mask if name in parts else mask
        return cls(tuple(parts), torch.stack(list(parts.values()), dim=1), axes=axes)

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) in pixels; (L,) of signals, (D, H, W) of volumes."""
        return tuple(self.masks.shape[2:])

    def with_background(self, name: str = BACKGROUND) -> Regions:
        """Return the regions and a background: one minus the masks' sum, where positive."""
        rest = (1 - self.masks.sum(dim=1, keepdim=True)).clamp(min=0)
        return self._with((*self.names, name), torch.cat([self.masks, rest], dim=1))

    def pick(self, *names: str) -> Regions:
        """Return some of the regions, in the given order.

        Raises:
            LookupError: there is no such region.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise LookupError(f"there are no regions {unknown}; choose from {list(self.names)}")
        return self._with(names, self.masks[:, [self.names.index(name) for name in names]])

    def of_images(self, rows: slice) -> Regions:
        """Return the regions of some images; one set for all images is returned unchanged."""
        masks = self.masks if len(self.masks) == 1 else self.masks[rows]
        return self._with(self.names, masks)

    def resize(self, size: Sequence[int]) -> Regions:
        """Return the regions at another image size; masks that sum to 1 still sum to 1."""
        if tuple(size) == self.size:
            return self
        return self._with(self.names, _resized(self.masks, tuple(size)).clamp(0, 1))

    def to(self, device: torch.device | str) -> Regions:
        """Return the regions on another device."""
        return self._with(self.names, self.masks.to(device))

    def draw(self, pictures: Tensor, *, width: float = 2.0) -> Tensor:
        """Draw the outlines over pictures, each region in its own colour.

        Args:
            pictures: (N, 1 or 3, H, W) images or (N, K, 3, H, W) from :func:`camlens.overlay`, of
                any size.
            width: width of the lines in pixels.

        Returns:
            (N, K, 3, H, W) uint8.

        Raises:
            ValueError: the number of masks does not fit the number of images, or the regions are
                those of signals or volumes.
        """
        n = len(pictures)
        if len(self.size) != 2:
            raise ValueError(f"expected regions of 2-D images to draw, got the size {self.size}")
        if len(self.masks) not in (1, n):
            raise ValueError(f"expected regions of {n} images or of one, got {len(self.masks)}")
        canvas: Tensor = pictures if pictures.ndim == 5 else pictures.unsqueeze(1)
        k = canvas.shape[1]
        flat = canvas.flatten(0, 1)
        outlines = self.resize(canvas.shape[-2:]).masks.to(pictures.device)
        outlines = outlines.expand(n, -1, -1, -1).repeat_interleave(k, 0)
        for index in reversed(range(len(self.names))):  # shared edges keep the first colour
            color = COLORS[index % len(COLORS)]
            line = outlines[:, index : index + 1]
            flat = render.contours(flat, line, width=width, color=color).squeeze(1)
        return flat.reshape(n, k, *flat.shape[1:])

    def _with(self, names: Sequence[str], masks: Tensor) -> Regions:
        return Regions(names, masks, axes=len(self.size))

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return a one-line summary."""
        n = len(self.masks)
        return f"Regions({', '.join(self.names)}: {n} x {self.size}, on {self.masks.device})"


def _axes(axes: int | None, default: int) -> int:
    """Return the number of spatial axes."""
    axes = default if axes is None else axes
    if axes not in _LETTERS:
        raise ValueError(f"expected 1, 2 or 3 spatial axes, got {axes}")
    return axes


def _resized(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize masks by linear interpolation with antialiasing."""
    options: dict[str, Any] = {"mode": "bilinear", "align_corners": False, "antialias": True}
    if masks.ndim == 4:
        return interpolate(masks, size, **options)
    # torch antialiases 2-D images only, but the filter is separable: one axis at a time.
    for axis, length in enumerate(size, start=2):
        moved = masks.movedim(axis, -1)
        lines = interpolate(moved.reshape(1, -1, 1, moved.shape[-1]), (1, length), **options)
        masks = lines.reshape(*moved.shape[:-1], length).movedim(-1, axis)
    return masks
