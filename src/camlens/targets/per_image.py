"""Callable targets that hold something of each image: other classes, pixels, boxes."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor


class PerImage(abc.ABC):
    """A callable target that first looks at the unchanged images.

    Methods that change images would else explain other pixels or another box than were asked for,
    once a change moves them.
    """

    @property
    def count(self) -> int | None:
        """Of how many images the target holds something; None: of each image the same."""
        return None

    @abc.abstractmethod
    def __call__(self, outputs: Any) -> Tensor:
        """Return the (N, K) scores of the images that a model's output is of."""

    @abc.abstractmethod
    def fixed(self, outputs: Any) -> PerImage:
        """Return the target with what it takes from the output of the unchanged images."""

    @abc.abstractmethod
    def rows(self, index: Tensor) -> PerImage:
        """Return the target of changed images.

        Args:
            index: (M,) int64: which of the N images each was made from.
        """


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Return rows of a tensor, with the index on another device perhaps."""
    return values[index.to(values.device)]
