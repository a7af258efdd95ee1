"""The result of loading a model: the model, its preprocessing and its class names."""

from __future__ import annotations

import dataclasses

from torch import nn

from .preprocessing import Preprocessing
from .transforms import Transform

__all__ = ["LoadedModel"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A model with its preprocessing and class names.

    Attributes:
        model: in evaluation mode, on the CPU.
        preprocessing: converts a picture to the model's input.
        preprocessing_known: whether the model's library or the user defined the preprocessing;
            otherwise it is a guess.
        classes: names of the outputs; None if unknown.
        batch: the only batch size that the model accepts; None for any.
    """

    model: nn.Module
    preprocessing: Preprocessing | Transform
    preprocessing_known: bool = True
    classes: tuple[str, ...] | None = None
    batch: int | None = None
