"""Contact sheets of an audit. They contain FER2013 images: do not publish them."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

import camlens

from ..data.duplicates import Duplicates, blanks, conflicting
from ..data.faces import CLASSES, USAGES, Faces, to_batch
from ..explanations.pictures import as_pictures, columns
from ..networks import weights
from ..networks.architectures import finest_layer
from .out_of_sample import Judged

_MEMBERS = 5  # maximum number of images shown of a group


def label_sheet(faces: Faces, judged: Judged, count: int) -> Figure | None:
    """Show at most ``count`` likely label errors, with Grad-CAM for label and prediction.

    The captions' probabilities are those of the image itself, which the heatmaps explain, without
    averaging. Returns None if there are no likely errors.
    """
    pictures, captions = [], []
    for place in judged.issues.doubtful[:count]:
        index = judged.where[place]
        targets = torch.tensor([[faces.labels[index], judged.issues.suggested[place]]])
        model, images = weights.load(judged.networks[place]), to_batch(faces.images[[index]])
        explanation = camlens.GradCAM(model, finest_layer(model))(images, targets=targets)
        face = as_pictures(images)
        pictures.append(torch.cat([face, columns(face, {"Grad-CAM": explanation})[0][0]]))
        with torch.no_grad():
            probabilities = model(images).softmax(dim=1)[0]
        given, predicted = (f"{CLASSES[c]} {probabilities[c]:.0%}" for c in targets[0].tolist())
        name = f"{USAGES[faces.usages[index]]} {faces.names[index]}"
        captions.append(f"{name}\nlabel: {given}\npredicted: {predicted}")
    if not captions:
        return None
    title = f"Likely label errors ({judged.source}): FER2013 images, do not publish"
    names = ["face", "evidence for the\nlabel", "evidence for the\npredicted class"]
    return camlens.sheet(torch.stack(pictures), rows=captions, columns=names, title=title)


def duplicate_sheet(faces: Faces, duplicates: Duplicates, count: int) -> Figure | None:
    """Show at most ``count`` groups of duplicates, or return None if there are only blank ones.

    Groups across splits come first, and then those with conflicting labels.
    """
    blank, disagree = blanks(faces), conflicting(faces, duplicates)
    ranks = [
        (len(set(faces.usages[members].tolist())) == 1, not disagree[number], number)
        for number, members in enumerate(duplicates.groups)
        if not blank[members].all()
    ]
    if not ranks:
        return None
    groups = [duplicates.groups[number] for *_, number in sorted(ranks)[:count]]
    most = min(_MEMBERS, max(len(members) for members in groups))
    pictures, captions = [], []
    for members in groups:
        # Test images first, so that leaks are shown even in large groups.
        shown = members[np.argsort(-faces.usages[members], kind="stable")][:most]
        drawn = as_pictures(to_batch(faces.images[shown]))
        empty = drawn.new_full((most - len(shown), *drawn.shape[1:]), 255)
        pictures.append(torch.cat([drawn, empty]))
        lines = [
            f"{USAGES[faces.usages[i]]} {faces.names[i]}: {CLASSES[faces.labels[i]]}" for i in shown
        ]
        more = [f"and {len(members) - len(shown)} more"] if len(members) > len(shown) else []
        captions.append("\n".join([*lines, *more]))
    title = "Duplicates, in the order of the captions: FER2013 images, do not publish"
    return camlens.sheet(torch.stack(pictures), rows=captions, title=title)
