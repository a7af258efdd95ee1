"""What does the network look at? Four methods, the predicted emotion and the runner-up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import camlens
from camlens import dataset, regions, report

from ..data.faces import CLASSES, SIDE
from ..data.photographs import SHOWN, Face, to_images
from ..evaluation.predictions import averaged_logits
from ..files import write_figure
from ..networks.architectures import finest_layer
from .methods import explain_all, explainers
from .pictures import as_pictures, columns


def demo(model: nn.Module, faces: list[Face], out: Path, *, device: str = "cpu") -> list[str]:
    """Explain faces, write a contact sheet and a web page, and say what was found.

    Args:
        model: a trained network in evaluation mode.
        faces: the faces to explain.
        out: the PNG file to write; the page has its name, with .html.
        device: where to run.

    Returns:
        The findings, a line each.
    """
    model, images = model.to(device), to_images(faces).to(device)
    with torch.inference_mode():
        probabilities = averaged_logits(model, images, "mirror").softmax(dim=1)
    targets = probabilities.topk(2).indices  # the predicted emotion and the runner-up
    explained = explain_all(model, finest_layer(model), images, targets)
    figure = camlens.sheet(
        _pictures(faces, images, explained).cpu(),
        rows=[
            f"{face.name}\n{rank}:\n{CLASSES[c]} {probabilities[n, c]:.0%}"
            for n, face in enumerate(faces)
            for rank, c in zip(("predicted", "runner-up"), targets[n].tolist(), strict=True)
        ],
        columns=["photograph and regions", "network's input", *explained],
        title="Where the network finds its evidence for an emotion",
    )
    write_figure(figure, out)
    page = _write_page(model, faces, targets, out.with_suffix(".html"))
    return [
        *_findings(faces, probabilities, explained["Grad-CAM"]),
        *_measured(faces, model, images, explained["Grad-CAM"]),
        "",
        f"wrote {out}",
        f"wrote {page}: open it in a browser",
    ]


def _pictures(
    faces: list[Face], images: Tensor, explained: dict[str, camlens.Explanation]
) -> Tensor:
    """Return (rows, columns, 3, side, side) uint8: a row for each face and target."""
    photographs = torch.stack([face.picture for face in faces]).to(images.device)
    parts = camlens.faces.face_template(SHOWN)
    outlined = parts.pick(*parts.names[:-1]).draw(photographs)  # the background has no outline
    drawn = columns(photographs, explained)
    for column in (as_pictures(images), outlined.squeeze(1)):
        drawn.insert(0, column.unsqueeze(1).expand(-1, 2, -1, -1, -1))
    return torch.stack([column.flatten(0, 1) for column in drawn], dim=1)


def _findings(
    faces: list[Face], probabilities: Tensor, explanation: camlens.Explanation
) -> list[str]:
    h, w = explanation.grid
    lines = [f"Grad-CAM at {', '.join(explanation.layers)}, on a {h}x{w} grid of the face:"]
    for n, face in enumerate(faces):
        for k, c in enumerate(explanation.targets[n].tolist()):
            claim = f"{face.name}, {CLASSES[c]} ({probabilities[n, c]:.0%}): "
            if not explanation.evidence[n, k]:
                lines.append(claim + "no positive evidence")
                continue
            heat = explanation.raw[n, k]
            row, column = divmod(int(heat.argmax()), w)
            inside = (explanation.heatmaps[n, k] >= 0.5).float().mean()
            lines.append(
                f"{claim}hottest {(row + 0.5) / h:.0%} down and {(column + 0.5) / w:.0%} across; "
                f"half the heat's peak or more on {inside:.0%} of the face"
            )
    return lines


def _measured(
    faces: list[Face], model: nn.Module, images: Tensor, explanation: camlens.Explanation
) -> list[str]:
    """Return the table of regions: where the heat is, and what the score loses without it."""
    template = camlens.faces.face_template(SIDE)
    scores = regions.score(explanation, template)
    ablation = camlens.faithfulness.ablate_regions(
        model, images, template, targets=explanation.targets, placements=32
    )
    table = regions.table(
        scores, ablation=ablation, classes=CLASSES, images=[face.name for face in faces]
    )
    table["map"] = table["image"] + ", " + table["target"]
    order = table["map"].drop_duplicates()
    wide = {
        name: table.pivot_table(index="map", columns="region", values=column, sort=False)
        .reindex(index=order, columns=list(template.names))
        .to_string(float_format=f"{{:{form}}}".format, na_rep="-", index_names=False)
        .replace("region", "      ")
        for name, column, form in (("density", "density", ".1f"), ("effect", "excess", "+.2f"))
    }
    agreement = table.groupby("map", sort=False)["agreement"].first()
    return [
        "",
        "Density of the heat on each region; 1 is what a map without any preference has:",
        wide["density"],
        "",
        "What the score (the logit) loses when the region is blurred, beyond what the same blur",
        "costs at random places of the face:",
        wide["effect"],
        "",
        "Does the network need the places that the map points at? Spearman's coefficient of both:",
        *(f"  {name}: {value:+.2f}" for name, value in agreement.items()),
    ]


def _write_page(model: nn.Module, faces: list[Face], targets: Tensor, out: Path) -> Path:
    """Explain faces by four methods and write what was found as one HTML file.

    It says of each face which of the maps are above the floors by metrics of faithfulness.

    Args:
        model: a trained network in evaluation mode.
        faces: the faces.
        targets: (N, K) emotions to explain.
        out: the HTML file.

    Returns:
        The file.
    """
    samples = [
        dataset.Sample(image, name=face.name, picture=torch.from_numpy(face.pixels).unsqueeze(0))
        for face, image in zip(faces, to_images(faces), strict=True)
    ]
    # The run itself is not kept: of other photographs it would be another one.
    with tempfile.TemporaryDirectory() as folder:
        run = dataset.explain_dataset(
            list(explainers(model, finest_layer(model)).values()),
            samples,
            folder,
            dataset.RunOptions(
                regions=camlens.faces.face_template(SIDE),
                targets=targets.cpu(),
                infill="blur",
                metrics=["insertion", "deletion", "road", "sufficiency"],
                classes=CLASSES,
            ),
            progress=False,
        )
        return report.write_report(run, out)
