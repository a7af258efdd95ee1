"""The study of regions as tables (CSV) and plots, which contain no FER2013 images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from camlens import regions

from ..data.faces import CLASSES
from ..files import write_csv, write_figure
from . import claims

#: The file that names the network and the layers of a study.
FACTS = "study.json"

_DENSITY = ("mean", "low", "high")
_LIFT = ("lift", "lift_low", "lift_high")


def write_table(title: str, table: pd.DataFrame, path: Path) -> Iterator[str]:
    """Write a table as CSV, and yield it as text."""
    write_csv(table, path)
    yield f"\n{title}:"
    yield table.round(3).to_string(index=False)


def report(table: pd.DataFrame, out: Path) -> Iterator[str]:
    """Write the tables and plots of a study's measurements, and yield its results as text."""
    regions.write(table, out / "table.parquet")
    density = regions.summarize(table, by="target", seed=1)
    effect = regions.summarize(table, by="target", value="excess", seed=1)
    write_csv(density, out / "density.csv")
    write_csv(effect, out / "effect.csv")
    title = "agreement of density and effect (mean over the maps of Spearman's rank correlation)"
    yield from write_table(title, _agreement(table), out / "agreement.csv")
    for k, who in ((0, ""), (1, "_runner_up")):
        yield from _claims(only(density, k=k), only(effect, k=k), out, who)
    main = only(table, method="GradCAM", layer=table["layer"].iloc[0], k=0)
    if main["target"].nunique() > 1:
        write_csv(regions.differences(main, by="target", seed=1), out / "differences.csv")
    else:  # a network with random weights
        yield f"\nno differences of emotions, as {main['target'].iloc[0]} is always predicted"
    figure = regions.density_against_excess(main, by="target")
    write_figure(figure, out / "density_against_excess.png", dpi=110)


def _claims(density: pd.DataFrame, effect: pd.DataFrame, out: Path, who: str) -> Iterator[str]:
    """Write the results of the predicted class, or of the runner-up, and test the claims."""
    verdicts = []
    for (method, layer), some in density.groupby(["method", "layer"], sort=False):
        cost = only(effect, method=method, layer=layer)
        name = f"{method}_{layer}{who}".replace(".", "_")
        judged = claims.judge(some, cost)
        verdict = claims.overall(judged)
        verdicts.append(verdict.assign(method=method, layer=layer))
        yield f"\n{method} at {layer}, the {'runner-up' if who else 'predicted'} class:"
        yield verdict.to_string(index=False)
        printed = judged[["source", "emotion", "region", "n"]].copy()
        for value in ("density", "lift", "excess"):
            printed[value] = with_intervals(judged, value, f"{value} low", f"{value} high")
        write_csv(printed.assign(verdict=judged["verdict"]), out / f"claims_{name}.csv")
        write_csv(_matrix(some, *_DENSITY), out / f"density_{name}.csv")
        write_csv(_matrix(some, *_LIFT), out / f"lift_{name}.csv")
        ordered = some.sort_values("target", key=by_class, kind="stable")
        figure = regions.density_map(ordered, by="target")
        write_figure(figure, out / f"density_{name}.png", dpi=110)
    write_csv(_matrix(cost, *_DENSITY), out / f"excess{who}.csv")  # the same for every map
    all_verdicts = pd.concat(verdicts)
    write_csv(all_verdicts, out / f"verdicts{who}.csv")
    for layer, same in all_verdicts.groupby("layer", sort=False):
        key = ["source", "emotion", "regions", "needed"]
        wide = same.pivot_table("supported", key, "method", aggfunc="first", sort=False)
        name = f"verdicts_{layer}{who}".replace(".", "_")
        write_csv(wide.reset_index(), out / f"{name}.csv")


def _agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank correlation of maps and ablations, by method, layer and k."""
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
    """Return a table of emotions by regions with numbers as text."""
    cells = with_intervals(summary, mean, low, high).where(summary["enough"], summary["note"])
    wide = summary.assign(cell=cells).pivot_table(
        "cell", "target", "region", aggfunc="first", sort=False
    )
    return wide.sort_index(key=by_class).rename_axis("emotion").reset_index()


def with_intervals(table: pd.DataFrame, mean: str, low: str, high: str) -> pd.Series:
    """Return each row's number with its interval as text; the arguments are column names."""
    template = "{:.2f} [{:.2f},\N{NO-BREAK SPACE}{:.2f}]".format
    return pd.Series(map(template, table[mean], table[low], table[high]), table.index, dtype=object)


def only(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows with the given values in the columns of these names."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def by_class(names: pd.Series) -> pd.Series:
    """Return the classes' numbers, as a sort key."""
    return names.map({name: index for index, name in enumerate(CLASSES)})
