"""Format an evaluation as tables for the terminal and as rows for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from ..faithfulness import Evaluation


def evaluated_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of the table of methods and metrics; a run does not record times."""
    return console.rows_of(evaluation.table.drop(columns=["seconds", "floor_seconds"]))


def show_evaluation(evaluation: Evaluation) -> None:
    """Write a table for each metric: the methods, best first, compared with the best floor."""
    from ..report.region_tables import MIN_IMAGES
    from ..report.wording import class_caveat

    rows = evaluated_rows(evaluation)
    if few := any(row["images"] < MIN_IMAGES for row in rows):
        console.note(f"no intervals or verdicts for fewer than {MIN_IMAGES} images")
    leaders = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        metric_rows = [row for row in rows if row["metric"] == metric]
        better = metric_rows[0]["better"]
        metric_rows.sort(key=lambda row: _rank(row["mean"], better))
        floors = any(row["best_floor"] for row in metric_rows)
        shown = [_shown(row, with_floors=floors, with_intervals=not few) for row in metric_rows]
        console.show(shown, title=f"{metric}, {better} is better")
        leaders.append(metric_rows[0]["method"])
    if caveat := class_caveat(leaders):
        console.note(caveat)


def _rank(mean: float | None, better: str) -> tuple[bool, float]:
    """Return a sort key: best mean first, missing means last."""
    if mean is None:
        return True, 0.0
    return False, -mean if better == "higher" else mean


def _shown(row: dict[str, Any], *, with_floors: bool, with_intervals: bool) -> dict[str, object]:
    cells: dict[str, object] = {"method": row["method"], "mean": row["mean"]}
    if with_intervals:
        cells["95% interval"] = _interval(row["low"], row["high"])
    cells["images"] = row["images"]
    if not with_floors:
        return cells
    cells |= {"best floor": row["best_floor"] or None, "over the floor": row["above_floor"]}
    if with_intervals:
        cells["95% interval over the floor"] = _interval(row["above_low"], row["above_high"])
        cells["against the best floor"] = _verdict(row["above_low"], row["above_high"])
    return cells


def _verdict(low: float | None, high: float | None) -> str | None:
    """Return what the interval of the difference from the best floor says."""
    if low is None or high is None:
        return None
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.3g} to {high:.3g}"
