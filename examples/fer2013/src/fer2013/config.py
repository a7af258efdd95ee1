"""Training configurations: one frozen record each, every experiment a one-line delta."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """What a training run needs to know; the defaults are the base network's.

    The deck shows no figures of its "base CNN" and no recipe, so every value here is ours.
    """

    name: str = "base"
    epochs: int = 40
    batch_size: int = 128
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
    # Stop after this many epochs without a better PublicTest accuracy. One-cycle gains the
    # most at its end, so this only ends runs that have truly broken down.
    patience: int = 20


CONFIGS = {config.name: config for config in (Config(),)}
