"""One group of images, explained: all that needs the model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..explain import Explainer
from ..explanation import Explanation
from ..regions.effects import Effect, effect
from ..regions.masks import Regions
from ..targets import Selection, Targets, select
from .loading import Group
from .questions import Questions, regions_of, targets_of
from .samples import NO_LABEL
from .thumbnails import pictures_of

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What the model says of a group of images.

    Attributes:
        group: without the images.
        size: (H, W) of the images.
        pictures: (N, 1 or 3, H, W) uint8, in main memory.
        predictions: N class ids, -1 where the model gives no (N, classes).
        confidences: N softmax probabilities of the predictions, NaN where there is none.
        explanations: one for each explainer.
        regions: of the images, or None.
        effect: where a fill was given.
    """

    group: Group
    size: tuple[int, int]
    pictures: Tensor
    predictions: Array
    confidences: Array
    explanations: tuple[Explanation, ...]
    regions: Regions | None
    effect: Effect | None


def explain_group(group: Group, asked: Questions) -> Answers:
    """Explain the images of a group, with one forward pass for each explainer.

    Raises:
        LookupError, TypeError, ValueError: as the explainers and :func:`camlens.regions.effect`
            raise them.
    """
    images = group.images.to(_device(asked.explainers[0]))
    targets = targets_of(group, asked.targets)
    found = [_explained(explainer, images, targets) for explainer in asked.explainers]
    explanations = [explanation for explanation, _ in found]
    predictions, confidences = _predictions(found[0][1], len(images))
    seen = group.pictures
    seen = pictures_of(images, asked.picture).cpu() if seen is None else seen
    own = None if asked.regions is None else regions_of(asked.regions, seen)
    measured = None
    if own is not None and asked.fill is not None:
        measured = effect(
            asked.explainers[0].model,
            images,
            own.to(images.device),
            targets=targets if callable(targets) else explanations[0].targets,
            fill=asked.fill,
            seed=group.indexes[0],  # other random places in each batch, the same in each run
            batch=asked.batch_size,
        )
    return Answers(
        group=dataclasses.replace(group, images=images[:0]),
        size=(images.shape[-2], images.shape[-1]),
        pictures=seen,
        predictions=predictions,
        confidences=confidences,
        explanations=tuple(explanations),
        regions=own,
        effect=measured,
    )


class _Recorder:
    """Targets that remember the model's outputs and what was selected of them."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.outputs: Any = None
        self.selection: Selection | None = None

    def __call__(self, outputs: Any) -> Tensor:
        self.outputs = outputs.detach() if isinstance(outputs, Tensor) else outputs
        self.selection = select(outputs, self.targets)
        return self.selection.scores


def _explained(explainer: Explainer, images: Tensor, targets: Targets) -> tuple[Explanation, Any]:
    """Return what a plain call returns, and the outputs of its forward pass."""
    recorder = _Recorder(targets)
    explanation = explainer(images, targets=recorder)
    selection = recorder.selection
    if selection is None:
        raise ValueError(f"{type(explainer).__name__} selected no scores of the model's outputs")
    selection.check(explanation.raw)  # a callable's classes were not judged
    explanation = dataclasses.replace(explanation, targets=selection.classes, gradients=None)
    return explanation, recorder.outputs


def _device(explainer: Explainer) -> torch.device:
    some = next(explainer.model.parameters(), None)
    return torch.device("cpu") if some is None else some.device


def _predictions(outputs: Any, n: int) -> tuple[Array, Array]:
    if (
        not isinstance(outputs, Tensor)
        or outputs.ndim != 2
        or len(outputs) != n
        or not outputs.is_floating_point()
    ):
        return np.full(n, NO_LABEL), np.full(n, np.nan, dtype=np.float32)
    # Of the scores, as targets=None takes it: of huge ones several have a probability of 1.
    prediction = outputs.argmax(dim=1, keepdim=True)
    confidence = outputs.float().softmax(dim=1).gather(1, prediction)
    return prediction.flatten().cpu().numpy(), confidence.flatten().cpu().numpy()
