"""Registration of a layer's cells in the image, and maps drawn at the registered positions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, cast

import torch
from torch import Tensor

from . import heatmap

#: Fraction of a pitch: corrections that move no cell by more than this are not applied.
_NEGLIGIBLE = 0.02

#: (first, last) position in pixels along each axis of the image.
Span = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """Positions of a map's cells in the image, and how accurately they are known.

    Positions are in pixels; pixel i spans [i, i + 1]. Axes are those of ``size``.

    Attributes:
        kind: how maps are drawn: ``"stretched"`` over ``span``, so that cell j of g lies at
            (j + 0.5) * size / g if that is the whole image; ``"measured"``: at the measured
            centres.
        size: pixels of the image along each axis.
        grid: cells of the map along each axis.
        span: the part of each image axis that the grid covers, as (first, last) pixel positions;
            None: the whole image. A model that pads its images at the end covers more, (0, size +
            padding), and one that crops them less.
        proven: whether a measurement showed that each cell responds to its own place; False for a
            stretched map of a layer read by your own ``layout=``, which is not checked. If False,
            measured positions are reported and never applied.
        offset: measured centre of the grid minus the image's centre; None if not measured.
        offset_error: standard error of ``offset``.
        pitch: distance between neighbouring cells' centres; the length of ``span`` divided by the
            cells if not measured.
        pitch_error: standard error of ``pitch``; None along an axis without a measured pitch.
        receptive_field: how much of the image a cell responds to: the width of a box with the same
            spread as the squared gradient of a cell. For a patch embedding with weights of equal
            variance this is the patch's side. It is too small where the image's border clips it.
            None if not measured.

    Example:
        >>> stretched = Registration.stretched((8,), (2,))
        >>> stretched.centres(0).tolist()
        [2.0, 6.0]
        >>> off = dataclasses.replace(
        ...     stretched, kind="measured", proven=True, offset=(-1.0,), offset_error=(0.1,)
        ... )
        >>> off.centres(0).tolist()
        [1.0, 5.0]
    """

    kind: Literal["stretched", "measured"]
    size: tuple[int, ...]
    grid: tuple[int, ...]
    pitch: tuple[float, ...]
    span: Span | None = None
    proven: bool = False
    offset: tuple[float, ...] | None = None
    offset_error: tuple[float, ...] | None = None
    pitch_error: tuple[float | None, ...] | None = None
    receptive_field: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError if the fields contradict each other."""
        if self.kind not in ("stretched", "measured"):
            raise ValueError(f'expected kind as "stretched" or "measured", got {self.kind!r}')
        if (self.offset is None) != (self.offset_error is None):
            raise ValueError("expected offset and offset_error together, got one of them")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and len(value) != len(self.size):
                raise ValueError(
                    f"expected {len(self.size)} numbers in {field.name}, as in size={self.size}, "
                    f"got {value}"
                )

        if not all(
            len(ends) == 2 and ends[0] != ends[1] and math.isfinite(ends[1] - ends[0])
            for ends in self.span or ()
        ):
            raise ValueError(f"expected span as two different positions per axis, got {self.span}")

    @classmethod
    def stretched(
        cls,
        size: tuple[int, ...],
        grid: tuple[int, ...],
        *,
        proven: bool = False,
        span: Span | None = None,
    ) -> Registration:
        """Return the registration of maps stretched over the image or a span, unmeasured."""
        pitch = stretched_pitch(size, grid, span)
        return cls(kind="stretched", size=size, grid=grid, pitch=pitch, span=span, proven=proven)

    def of_grid(self, grid: tuple[int, ...]) -> Registration:
        """Return the registration of maps on another grid over the same part of the image."""
        if grid == self.grid:
            return self
        return Registration.stretched(self.size, grid, proven=self.proven, span=self.span)

    @property
    def applied_offset(self) -> tuple[float, ...]:
        """Centre of the drawn map minus the image's centre in pixels.

        It is that of a stretched map (0 if the grid covers the whole image) if the measured offset
        is within two standard errors of that, or within a fiftieth of a pitch.
        """
        nominal = tuple(
            (first + last - side) / 2
            for (first, last), side in zip(_whole(self.size, self.span), self.size, strict=True)
        )
        if self.kind == "stretched" or not self.proven or self.offset is None:
            return nominal
        errors = cast("tuple[float, ...]", self.offset_error)
        axes = zip(self.offset, errors, self.pitch, nominal, strict=True)
        return tuple(
            o if abs(o - n) > max(2 * e, _NEGLIGIBLE * abs(p)) else n for o, e, p, n in axes
        )

    @property
    def applied_pitch(self) -> tuple[float, ...]:
        """Pitch of the drawn map in pixels.

        It is that of a stretched map if the measured pitch is within two standard errors of that,
        is less than two standard errors above zero, or would move no cell by a fiftieth of a pitch.
        """
        nominal = stretched_pitch(self.size, self.grid, self.span)
        if self.kind == "stretched" or not self.proven or self.pitch_error is None:
            return nominal
        axes = zip(self.pitch, self.pitch_error, nominal, self.grid, strict=True)
        return tuple(p if _differs(p, e, n, g) else n for p, e, n, g in axes)

    @property
    def moved(self) -> bool:
        """Whether any cell is drawn elsewhere than in a map stretched over the whole image."""
        return any(self.applied_offset) or self.applied_pitch != stretched_pitch(
            self.size, self.grid
        )

    def centres(self, axis: int) -> Tensor:
        """Return the cells' centres along an axis in pixels: (grid[axis],) float64."""
        pitch = self.applied_pitch[axis]
        cell = torch.arange(self.grid[axis], dtype=torch.float64, device="cpu")
        return self._first(axis) + cell * pitch

    def _first(self, axis: int) -> float:
        middle = self.size[axis] / 2 + self.applied_offset[axis]
        return middle - (self.grid[axis] - 1) / 2 * self.applied_pitch[axis]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Registration:
        """Return the registration of fields from :meth:`to_dict`; lists become tuples."""
        return cls(**{name: _as_tuple(value) for name, value in fields.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def stretched_pitch(
    size: tuple[int, ...],
    grid: tuple[int, ...],
    span: Span | None = None,
) -> tuple[float, ...]:
    """Return the distance between the centres of cells stretched over an image or a span of it."""
    parts = zip(_whole(size, span), grid, strict=True)
    return tuple((last - first) / cells for (first, last), cells in parts)


def _whole(size: tuple[int, ...], span: Span | None) -> Span:
    return tuple((0.0, float(side)) for side in size) if span is None else span


def _differs(pitch: float, error: float | None, nominal: float, cells: int) -> bool:
    """Return whether a pitch was measured, is positive and differs from ``nominal``."""
    if error is None or pitch <= 2 * error:
        return False
    # Differences of pitch accumulate over half the grid.
    return abs(pitch - nominal) > max(2 * error, 2 * _NEGLIGIBLE * pitch / cells)


def place(maps: Tensor, registration: Registration) -> Tensor:
    """Draw maps at the image's size, each cell at its centre.

    Values are interpolated linearly along each axis between the cells' centres; pixels beyond the
    outermost centres take the nearest cell's value. If every cell lies where stretching puts it,
    this is :func:`camlens.heatmap.resize`.

    Args:
        maps: (N, K, *grid), any range.
        registration: where the cells lie; its ``grid`` is the maps' own.

    Returns:
        (N, K, *size); each value lies within the range of its own map.

    Raises:
        ValueError: the maps have another grid.

    Example:
        >>> import dataclasses
        >>> import torch
        >>> off = dataclasses.replace(
        ...     Registration.stretched((4,), (2,), proven=True),
        ...     kind="measured",
        ...     offset=(-1.0,),
        ...     offset_error=(0.1,),
        ... )
        >>> place(torch.tensor([[[0.0, 1.0]]]), off).flatten().tolist()
        [0.25, 0.75, 1.0, 1.0]
    """
    if tuple(maps.shape[2:]) != registration.grid:
        raise ValueError(
            f"expected maps (N, K, *{registration.grid}), got {tuple(maps.shape)}: a registration "
            "holds for one layer and image size"
        )
    if not registration.moved:
        return heatmap.resize(maps, registration.size)
    for axis, pixels in enumerate(registration.size):
        maps = _along(maps, axis, pixels, registration)
    return maps


def _along(maps: Tensor, axis: int, pixels: int, registration: Registration) -> Tensor:
    """Interpolate along one axis, on the maps' device and without transfers."""
    pitch, last = registration.applied_pitch[axis], registration.grid[axis] - 1
    # Half precision cannot tell the pixels of a large image apart.
    dtype = torch.promote_types(maps.dtype, torch.float32)
    pixel = torch.arange(pixels, device=maps.device, dtype=dtype) + 0.5
    cell = ((pixel - registration._first(axis)) / pitch).clamp(0, last)
    lower = cell.floor().clamp(max=max(last - 1, 0))
    share = (cell - lower).to(maps.dtype).view(-1, *(1,) * (len(registration.grid) - 1 - axis))
    below = maps.index_select(axis + 2, lower.long())
    above = maps.index_select(axis + 2, (lower.long() + 1).clamp(max=last))
    return below + share * (above - below)
