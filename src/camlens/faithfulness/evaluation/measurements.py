"""Compute several metrics of several methods on the same images, as rows of a table."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...explainers.base import Explainer
from ...explanation import Explanation
from ...regions.masks import Regions
from ...targets import NO_CLASS, Targets
from ..metric.result import Better, MetricResult
from ..metric.shared_passes import SharedPasses
from .named_metrics import Metric, judges, needs_place

if TYPE_CHECKING:
    import pandas as pd

#: Number of points kept of a curve, evenly spaced from its first step to its last.
CURVE_POINTS = 51

#: Prefix of the floors' columns.
FLOOR = "floor_"

#: Columns of the table of values that precede the floors' columns, and their pandas types.
_COLUMNS = {
    "image": "int64",
    "k": "int64",
    "target": "int64",
    "method": "string",
    "metric": "string",
    "better": "string",
    "value": "float32",
}
#: Columns that follow the floors' columns.
_CURVE = {"curve": "object", "curve_from": "float32", "curve_to": "float32"}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MetricPlan:
    """The metrics to compute for each image, and their options.

    Attributes:
        metrics: by name.
        floors, activation, seed: see :class:`camlens.faithfulness.MetricOptions`.
        batch_size: number of changed images run at once.
    """

    metrics: Mapping[str, Metric]
    floors: tuple[str, ...]
    activation: str
    seed: int
    batch_size: int

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the rows, and their pandas types."""
        floors = {f"{FLOOR}{name}": "float32" for name in self.floors}
        return {**_COLUMNS, **floors, **_CURVE}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """One metric of one method on N images, on the CPU.

    Attributes:
        images: N positions in the data set.
        method, metric, better: see :class:`camlens.faithfulness.MetricResult`.
        targets: (N, K) class ids, -1 if a callable computed the score.
        values: (N, K) float32.
        floors: by name, (N, K) float32.
        curve: (N, K, CURVE_POINTS) float32, or None.
        ends: the first and the last step of the curve.
        seconds: time of the metric without its floors; passes that methods share count for the
            first method.
        floor_seconds: time of the floors, if they were computed.
    """

    images: tuple[int, ...]
    method: str
    metric: str
    better: Better
    targets: Tensor
    values: Tensor
    floors: Mapping[str, Tensor]
    curve: Tensor | None
    ends: tuple[float, float]
    seconds: float
    floor_seconds: float


def names_of(explanations: Sequence[Explanation]) -> tuple[str, ...]:
    """Return distinct names for explanations: the method, with its layers if needed.

    Raises:
        ValueError: two explanations use the same method at the same layers.
    """
    methods = [explanation.method for explanation in explanations]
    names = tuple(
        f"{explanation.method} at {'+'.join(explanation.layers)}"
        if methods.count(explanation.method) > 1 and explanation.layers
        else explanation.method
        for explanation in explanations
    )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two explainers are named {twice[0]!r}: pass a mapping with distinct names as keys"
        )
    return names


def measure(
    plan: MetricPlan,
    explained: Mapping[str, tuple[Explainer, Explanation]],
    images: Tensor,
    *,
    indexes: Sequence[int],
    targets: Targets = None,
    where: Regions | None = None,
    progress: bool | None = False,
) -> list[Measurement]:
    """Compute every metric for every method.

    Floors, and passes such as those of the unchanged images, do not depend on the measured maps.
    They are computed once, with the first method that needs them. A metric that takes an explainer
    computes its floors each time.

    Args:
        plan: the metrics and their options.
        explained: by method name, an explainer and its explanation of the images.
        images: (N, C, *size), on the model's device.
        indexes: N consecutive positions in the data set.
        targets: the callable that computed the explained scores, if one did; otherwise the
            explanations' classes are used.
        where: masks of the objects.
        progress: whether each metric shows a progress bar, see :class:`MetricOptions`.

    Raises:
        ValueError: a metric needs the locations of the objects, the methods explain different
            classes, or a metric raises it.
    """
    _, first = next(iter(explained.values()))
    explained_targets = first.targets if (first.targets != NO_CLASS).all() else targets
    measurements, shared = [], SharedPasses()
    for name, metric in plan.metrics.items():
        floors: Mapping[str, Tensor] | None = None
        for method, (explainer, explanation) in explained.items():
            if not torch.equal(explanation.targets, first.targets):
                raise ValueError(
                    "the methods explain different classes of the same images, so their metrics "
                    "cannot be compared: check that the model gives the same output in each call"
                )
            options: dict[str, Any] = {
                "targets": explained_targets,
                "activation": plan.activation,
                "floors": plan.floors if floors is None else (),
                "seed": plan.seed,
                "first": indexes[0],
                "batch_size": plan.batch_size,
                "progress": progress,
                "shared": shared,
            }
            with _named(method, name):
                start = time.perf_counter()
                if judges(metric) == "explainer":
                    result = metric(explainer.model, images, explainer, **options)
                else:
                    place = _place(metric, where, images)
                    result = metric(explainer.model, images, explanation, *place, **options)
                seconds = time.perf_counter() - start
            if floors is not None:
                result = dataclasses.replace(result, floor_values=floors)
            elif judges(metric) == "explanation":
                floors = result.floor_values
            measurements.append(
                _measurement(
                    result,
                    images=tuple(indexes),
                    method=method,
                    metric=name,
                    targets=explanation.targets.cpu(),
                    seconds=seconds - result.floor_seconds,
                )
            )
    return measurements


def consecutive(indexes: Sequence[int]) -> Iterator[slice]:
    """Split positions into consecutive runs, since an image's seed depends on its position.

    Example:
        >>> list(consecutive([3, 4, 6]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    cuts = [place for place in range(1, len(indexes)) if indexes[place] != indexes[place - 1] + 1]
    for start, end in itertools.pairwise([0, *cuts, len(indexes)]):
        yield slice(start, end)


def rows(measurements: Sequence[Measurement], plan: MetricPlan) -> pd.DataFrame:
    """Return a row for each image, target, method and metric, in this order.

    The columns are image, k, target, method, metric, better, value, floor_* for each floor, and
    curve (its float32 numbers as bytes), curve_from and curve_to.
    """
    import pandas as pd

    types = plan.columns
    if not measurements:
        return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})
    parts = [_columns(measurement, plan) for measurement in measurements]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in types}
    table = pd.DataFrame({name: pd.Series(columns[name], dtype=types[name]) for name in types})
    methods, metrics = (
        {name: place for place, name in enumerate(dict.fromkeys(names))}
        for names in ([measurement.method for measurement in measurements], plan.metrics)
    )
    order = np.lexsort(
        (
            table["metric"].map(metrics).to_numpy(),
            table["method"].map(methods).to_numpy(),
            table["k"].to_numpy(),
            table["image"].to_numpy(),
        )
    )
    return table.take(order).reset_index(drop=True)


def _place(metric: Metric, where: Regions | None, images: Tensor) -> tuple[Regions, ...]:
    """Return the locations of objects for a localization metric; an empty tuple for others."""
    if not needs_place(metric):
        return ()
    if where is None:
        raise ValueError(
            "the metric needs the locations of the objects, but the data set has none: provide "
            "images with labels and masks, boxes or regions"
        )
    return (where.to(images.device),)


@contextlib.contextmanager
def _named(method: str, metric: str) -> Iterator[None]:
    """Add the names of the metric and the method to an exception."""
    try:
        yield
    except Exception as error:
        error.add_note(f"{metric} of {method}")
        raise


def _measurement(result: MetricResult, *, metric: str, **known: Any) -> Measurement:
    curve, ends = None, (float("nan"), float("nan"))
    if result.curve is not None and result.steps is not None and len(result.steps) > 1:
        steps = result.steps.cpu().double().numpy()
        ends = float(steps[0]), float(steps[-1])
        flat = result.curve.cpu().double().numpy().reshape(-1, len(steps))
        places = np.linspace(*ends, CURVE_POINTS)
        points = np.stack([np.interp(places, steps, line) for line in flat])
        curve = torch.from_numpy(points).float().view(*result.curve.shape[:2], -1)
    return Measurement(
        metric=metric,
        better=result.better,
        values=result.values.cpu().float(),
        floors={name: values.cpu().float() for name, values in result.floor_values.items()},
        curve=curve,
        ends=ends,
        floor_seconds=result.floor_seconds,
        **known,
    )


def _columns(measurement: Measurement, plan: MetricPlan) -> dict[str, np.ndarray[Any, Any]]:
    n, k = measurement.values.shape
    unknown = torch.full((n, k), torch.nan)
    curve: list[bytes | None] = [None] * (n * k)
    if measurement.curve is not None:
        curve = [line.tobytes() for line in measurement.curve.flatten(0, 1).numpy().astype("<f4")]
    same = {
        "method": measurement.method,
        "metric": measurement.metric,
        "better": measurement.better,
    }
    return {
        "image": np.repeat(np.array(measurement.images), k),
        "k": np.tile(np.arange(k), n),
        "target": measurement.targets.flatten().numpy(),
        **{name: np.full(n * k, value, dtype=object) for name, value in same.items()},
        "value": measurement.values.flatten().numpy(),
        **{
            f"{FLOOR}{name}": measurement.floors.get(name, unknown).flatten().numpy()
            for name in plan.floors
        },
        "curve": np.array([*curve, None], dtype=object)[:-1],
        "curve_from": np.full(n * k, measurement.ends[0]),
        "curve_to": np.full(n * k, measurement.ends[1]),
    }
