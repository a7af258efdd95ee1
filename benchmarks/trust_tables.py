"""The tables and the figure of docs/which_map_to_trust.rst, from an evaluation."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from camlens.faithfulness import Evaluation

FLOOR = "floor_"


def write(evaluation: Evaluation, stem: Path, more: Mapping[str, Mapping[str, str]]) -> None:
    """Write ``stem``.csv, ``stem``_agreement.csv and ``stem``.png.

    Args:
        evaluation: methods by metrics.
        stem: path of the files without the ending.
        more: columns beside the metrics: by heading, the text of each method and floor.
    """
    table = evaluation.table
    metrics = table["metric"].drop_duplicates().tolist()
    cells = {(row["method"], row["metric"]): row for row in table.to_dict("records")}
    floors = [name for name in table.columns if name.startswith(FLOOR) and name != "floor_seconds"]
    lines = [["map", *metrics, *more]]
    for method in table["method"].drop_duplicates():
        own = [cells.get((method, metric)) for metric in metrics]
        said = [
            "-" if row is None else _number(row["mean"]) + " *" * bool(row["clear"]) for row in own
        ]
        lines.append([method, *said, *(column.get(method, "-") for column in more.values())])
    for floor in floors:
        name = floor.removeprefix(FLOOR)
        means = [table.loc[table["metric"] == metric, floor].mean() for metric in metrics]
        beside = (column.get(name, "-") for column in more.values())
        lines.append([f"floor: {name}", *map(_number, means), *beside])
    stem.parent.mkdir(parents=True, exist_ok=True)
    with stem.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    agreement = evaluation.agreement().round(2)
    agreement.to_csv(stem.with_name(f"{stem.name}_agreement.csv"), index_label="metric")
    evaluation.plot().savefig(stem.with_suffix(".png"), dpi=110)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text
