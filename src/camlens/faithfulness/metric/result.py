"""The result of a metric: values, their mean with an interval, and the floors' values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...regions.intervals import Resampling
from ...render.html_tables import html_table

#: Whether higher or lower values are better.
Better = Literal["higher", "lower"]

_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over images with its bootstrap interval.

    Attributes:
        mean: the mean over images of the mean over each image's targets.
        low: lower end of the interval; NaN for fewer than two images.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float


class AboveFloor(NamedTuple):
    """How much better the maps' mean value is than the best floor's, with an interval.

    Attributes:
        mean: positive if the maps are better, whether higher or lower values are better.
        low: lower end of the bootstrap interval over images; each resample has its own best floor.
        high: upper end of the interval.
        floor: the name of the best floor.
    """

    mean: float
    low: float
    high: float
    floor: str

    @property
    def clear(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MetricResult:
    """The values of a metric for N images with K targets each.

    Attributes:
        metric: the metric's name.
        values: (N, K) float32; NaN if the metric is undefined for an image, see each metric.
        better: ``"higher"`` or ``"lower"``: which values are better.
        floor_values: by floor name, (N, K): the same metric of maps made without the network, see
            :data:`camlens.faithfulness.FLOORS`.
        curve: (N, K, S) for metrics that track a score along S steps; otherwise None.
        steps: (S,): the position of each point of the curve, mostly the share of changed pixels.
        standard_error: (N, K): the standard error of each value for metrics that draw changes at
            random; otherwise None.
        confidence: level of all intervals.
        seed: seed of the bootstrap and of the metric's own random numbers.
        floor_seconds: the part of the call's time that the floors took.

    Example:
        >>> values, floor = torch.tensor([[0.1], [0.3]]), torch.tensor([[0.5], [0.5]])
        >>> result = MetricResult(
        ...     metric="deletion", values=values, better="lower", floor_values={"random": floor}
        ... )
        >>> round(result.mean, 3), round(result.above_floor.mean, 3), result.above_floor.floor
        (0.2, 0.3, 'random')
    """

    metric: str
    values: Tensor
    better: Better
    floor_values: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    curve: Tensor | None = None
    steps: Tensor | None = None
    standard_error: Tensor | None = None
    confidence: float = 0.95
    seed: int = 0
    floor_seconds: float = 0.0

    @property
    def mean(self) -> float:
        """The mean over images of each image's mean over targets; NaN and infinity are left out."""
        return _mean(_of_images(self.values))

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """The bootstrap interval of the mean over images."""
        return self._interval(self.values)[1:]

    @functools.cached_property
    def floors(self) -> dict[str, Interval]:
        """The mean of each floor, with its interval."""
        return {name: self._interval(values) for name, values in self.floor_values.items()}

    @functools.cached_property
    def above_floor(self) -> AboveFloor:
        """How much better the maps are than the best floor, on the same images.

        Raises:
            ValueError: the metric was computed without floors.
        """
        if not self.floor_values:
            raise ValueError(
                f"{self.metric} was computed without floors: omit floors=, or name at least one"
            )
        sign = 1 if self.better == "higher" else -1
        names = list(self.floor_values)
        own = sign * _of_images(self.values)
        floors = np.stack([sign * _of_images(self.floor_values[name]) for name in names], axis=1)
        known = np.isfinite(own) & np.isfinite(floors).all(axis=1)
        own, floors = own[known, None], floors[known]
        if not len(own):
            return AboveFloor(np.nan, np.nan, np.nan, "")
        means = floors.mean(axis=0)
        low, high = self._resampling.above(own, floors) if len(own) > 1 else (np.nan, np.nan)
        mean = float(own.mean() - means.max())
        return AboveFloor(mean, float(low), float(high), names[int(means.argmax())])

    @property
    def _resampling(self) -> Resampling:
        return Resampling(
            resamples=_RESAMPLES, seed=self.seed, confidence=self.confidence, min_images=2
        )

    def _interval(self, values: Tensor) -> Interval:
        known = _of_images(values)
        known = known[np.isfinite(known)]
        if len(known) < 2:
            return Interval(_mean(known), np.nan, np.nan)
        low, high = self._resampling.mean(known[:, None])
        return Interval(_mean(known), float(low[0]), float(high[0]))

    def __repr__(self) -> str:
        """Return a line with the mean, its interval and the difference from the best floor."""
        try:
            low, high = self.interval
        except ImportError as error:
            mean = f"{self.metric}: {self.mean:.3f}, {self.better} is better"
            return f"MetricResult({mean}; {error})"
        n, k = self.values.shape
        images = f"{n} image{'s' * (n != 1)}, {k} target{'s' * (k != 1)}{' each' * (n != 1)}"
        text = f"{self.metric}: {self.mean:.3f} [{low:.3f}, {high:.3f}], {self.better} is better"
        if self.floor_values:
            above = self.above_floor
            text += (
                f"; {above.mean:+.3f} [{above.low:+.3f}, {above.high:+.3f}] above the floor "
                f"{above.floor!r}"
            )
        return f"MetricResult({text}; {images})"

    def _repr_html_(self) -> str | None:
        """Return a table for a notebook: the maps among the floors, the best at the top."""
        try:
            interval = self.interval
        except ImportError:
            return None  # then a notebook shows the line above
        own = "this map" if self.values.numel() == 1 else "these maps"
        entries = [
            (own, Interval(self.mean, *interval)),
            *((f"floor: {name}", interval) for name, interval in self.floors.items()),
        ]
        sign = -1 if self.better == "higher" else 1
        entries.sort(key=lambda entry: (np.isnan(entry[1].mean), sign * entry[1].mean))
        several = len(self.values) > 1
        caption = f"{self.metric}: {self.better} is better"
        if several and self.floor_values:
            above = self.above_floor
            verdict = "clearly better" if above.clear else "not clearly better"
            caption += f"; {verdict} than every floor"
        return html_table(
            caption,
            ["map", "mean", *(["low", "high"] if several else [])],
            [[name, *(interval if several else interval[:1])] for name, interval in entries],
            bold=[index for index, entry in enumerate(entries) if entry[0] == own],
            missing="undefined",
        )


def _of_images(values: Tensor) -> np.ndarray[Any, Any]:
    """Return (N,) float64: each image's mean over targets, NaN if it has no value."""
    numbers: np.ndarray[Any, Any] = torch.nanmean(values.double(), dim=1).cpu().numpy()
    return numbers


def _mean(values: np.ndarray[Any, Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
