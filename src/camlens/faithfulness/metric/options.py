"""Keyword options that every metric accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from ...targets import Targets, check_activation
from .floors import FLOORS
from .shared_passes import SharedPasses

#: Largest seed: together with the images' seeds it still fits into 64 bits.
MOST_SEED = 2**40


class MetricOptions(TypedDict, total=False):
    """Keyword options that every metric accepts.

    Attributes:
        targets: what the maps explain, as explainers accept it. None: the explanation's targets,
            or the predicted class for maps without an explanation.
        inputs: further positional inputs of the model.
        keywords: keyword inputs of the model.
        activation: the score that metrics track as images change: the class's probability by
            ``"softmax"`` or ``"sigmoid"``, or its raw score with ``"none"``. Scores that a callable
            target computes are tracked as they are.
        floors: names of the :data:`FLOORS` that the metric is also computed for. All by default;
            ``()`` skips them, at a fraction of the cost.
        seed: seed of random numbers, combined with each image's index.
        first: the index of the first image in its data set, so that an image's random numbers do
            not depend on its batch.
        batch_size: number of changed images run at once.
        progress: whether to show a progress bar. None: if standard error is a terminal.
        shared: stores passes that several calls on the same images share. None: store nothing.
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
        """Check the values that nothing else checks."""
        check_activation(self.activation)
        named = isinstance(self.floors, Collection) and not isinstance(self.floors, str)
        if not named or any(name not in FLOORS for name in self.floors):
            raise ValueError(f"expected floors from {tuple(FLOORS)}, got {self.floors!r}")
        for name, least in (("batch_size", 1), ("first", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"expected {name} as an int of at least {least}, got {value!r}")
        if self.seed > MOST_SEED:
            raise ValueError(f"expected a seed of at most {MOST_SEED}, got {self.seed}")
