"""Contact sheets of an audit. They show FER2013 faces, so they must not be published."""

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

_MEMBERS = 5  # of a group of twins that are shown


def label_sheet(faces: Faces, judged: Judged, count: int) -> Figure | None:
    """Draw the most doubtful labels, with the evidence for the given and for the predicted class.

    The probabilities in the captions are those of the picture itself, which is what the heatmaps
    explain.

    Args:
        faces: all of the data.
        judged: some of it.
        count: how many faces at most.

    Returns:
        None if no label is doubtful.
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
        captions.append(f"{name}\ngiven: {given}\npredicted: {predicted}")
    if not captions:
        return None
    title = f"Doubtful labels ({judged.source}): FER2013 faces, do not publish"
    names = ["face", "evidence for the\ngiven label", "evidence for the\npredicted class"]
    return camlens.sheet(torch.stack(pictures), rows=captions, columns=names, title=title)


def duplicate_sheet(faces: Faces, duplicates: Duplicates, count: int) -> Figure | None:
    """Draw groups of twins, those first whose labels conflict across the splits.

    Args:
        faces: all of the data.
        duplicates: as :func:`fer2013.data.duplicates.find` returns them.
        count: how many groups at most.

    Returns:
        None if there is no group but of blanks.
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
        # Test faces come first, so that a leaked one is shown however many twins it has.
        shown = members[np.argsort(-faces.usages[members], kind="stable")][:most]
        drawn = as_pictures(to_batch(faces.images[shown]))
        empty = drawn.new_full((most - len(shown), *drawn.shape[1:]), 255)
        pictures.append(torch.cat([drawn, empty]))
        lines = [
            f"{USAGES[faces.usages[i]]} {faces.names[i]}: {CLASSES[faces.labels[i]]}" for i in shown
        ]
        more = [f"and {len(members) - len(shown)} more"] if len(members) > len(shown) else []
        captions.append("\n".join([*lines, *more]))
    title = "Twins, in the order of their captions: FER2013 faces, do not publish"
    return camlens.sheet(torch.stack(pictures), rows=captions, title=title)
