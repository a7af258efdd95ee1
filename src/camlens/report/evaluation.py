"""The page of an evaluation: which method to trust, beside floors, with intervals and curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from ..dataset.evaluation import read_asked, read_evaluation, read_unreadable
from .page import policy, static_text

#: Of drawings, in their own units.
_WIDTH, _ROW, _LABELS = 640, 22, 190
_HEIGHT = 220

#: Colours of curves are classes of the style sheet, used in turn.
_SERIES = 6


def evaluation_page(folder: Path) -> str:
    """Return the page of what ``camlens evaluate`` wrote.

    Args:
        folder: its folder.

    Raises:
        FileNotFoundError: there is no evaluation.
        ValueError: it has no finished shard, or is damaged.
    """
    asked, found = read_asked(folder), read_evaluation(folder)
    table = found.table
    methods = list(dict.fromkeys(table["method"]))
    metrics = [_metric(found, table, name) for name in dict.fromkeys(table["metric"])]
    style = static_text("report.css") + static_text("evaluation.css")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("camlens.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    unreadable = read_unreadable(folder)
    return environment.get_template("evaluation.html.j2").render(
        policy=policy(style, ""),
        style=Markup(style),  # the package's own text
        model=asked["model"]["name"],
        images=int(found.values["image"].nunique()),
        target=str(asked["targets"]),
        methods=methods,
        metrics=metrics,
        rows=[_trust(table, method, metrics) for method in methods],
        agreement=_agreement(found) if len(methods) > 2 and len(metrics) > 1 else None,
        unreadable=unreadable.head(200).to_dict("records"),
        unreadable_count=len(unreadable),
        versions=asked["versions"],
    )


def _trust(table: pd.DataFrame, method: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the table: a method's cell for each metric."""
    own = table[table["method"] == method].set_index("metric")
    cells = []
    for metric in metrics:
        row = own.loc[metric["name"]]
        clear = bool(row.get("clear", False))
        cells.append(
            {
                "text": _number(row["mean"]),
                "clear": clear,
                "level": bool(row["level"]),
                "says": ("above every floor" if clear else "not above every floor")
                + (", level with the best" if row["level"] else ""),
            }
        )
    return {
        "name": method,
        "cells": cells,
        "clear": sum(cell["clear"] for cell in cells),
        "level": sum(cell["level"] for cell in cells),
    }


def _metric(found: Any, table: pd.DataFrame, name: str) -> dict[str, Any]:
    rows = table[table["metric"] == name]
    first = next(result for (metric, _), result in found.results.items() if metric == name)
    points = [
        {"name": row["method"], "mean": row["mean"], "low": row["low"], "high": row["high"]}
        for _, row in rows.iterrows()
    ]
    floors = [
        {"name": floor, "mean": at.mean, "low": at.low, "high": at.high}
        for floor, at in first.floors.items()
    ]
    return {
        "name": name,
        "better": first.better,
        "images": int(rows["images"].max()),
        "strip": _strip(points, floors),
        "curves": _curves(found.curves.query("metric == @name")),
        "rows": [
            {
                "name": row["method"],
                "mean": _number(row["mean"]),
                "interval": f"{_number(row['low'])} to {_number(row['high'])}",
                "above": _signed(row.get("above")),
                "above_interval": (
                    f"{_signed(row.get('above_low'))} to {_signed(row.get('above_high'))}"
                ),
                "floor": row.get("floor", ""),
                "clear": bool(row.get("clear", False)),
            }
            for _, row in rows.iterrows()
        ],
    }


def _strip(points: list[dict[str, Any]], floors: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return where means and intervals of methods and floors are drawn."""
    every = [*points, *floors]
    numbers = [
        value
        for at in every
        for value in (at["mean"], at["low"], at["high"])
        if math.isfinite(value)
    ]
    if not numbers:
        return None
    least, most = min(numbers), max(numbers)
    span = (most - least) or 1.0

    def x(value: float) -> float:
        place: float = _LABELS + (value - least) / span * (_WIDTH - _LABELS - 20) + 10
        return round(place, 1)

    marks = []
    for place, at in enumerate(every):
        if not math.isfinite(at["mean"]):
            continue
        low, high = (at[end] if math.isfinite(at[end]) else at["mean"] for end in ("low", "high"))
        marks.append(
            {
                "name": at["name"],
                "y": _ROW * place + _ROW // 2,
                "x": x(at["mean"]),
                "low": x(low),
                "high": x(high),
                "floor": place >= len(points),
            }
        )
    return {
        "marks": marks,
        "width": _WIDTH,
        "height": _ROW * len(every) + 24,
        "least": _number(least),
        "most": _number(most),
        "left": _LABELS + 10,
        "right": _WIDTH - 10,
    }


def _curves(curves: pd.DataFrame) -> dict[str, Any] | None:
    """Return the polylines of a metric's mean curves."""
    if curves.empty:
        return None
    least, most = float(curves["value"].min()), float(curves["value"].max())
    first, last = float(curves["step"].min()), float(curves["step"].max())
    span, length = most - least or 1.0, last - first or 1.0
    lines = []
    for number, (method, rows) in enumerate(curves.groupby("method", sort=False)):
        points = [
            f"{50 + (s - first) / length * (_WIDTH - 70):.1f},"
            f"{_HEIGHT - 30 - (v - least) / span * (_HEIGHT - 50):.1f}"
            for s, v in zip(rows["step"], rows["value"], strict=True)
        ]
        lines.append({"name": method, "points": " ".join(points), "series": number % _SERIES})
    return {
        "lines": lines,
        "width": _WIDTH,
        "height": _HEIGHT,
        "least": _number(least),
        "most": _number(most),
        "first": f"{first:.0%}",
        "last": f"{last:.0%}",
    }


def _agreement(found: Any) -> dict[str, Any]:
    table = found.agreement()
    rows = [
        {"name": name, "cells": ["" if math.isnan(v) else f"{v:.2f}" for v in row]}
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return {"names": list(table.columns), "rows": rows}


def _number(value: Any) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _signed(value: Any) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:+.3g}"
