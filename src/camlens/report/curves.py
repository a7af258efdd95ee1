"""Draw the curves of metrics that track a score, as small plots for the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .region_tables import MIN_IMAGES
from .trust import decimals

if TYPE_CHECKING:
    import pandas as pd

    from ..faithfulness import Evaluation

#: The plot's drawing area, in SVG units.
WIDTH, HEIGHT = 200, 110


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """One method's curve.

    Attributes:
        method: the method's name.
        line: the mean over images, as an SVG path.
        band: its interval, as an SVG path; empty if there is none.
        says: the curve in words.
    """

    method: str
    line: str
    band: str
    says: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """One metric's curves, all on the same axes.

    Attributes:
        metric: the metric's name.
        better: which direction of the value is better.
        key: the page's id for the lines of all methods.
        lines: the curves of all methods, as one SVG path.
        plots: a plot for each method.
        low, high: the ends of the axis of the score.
        start, end: the ends of the axis of the share.
    """

    metric: str
    better: str
    key: str
    lines: str
    plots: tuple[Plot, ...]
    low: str
    high: str
    start: str
    end: str


def curves(evaluation: Evaluation) -> list[Curves]:
    """Return the curves of each metric that has any; for few images they have no band."""
    table = evaluation.curves
    if evaluation.values["image"].nunique() < MIN_IMAGES:
        table = table.assign(low=np.nan, high=np.nan)
    better = dict(zip(evaluation.table["metric"], evaluation.table["better"], strict=True))
    found = []
    for place, (metric, part) in enumerate(table.groupby("metric", sort=False)):
        x = _axis(part["share"])
        y = _axis(np.concatenate([part[name].dropna() for name in ("mean", "low", "high")]))
        digits = decimals(max(abs(y[0]), abs(y[1])))
        plots = [_plot(method, own, x, y) for method, own in part.groupby("method", sort=False)]
        found.append(
            Curves(
                metric=str(metric),
                better=better[metric],
                key=f"curves-{place}",
                lines="".join(plot.line for plot in plots),
                plots=tuple(plots),
                low=f"{y[0]:.{digits - 1}f}",
                high=f"{y[1]:.{digits - 1}f}",
                start=f"{100 * x[0]:.0f}%",
                end=f"{100 * x[1]:.0f}%",
            )
        )
    return found


def _axis(values: Any) -> tuple[float, float]:
    """Return the ends of an axis, which has a positive length even for equal values."""
    low, high = float(np.min(values)), float(np.max(values))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _plot(method: Any, rows: pd.DataFrame, x: tuple[float, float], y: tuple[float, float]) -> Plot:
    shares = rows["share"].to_numpy()
    mean, low, high = (rows[name].to_numpy() for name in ("mean", "low", "high"))
    line = _points(shares, mean, x, y)
    band = ""
    if np.isfinite(low).all():
        back = _points(shares[::-1], low[::-1], x, y)
        band = f"M{' '.join([*_points(shares, high, x, y), *back])}Z"
    return Plot(
        method=str(method),
        line=f"M{' '.join(line)}",
        band=band,
        says=f"from {mean[0]:.3g} to {mean[-1]:.3g}",
    )


def _points(
    shares: Any, values: Any, x: tuple[float, float], y: tuple[float, float]
) -> Sequence[str]:
    across = (shares - x[0]) / (x[1] - x[0]) * WIDTH
    up = HEIGHT - (values - y[0]) / (y[1] - y[0]) * HEIGHT
    return [f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True)]
