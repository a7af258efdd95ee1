"""Training configurations: one frozen record each, every experiment a one-line delta."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """What a training run needs to know.

    The deck shows no figures of its "base CNN" and no recipe, so every value here is ours.
    """

    name: str
    epochs: int = 40
    batch_size: int = 128
    # The configuration whose trained weights to start from; None starts from random ones.
    start: str | None = None
    # One-cycle SGD: the rate climbs to its peak in the first 30% and then falls to nothing.
    peak_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    # FER2013's labels are noisy (people agree with them 65% of the time), so never be sure.
    label_smoothing: float = 0.1
    dropout: float = 0.5
    # Affine augmentation in degrees, fractions of the side, and factors.
    rotation: float = 12.0
    shift: float = 0.1
    scale: tuple[float, float] = (0.85, 1.15)
    shear: float = 8.0
    # Probability that a random rectangle is erased, so that no single place is relied on.
    erasing: float = 0.0
    # Beta parameter of mixup, the blending of pairs of faces and labels; 0 is none.
    mixup: float = 0.0
    # Decay a step of the weights' exponential moving average; 0 keeps the weights themselves.
    average: float = 0.0
    # Stop after this many epochs without a better PublicTest accuracy. One-cycle gains the
    # most at its end, so this only ends runs that have truly broken down.
    patience: int = 20


_FIRST = Config("first")
_RUNS = (
    _FIRST,
    # The first run ends at 77% on its augmented training faces and 68% on PublicTest: it has
    # learnt the noise. A second, shorter cycle regularises harder and averages the weights.
    dataclasses.replace(
        _FIRST,
        name="base",
        start="first",
        epochs=14,
        peak_rate=0.04,
        erasing=0.25,
        mixup=0.2,
        average=0.999,
    ),
)

CONFIGS = {config.name: config for config in _RUNS}
