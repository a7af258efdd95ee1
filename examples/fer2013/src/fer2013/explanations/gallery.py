"""The command ``explain``: contact sheets of correct and wrong predictions for each emotion.

The sheets contain FER2013 images: do not publish them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

import camlens
from camlens import regions

from ..data.faces import CLASSES, SIDE, USAGES, Faces, to_batch
from ..evaluation.predictions import predict
from ..files import write_csv, write_figure
from ..networks.architectures import finest_layer
from .pictures import as_pictures, beside, columns, explainers, where


def gallery(
    model: nn.Module,
    faces: Faces,
    out: Path,
    *,
    network: str,
    layer: str | None = None,
    count: int = 4,
    device: str = "cpu",
) -> Iterator[str]:
    """Write two sheets for each emotion, with correct and wrong predictions.

    The predictions are those of the images themselves, which are explained, without averaging over
    views. The first images of each kind are shown, without selection.

    Args:
        model: a trained network in evaluation mode.
        faces: one split.
        out: the folder of the sheets and of ``index.csv``.
        network: the network's name in titles.
        layer: Grad-CAM's layer; default :func:`fer2013.networks.architectures.finest_layer`.
        count: maximum number of images per sheet.
        device: torch device.

    Yields:
        The results, in lines of text.

    Raises:
        LookupError: there is no such layer.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 image per sheet, got {count}")
    probabilities = predict(model, faces, averaging="single", device=device).softmax(dim=1)
    predicted, labels = probabilities.argmax(dim=1), torch.from_numpy(faces.labels)
    right, usage = predicted == labels, USAGES[int(faces.usages[0])]
    yield (
        f"{network}: {int(right.sum()):,} of {len(faces):,} {usage} images correct, without "
        "averaging over views"
    )
    yield f"the sheets show the first images of each kind, at most {count}"
    methods = explainers(model, layer or finest_layer(model))
    yield from _resolution(methods["Grad-CAM"](to_batch(faces.images[:1]).to(device)))
    index: list[dict[str, Any]] = []
    for emotion, kind in itertools.product(CLASSES, ("correct", "wrong")):
        file = f"{emotion}_{kind}.png"
        of_kind = (labels == CLASSES.index(emotion)) & (right == (kind == "correct"))
        found = of_kind.nonzero().flatten()
        chosen = found[:count]
        if not len(chosen):
            (out / file).unlink(missing_ok=True)  # from another network
            yield f"{emotion}: no sheet, as no prediction is {kind}"
            continue
        shown, images = faces.take(chosen.numpy()), to_batch(faces.images[chosen.numpy()])
        targets = torch.stack([predicted, labels], dim=1)[chosen, : 1 + (kind == "wrong")]
        explained = {
            name: method(images.to(device), targets=targets.to(device)).cpu()
            for name, method in methods.items()
        }
        rows = _rows(shown, probabilities[chosen], explained)
        index += [{"sheet": file, **row} for row in rows]
        faces_shown = as_pictures(images)
        sheet = camlens.sheet(
            beside([faces_shown], columns(faces_shown, explained)),
            rows=[_caption(row) for row in rows],
            columns=["face", *explained],
            title=f"{emotion}, {kind}: {network}, {usage}; Grad-CAM {where(explained['Grad-CAM'])}",
        )
        write_figure(sheet, out / file)
        yield f"{emotion}: {file} has {len(chosen)} of {len(found)} {kind}"
    table = pd.DataFrame(index)
    write_csv(table, out / "index.csv")
    maps = table[["evidence Grad-CAM", "evidence Grad-CAM++"]]
    yield f"maps without evidence: {int((maps == 'no').to_numpy().sum())} of {maps.size}"
    yield f"wrote {out / 'index.csv'}"
    yield "The sheets contain FER2013 images: do not publish them."


def _resolution(explanation: camlens.Explanation) -> Iterator[str]:
    """Yield the resolution of the maps, and the regions that they cannot resolve."""
    yield f"Grad-CAM {where(explanation)} of {SIDE}; guided backprop has single pixels, but hardly"
    yield "depends on the class: it shows edges, not evidence for an emotion"
    scores = regions.score(explanation, camlens.faces.face_template(SIDE))
    fine = scores.resolvable[0, 0].tolist()
    if lost := [name for name, resolved in zip(scores.names, fine, strict=True) if not resolved]:
        yield f"cells are too coarse for these regions: {', '.join(lost)}"


def _rows(
    faces: Faces, probabilities: torch.Tensor, explained: dict[str, camlens.Explanation]
) -> list[dict[str, Any]]:
    """Return the description of each row of a sheet, for each image and explained class."""
    targets = explained["Grad-CAM"].targets.tolist()
    return [
        {
            "face": faces.names[n],
            "true": CLASSES[faces.labels[n]],
            "predicted": CLASSES[classes[0]],
            "role": ("predicted", "true")[k],
            "explained": CLASSES[c],
            "probability": probabilities[n, c].item(),
            **{
                f"evidence {name}": "yes" if one.evidence[n, k] else "no"
                for name, one in explained.items()
            },
        }
        for n, classes in enumerate(targets)
        for k, c in enumerate(classes)
    ]


def _caption(row: dict[str, Any]) -> str:
    lines = [
        f"True: {row['true'].capitalize()} | Pred: {row['predicted'].capitalize()}",
        f"evidence for {row['explained']} ({row['role']}), {row['probability']:.0%}",
        f"face {row['face']}",
    ]
    if lost := [k.removeprefix("evidence ") for k, value in row.items() if value == "no"]:
        lines.append(f"no evidence: {', '.join(lost)}")
    return "\n".join(lines)
