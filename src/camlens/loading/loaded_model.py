"""A model with its preprocessing and the names of its classes."""

from __future__ import annotations

import dataclasses

from torch import nn

from .preprocessing import Preprocessing
from .transforms import Transform

__all__ = ["LoadedModel"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A model with its preprocessing.

    Attributes:
        model: in evaluation mode, in main memory.
        preprocessing: from a picture to the model's input.
        preprocessing_known: whether it is the one that the model was trained with, as its library
            or the user says; else it is a guess.
        classes: names of the outputs; None where unknown.
        batch: the only batch size that the model accepts; None for any.
    """

    model: nn.Module
    preprocessing: Preprocessing | Transform
    preprocessing_known: bool = True
    classes: tuple[str, ...] | None = None
    batch: int | None = None
