"""The study of regions as tables and plots.

Every table is a CSV file, every picture one of numbers; nothing that shows a FER2013 face is
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from camlens import regions

from ..data.faces import CLASSES
from ..files import write_csv
from . import claims

#: Says which network and which layers a folder's tables are of.
FACTS = "study.json"


def report(table: pd.DataFrame, out: Path) -> Iterator[str]:
    """Write the tables and plots of a measured table, and say what they say, line by line."""
    regions.write(table, out / "table.parquet")
    density = regions.summarize(table, by="target", seed=1)
    effect = regions.summarize(table, by="target", value="excess", seed=1)
    write_csv(density, out / "density.csv")
    write_csv(effect, out / "effect.csv")
    agreement = _agreement(table)
    write_csv(agreement, out / "agreement.csv")
    yield "agreement of density and effect (mean of Spearman's coefficient over the maps):"
    yield agreement.round(3).to_string(index=False)
    for k, who in ((0, ""), (1, "_runner_up")):
        yield from _claims(_only(density, k=k), _only(effect, k=k), out, who)
    main = _only(table, method="GradCAM", layer=table["layer"].iloc[0], k=0)
    if main["target"].nunique() > 1:
        write_csv(regions.differences(main, by="target", seed=1), out / "differences.csv")
    else:  # as a network with random weights does
        yield f"\nall faces are {main['target'].iloc[0]} to this network: no emotions to compare"
    for name, by in (("correct", ["target", "correct"]), ("confusions", ["label", "prediction"])):
        write_csv(regions.summarize(main, by=by, seed=1), out / f"{name}.csv")
    figure = regions.density_against_excess(main, by="target")
    figure.savefig(out / "density_against_excess.png", dpi=110)


def _claims(density: pd.DataFrame, effect: pd.DataFrame, out: Path, who: str) -> Iterator[str]:
    """Write what one place of the targets (predicted or runner-up) shows, and judge the claims."""
    verdicts = []
    for (method, layer), some in density.groupby(["method", "layer"], sort=False):
        cost = _only(effect, method=method, layer=layer)
        name = f"{method}_{layer}{who}".replace(".", "_")
        judged = claims.judge(some, cost)
        write_csv(_printed(judged), out / f"claims_{name}.csv")
        verdict = claims.overall(judged)
        verdicts.append(verdict.assign(method=method, layer=layer))
        yield f"\n{method} at {layer}, the {'runner-up' if who else 'predicted'} class:"
        yield verdict.to_string(index=False)
        write_csv(_matrix(some, "mean", "low", "high"), out / f"density_{name}.csv")
        write_csv(_matrix(some, "lift", "lift_low", "lift_high"), out / f"lift_{name}.csv")
        ordered = some.sort_values("target", key=_by_class, kind="stable")
        figure = regions.density_map(ordered, by="target")
        figure.savefig(out / f"density_{name}.png", dpi=110)
    write_csv(_matrix(cost, "mean", "low", "high"), out / f"excess{who}.csv")  # of every map
    write_csv(pd.concat(verdicts), out / f"verdicts{who}.csv")
    for layer, same in pd.concat(verdicts).groupby("layer", sort=False):
        wide = same.pivot_table(
            index=["source", "emotion", "regions", "needed"],
            columns="method",
            values="supported",
            aggfunc="first",
            sort=False,
        )
        name = f"verdicts_{layer}{who}".replace(".", "_")
        write_csv(wide.reset_index(), out / f"{name}.csv")


def _agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return how well maps and effects agree, a row for each method, layer and k."""
    setting = ["method", "layer", "grid", "k"]
    maps = table.groupby([*setting, "image"], sort=False)[["agreement", "evidence"]].first()
    found = maps.groupby(setting, sort=False).agg(
        maps=("evidence", "size"),
        without_evidence=("evidence", lambda evidence: int((~evidence).sum())),
        agreement=("agreement", "mean"),
        positive=("agreement", lambda rho: (rho.dropna() > 0).mean()),
    )
    return found.reset_index()


def _matrix(summary: pd.DataFrame, mean: str, low: str, high: str) -> pd.DataFrame:
    """Return emotions by regions, each cell as it is printed."""
    words = [
        _words(row[mean], row[low], row[high]) if row["enough"] else row["note"]
        for _, row in summary.iterrows()
    ]
    wide = summary.assign(cell=words).pivot_table(
        index="target", columns="region", values="cell", aggfunc="first", sort=False
    )
    return wide.sort_index(key=_by_class).reset_index().rename(columns={"target": "emotion"})


def _printed(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the claims with each number and its interval in one column."""
    printed = judged[["source", "emotion", "region", "n"]].copy()
    for name in ("density", "lift", "excess"):
        columns = [name, f"{name} low", f"{name} high"]
        printed[name] = [_words(*row) for row in judged[columns].itertuples(index=False)]
    return printed.assign(verdict=judged["verdict"])


def _words(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"


def compare_methods(table: pd.DataFrame) -> pd.DataFrame:
    """Compare Grad-CAM of the predicted class with the other methods, on the same faces."""
    layer = table["layer"].iloc[0]
    first = _only(table, method="GradCAM", layer=layer, k=0)
    found = []
    for method in table["method"].unique():
        if method != "GradCAM":
            other = _only(table, method=method, layer=layer, k=0)
            found.append(regions.compare(first, other, seed=1).assign(a="GradCAM", b=method))
    return pd.concat(found, ignore_index=True)


def _only(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows of one setting."""
    rows = table
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def _by_class(names: pd.Series) -> pd.Series:
    """Return the emotions' numbers, to sort by."""
    return names.map({name: index for index, name in enumerate(CLASSES)})
