"""Registration of a layer's cells in the image, and maps drawn at the registered positions."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, cast

import torch
from torch import Tensor

from . import heatmap

#: Fraction of a pitch: corrections that move no cell by more than this are not applied.
_NEGLIGIBLE = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """Positions of a map's cells in the image, and how accurately they are known.

    Positions are in pixels; pixel i spans [i, i + 1]. Axes are those of ``size``.

    Attributes:
        kind: how maps are drawn: ``"stretched"`` over the whole image, so that cell j of g lies at
            (j + 0.5) * size / g; ``"measured"``: at the measured centres.
        size: pixels of the image along each axis.
        grid: cells of the map along each axis.
        proven: whether a measurement showed that each cell responds to its own place; False for a
            stretched map of a layer read by your own ``layout=``, which is not checked. If False,
            measured positions are reported and never applied.
        offset: measured centre of the grid minus the image's centre; None if not measured.
        offset_error: standard error of ``offset``.
        pitch: distance between neighbouring cells' centres; size / grid if not measured.
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

    @classmethod
    def stretched(
        cls, size: tuple[int, ...], grid: tuple[int, ...], *, proven: bool = False
    ) -> Registration:
        """Return the registration of maps stretched over the image, without measurements."""
        pitch = _stretched_pitch(size, grid)
        return cls(kind="stretched", size=size, grid=grid, pitch=pitch, proven=proven)

    @property
    def applied_offset(self) -> tuple[float, ...]:
        """Shift of the drawn map in pixels.

        An offset within two standard errors of zero, or within a fiftieth of a pitch, counts as 0.
        """
        if self.kind == "stretched" or not self.proven or self.offset is None:
            return (0.0,) * len(self.size)
        errors = cast("tuple[float, ...]", self.offset_error)
        axes = zip(self.offset, errors, self.pitch, strict=True)
        return tuple(o if abs(o) > max(2 * e, _NEGLIGIBLE * p) else 0.0 for o, e, p in axes)

    @property
    def applied_pitch(self) -> tuple[float, ...]:
        """Pitch of the drawn map in pixels.

        It is size / grid if the measured pitch is within two standard errors of that, is less than
        two standard errors above zero, or would move no cell by a fiftieth of a pitch.
        """
        nominal = _stretched_pitch(self.size, self.grid)
        if self.kind == "stretched" or not self.proven or self.pitch_error is None:
            return nominal
        axes = zip(self.pitch, self.pitch_error, nominal, self.grid, strict=True)
        return tuple(p if _differs(p, e, n, g) else n for p, e, n, g in axes)

    @property
    def moved(self) -> bool:
        """Whether any cell is drawn at a different position than in a stretched map."""
        return any(self.applied_offset) or self.applied_pitch != _stretched_pitch(
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
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        return cls(**values)


def _stretched_pitch(size: tuple[int, ...], grid: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(s / g for s, g in zip(size, grid, strict=True))


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
