"""An evaluation: metrics of methods over a data set, as tidy tables with floors and intervals."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..regions.intervals import Resampling
from .metric_result import MetricResult

if TYPE_CHECKING:
    import pandas as pd

#: Of an evaluation's values.
COLUMNS = ("image", "k", "target", "method", "floor", "metric", "better", "value", "curve", "steps")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What metrics found of methods, image by image.

    Attributes:
        values: a row for each image, target, method and metric: image (its index), k, target (class
            id), method, floor (whether the method is a floor), metric, better ("higher" or
            "lower"), value, and where there is one its curve and the curve's steps.
        seed: of the intervals' resamples.
    """

    values: pd.DataFrame
    seed: int = 0

    @functools.cached_property
    def results(self) -> dict[tuple[str, str], MetricResult]:
        """By metric and method: the result over all images; targets of an image are averaged."""
        found = {}
        for metric, rows in self.values.groupby("metric", sort=False):
            wide = rows.pivot_table(
                index="image", columns="method", values="value", dropna=False, sort=False
            )
            floors = set(rows.loc[rows["floor"], "method"])
            better = rows["better"].iloc[0]
            tensors = {name: torch.tensor(wide[[name]].to_numpy(float)) for name in wide}
            for method in dict.fromkeys(rows.loc[~rows["floor"], "method"]):
                found[str(metric), str(method)] = MetricResult(
                    metric=str(metric),
                    values=tensors[method],
                    better=better,
                    floor_values={name: tensors[name] for name in sorted(floors)},
                    seed=self.seed,
                )
        return found

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """A row for each metric and method.

        The columns are metric, method, better, images, mean, low and high (its interval), floor
        (the best one), floor_mean, above, above_low and above_high (by how much the method is
        better than the best floor, with the interval), clear (whether that interval is above zero)
        and level (whether the method cannot be told from the metric's best one: the interval of
        their difference on the same images holds zero).
        """
        import pandas as pd

        rows = []
        for (metric, method), result in self.results.items():
            low, high = result.interval
            row: dict[str, Any] = {
                "metric": metric,
                "method": method,
                "better": result.better,
                "images": int(result.values.isfinite().any(dim=1).sum()),
                "mean": result.mean,
                "low": low,
                "high": high,
            }
            if result.floor_values:
                above = result.above_floor
                floor = result.floors[above.floor].mean if above.floor else np.nan
                row |= {"floor": above.floor, "floor_mean": floor, "above": above.mean}
                row |= {"above_low": above.low, "above_high": above.high, "clear": above.clear}
            rows.append({**row, "level": self._level(metric, method)})
        return pd.DataFrame(rows)

    @property
    def curves(self) -> pd.DataFrame:
        """The mean curve of each metric that has one, and method: metric, method, step, value."""
        import pandas as pd

        rows = []
        known = self.values[self.values["curve"].notna()]
        for (metric, method), group in known.groupby(["metric", "method"], sort=False):
            steps = np.stack(group["steps"].to_list())[0]
            means = np.nanmean(np.stack(group["curve"].to_list()), axis=0)
            rows += [
                {"metric": metric, "method": method, "step": float(s), "value": float(v)}
                for s, v in zip(steps, means, strict=True)
            ]
        return pd.DataFrame(rows, columns=["metric", "method", "step", "value"])

    def agreement(self) -> pd.DataFrame:
        """Return Spearman's rank correlation of metrics over the methods' means, best first.

        1: two metrics put the methods in the same order. With few methods it says little.
        """
        sign = {"higher": 1.0, "lower": -1.0}
        table = self.table.assign(good=self.table["mean"] * self.table["better"].map(sign))
        wide = table.pivot_table(index="method", columns="metric", values="good", sort=False)
        return wide.corr(method="spearman")

    def _level(self, metric: str, method: str) -> bool:
        sign = {"higher": 1.0, "lower": -1.0}
        of_metric = {m: r for (name, m), r in self.results.items() if name == metric}
        means = {m: sign[r.better] * r.mean for m, r in of_metric.items()}
        best = max(means, key=lambda name: np.nan_to_num(means[name], nan=-np.inf))
        if method == best:
            return True
        gap = sign[of_metric[best].better] * (
            of_metric[best].values - of_metric[method].values
        ).squeeze(1)
        known = gap[gap.isfinite()].numpy()[:, None]
        if len(known) < 2:
            return False
        low = Resampling(resamples=2000, seed=self.seed, min_images=2).mean(known)[0]
        return bool(low[0] <= 0)

    def __repr__(self) -> str:
        """Return how much there is, in one line."""
        methods = self.values.loc[~self.values["floor"], "method"].nunique()
        return (
            f"Evaluation({self.values['image'].nunique()} images, {methods} methods, "
            f"{self.values['metric'].nunique()} metrics)"
        )
