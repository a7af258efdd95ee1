"""Several metrics of several methods' maps of the same images, as rows of a table."""

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

from ...explainers import Explainer
from ...explanation import Explanation
from ...regions.masks import Regions
from ...targets import NO_CLASS, Targets
from ..metric.result import Better, MetricResult
from ..metric.shared_passes import SharedPasses
from .named_metrics import Metric, judges, needs_place

if TYPE_CHECKING:
    import pandas as pd

#: A curve is kept at so many places, evenly from its first step to its last.
CURVE_POINTS = 51

#: What the column of a floor begins with.
FLOOR = "floor_"

#: Columns of the table of values before those of the floors, and their types in pandas.
_COLUMNS = {
    "image": "int64",
    "k": "int64",
    "target": "int64",
    "method": "string",
    "metric": "string",
    "better": "string",
    "value": "float32",
}
#: Columns behind those of the floors.
_CURVE = {"curve": "object", "curve_from": "float32", "curve_to": "float32"}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What is measured of each image.

    Attributes:
        metrics: by name.
        floors, activation, seed: as :class:`camlens.faithfulness.MetricOptions` has them.
        batch_size: how many changed images run at once.
    """

    metrics: Mapping[str, Metric]
    floors: tuple[str, ...]
    activation: str
    seed: int
    batch_size: int

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the rows, and their types in pandas."""
        floors = {f"{FLOOR}{name}": "float32" for name in self.floors}
        return {**_COLUMNS, **floors, **_CURVE}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """One metric of one method's maps of N images, in main memory.

    Attributes:
        images: N positions in the data set.
        method, metric, better: see :class:`camlens.faithfulness.MetricResult`.
        targets: (N, K) class ids, -1 where a callable computed the score.
        values: (N, K) float32.
        floors: by name, (N, K) float32.
        curve: (N, K, CURVE_POINTS) float32, or None.
        ends: the first and the last step of the curve.
        seconds: how long it took, without the floors; what methods share counts for the first.
        floor_seconds: how long the floors took, if they were computed.
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
    """Return the shortest names that tell explanations apart: the method, or with its layers.

    Raises:
        ValueError: two are of one method at the same layers.
    """
    methods = [one.method for one in explanations]
    names = tuple(
        f"{one.method} at {'+'.join(one.layers)}"
        if methods.count(one.method) > 1 and one.layers
        else one.method
        for one in explanations
    )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two explainers are called {twice[0]!r}: give them as a mapping from names of your own"
        )
    return names


def measure(
    question: Question,
    explained: Mapping[str, tuple[Explainer, Explanation]],
    images: Tensor,
    *,
    indexes: Sequence[int],
    targets: Targets = None,
    where: Regions | None = None,
) -> list[Measurement]:
    """Measure all metrics of all methods.

    Floors do not depend on the maps that a metric judges, nor do passes such as those of the
    unchanged images: they are computed once, with the first method that needs them. Floors of a
    metric that takes an explainer are the metric's own matter, and computed each time.

    Args:
        question: what is measured.
        explained: by the method's name, an explainer and what it said of the images.
        images: (N, C, *size), where the model is.
        indexes: N positions in the data set, one after the other.
        targets: a callable, where the explained scores were computed by one; else the explanations'
            own classes are meant.
        where: where the objects are.

    Raises:
        ValueError: a metric needs to know where the objects are; the methods explain different
            classes; or as the metrics raise it.
    """
    _, first = next(iter(explained.values()))
    asked = first.targets if (first.targets != NO_CLASS).all() else targets
    found, shared = [], SharedPasses()
    for name, metric in question.metrics.items():
        floors: Mapping[str, Tensor] | None = None
        for method, (explainer, explanation) in explained.items():
            if not torch.equal(explanation.targets, first.targets):
                raise ValueError(
                    "the methods explain different classes of the same images, which cannot be "
                    "compared: is the model the same in each call?"
                )
            options: dict[str, Any] = {
                "targets": asked,
                "activation": question.activation,
                "floors": question.floors if floors is None else (),
                "seed": question.seed,
                "first": indexes[0],
                "batch_size": question.batch_size,
                "progress": False,
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
            found.append(
                _measurement(
                    result,
                    images=tuple(indexes),
                    method=method,
                    metric=name,
                    targets=explanation.targets.cpu(),
                    seconds=seconds - result.floor_seconds,
                )
            )
    return found


def consecutive(indexes: Sequence[int]) -> Iterator[slice]:
    """Cut positions where they do not follow each other: an image's seed follows from its place.

    Example:
        >>> list(consecutive([3, 4, 6]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    cuts = [place for place in range(1, len(indexes)) if indexes[place] != indexes[place - 1] + 1]
    for start, end in itertools.pairwise([0, *cuts, len(indexes)]):
        yield slice(start, end)


def rows(found: Sequence[Measurement], question: Question) -> pd.DataFrame:
    """Return a row for each image, target, method and metric, in this order.

    The columns are image, k, target, method, metric, better, value, floor_* for each floor, and
    curve (its float32 numbers as bytes), curve_from and curve_to.
    """
    import pandas as pd

    types = question.columns
    if not found:
        return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})
    parts = [_columns(one, question) for one in found]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in types}
    table = pd.DataFrame({name: pd.Series(columns[name], dtype=types[name]) for name in types})
    methods, metrics = (
        {name: place for place, name in enumerate(dict.fromkeys(names))}
        for names in ([one.method for one in found], question.metrics)
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
    """Return what a metric of localization takes beside the maps; nothing for others."""
    if not needs_place(metric):
        return ()
    if where is None:
        raise ValueError(
            "the metric asks where the objects are, but the data set does not say it: give images "
            "with labels and masks, boxes or regions"
        )
    return (where.to(images.device),)


@contextlib.contextmanager
def _named(method: str, metric: str) -> Iterator[None]:
    """Say of an exception which metric of which method it is about."""
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


def _columns(found: Measurement, question: Question) -> dict[str, np.ndarray[Any, Any]]:
    n, k = found.values.shape
    unknown = torch.full((n, k), torch.nan)
    curve: list[bytes | None] = [None] * (n * k)
    if found.curve is not None:
        curve = [line.tobytes() for line in found.curve.flatten(0, 1).numpy().astype("<f4")]
    same = {"method": found.method, "metric": found.metric, "better": found.better}
    return {
        "image": np.repeat(np.array(found.images), k),
        "k": np.tile(np.arange(k), n),
        "target": found.targets.flatten().numpy(),
        **{name: np.full(n * k, value, dtype=object) for name, value in same.items()},
        "value": found.values.flatten().numpy(),
        **{
            f"{FLOOR}{name}": found.floors.get(name, unknown).flatten().numpy()
            for name in question.floors
        },
        "curve": np.array([*curve, None], dtype=object)[:-1],
        "curve_from": np.full(n * k, found.ends[0]),
        "curve_to": np.full(n * k, found.ends[1]),
    }
