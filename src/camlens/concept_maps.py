"""The concepts of a factorized layer: their maps, directions and score drops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Concepts:
    """F concepts for each of N images, largest share of the activations first.

    Attributes:
        maps: (N, F, *grid) floating point, not negative: the weight of each concept in each cell.
        directions: (N, F, C) floating point: the concepts as vectors of the layer's channels, of
            length 1. The activations are approximately the sum of map times direction.
        falls: (N, K, F) floating point: the drop of each target's score when a concept is
            subtracted from the activations; negative if the score rises.
    """

    maps: Tensor
    directions: Tensor
    falls: Tensor

    def check(self, raw: Tensor) -> None:
        """Check the shapes against each other and the explanation's (N, K, *grid) maps.

        Raises:
            TypeError: a tensor is not floating point.
            ValueError: a shape does not fit.
        """
        for name, tensor in vars(self).items():
            if not tensor.is_floating_point():
                raise TypeError(
                    f"expected the concepts' {name} in floating point, got {tensor.dtype}"
                )
        n, k = raw.shape[:2]
        shapes = [tuple(t.shape) for t in (self.maps, self.directions, self.falls)]
        count = self.maps.shape[1] if self.maps.ndim > 1 else 0
        right = (
            shapes[0] == (n, count, *raw.shape[2:])
            and shapes[1][:2] == (n, count)
            and len(shapes[1]) == 3
            and shapes[2] == (n, k, count)
        )
        if not right or not count:
            raise ValueError(
                f"expected concepts with maps (N, F, *grid), directions (N, F, C) and falls "
                f"(N, K, F) for maps of {tuple(raw.shape)}, got {shapes}"
            )

    def each(self, change: Callable[[Tensor], Tensor]) -> Concepts:
        """Return a copy of the concepts with a function applied to each tensor."""
        return Concepts(**{name: change(tensor) for name, tensor in vars(self).items()})
