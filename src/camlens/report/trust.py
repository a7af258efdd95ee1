"""Compare the methods' faithfulness metrics with the floors, to show which method to trust."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import wording
from .palette import STEPS, step
from .region_tables import MIN_IMAGES

if TYPE_CHECKING:
    from ..faithfulness import Evaluation

_FLOOR = "floor_"

#: How a method's value compares with the floors, in the page's words.
CLEAR, UNCLEAR, BELOW, UNKNOWN = "clear", "unclear", "below", "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A column: a metric, which direction is better, and the number of decimals."""

    name: str
    better: str
    decimals: int

    @property
    def words(self) -> str:
        """The metric's name with spaces."""
        return _words(self.name)

    def number(self, value: float) -> str:
        """Format a value of the metric; a value that rounds to zero has no sign."""
        if not math.isfinite(value):
            return "unknown"
        text = f"{value:.{self.decimals}f}"
        return text.removeprefix("-") if float(text) == 0 else text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """A metric's value for a method.

    Attributes:
        text: the mean over images.
        interval: interval of the mean; empty if there are too few images.
        above: how much better the mean is than the best floor's, with its interval and the floor's
            name; empty without floors.
        stands: one of :data:`CLEAR`, :data:`UNCLEAR`, :data:`BELOW` and :data:`UNKNOWN`.
    """

    text: str
    interval: str
    above: str
    stands: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A row: a method or a floor, with its value for each metric."""

    name: str
    values: tuple[Value | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A method's comparison with the floors and the best method, by the metrics' names.

    Attributes:
        method: the method's name.
        above: metrics on which it is above every floor.
        unclear: metrics on which the interval of its difference from the best floor contains zero,
            with that floor.
        below: metrics on which it is worse than the best floor, with that floor.
        best: metrics on which it has the best mean.
        overlaps: metrics on which its interval overlaps the best method's.
        level: metrics on which it cannot be distinguished from the best method, paired by image.
        worse: metrics on which its interval does not overlap the best method's.
    """

    method: str
    above: tuple[str, ...]
    unclear: tuple[str, ...]
    below: tuple[str, ...]
    best: tuple[str, ...]
    overlaps: tuple[str, ...]
    level: tuple[str, ...]
    worse: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shade:
    """A rank correlation, with its shade on the page."""

    text: str
    style: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trust:
    """The page's section on an evaluation.

    Attributes:
        metrics: the columns.
        methods: a row for each method.
        floors: a row for each floor.
        verdicts: one for each method, sorted by the number of metrics on which it is above the
            floors; empty if no metric has floors and intervals.
        summary: the verdicts in a sentence.
        agreement: rank correlation of every pair of metrics over the methods; empty for few
            methods.
        images: largest number of images of a metric.
    """

    metrics: tuple[Metric, ...]
    methods: tuple[Judged, ...]
    floors: tuple[Judged, ...]
    verdicts: tuple[Verdict, ...]
    summary: str
    agreement: tuple[tuple[str, tuple[Shade, ...]], ...]
    images: int


def trust(evaluation: Evaluation) -> Trust | None:
    """Return the page's section on an evaluation; None if the evaluation has no values."""
    rows = evaluation.table.to_dict("records")
    if not rows:
        return None
    metrics = metrics_of(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by = {(row["method"], row["metric"]): row for row in rows}
    floors = [name for name in evaluation.table.columns if name.startswith(_FLOOR)]
    floors = [name for name in floors if name != "floor_seconds"]
    judged = [metric for metric in metrics if any(_known(by, m, metric) for m in methods)]
    verdicts = _verdicts(by, methods, judged) if judged else ()
    return Trust(
        metrics=metrics,
        methods=tuple(
            Judged(name=m, values=tuple(_value(by.get((m, one.name)), one) for one in metrics))
            for m in methods
        ),
        floors=tuple(_floor(name, rows, metrics) for name in floors),
        verdicts=verdicts,
        summary=_summary(verdicts, len(judged)),
        agreement=_agreement(evaluation),
        images=max(row["images"] for row in rows),
    )


def metrics_of(rows: Sequence[dict[Any, Any]]) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation's table, in its order."""
    return tuple(
        _metric(name, [row for row in rows if row["metric"] == name])
        for name in dict.fromkeys(row["metric"] for row in rows)
    )


def records(evaluation: Evaluation) -> Iterator[dict[str, object]]:
    """Return the table as rows of a file."""
    table = evaluation.table.drop(columns=["seconds", "floor_seconds"])
    for row in table.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def decimals(largest: float) -> int:
    """Return the number of decimals that show three digits of the largest number, at least three.

    Example:
        >>> decimals(12.5), decimals(0.5), decimals(0.00012), decimals(0)
        (3, 3, 6, 3)
    """
    if not math.isfinite(largest) or largest <= 0:
        return 3
    return min(12, max(3, 2 - math.floor(math.log10(largest))))


def _metric(name: str, rows: Sequence[dict[str, Any]]) -> Metric:
    means = [abs(row["mean"]) for row in rows if math.isfinite(row["mean"])]
    return Metric(
        name=name, better=rows[0]["better"], decimals=decimals(max(means, default=math.nan))
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(row: dict[str, Any] | None, metric: Metric) -> Value | None:
    if row is None or not row["images"]:
        return None
    enough, number = row["images"] >= MIN_IMAGES, metric.number
    interval = f"{number(row['low'])} to {number(row['high'])}" if enough else ""
    above = ""
    if row["best_floor"]:
        bounds = f" ({number(row['above_low'])} to {number(row['above_high'])})" if enough else ""
        sign = "+" if row["above_floor"] > 0 else ""
        by = number(row["above_floor"])
        above = f"{sign if by.strip('0.') else ''}{by}{bounds} over {_words(row['best_floor'])}"
    return Value(text=number(row["mean"]), interval=interval, above=above, stands=_stands(row))


def _stands(row: dict[str, Any]) -> str:
    if not row["best_floor"] or row["images"] < MIN_IMAGES:
        return UNKNOWN
    if row["clear"]:
        return CLEAR
    return BELOW if row["above_high"] < 0 else UNCLEAR


def _floor(name: str, rows: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Judged:
    """Return the means of a floor, which are the same for all methods."""
    values = []
    for metric in metrics:
        of_metric = (row[name] for row in rows if row["metric"] == metric.name)
        mean = next((mean for mean in of_metric if math.isfinite(mean)), math.nan)
        known = math.isfinite(mean)
        plain = Value(text=metric.number(mean), interval="", above="", stands=UNKNOWN)
        values.append(plain if known else None)
    return Judged(name=_words(name.removeprefix(_FLOOR)), values=tuple(values))


def _verdicts(
    by: dict[tuple[str, str], dict[str, Any]], methods: Sequence[str], judged: Sequence[Metric]
) -> tuple[Verdict, ...]:
    best = {metric.name: _best(by, methods, metric) for metric in judged}
    verdicts = []
    for method in methods:
        groups: dict[str, list[str]] = {
            name: [] for name in (CLEAR, UNCLEAR, BELOW, "best", "overlaps", "level", "worse")
        }
        for metric in judged:
            row = by.get((method, metric.name))
            if row is None or not _known(by, method, metric):
                continue
            stands = _stands(row)
            floor = "" if stands == CLEAR else f" ({_words(row['best_floor'])})"
            groups[stands].append(metric.words + floor)
            against_best = _against_best(row, best[metric.name])
            groups[against_best].append(metric.words)
            if row["level"] and against_best != "best":
                groups["level"].append(metric.words)
        above, unclear, below, first, overlaps, level, worse = map(tuple, groups.values())
        verdicts.append(
            Verdict(
                method=method,
                above=above,
                unclear=unclear,
                below=below,
                best=first,
                overlaps=overlaps,
                level=level,
                worse=worse,
            )
        )
    return tuple(sorted(verdicts, key=lambda v: (-len(v.above), len(v.below), len(v.worse))))


def _known(by: dict[tuple[str, str], dict[str, Any]], method: str, metric: Metric) -> bool:
    row = by.get((method, metric.name))
    return row is not None and _stands(row) != UNKNOWN


def _best(
    by: dict[tuple[str, str], dict[str, Any]], methods: Sequence[str], metric: Metric
) -> dict[str, Any]:
    rows = [by[method, metric.name] for method in methods if _known(by, method, metric)]
    sign = 1 if metric.better == "higher" else -1
    return max(rows, key=lambda row: sign * row["mean"])


def _against_best(row: dict[str, Any], best: dict[str, Any]) -> str:
    if row["method"] == best["method"]:
        return "best"
    apart = row["high"] < best["low"] or row["low"] > best["high"]
    return "worse" if apart else "overlaps"


def _summary(verdicts: Sequence[Verdict], metrics: int) -> str:
    if not verdicts:
        return ""
    counted = wording.count(metrics, "metric")
    full = [verdict.method for verdict in verdicts if len(verdict.above) == metrics]
    none = [verdict.method for verdict in verdicts if not verdict.above]
    parts = []
    if full:
        verb = "is" if len(full) == 1 else "are"
        caveat = f"; {about}" if (about := wording.class_caveat(full)) else ""
        parts.append(f"{wording.listed(full)} {verb} above every floor on {_all(metrics)}{caveat}.")
    else:
        parts.append(f"No method is above every floor on {_all(metrics)}.")
    if none:
        verb = "is" if len(none) == 1 else "are"
        parts.append(f"{wording.listed(none)} {verb} above every floor on none of {counted}.")
    return " ".join(parts)


def _all(metrics: int) -> str:
    return "the only metric" if metrics == 1 else f"all {wording.count(metrics, 'metric')}"


def _agreement(evaluation: Evaluation) -> tuple[tuple[str, tuple[Shade, ...]], ...]:
    table = evaluation.agreement()
    if len(table) < 2 or table.isna().all(axis=None):
        return ()
    return tuple(
        (str(name), tuple(_shade(value) for value in line)) for name, line in table.iterrows()
    )


def _shade(value: float) -> Shade:
    if not math.isfinite(value):
        return Shade(text="unknown", style="blank")
    style = f"shade-{step(value, strongest=1, ratio=False) + STEPS}"
    return Shade(text=f"{value:+.2f}", style=style)
