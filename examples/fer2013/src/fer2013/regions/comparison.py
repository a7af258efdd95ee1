"""The command ``beside``: compare the studies of two networks, from the tables that they wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from camlens import regions

from ..files import write_csv, write_figure
from .report import FACTS, by_class, only, with_intervals

_VALUES = {"density": "density of the heat", "excess": "excess, in each network's logits"}


def beside(first: Path, second: Path, out: Path) -> Iterator[str]:
    """Compare the regions and verdicts of two networks, and yield the tables as text.

    Densities are comparable, as 1 is that of a uniform map. The excess is in each network's own
    logits: its sign and order are comparable, its size is not.

    Args:
        first: output folder of ``python -m fer2013 regions``.
        second: that of the other network.
        out: the folder of ``beside.csv``, ``beside_verdicts.csv`` and ``beside.png``.

    Raises:
        FileNotFoundError: a folder has no complete study.
        ValueError: the studies are of other images, or of the same network and layer.
    """
    (ours, verdicts, faces), (theirs, others, other_faces) = _read(first), _read(second)
    if faces != other_faces:
        raise ValueError(
            f"{first} and {second} are of other faces ({len(faces)} and {len(other_faces)}): run "
            "both with the same --data, --split and --limit"
        )
    name, other = (values["network"].iloc[0] for values in (ours, theirs))
    if name == other:
        raise ValueError(f"expected the studies of two networks, both are of {name}")
    values = pd.concat([ours, theirs]).sort_values("emotion", key=by_class, kind="stable")
    write_csv(values, out / "beside.csv")
    for value, meaning in _VALUES.items():
        yield f"\n{meaning} (Grad-CAM of the predicted class; mean [95% interval]):"
        yield _printed(values, value)
    claim = ["source", "emotion", "regions"]
    verdicts = verdicts.merge(others, on=claim, suffixes=(f", {name}", f", {other}"))
    write_csv(verdicts, out / "beside_verdicts.csv")
    yield "\nclaims:"
    yield verdicts.to_string(index=False)
    write_figure(_draw(values), out / "beside.png", dpi=110)
    yield f"\nwrote {out}"


def _read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Read a study's results for Grad-CAM at its first layer and the predicted class.

    Returns:
        Density and excess with their intervals by emotion and region; the verdicts; and the true
        classes of the images, which show whether two studies have the same images.
    """
    names = (FACTS, "table.parquet", "density.csv", "effect.csv", "verdicts.csv")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no complete study, it lacks {', '.join(missing)}: run "
            f"'python -m fer2013 regions --out {folder}' first"
        )
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    main = {"method": "GradCAM", "layer": facts["layers"][0]}
    density, effect = (
        only(pd.read_csv(folder / name), **main, k=0).rename(columns={"target": "emotion"})
        for name in ("density.csv", "effect.csv")
    )
    verdicts = only(pd.read_csv(folder / "verdicts.csv"), **main).drop(columns=list(main))
    key, numbers = ["emotion", "region"], ["mean", "low", "high"]
    values = density[[*key, "n", *numbers, "note"]].merge(
        effect[[*key, *numbers]], on=key, suffixes=("_density", "_excess")
    )
    network = f"{facts['network']} at {main['layer']} ({density['grid'].iloc[0]})"
    faces = regions.read(folder / "table.parquet").drop_duplicates("image").sort_values("image")
    return values.assign(network=network), verdicts, faces["label"].astype(str).tolist()


def _printed(values: pd.DataFrame, value: str) -> str:
    """Return a value by emotion and network (rows) and region (columns) as text."""
    mean = f"mean_{value}"
    cells = with_intervals(values, mean, f"low_{value}", f"high_{value}").where(
        values[mean].notna(), "-"
    )
    wide = values.assign(cell=cells).pivot_table(
        "cell", ["emotion", "network"], "region", aggfunc="first", sort=False
    )
    ordered = wide.sort_index(level="emotion", key=by_class, sort_remaining=False, kind="stable")
    return str(ordered.to_string())


def _draw(values: pd.DataFrame) -> Figure:
    """Plot each emotion's densities and excesses of both networks."""
    emotions, names = values["emotion"].unique(), list(values["region"].unique())
    figure = Figure(figsize=(2.1 * len(emotions) + 1, 6.4), layout="constrained")
    grid = figure.subplots(2, len(emotions), sharey=True, sharex="row", squeeze=False)
    for row, (value, meaning), chance in zip(grid, _VALUES.items(), (1, 0), strict=True):
        for axes, emotion in zip(row, emotions, strict=True):
            axes.axvline(chance, color="0.6", linewidth=0.8)
            same = values[values["emotion"] == emotion]
            for place, (network, own) in enumerate(same.groupby("network", sort=False)):
                mean, low, high = (own[f"{part}_{value}"] for part in ("mean", "low", "high"))
                spread = [(mean - low).clip(lower=0).fillna(0), (high - mean).fillna(0)]
                heights = own["region"].map(names.index) + 0.3 * (place - 0.5)
                axes.errorbar(mean, heights, xerr=spread, fmt="o", markersize=3.5, label=network)
            axes.set_title(emotion, fontsize=10)
            axes.set_yticks(range(len(names)), names)
        row[0].set_ylabel(meaning)
    grid[0, 0].invert_yaxis()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
