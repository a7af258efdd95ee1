"""The demo: explain the predicted emotion and the runner-up by four methods."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

import camlens
from camlens import dataset, report

from ..data.faces import CLASSES, SIDE
from ..data.photographs import SHOWN, Face, to_images
from ..files import write_figure
from ..networks.architectures import finest_layer
from .pictures import as_pictures, beside, columns, explainers


def demo(model: nn.Module, faces: list[Face], out: Path, *, device: str = "cpu") -> list[str]:
    """Explain faces, write a contact sheet and a web page, and return the results as text.

    Args:
        model: a trained network in evaluation mode.
        faces: the faces.
        out: the folder of the sheet, ``demo.png``, and of the page, ``demo.html``.
        device: torch device.
    """
    model, images = model.to(device), to_images(faces).to(device)
    with torch.inference_mode():
        probabilities = model(images).softmax(dim=1)
    targets = probabilities.topk(2).indices  # the predicted emotion and the runner-up
    methods = explainers(model, finest_layer(model))
    explained = {name: method(images, targets=targets) for name, method in methods.items()}
    photographs = torch.stack([face.picture for face in faces])
    parts = camlens.faces.face_template(SHOWN)
    outlined = parts.pick(*parts.names[:-1]).draw(photographs)  # without the background
    drawn = columns(photographs, {name: one.cpu() for name, one in explained.items()})
    figure = camlens.sheet(
        beside([outlined.squeeze(1), as_pictures(images.cpu())], drawn),
        rows=[
            f"{face.name}\n{rank}:\n{CLASSES[c]} {probabilities[n, c]:.0%}"
            for n, face in enumerate(faces)
            for rank, c in zip(("predicted", "runner-up"), targets[n].tolist(), strict=True)
        ],
        columns=["photograph and regions", "network's input", *explained],
        title="Where the network finds its evidence for an emotion",
    )
    sheet, page = out / "demo.png", out / "demo.html"
    write_figure(figure, sheet)
    table = _write_page(list(methods.values()), faces, targets, page)
    first = table[table["method"] == "GradCAM"]
    said = [
        f"{face.name}: " + ", ".join(f"{CLASSES[c]} ({probabilities[n, c]:.0%})" for c in two)
        for n, (face, two) in enumerate(zip(faces, targets.tolist(), strict=True))
    ]
    where = f"Grad-CAM at {first['layer'].iloc[0]}, on a {first['grid'].iloc[0]} grid of the face."
    wrote = [f"wrote {sheet}", f"wrote {page}: open it in a browser"]
    return [*said, where, *_measured(faces, first), "", *wrote]


def _measured(faces: list[Face], table: pd.DataFrame) -> list[str]:
    """Return density and excess of each region, and their rank correlation, as text."""
    names = table["image"].map(dict(enumerate(face.name for face in faces)))
    ranked = zip(table["excess"], table["exceeds"], strict=True)
    said = [f"{excess:+.2f} ({exceeds:.0%})" for excess, exceeds in ranked]
    table = table.assign(map=names + ", " + table["target"], excess=said)
    order = {"index": table["map"].unique(), "columns": table["region"].unique()}
    density, excess = (
        table.pivot(index="map", columns="region", values=column)
        .reindex(**order)  # the density is missing for a map without evidence, or a small region
        .to_string(float_format="{:.1f}".format, na_rep="-", index_names=False)
        for column in ("density", "excess")
    )
    agreement = table.groupby("map", sort=False)["agreement"].first()
    regions = table["region"].nunique()
    return [
        "",
        "Density of the heat on each region; 1 is that of a uniform map:",
        density,
        "",
        "Drop of the score (logit) when the region is blurred, beyond the mean drop when the same",
        "blur is at random positions, and the share of these positions that cost less: a region",
        "that matters costs more than nearly all of them, an arbitrary one more than any share:",
        excess,
        "",
        "Spearman's rank correlation of the two: does the network need what the map highlights?",
        f"For {regions} regions, that of an unrelated map is 0 ± {(regions - 1) ** -0.5:.2f}:",
        *(f"  {name}: {value:+.2f}" for name, value in agreement.items()),
    ]


def _write_page(
    methods: list[camlens.Explainer], faces: list[Face], targets: Tensor, out: Path
) -> pd.DataFrame:
    """Write the explanations of targets (N, K) as a web page, with faithfulness metrics.

    Returns:
        The table of regions; see :func:`camlens.regions.table`.
    """
    samples = [
        dataset.Sample(image, name=face.name, picture=torch.from_numpy(face.pixels).unsqueeze(0))
        for face, image in zip(faces, to_images(faces), strict=True)
    ]
    # The run's folder is temporary, as it could not be reused for other photographs.
    with tempfile.TemporaryDirectory() as folder:
        run = dataset.explain_dataset(
            methods,
            samples,
            folder,
            dataset.RunOptions(
                regions=camlens.faces.face_template(SIDE),
                targets=targets.cpu(),
                infill="blur",
                placements=16,
                metrics=["insertion", "deletion", "road", "sufficiency"],
                classes=CLASSES,
            ),
            progress=False,
        )
        report.write_report(run, out)
        return run.regions
