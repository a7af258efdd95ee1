"""Write the tables of fer2013_accuracy.rst from the records that come with the example.

.venv/bin/python docs/accuracy_tables.py [docs/fer2013]
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd

from fer2013.comparison import results, table, verdicts
from fer2013.evaluation.records import MEASURED

CONCLUSIONS = ["the deck's conclusion", "here", "verdict"]


def interval(value: float, low: float, high: float) -> str:
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def numbers(row: pd.Series, *columns: str) -> str:
    return " / ".join(f"{row[name]:.0f}" for name in columns if math.isfinite(row[name]))


def beside_the_deck(found: list[results.Result]) -> pd.DataFrame:
    """Each network beside the deck's figures, in percent."""
    measured_at_all = {result.config.name for result in found}
    rows = []
    for _, row in table.rows(found).iterrows():
        # With other photographs to pretrain on, it has a row of its own.
        if row["status"] == "unmeasured" and row["configuration"] in measured_at_all:
            continue
        deck = f"{row['deck_training']} / {row['deck_validation']} / {row['deck_test']:.1f}"
        measured = row["status"] == "measured"
        twins = f"{row['distinct']:.1f}" if math.isfinite(row["distinct"]) else ""
        rows.append(
            {
                "configuration": row["configuration"],
                "network": row["network"],
                "the deck: training / validation / test": deck if row["deck_training"] else "",
                "here: training / validation": numbers(row, "training", "validation"),
                "here: test": interval(row["accuracy"], row["low"], row["high"])
                if measured
                else "unmeasured",
                "without twins": twins,
                "on": f"{row['on']}, {row['averaging']}" if measured else "",
            }
        )
    return pd.DataFrame(rows)


def by_views(found: list[results.Result]) -> pd.DataFrame:
    """Accuracy and calibration of each network by the views that are averaged."""
    known = {(r.sha256, r.averaging) for r in found if not r.deviations}
    rows = []
    for path in sorted(MEASURED.glob("*.json")):
        for record in json.loads(path.read_text("utf-8"))["evaluations"]:
            if (record["weights"]["sha256"], record["averaging"]) not in known:
                continue
            low, high = record["interval"]
            fewer, calibration = record["deduplicated"], record["calibration"]
            rows.append(
                {
                    "network": record["training"]["config"]["name"],
                    "views": record["averaging"],
                    "accuracy": interval(100 * record["accuracy"], 100 * low, 100 * high),
                    "without twins": f"{100 * fewer['accuracy']:.1f}",
                    "calibration error": f"{calibration['expected calibration error']:.2f}",
                    "log loss": f"{calibration['log loss']:.2f}",
                    "Brier score": f"{calibration['brier']:.2f}",
                }
            )
    return pd.DataFrame(rows)


def tables() -> dict[str, pd.DataFrame]:
    """Return each table by the name of its file."""
    found, skipped = results.collect(Path("no runs"))
    if skipped:
        raise SystemExit("\n".join(skipped))
    judged = [(v.claim, v.evidence, v.verdict) for v in verdicts.judge(found)]
    return {
        "comparison.csv": beside_the_deck(found),
        "conclusions.csv": pd.DataFrame(judged, columns=CONCLUSIONS),
        "per_class.csv": table.per_class(found).round(2),
        "views.csv": by_views(found),
    }


def main(folder: Path) -> None:
    for name, frame in tables().items():
        frame.to_csv(folder / name, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("fer2013"))
