"""One group of images, explained: all that needs the model."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..explainers import Explainer
from ..explanation import Explanation
from ..faithfulness import ablate_regions
from ..regions.masks import Regions
from ..targets import probabilities
from .keeping import Explained, kept, scored
from .loading import Group
from .questions import Questions, targets_of
from .samples import NO_LABEL


def explain_group(
    group: Group, pictures: Tensor, regions: Regions | None, asked: Questions
) -> Explained:
    """Explain the images of a group, with one forward pass for each explainer, and score the maps.

    What is returned is in main memory: another thread that took it from the device would not wait
    for this one's stream.

    Args:
        group: the images.
        pictures: (N, 1 or 3, H, W) uint8 of them.
        regions: in them.
        asked: what is asked of them.

    Raises:
        LookupError, TypeError, ValueError: as the explainers, :func:`camlens.regions.score` and
            :func:`camlens.faithfulness.ablate_regions` raise them.
    """
    images = group.images.to(device_of(asked.explainers[0]))
    targets = targets_of(group, asked.targets)
    explanations = [
        dataclasses.replace(explainer(images, targets=targets), gradients=None)
        for explainer in asked.explainers
    ]
    predictions, confidences = _predictions(explanations[0], asked.activation)
    ablation = None
    if regions is not None and asked.infill is not None:
        ablation = ablate_regions(
            asked.explainers[0].model,
            images,
            regions.to(images.device),
            targets=targets if callable(targets) else explanations[0].targets,
            infill=asked.infill,
            activation=asked.activation,
            seed=group.indexes[0],  # other random places in each batch, the same in each run
            batch=asked.batch_size,
        )
    return Explained(
        indexes=group.indexes,
        labels=tuple(label if label >= 0 else NO_LABEL for label in group.labels),
        names=group.names,
        size=(images.shape[-2], images.shape[-1]),
        pictures=pictures,
        predictions=predictions,
        confidences=confidences,
        maps=tuple(kept(explanation, asked.heatmaps) for explanation in explanations),
        scores=() if regions is None else tuple(scored(e, regions) for e in explanations),
        ablation=ablation,
    ).copied(Tensor.cpu)


def device_of(explainer: Explainer) -> torch.device:
    """Return where an explainer's model is."""
    some = next(explainer.model.parameters(), None)
    return torch.device("cpu") if some is None else some.device


def _predictions(explanation: Explanation, activation: str) -> tuple[Tensor, Tensor]:
    """Return the predicted classes and their probabilities, (N,) each; NaN for one output."""
    outputs, n = explanation.outputs, len(explanation)
    if outputs is None:
        return torch.full((n,), NO_LABEL), torch.full((n,), torch.nan)
    # The highest score, not probability: several of 1.0 are possible for large scores.
    prediction = outputs.argmax(dim=1, keepdim=True)
    confidence = probabilities(outputs, activation).gather(1, prediction)
    return prediction.flatten(), confidence.flatten()
