"""Named regions of images: masks in [0, 1], however they came to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .. import render

#: The name of what lies in no other region.
BACKGROUND = "background"

#: Colours of drawn outlines, red, green and blue; after Okabe and Ito 2008, for the colour-blind.
_COLORS = (
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
    """Named masks of N images, or of any number of images if N is 1.

    Masks may be soft and may overlap. A region may be absent from an image: its mask is zero
    there, and so nothing is measured of it.

    Args:
        names: R names, each once.
        masks: (N, R, H, W), or (R, H, W) for one set of masks; boolean, or floating point in
            [0, 1]: the fraction of the pixel that belongs to the region.

    Attributes:
        names: R names.
        masks: (N, R, H, W) float32 in [0, 1].

    Raises:
        TypeError: the masks are no tensor, or of another type, or a name is no string.
        ValueError: a wrong shape or range, nothing at all, a name given twice, or not one name a
            mask.

    Example:
        >>> upper = torch.tensor([[True, True], [False, False]])
        >>> Regions(["upper", "lower"], torch.stack([upper, ~upper]))
        Regions(upper, lower: 1 x (2, 2), on cpu)
    """

    names: tuple[str, ...]
    masks: Tensor

    def __init__(self, names: Sequence[str], masks: Tensor) -> None:
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
        masks = masks.unsqueeze(0) if masks.ndim == 3 else masks
        if masks.ndim != 4 or 0 in masks.shape:
            raise ValueError(
                f"expected masks as (N, R, H, W) or (R, H, W) with no dimension empty, got "
                f"{tuple(masks.shape)}"
            )
        if len(names) != masks.shape[1]:
            raise ValueError(f"expected a name for each of {masks.shape[1]} masks, got {names}")
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise ValueError(f"expected each name once, got {twice} more often: merge their masks")
        masks = masks.float()
        render.check_range(masks, "masks", "a mask is the fraction of a pixel in the region")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "masks", masks.clamp(0, 1))

    @classmethod
    def from_boxes(
        cls, names: Sequence[str], boxes: Tensor | Sequence[object], size: tuple[int, int]
    ) -> Regions:
        """Make rectangular regions.

        Args:
            names: R names.
            boxes: (N, R, 4) or (R, 4): left, top, right and bottom edge in pixels. A pixel cut by
                an edge belongs to the box by the fraction that is covered; what lies beyond
                the image is cut off.
            size: (H, W) of the images.

        Raises:
            ValueError: a wrong shape, a value that is not finite, or edges in the wrong order.

        Example:
            >>> Regions.from_boxes(["left"], [[0, 0, 1.5, 1]], (1, 3)).masks.flatten().tolist()
            [1.0, 0.5, 0.0]
        """
        edges = torch.as_tensor(boxes, dtype=torch.float32)
        edges = edges.unsqueeze(0) if edges.ndim == 2 else edges
        if edges.ndim != 3 or edges.shape[2] != 4:
            raise ValueError(f"expected boxes as (N, R, 4) or (R, 4), got {tuple(edges.shape)}")
        low, high = edges[..., :2], edges[..., 2:]
        if not (edges.isfinite().all() & (low <= high).all()):
            raise ValueError(
                "expected each box as left <= right and top <= bottom, all finite: a box of left, "
                "top, width and height is left, top, left + width, top + height"
            )
        covered = []
        for axis, count in ((0, size[1]), (1, size[0])):
            start = torch.arange(count).to(edges)
            first, last = low[..., axis, None], high[..., axis, None]
            inside = torch.minimum(last, start + 1) - torch.maximum(first, start)
            covered.append(inside.clamp(0, 1))
        columns, rows = covered
        return cls(tuple(names), rows.unsqueeze(-1) * columns.unsqueeze(-2))

    @classmethod
    def from_labels(cls, names: Mapping[int, str], labels: Tensor) -> Regions:
        """Make regions of a map of labels, such as face parsing or segmentation gives.

        Args:
            names: from label to region; several labels may share a name, and labels that are not
                named belong to no region (see :meth:`with_background`).
            labels: (N, H, W) or (H, W) integers.

        Raises:
            TypeError: the labels are no integers.
            ValueError: a wrong shape, or no names.

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
        # Of uint8 labels, 300 would equal 44, and -1 would equal 255.
        labels = (labels.unsqueeze(0) if labels.ndim == 2 else labels).long()
        if labels.ndim != 3 or not names:
            raise ValueError(
                f"expected labels as (N, H, W) or (H, W) and at least one name, got "
                f"{tuple(labels.shape)} and {dict(names)}"
            )
        parts: dict[str, Tensor] = {}
        for label, name in names.items():
            mask = labels == label
            parts[name] = parts[name] | mask if name in parts else mask
        return cls(tuple(parts), torch.stack(list(parts.values()), dim=1))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.masks.shape[-2], self.masks.shape[-1]

    def with_background(self, name: str = BACKGROUND) -> Regions:
        """Add the region of what belongs to no other: one minus the masks' sum, if positive."""
        rest = (1 - self.masks.sum(dim=1, keepdim=True)).clamp(min=0)
        return Regions((*self.names, name), torch.cat([self.masks, rest], dim=1))

    def pick(self, *names: str) -> Regions:
        """Return some of the regions, in the order given.

        Raises:
            LookupError: there is no such region.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise LookupError(f"no region is called {unknown}; there are {list(self.names)}")
        return Regions(names, self.masks[:, [self.names.index(name) for name in names]])

    def resize(self, size: tuple[int, int]) -> Regions:
        """Return the regions for images of another size; masks that sum to 1 still do."""
        if size == self.size:
            return self
        masks = interpolate(self.masks, size, mode="bilinear", align_corners=False, antialias=True)
        return Regions(self.names, masks.clamp(0, 1))

    def to(self, device: torch.device | str) -> Regions:
        """Return the regions on another device."""
        return Regions(self.names, self.masks.to(device))

    def draw(self, pictures: Tensor, *, width: float = 2.0) -> Tensor:
        """Draw the outlines over pictures, each region in a colour of its own.

        Args:
            pictures: (N, 1 or 3, H, W) images or (N, K, 3, H, W) as :func:`camlens.overlay` gives
                them, of any size.
            width: of the lines in pixels.

        Returns:
            (N, K, 3, H, W) uint8.

        Raises:
            ValueError: the masks are of another number of images.
        """
        n = len(pictures)
        if len(self.masks) not in (1, n):
            raise ValueError(f"expected regions of {n} images or of one, got {len(self.masks)}")
        drawn: Tensor = pictures if pictures.ndim == 5 else pictures.unsqueeze(1)
        k = drawn.shape[1]
        flat = drawn.flatten(0, 1)
        outlines = self.resize((drawn.shape[-2], drawn.shape[-1])).masks.to(pictures.device)
        outlines = outlines.expand(n, -1, -1, -1).repeat_interleave(k, 0)
        for index in reversed(range(len(self.names))):  # shared edges keep the first colour
            color = _COLORS[index % len(_COLORS)]
            line = outlines[:, index : index + 1]
            flat = render.contours(flat, line, width=width, color=color).squeeze(1)
        return flat.reshape(n, k, *flat.shape[1:])

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return a line with the names and the size."""
        n = len(self.masks)
        return f"Regions({', '.join(self.names)}: {n} x {self.size}, on {self.masks.device})"
