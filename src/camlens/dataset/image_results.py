"""Explain a group of images: run the model, score regions, remove regions, compute metrics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..explainers.base import Explainer
from ..explanation import Explanation
from ..faithfulness import RegionAblation, ablate_regions
from ..faithfulness.evaluation.measurements import Measurement, consecutive, measure, names_of
from ..regions.masks import Regions
from ..regions.outlines import shrunk
from ..regions.scores import Scores, score
from ..targets import NO_CLASS, probabilities, targets_of
from .batches import Group
from .items import NO_LABEL
from .options import RunOptions

#: Memory limit in bytes for heatmaps at the images' size while they are scored.
_SCORED_BYTES = 256 * 2**20

_Rows = TypeVar("_Rows", Scores, RegionAblation)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """The results for a group of N images, on the CPU.

    Attributes:
        indexes, labels, names: N of each.
        pictures: (N, 1 or 3, H, W) uint8.
        predictions: (N,) class ids, -1 if the model does not return (N, classes).
        confidences: (N,) probabilities of the predictions, NaN if there are none.
        explanations: one for each explainer.
        probabilities: for each explainer (N, K) probabilities of the explained classes, NaN for
            other scores.
        scores: one for each explainer, if there are regions.
        ablation: the ablation, if an infill was given.
        measurements: values of the metrics, if any were given.
        regions: their masks for each image, or one set for all, at most 224 pixels a side; None
            without regions.
    """

    indexes: tuple[int, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    pictures: Tensor
    predictions: Tensor
    confidences: Tensor
    explanations: tuple[Explanation, ...]
    probabilities: tuple[Tensor, ...]
    scores: tuple[Scores, ...]
    ablation: RegionAblation | None
    measurements: tuple[Measurement, ...] = ()
    regions: Regions | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.pictures.shape[-2], self.pictures.shape[-1]


def explain_group(
    explainers: Sequence[Explainer],
    group: Group,
    pictures: Tensor,
    regions: Regions | None,
    options: RunOptions,
    *,
    gradients: bool = False,
) -> Explained:
    """Explain the images of a group, with one forward pass for each explainer, and score the maps.

    The results are on the CPU: a thread that read them from the device would not wait for this
    thread's stream.

    Args:
        explainers: explainers of one model.
        group: the images.
        pictures: (N, 1 or 3, H, W) uint8 pictures of the images.
        regions: regions in the images.
        options: the run's options.
        gradients: whether the explanations keep the image gradients and the measures,
            which are large.

    Raises:
        ValueError: the number of class names differs from the model's number of classes.
        LookupError, TypeError, ValueError: see the explainers, :func:`camlens.regions.score` and
            :func:`camlens.faithfulness.ablate_regions`.
    """
    images = group.images.to(device_of(explainers[0]))
    targets = targets_of(options.targets, group.indexes, group.labels, group.names)
    explanations = []
    for explainer in explainers:
        explanation = explainer(images, targets=targets)
        whole = gradients or options.metrics
        explanations.append(explanation if whole else _small(explanation))
    _check_names(options.classes, explanations[0].outputs)
    predictions, confidences = _predictions(explanations[0], options.activation)
    ablation = None
    if regions is not None and options.infill is not None:
        ablation = ablate_regions(
            explainers[0].model,
            images,
            regions.to(images.device),
            targets=targets if callable(targets) else explanations[0].targets,
            infill=options.infill,
            placements=options.placements,
            activation=options.activation,
            seed=group.indexes[0],  # random positions differ between batches, not between runs
            batch=options.batch_size,
        )
    scores = () if regions is None else tuple(_scored(e, regions) for e in explanations)
    pairs = list(zip(explainers, explanations, strict=True))
    measurements = _measured(pairs, images, group, regions, options)
    if not gradients:
        explanations = [_small(explanation) for explanation in explanations]
    return Explained(
        indexes=group.indexes,
        labels=tuple(label if label >= 0 else NO_LABEL for label in group.labels),
        names=group.names,
        pictures=pictures,
        predictions=predictions.cpu(),
        confidences=confidences.cpu(),
        explanations=tuple(explanation.cpu() for explanation in explanations),
        probabilities=tuple(_probabilities(e, options.activation).cpu() for e in explanations),
        scores=tuple(_in_main_memory(one) for one in scores),
        ablation=None if ablation is None else _in_main_memory(ablation),
        measurements=measurements,
        regions=None if regions is None else shrunk(regions),
    )


def _small(explanation: Explanation) -> Explanation:
    return dataclasses.replace(explanation, gradients=None, measures={}, concepts=None)


def _measured(
    explained: Sequence[tuple[Explainer, Explanation]],
    images: Tensor,
    group: Group,
    regions: Regions | None,
    options: RunOptions,
) -> tuple[Measurement, ...]:
    """Compute the metrics; random numbers depend on each image's position in the data set."""
    if not options.metrics:
        return ()
    names = names_of([explanation for _, explanation in explained])
    measurements: list[Measurement] = []
    for part in consecutive(group.indexes):
        members = group[part]
        pairs = [(explainer, explanation[part]) for explainer, explanation in explained]
        measurements += measure(
            options.metric_plan,
            dict(zip(names, pairs, strict=True)),
            images[part],
            indexes=members.indexes,
            targets=targets_of(options.targets, members.indexes, members.labels, members.names),
            where=None if regions is None else regions.of_images(part),
        )
    return tuple(measurements)


def device_of(explainer: Explainer) -> torch.device:
    """Return the device of an explainer's model."""
    parameter = next(explainer.model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def joined(parts: Sequence[_Rows]) -> _Rows:
    """Concatenate the scores or ablations of several groups of images.

    All have the same regions, number of targets per image, method, layers and grid.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        if isinstance(getattr(parts[0], field.name), Tensor):
            changes[field.name] = torch.cat([getattr(part, field.name) for part in parts])
    return dataclasses.replace(parts[0], **changes)


def _check_names(names: Sequence[str] | None, outputs: Tensor | None) -> None:
    if names is not None and outputs is not None and outputs.shape[1] != len(names):
        raise ValueError(
            f"expected a name for each of the model's {outputs.shape[1]} classes, got {len(names)} "
            "class names"
        )


def _predictions(explanation: Explanation, activation: str) -> tuple[Tensor, Tensor]:
    """Return the predicted classes and their probabilities, (N,) each; NaN for one output."""
    outputs, n = explanation.outputs, len(explanation)
    if outputs is None:
        return torch.full((n,), NO_LABEL), torch.full((n,), torch.nan)
    # By score, not by probability: for large scores several probabilities may be 1.0.
    prediction = outputs.argmax(dim=1, keepdim=True)
    confidence = probabilities(outputs, activation).gather(1, prediction)
    return prediction.flatten(), confidence.flatten()


def _probabilities(explanation: Explanation, activation: str) -> Tensor:
    """Return the probabilities of the explained classes, (N, K); NaN for other scores."""
    outputs, targets = explanation.outputs, explanation.targets
    if outputs is None:
        return torch.full_like(explanation.scores, torch.nan)
    found = probabilities(outputs, activation).gather(1, targets.clamp(min=0))
    return found.where(targets != NO_CLASS, torch.nan)


def _scored(explanation: Explanation, regions: Regions) -> Scores:
    """Score a few images at a time, since the heatmaps of many classes are large.

    Raises:
        ValueError: see :func:`camlens.regions.score`.
    """
    n, k = explanation.scores.shape
    step = max(1, _SCORED_BYTES // (4 * k * math.prod(explanation.size)))
    if step >= n:
        return score(explanation, regions)
    parts = []
    for start in range(0, n, step):
        some = slice(start, start + step)
        parts.append(score(explanation[some], regions.of_images(some)))
    return joined(parts)


def _in_main_memory(rows: _Rows) -> _Rows:
    values = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    tensors: dict[str, Any] = {n: v.cpu() for n, v in values.items() if isinstance(v, Tensor)}
    return dataclasses.replace(rows, **tensors)
