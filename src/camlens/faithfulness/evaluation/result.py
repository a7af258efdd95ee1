"""The result of an evaluation: tables of methods by metrics, with floors and intervals."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ...files import write_whole
from ...regions.intervals import Resampling
from ..metric.result import MetricResult
from . import plots
from .measurements import CURVE_POINTS, FLOOR

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_CURVE = ["curve", "curve_from", "curve_to"]

#: The columns of the table that precede the floors' columns.
TABLE = [
    *("method", "metric", "better", "images", "mean", "low", "high"),
    *("above_floor", "above_low", "above_high", "best_floor", "clear"),
    *("behind", "behind_low", "behind_high", "level"),
]

#: Seconds that a metric took for a method and for the floors.
_TIMES = ["seconds", "floor_seconds"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """The result of :func:`evaluate`: metrics of several methods over the images of a data set.

    Attributes:
        table: a row for each method and metric: ``method``, ``metric``, ``better`` ("higher" or
            "lower"), ``images`` (number of images with a value), ``mean`` with its bootstrap
            interval ``low`` to ``high``; ``above_floor`` with ``above_low`` and ``above_high``, by
            how much the mean is better than the best floor's, ``best_floor``, and ``clear``,
            whether that interval is above zero; ``behind`` with ``behind_low`` and
            ``behind_high``, by how much it is worse than the metric's best method on the same
            images, and ``level``, whether that interval contains zero; ``floor_random`` and so on,
            the mean of each floor; ``seconds`` of the metric, where passes that methods share count
            for the first method, and ``floor_seconds`` of its floors, which are computed once for
            all methods. Both are NaN if the times were not recorded.
        values: a row for each image, target, method and metric: ``image``, ``k``, ``target`` (-1
            if a callable computed the score), ``method``, ``metric``, ``better``, ``value`` and
            a column for each floor. ``value`` is NaN if the metric is undefined for the image.
        curves: for metrics that track a score along steps, a row for each method, metric and point:
            ``share`` (see ``steps`` of :class:`MetricResult`), ``mean`` over images, ``low`` and
            ``high``; 51 points from the first step to the last, linearly interpolated.
    """

    table: pd.DataFrame
    values: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of_rows(
        cls,
        rows: pd.DataFrame,
        *,
        seed: int = 0,
        seconds: Mapping[tuple[str, str], tuple[float, float]] | None = None,
    ) -> Evaluation:
        """Summarise the values of single images.

        Args:
            rows: the table that ``camlens.faithfulness.evaluation.measurements.rows`` returns.
            seed: seed of the bootstrap.
            seconds: by method and metric, the times of the metric and of its floors.
        """
        return cls(
            table=_table(rows, seed, seconds or {}),
            values=rows.drop(columns=_CURVE),
            curves=_curves(rows, seed),
        )

    def agreement(self, over: Literal["methods", "images"] = "methods") -> pd.DataFrame:
        """Return Spearman's rank correlation of every pair of metrics; 1 for identical rankings.

        The sign of metrics for which lower is better is reversed.

        Args:
            over: ``"methods"`` correlates the methods' means: whether two metrics agree on which
                method is better. ``"images"`` correlates the images' values of one method and
                averages over the methods: whether two metrics agree on which images are explained
                better (the internal consistency of Tomsett et al., "Sanity Checks for Saliency
                Metrics", AAAI 2020, arXiv:1912.01451).

        Returns:
            A square table with the metrics' names; NaN for fewer than three methods or images.

        Raises:
            ValueError: ``over`` has another value.
        """
        if over == "methods":
            signed = self.table.assign(value=self.table["mean"] * _sign(self.table["better"]))
            return _correlation(signed, "method")
        if over != "images":
            raise ValueError(f'expected over as "methods" or "images", got {over!r}')
        import pandas as pd

        signed = self.values.assign(value=self.values["value"] * _sign(self.values["better"]))
        means = signed.groupby(["method", "metric", "image"], sort=False)["value"].mean()
        found = [
            _correlation(part.reset_index(), "image")
            for _, part in means.groupby(level="method", sort=False)
        ]
        names = list(dict.fromkeys(self.values["metric"]))
        return pd.concat(found).groupby(level=0).mean().reindex(index=names, columns=names)

    def plot(self, metrics: Sequence[str] | None = None) -> Figure:
        """Draw a panel for each metric: the means of all methods and floors, with intervals.

        Args:
            metrics: names of the metrics to draw, in this order. None: all.

        Returns:
            A matplotlib figure; notebooks show it, ``figure.savefig("metrics.png")`` writes it.

        Raises:
            ValueError: a metric is not in the table, or the table is empty.
        """
        return plots.draw(self.table, metrics)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``table.parquet``, ``values.parquet`` and ``curves.parquet`` into a folder.

        Raises:
            OSError: the folder cannot be written to.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in _FRAMES:
            content = io.BytesIO()
            getattr(self, name).to_parquet(content, index=False)
            write_whole(place / f"{name}.parquet", content.getvalue())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """Read an evaluation that :meth:`save` wrote.

        Raises:
            FileNotFoundError: the folder contains no evaluation.
        """
        import pandas as pd

        return cls(**{name: pd.read_parquet(Path(folder, f"{name}.parquet")) for name in _FRAMES})

    def __repr__(self) -> str:
        """Return a line with the numbers of methods, metrics and images."""
        methods, metrics = (self.table[name].nunique() for name in ("method", "metric"))
        images = self.values["image"].nunique()
        return f"Evaluation({methods} methods, {metrics} metrics, {images} images)"

    def _repr_html_(self) -> str:
        """Return the main columns of the table for a notebook."""
        shown = ["metric", "better", "method", "mean", "above_floor", "best_floor", "clear"]
        found: str = self.table[shown].to_html(index=False, float_format="{:.2f}".format)
        return found


_FRAMES = ("table", "values", "curves")


def _sign(better: pd.Series[Any]) -> pd.Series[Any]:
    return better.map({"higher": 1.0, "lower": -1.0}).astype("float64")


def _correlation(rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return the rank correlation of metrics over units, such as methods."""
    wide = rows.pivot_table(index=unit, columns="metric", values="value", sort=False, dropna=False)
    finite = wide.where(np.isfinite(wide))
    found = finite.corr(method="spearman", min_periods=3)
    return found.rename_axis(index=None, columns=None)


def _table(
    rows: pd.DataFrame, seed: int, seconds: Mapping[tuple[str, str], tuple[float, float]]
) -> pd.DataFrame:
    import pandas as pd

    floors = [name for name in rows.columns if name.startswith(FLOOR)]
    found = []
    gaps = _gaps(rows, seed)
    for (method, metric), part in rows.groupby(["method", "metric"], sort=False, observed=True):
        result = _result(part, floors, seed)
        low, high = result.interval
        means = {f"{FLOOR}{name}": one.mean for name, one in _floor_means(result).items()}
        own = {
            **{"method": method, "metric": metric, "better": result.better},
            **{"images": int(torch.isfinite(result.values).any(dim=1).sum())},
            **{"mean": result.mean, "low": low, "high": high},
            **_above(result),
            **gaps[method, metric],
            **{name: means.get(name, np.nan) for name in floors},
            **dict(zip(_TIMES, seconds.get((method, metric), (np.nan, np.nan)), strict=True)),
        }
        found.append(own)
    return pd.DataFrame(found, columns=[*TABLE, *floors, *_TIMES])


def _gaps(rows: pd.DataFrame, seed: int) -> dict[tuple[Any, Any], dict[str, Any]]:
    """Return how much worse each method is than a metric's best method, paired by image."""
    resampling = Resampling(resamples=2000, seed=seed, min_images=2)
    found = {}
    for metric, part in rows.groupby("metric", sort=False):
        signed = part.assign(value=part["value"] * _sign(part["better"]))
        wide = signed.pivot_table("value", "image", "method", sort=False, dropna=False)
        wide = wide.where(np.isfinite(wide))
        means = wide.mean()
        best = wide[means.idxmax()] if means.notna().any() else None
        for method, own in wide.items():
            gap = np.empty((0, 1)) if best is None else (best - own).dropna().to_numpy()[:, None]
            low = high = np.nan
            if len(gap) > 1:
                low, high = resampling.mean(gap)[:, 0].tolist()
            found[method, metric] = {
                "behind": float(gap.mean()) if len(gap) else np.nan,
                **{"behind_low": low, "behind_high": high, "level": bool(low <= 0)},
            }
    return found


def _floor_means(result: MetricResult) -> dict[str, MetricResult]:
    return {
        name: dataclasses.replace(result, values=values, floor_values={}, curve=None)
        for name, values in result.floor_values.items()
    }


def _above(result: MetricResult) -> dict[str, Any]:
    names = ("above_floor", "above_low", "above_high", "best_floor", "clear")
    if not result.floor_values:
        return dict(zip(names, (np.nan, np.nan, np.nan, "", False), strict=True))
    above = result.above_floor
    return dict(zip(names, (*above, above.clear), strict=True))


def _result(part: pd.DataFrame, floors: list[str], seed: int) -> MetricResult:
    """Return the result of one metric of one method from its rows."""
    places, _ = part["image"].factorize()
    ks = part["k"].to_numpy()
    shape = places.max() + 1, ks.max() + 1

    def filled(name: str) -> torch.Tensor:
        values = np.full(shape, np.nan, dtype=np.float32)
        values[places, ks] = part[name].to_numpy(dtype=np.float32)
        return torch.from_numpy(values)

    known = [name for name in floors if part[name].notna().any()]
    return MetricResult(
        metric=str(part["metric"].iloc[0]),
        values=filled("value"),
        better="higher" if part["better"].iloc[0] == "higher" else "lower",
        floor_values={name.removeprefix(FLOOR): filled(name) for name in known},
        seed=seed,
    )


def _curves(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    import pandas as pd

    found = []
    keys = ["method", "metric", "curve_from", "curve_to"]
    with_curve = rows[rows["curve"].notna()]
    for (method, metric, start, end), part in with_curve.groupby(keys, sort=False):
        lines = np.frombuffer(b"".join(part["curve"]), "<f4").reshape(-1, CURVE_POINTS)
        table = pd.DataFrame(lines.astype(np.float64)).groupby(part["image"].to_numpy())
        of_images = table.mean().to_numpy()  # over an image's targets
        of_images = of_images[np.isfinite(of_images).all(axis=1)]
        if not len(of_images):
            continue
        low = high = np.full(CURVE_POINTS, np.nan)
        if len(of_images) > 1:
            resampling = Resampling(resamples=1000, seed=seed, min_images=2)
            low, high = resampling.mean(of_images)
        columns = {
            **{"method": method, "metric": metric, "share": np.linspace(start, end, CURVE_POINTS)},
            **{"mean": of_images.mean(axis=0), "low": low, "high": high},
        }
        found.append(pd.DataFrame(columns))
    names = ["method", "metric", "share", "mean", "low", "high"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=names)
