"""Evaluate several methods by several metrics, reading a data set batch by batch."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from ...explainers.base import Explainer
from ...explanation import Explanation
from ...model import check_mode, check_model
from ...options import integer
from ...progress import progress_bar
from ...targets import (
    NO_CLASS,
    Targets,
    as_data_set_targets,
    check_activation,
    row_count,
    targets_of,
)
from ..metric.floors import FLOORS
from .image_batches import ImageBatch, image_batches, length_of
from .measurements import Measurement, MetricPlan, measure, names_of, rows
from .named_metrics import Metrics, named_metrics
from .result import Evaluation

#: The metrics that an evaluation computes by default.
DEFAULT_METRICS = ("deletion", "insertion")


def evaluate(
    explainers: Mapping[str, Explainer] | Sequence[Explainer] | Explainer,
    model: nn.Module,
    dataset: Any,
    *,
    metrics: Metrics = DEFAULT_METRICS,
    targets: Targets = None,
    activation: str = "softmax",
    floors: Sequence[str] = tuple(FLOORS),
    seed: int = 0,
    batch_size: int = 32,
    progress: bool | None = None,
) -> Evaluation:
    """Compare several explanation methods by several metrics, with floors and intervals.

    Images are read, explained and measured batch by batch; only the metrics' values are kept in
    memory. All methods are measured on the same images, targets and random numbers, and the floors
    of a metric are computed once for all methods. An image's values do not depend on its batch,
    except for floating-point rounding.

    Args:
        explainers: explainers of ``model``. The keys of a mapping are the names in the tables;
            otherwise an explainer is named after its method, and also after its layers if two
            explainers use the same method.
        model: in evaluation mode; it is left unchanged.
        dataset: images as a tensor (N, C, *size); a sequence, map-style or iterable ``Dataset`` of
            single images; or a ``DataLoader`` or another iterable of batches. Each element is the
            images alone, (images, labels), or (images, labels, places) for localization metrics:
            masks (K, *size) or (*size), one box (left, top, right, bottom), or ``Regions``.
            For a model with several inputs, replace the images with (images, *inputs) or
            (images, *inputs, keywords) with a mapping of keyword inputs: ``((image, age), label)``.
        metrics: names of camlens' metrics, functions such as
            ``functools.partial(deletion, step=64)``, or a mapping from your own names to either.
        targets: what to explain, as explainers accept it, or ``"label"`` for each image's label.
            (M,) or (M, K) classes need one row for each image of the data set.
        activation: see :class:`MetricOptions`.
        floors: see :class:`MetricOptions`.
        seed: see :class:`MetricOptions`.
        batch_size: number of images explained at once, and of changed images run at once.
        progress: whether to show progress bars: of the images, and of each metric's forward passes
            for a batch. None: if standard error is a terminal.

    Returns:
        The evaluation. Each metric runs once for each method and once for each floor;
        :func:`mu_fidelity` and :func:`infidelity` cost the same for any number of methods.

    Raises:
        LookupError: no metric has a given name.
        TypeError: an argument has the wrong type.
        ValueError: an explainer belongs to another model, the data set has no images, the targets
            have the wrong number of rows, or an explainer or metric raises it; a note names the
            metric and the method.

    Example:
        >>> import torch
        >>> from camlens import GradCAM, Saliency
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> net = net.eval()
        >>> found = evaluate([GradCAM(net, "1"), Saliency(net)], net, torch.rand(4, 3, 8, 8))
        >>> found.table[["method", "metric", "images"]].to_records(index=False).tolist()[:2]
        [('GradCAM', 'deletion', 4), ('GradCAM', 'insertion', 4)]
    """
    check_mode(module := check_model(model))
    chosen = _checked_explainers(explainers, module)
    check_activation(activation)
    plan = MetricPlan(
        metrics=named_metrics(metrics),
        floors=checked_floors(floors),
        activation=activation,
        seed=integer("seed", seed, least=0),
        batch_size=integer("batch_size", batch_size),
    )
    target_rows = as_data_set_targets(targets)
    parameter = next(module.parameters(), None)
    measurements: list[Measurement] = []
    total, read = length_of(dataset), 0
    with progress_bar(total, "evaluate", shown=progress if total else False) as advance:
        for batch in image_batches(dataset, batch_size):
            batch_targets = targets_of(
                target_rows, batch.indexes, batch.labels, [str(i) for i in batch.indexes]
            )
            moved = batch if parameter is None else batch.to(parameter.device)
            explained = _explained(chosen, batch_targets, moved)
            measurements += measure(
                _with_inputs(plan, moved),
                explained,
                moved.images,
                indexes=batch.indexes,
                targets=batch_targets,
                where=batch.where,
                progress=progress,
            )
            advance(len(batch.images))
            read = batch.first + len(batch.images)
    if (count := row_count(target_rows)) not in (None, read):
        raise ValueError(
            f"expected targets as one class, or one row for each of the {read} images, got "
            f"{count} rows"
        )
    return Evaluation.of_rows(rows(measurements, plan), seed=seed, seconds=_seconds(measurements))


def checked_floors(floors: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the floors, without duplicates.

    Raises:
        ValueError: a name is not in :data:`FLOORS`.
    """
    named = isinstance(floors, Collection) and not isinstance(floors, str)
    if not named or any(name not in FLOORS for name in floors):
        raise ValueError(f"expected floors from {tuple(FLOORS)}, got {floors!r}")
    return tuple(dict.fromkeys(floors))


def _checked_explainers(
    explainers: Mapping[str, Explainer] | Sequence[Explainer] | Explainer, module: nn.Module
) -> Mapping[str, Explainer] | Sequence[Explainer]:
    chosen = [explainers] if isinstance(explainers, Explainer) else explainers
    if not isinstance(chosen, (Mapping, Sequence)) or not chosen:
        raise ValueError(
            'expected explainers such as {"Grad-CAM": camlens.GradCAM(model)}, got '
            f"{explainers!r:.80}"
        )
    if isinstance(chosen, Mapping) and len({str(name) for name in chosen}) < len(chosen):
        raise ValueError(f"expected explainers with distinct names, got {list(chosen)!r:.80}")
    for explainer in chosen.values() if isinstance(chosen, Mapping) else chosen:
        if not isinstance(explainer, Explainer):
            raise TypeError(
                "expected explainers such as camlens.GradCAM(model), got "
                f"{type(explainer).__name__}"
            )
        if explainer.model is not module:
            raise ValueError(
                f"expected explainers of the evaluated model, got a {type(explainer).__name__} of "
                f"another {type(explainer.model).__name__}: create it from the same model"
            )
    return chosen


def _explained(
    explainers: Mapping[str, Explainer] | Sequence[Explainer],
    targets: Targets,
    batch: ImageBatch,
) -> dict[str, tuple[Explainer, Explanation]]:
    """Explain a batch by each method; all explain the classes that the first one explained."""
    named = isinstance(explainers, Mapping)
    chosen = list(explainers.values()) if isinstance(explainers, Mapping) else list(explainers)
    explanations: list[Explanation] = []
    try:
        for explainer in chosen:
            same = explanations and (explanations[0].targets != NO_CLASS).all()
            wanted = explanations[0].targets if same else targets
            explanations.append(
                explainer(batch.images, *batch.inputs, targets=wanted, **batch.keywords)
            )
    except Exception as error:
        error.add_note(f"while explaining images {batch.first} to {batch.indexes[-1]}")
        if batch.images.ndim == 5:
            error.add_note(
                f"of shape {tuple(batch.images.shape)}: an element of a sequence must be a single "
                "image; pass batches as a DataLoader or an iterator, iter(list)"
            )
        raise
    names = list(explainers) if named else list(names_of(explanations))
    return {
        str(name): pair
        for name, pair in zip(names, zip(chosen, explanations, strict=True), strict=True)
    }


def _with_inputs(plan: MetricPlan, batch: ImageBatch) -> MetricPlan:
    """Bind a batch's further model inputs to the plan's metrics."""
    if not batch.inputs and not batch.keywords:
        return plan
    further = {"inputs": batch.inputs, "keywords": batch.keywords}
    metrics = {name: functools.partial(metric, **further) for name, metric in plan.metrics.items()}
    return dataclasses.replace(plan, metrics=metrics)


def _seconds(measurements: Sequence[Measurement]) -> dict[tuple[str, str], tuple[float, float]]:
    of_maps: dict[tuple[str, str], float] = collections.defaultdict(float)
    floors: dict[str, float] = collections.defaultdict(float)
    for measurement in measurements:
        of_maps[measurement.method, measurement.metric] += measurement.seconds
        floors[measurement.metric] += measurement.floor_seconds
    return {key: (seconds, floors[key[1]]) for key, seconds in of_maps.items()}
