"""Base class of callable targets that hold data of each image: classes, masks or boxes."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor


class PerImage(abc.ABC):
    """A callable target that first reads the output for the unchanged images.

    Some methods change the images. Without this step they would explain other pixels or another
    box as soon as a change moves them.
    """

    @property
    def count(self) -> int | None:
        """The number of images for which the target holds data; None: all images share the data."""
        return None

    @abc.abstractmethod
    def __call__(self, outputs: Any) -> Tensor:
        """Return the (N, K) scores of N images, from the model's output for them."""

    @abc.abstractmethod
    def fixed(self, outputs: Any) -> PerImage:
        """Return the target with the data that it reads from the output for unchanged images."""

    @abc.abstractmethod
    def rows(self, index: Tensor) -> PerImage:
        """Return the target of changed images.

        Args:
            index: (M,) int64: the image that each changed image was made from.
        """


def select_rows(values: Tensor, index: Tensor) -> Tensor:
    """Return rows of a tensor; the index may be on another device."""
    return values[index.to(values.device)]
