"""Indexing of an explanation by image, and a weak reference to the explained images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

#: Selects one image, or several by a slice, indices or a mask.
Index = int | slice | Sequence[int] | Tensor


class ImageReference:
    """A weak reference to images or their rows, valid while the caller holds them unchanged.

    Args:
        images: (N, ...). None, or a tensor made in inference mode, whose in-place changes torch
            does not count, gives an empty reference.
    """

    def __init__(self, images: Tensor | None = None) -> None:
        self._reference: TensorWeakRef | None = None
        self._version = 0
        self._rows: tuple[slice | Tensor, ...] = ()
        if isinstance(images, Tensor) and not images.is_inference():
            self._reference, self._version = TensorWeakRef(images), images._version

    def get(self, count: int) -> Tensor | None:
        """Return the (count, ...) images.

        None if they no longer exist, were changed in place (a map must not be drawn over other
        images), or are not ``count`` images.
        """
        images = None if self._reference is None else self._reference()
        if images is None or images._version != self._version:
            return None
        for rows in self._rows:
            images = images[rows if isinstance(rows, slice) else rows.to(images.device)]
        return images.detach() if len(images) == count else None

    def __getitem__(self, rows: slice | Tensor) -> ImageReference:
        """Return a reference to some of the rows."""
        part = ImageReference()
        part._reference, part._version = self._reference, self._version
        part._rows = (*self._rows, rows)
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as an empty reference: weak references cannot be pickled."""
        return (ImageReference, ())


def rows_of(index: Any, count: int) -> slice | Tensor:
    """Return the rows that an index selects: a slice, or an (M,) integer or (N,) bool tensor.

    Raises:
        IndexError: there is no such image among ``count``, or the mask has the wrong length.
        TypeError: the index has another type.
    """
    if isinstance(index, slice):
        return index
    wrong = TypeError(
        f"expected an image's index, a slice, a sequence of indices or a mask, got {index!r:.60}: "
        "index the tensors to select targets, as in explanation.raw[:, k]"
    )
    if isinstance(index, (bool, str, tuple)):
        raise wrong
    try:
        rows = index if isinstance(index, Tensor) else torch.as_tensor(index, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise wrong from error
    if rows.dtype == torch.bool and rows.ndim == 1:
        if len(rows) != count:
            raise IndexError(f"expected a mask of {count} images, got one of {len(rows)}")
        return rows
    rows = rows.long() if rows.numel() == 0 else rows  # torch makes [] floating point
    if rows.dtype not in (torch.int64, torch.int32) or rows.ndim > 1:
        raise wrong
    if not ((rows >= -count) & (rows < count)).all():
        raise IndexError(f"expected indices from 0 to {count - 1}, got {index!r:.60}")
    if rows.ndim == 0:
        first = int(rows) % count
        return slice(first, first + 1)
    return rows
