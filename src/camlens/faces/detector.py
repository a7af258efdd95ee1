"""Base class of the face detectors, and their result: the faces in a batch of photographs."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .. import render
from . import model_files

Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB
# One row per face: left, top, width, height, confidence, then x and y of each point.
Rows = npt.NDArray[np.float32]
Find = Callable[[Picture], Rows]

_SHORT_SIDE = 240  # pixels; photographs with a shorter side are enlarged


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Faces:
    """The faces in N photographs, at most F in each, the largest first.

    Positions are in pixels of the photograph: x to the right, y down, (0, 0) at its upper left
    corner, so that the centre of the first pixel is at (0.5, 0.5). If the edge cuts a face, some of
    its points may lie outside. A photograph with fewer than F faces has NaN in the remaining rows.

    Attributes:
        points: (N, F, P, 2) float32, x and y of P points.
        boxes: (N, F, 4) float32: left, top, width and height.
        confidence: (N, F) float32 in [0, 1]; NaN also if the detector returns none.
        count: (N,) int64, the number of faces in the photograph, which may exceed F.

    Example:
        >>> nothing = torch.full((1, 1, 5, 2), torch.nan)
        >>> Faces(
        ...     points=nothing,
        ...     boxes=nothing[:, :, 0].repeat(1, 1, 2),
        ...     confidence=nothing[:, :, 0, 0],
        ...     count=torch.tensor([0]),
        ... ).found.tolist()
        [[False]]
    """

    points: Tensor
    boxes: Tensor
    confidence: Tensor
    count: Tensor

    @property
    def found(self) -> Tensor:
        """(N, F) bool: whether the row holds a face."""
        return ~self.boxes[..., 0].isnan()


class Detector(abc.ABC):
    """Base class of detectors: prepares photographs and maps results back to their pixels."""

    _points: ClassVar[int]

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        model: str,
        threshold: float,
        enlarge: int | None,
        border: float,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"expected a threshold in (0, 1), got {threshold}")
        if enlarge is not None and (not isinstance(enlarge, int) or enlarge < 1):
            raise ValueError(f"expected enlarge as an integer of at least 1, got {enlarge}")
        if not 0 <= border <= 1:
            raise ValueError(f"expected border as a fraction in [0, 1], got {border}")
        self._threshold, self._enlarge, self._border = threshold, enlarge, border
        self._path = model_files.find(model, path)

    def __call__(self, photos: Tensor, *, faces: int = 1) -> Faces:
        """Find the faces in photographs.

        Args:
            photos: (N, 3, H, W) RGB or (N, 1, H, W) grey, uint8, or floating point in [0, 1].
            faces: F, the number of faces to return for each photograph, those with the largest
                boxes; ``count`` is the number found.

        Returns:
            The faces, on the photographs' device. If no face is found, ``count`` is 0 and the
            values are NaN.

        Raises:
            TypeError: the photographs are neither uint8 nor floating point.
            ValueError: the shape or range is wrong, there is no photograph, ``faces`` is less than
                1, or the model file cannot be read.
        """
        if not isinstance(faces, int) or faces < 1:
            raise ValueError(f"expected faces as an integer of at least 1, got {faces}")
        if isinstance(photos, Tensor) and photos.numel() == 0:
            raise ValueError(f"expected at least one photograph, got {tuple(photos.shape)}")
        pictures = render.as_rgb(photos).detach().mul(255).add_(0.5).to(torch.uint8).cpu()
        with self._opened(faces) as find:
            detections = [self._detect(picture, find) for picture in pictures]
        table = np.full((len(detections), faces, 5 + 2 * self._points), np.nan, np.float32)
        for row, rows in zip(table, detections, strict=True):
            largest = np.argsort(-rows[:, 2] * rows[:, 3], kind="stable")[:faces]
            row[: len(largest)] = rows[largest]
        values = torch.from_numpy(table).to(photos.device)
        return Faces(
            points=values[..., 5:].unflatten(-1, (self._points, 2)),
            boxes=values[..., :4],
            confidence=values[..., 4],
            count=torch.tensor([len(rows) for rows in detections], device=photos.device),
        )

    def _detect(self, picture: Tensor, find: Find) -> Rows:
        """Return the faces of a (3, H, W) uint8 picture, in its own pixels."""
        rows = self._within(self._border, picture, find)
        return rows if len(rows) or not self._border else self._within(0, picture, find)

    def _within(self, border: float, picture: Tensor, find: Find) -> Rows:
        height, width = picture.shape[-2:]
        factor = self._enlarge or math.ceil(_SHORT_SIDE / min(height, width))
        across, down = round(border * width), round(border * height)
        margins = (across, across, down, down)
        wide = pad(picture[None].float(), margins, mode="replicate")
        if factor > 1:
            size = (wide.shape[-2] * factor, wide.shape[-1] * factor)
            wide = interpolate(wide, size, mode="bicubic", align_corners=False)
        pixels = wide[0].add(0.5).clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
        rows = find(np.ascontiguousarray(pixels.numpy())).copy()
        # Both libraries measure from the picture's corner (a point and its mirror image add up to
        # the width), so positions scale with the enlargement.
        rows[:, :4] /= factor
        rows[:, 5:] /= factor
        rows[:, [0, *range(5, rows.shape[1], 2)]] -= across
        rows[:, [1, *range(6, rows.shape[1], 2)]] -= down
        return rows

    @abc.abstractmethod
    def _opened(self, faces: int) -> contextlib.AbstractContextManager[Find]:
        """Open the model for one call. It is not shared between threads, and always closed.

        Yields:
            A function that finds the faces in a picture, at least ``faces`` if it has that many.
        """


def import_library(name: str, need: str, extra: str) -> Any:
    """Import an optional library, or raise an error that names the extra to install.

    Raises:
        ImportError: the library is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{need}: pip install "camlens[{extra}]" ({error})') from error


def unreadable(path: Path, reader: str) -> ValueError:
    """Return the error for a model file that a library could not open."""
    return ValueError(
        f"{reader} could not read {path} as a face model: expected the file that "
        "camlens.faces.model_files names (not the few lines of text of a Git LFS pointer)"
    )
