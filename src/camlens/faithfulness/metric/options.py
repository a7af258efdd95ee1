"""What all metrics take by keyword."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from ...targets import Targets, check_activation
from .floors import FLOORS
from .shared_passes import SharedPasses

#: With the images' seeds added it still is a number of 64 bits.
_MOST_SEED = 2**40


class MetricOptions(TypedDict, total=False):
    """What all metrics take by keyword.

    Attributes:
        targets: what the maps explain, as explainers take it. None: the targets of the explanation;
            of maps without one, the predicted class.
        inputs: further positional inputs of the model.
        keywords: keyword inputs of the model.
        activation: what of a class is followed when images change: its probability by
            ``"softmax"`` or ``"sigmoid"``, or with ``"none"`` its score. Scores that a callable
            target computes are followed as they are.
        floors: names of :data:`FLOORS` to compute the metric of too. All of them by default; none
            with ``()``, at a fraction of the cost.
        seed: of random numbers, together with each image's index.
        first: the index of the first image in its data set, so that an image's random numbers do
            not depend on the batch it is in.
        batch_size: how many changed images run at once.
        progress: whether a progress bar is shown. None: where standard error is a terminal.
        shared: keeps what calls for the same images have in common. None: nothing is kept.
    """

    targets: Targets
    inputs: Sequence[Any]
    keywords: Mapping[str, Any]
    activation: str
    floors: Sequence[str]
    seed: int
    first: int
    batch_size: int
    progress: bool | None
    shared: SharedPasses | None


@dataclasses.dataclass(frozen=True)
class CheckedOptions:
    """:class:`MetricOptions` with its defaults."""

    targets: Targets = None
    inputs: Sequence[Any] = ()
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    activation: str = "softmax"
    floors: Sequence[str] = tuple(FLOORS)
    seed: int = 0
    first: int = 0
    batch_size: int = 32
    progress: bool | None = None
    shared: SharedPasses | None = None

    def __post_init__(self) -> None:
        """Check the values that no other check would find."""
        check_activation(self.activation)
        named = isinstance(self.floors, Collection) and not isinstance(self.floors, str)
        if not named or any(name not in FLOORS for name in self.floors):
            raise ValueError(f"expected floors out of {tuple(FLOORS)}, got {self.floors!r}")
        for name, least in (("batch_size", 1), ("first", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"expected {name} as an int of at least {least}, got {value!r}")
        if self.seed > _MOST_SEED:
            raise ValueError(f"expected a seed of at most {_MOST_SEED}, got {self.seed}")
