"""Two networks' studies of regions side by side, from the tables that the studies wrote."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from camlens import regions

from ..data.faces import CLASSES
from ..files import write_csv, write_figure
from .report import FACTS

_METHOD = "GradCAM"
_VALUES = {"density": "density of the heat", "excess": "excess, in the network's own logits"}


@dataclasses.dataclass(frozen=True)
class _Study:
    """What one folder holds of Grad-CAM at its first layer, for the predicted class.

    Attributes:
        name: the network, the layer and its grid.
        values: for each emotion and region the density and the excess with their intervals.
        verdicts: of each claim.
        labels: (N,) the faces' true classes, which tell whether two studies saw the same faces.
    """

    name: str
    values: pd.DataFrame
    verdicts: pd.DataFrame
    labels: list[str]


def beside(ours: Path, theirs: Path, out: Path) -> Iterator[str]:
    """Set the regions and verdicts of two networks side by side.

    Densities compare: 1 is what a map without any preference has, whatever the network. The excess
    is in each network's own logits, so that its sign and its order compare, not its size.

    Args:
        ours: the folder that ``python -m fer2013 regions`` wrote for one network.
        theirs: the other's.
        out: the folder of ``beside.csv``, ``beside_verdicts.csv`` and ``beside.png``.

    Yields:
        The tables, and what was written.

    Raises:
        FileNotFoundError: a folder holds no whole study.
        ValueError: the studies are of other faces, or of the same network and layer.
    """
    studies = [_read(ours), _read(theirs)]
    if studies[0].labels != studies[1].labels:
        raise ValueError(
            f"{ours} and {theirs} are of other faces ({len(studies[0].labels)} and "
            f"{len(studies[1].labels)}): run both with the same --data, --split and --limit"
        )
    if studies[0].name == studies[1].name:
        raise ValueError(f"expected the studies of two networks, both are of {studies[0].name}")
    values = pd.concat([s.values.assign(network=s.name) for s in studies])
    write_csv(values, out / "beside.csv")
    for value, meaning in _VALUES.items():
        yield f"\n{meaning} (Grad-CAM of the predicted class; mean [95% interval]):"
        yield _printed(values, value)
    verdicts = studies[0].verdicts.merge(
        studies[1].verdicts,
        on=["source", "emotion", "regions"],
        suffixes=tuple(f", {s.name}" for s in studies),
    )
    write_csv(verdicts, out / "beside_verdicts.csv")
    yield "\nclaims:"
    yield verdicts.to_string(index=False)
    write_figure(_draw(values), out / "beside.png", dpi=110)
    yield f"\nwrote {out}"


def _read(folder: Path) -> _Study:
    names = (FACTS, "table.parquet", "density.csv", "effect.csv", "verdicts.csv")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} holds no whole study, {', '.join(missing)} is missing: run "
            f"'python -m fer2013 regions --out {folder}' first"
        )
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    layer = facts["layers"][0]
    density, effect, verdicts = (
        _main(pd.read_csv(folder / name), layer)
        for name in ("density.csv", "effect.csv", "verdicts.csv")
    )
    key = ["target", "region"]
    columns = [*key, "n", "mean", "low", "high"]
    values = density[[*columns, "note"]].merge(
        effect[columns].drop(columns="n"), on=key, suffixes=("_density", "_excess")
    )
    faces = regions.read(folder / "table.parquet").drop_duplicates("image").sort_values("image")
    return _Study(
        f"{facts['network']} at {layer} ({density['grid'].iloc[0]})",
        values.rename(columns={"target": "emotion"}),
        verdicts[["source", "emotion", "regions", "supported", "needed", "verdict"]],
        faces["label"].astype(str).tolist(),
    )


def _main(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Return the rows of Grad-CAM at one layer, of the predicted class."""
    rows = table[(table["method"] == _METHOD) & (table["layer"] == layer)]
    return rows[rows["k"] == 0] if "k" in rows else rows


def _printed(values: pd.DataFrame, value: str) -> str:
    mean, low, high = (values[f"{part}_{value}"] for part in ("mean", "low", "high"))
    words = [
        "-" if pd.isna(m) else f"{m:.2f}" if pd.isna(a) else f"{m:.2f} [{a:.2f}, {b:.2f}]"
        for m, a, b in zip(mean, low, high, strict=True)
    ]
    wide = values.assign(cell=words).pivot_table(
        index=["emotion", "network"], columns="region", values="cell", aggfunc="first", sort=False
    )
    order = [emotion for emotion in CLASSES if emotion in set(values["emotion"])]
    return str(wide.reindex(order, level="emotion").to_string(na_rep="-"))


def _draw(values: pd.DataFrame) -> Figure:
    """Draw each emotion's densities and excesses, both networks in each plot."""
    emotions = [emotion for emotion in CLASSES if emotion in set(values["emotion"])]
    names, networks = list(values["region"].unique()), list(values["network"].unique())
    figure = Figure(figsize=(2.1 * len(emotions) + 1, 6.4), layout="constrained")
    grid = figure.subplots(2, len(emotions), sharey=True, sharex="row", squeeze=False)
    for row, (value, meaning) in zip(grid, _VALUES.items(), strict=True):
        for axes, emotion in zip(row, emotions, strict=True):
            axes.axvline(1 if value == "density" else 0, color="0.6", linewidth=0.8)
            for place, network in enumerate(networks):
                own = values[(values["emotion"] == emotion) & (values["network"] == network)]
                own = own.set_index("region").reindex(names)
                mean, low, high = (own[f"{part}_{value}"] for part in ("mean", "low", "high"))
                spread = [(mean - low).clip(lower=0).fillna(0), (high - mean).fillna(0)]
                heights = [i + 0.3 * (place - 0.5) for i in range(len(names))]
                axes.errorbar(mean, heights, xerr=spread, fmt="o", markersize=3.5, label=network)
            axes.set_title(emotion, fontsize=10)
            axes.set_yticks(range(len(names)), names)
        row[0].set_ylabel(meaning)
    grid[0, 0].invert_yaxis()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
