"""Results of explained photographs: one record each, for JSON, CSV and terminal tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..dataset.image_results import Explained
from ..faithfulness.region_ablation_result import READING, percent, plus_minus
from . import console

Record = dict[str, Any]

#: How to read the excess in the tables of :func:`show`.
EXCESS = "drops are those of the explained score, not of its probability. " + READING

#: The kinds of pictures of a map.
KINDS = ("overlay", "contours", "signed")


def record(
    group: Explained, place: int, photo: str, classes: Sequence[str] | None, tags: Sequence[str]
) -> Record:
    """Return the record of one photograph, without its files and regions.

    Args:
        group: the explained group of images.
        place: index of the photograph in the group.
        photo: the file, as it was given.
        classes: class names by id.
        tags: the requested name of each of the K targets, such as "predicted".
    """
    outputs, best = group.explanations[0].outputs, int(group.predictions[place])
    return {
        "photo": photo,
        "label": _class(group.labels[place], classes) if group.labels[place] >= 0 else None,
        "prediction": {
            **_class(best, classes),
            "score": None if outputs is None else float(outputs[place, best]),
            "probability": _known(group.confidences[place]),
        },
        "explanations": [
            {
                "method": explanation.method,
                "layers": list(explanation.layers),
                "grid": list(explanation.grid),
                "targets": [
                    {
                        "asked": tag,
                        **_class(int(explanation.targets[place, k]), classes),
                        "score": float(explanation.scores[place, k]),
                        "probability": _known(probabilities[place, k]),
                        "evidence": bool(explanation.evidence[place, k]),
                        "files": {},
                    }
                    for k, tag in enumerate(tags)
                ],
                "files": {},
            }
            for explanation, probabilities in zip(
                group.explanations, group.probabilities, strict=True
            )
        ],
        "regions": None,
        "files": {},
    }


def table(records: Sequence[Record]) -> bytes:
    """Return records as CSV with a row for each photograph, method and target."""
    rows = list(_rows(records))
    stream = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def name_of(entry: Record | None) -> str:
    """Return a class's display name: its name and number."""
    if entry is None:
        return ""
    return (
        f"class {entry['class']}"
        if entry["name"] is None
        else f"{entry['name']} ({entry['class']})"
    )


def show(record: Record) -> None:
    """Write the results of one photograph as tables."""
    predicted = record["prediction"]
    console.line(record["photo"])
    facts = f"score {predicted['score']:.4g}"
    if known := predicted["probability"] is not None:  # a model with one output has none
        facts += f", probability {_percent(predicted['probability'])}"
    label = "" if record["label"] is None else f"; true: {name_of(record['label'])}"
    console.line(f"  predicted: {name_of(predicted)} ({facts}){label}")
    for explanation in record["explanations"]:
        grid = "x".join(map(str, explanation["grid"]))
        where = f" at {', '.join(explanation['layers'])}" if explanation["layers"] else ""
        console.line(f"  {explanation['method']}{where}, grid {grid}")
        console.show(
            [
                {
                    "explained": name_of(target),
                    "score": target["score"],
                    **({"probability": _percent(target["probability"])} if known else {}),
                    "evidence": "yes" if target["evidence"] else "none",
                }
                for target in explanation["targets"]
            ]
        )
    if record["regions"] is not None:
        several = {
            "method": len(record["explanations"]) > 1,
            "target": len(record["explanations"][0]["targets"]) > 1,
        }
        names = [name for name, shown in several.items() if shown]
        console.show([_region(row, names) for row in record["regions"]])
    console.line(f"  {record['files']['sheet']}")
    console.line()


def _rows(records: Sequence[Record]) -> Iterator[dict[str, object]]:
    for record in records:
        predicted = record["prediction"]
        for explanation in record["explanations"]:
            for target in explanation["targets"]:
                yield {
                    "photo": record["photo"],
                    "label": name_of(record["label"]),
                    "prediction": name_of(predicted),
                    "probability": predicted["probability"],
                    "method": explanation["method"],
                    "layer": "+".join(explanation["layers"]),
                    "asked": target["asked"],
                    "target": name_of(target),
                    "score": target["score"],
                    "target_probability": target["probability"],
                    "evidence": target["evidence"],
                    **{kind: target["files"].get(kind) for kind in KINDS},
                }


def _known(value: Tensor) -> float | None:
    number = value.item()
    return None if math.isnan(number) else number


def _percent(probability: float | None) -> str | None:
    return None if probability is None else f"{probability:.1%}"


def _class(index: int, names: Sequence[str] | None) -> Record:
    known = names is not None and 0 <= index < len(names)
    return {"class": index, "name": names[index] if names and known else None}


def _region(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the displayed columns of a row of the region table."""
    if not row["area"]:
        density = "not found"
    elif not row["resolvable"]:
        density = "too coarse"
    elif not row["evidence"]:
        density = "no evidence"
    else:
        density = f"{row['density']:.2f}"
    shown = {name: row[name] for name in names} | {"region": row["region"], "density": density}
    for name in ("share", "area"):
        shown[name] = None if row[name] is None else f"{row[name]:.1%}"
    if "excess" in row:
        names = ("excess", "standard_error", "exceeds")
        excess, error, exceeds = (math.nan if row[n] is None else row[n] for n in names)
        shown["excess of the score"] = plus_minus(excess, error) or None
        shown["costs more than"] = percent(exceeds) or None
    return shown
