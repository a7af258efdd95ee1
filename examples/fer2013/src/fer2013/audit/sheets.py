"""Contact sheets of an audit. They show FER2013 faces, so they must not be published."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

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

    Args:
        faces: all of the data.
        judged: some of it.
        count: how many faces at most.

    Returns:
        None if no label is doubtful.
    """
    flagged = np.flatnonzero(judged.issues.flagged)
    order = flagged[np.argsort(judged.issues.quality[flagged], kind="stable")][:count]
    if not len(order):
        return None
    targets = np.stack([faces.labels[judged.where], judged.issues.suggested], axis=1)
    pictures, captions = [], []
    for place in order:
        shown, probabilities = _explained(
            weights.load(judged.paths[judged.network[place]]),
            to_batch(faces.images[judged.where[[place]]]),
            torch.from_numpy(targets[[place]]),
        )
        pictures.append(shown)
        captions.append(_caption(faces, int(judged.where[place]), targets[place], probabilities))
    title = f"Doubtful labels ({judged.source}): FER2013 faces, do not publish"
    names = ["face", "evidence for the\ngiven label", "evidence for the\npredicted class"]
    return camlens.sheet(torch.stack(pictures), rows=captions, columns=names, title=title)


def _explained(
    model: torch.nn.Module, images: Tensor, targets: Tensor
) -> tuple[Tensor, list[float]]:
    """Return (3, 3, S, S) uint8, a face and both heatmaps, and the probabilities of both classes.

    The probabilities are those of the picture itself, which is what the heatmaps explain.
    """
    explanation = camlens.GradCAM(model, finest_layer(model))(images, targets=targets)
    with torch.no_grad():
        probabilities = model(images).softmax(dim=1)[0, targets[0]]
    face = as_pictures(images)
    heat = columns(face, {"Grad-CAM": explanation})[0]
    return torch.cat([face, heat[0]]), probabilities.tolist()


def _caption(faces: Faces, index: int, target: np.ndarray, probabilities: list[float]) -> str:
    given, predicted = (CLASSES[c] for c in target)
    return (
        f"{USAGES[faces.usages[index]]} {faces.names[index]}\n"
        f"given: {given} {probabilities[0]:.0%}\npredicted: {predicted} {probabilities[1]:.0%}"
    )


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
        shown = _ends(members, faces.usages, most)
        faces_shown = as_pictures(to_batch(faces.images[shown]))
        blanked = faces_shown.new_full((most - len(shown), *faces_shown.shape[1:]), 255)
        pictures.append(torch.cat([faces_shown, blanked]))
        lines = [
            f"{USAGES[faces.usages[i]]} {faces.names[i]}: {CLASSES[faces.labels[i]]}" for i in shown
        ]
        more = [f"and {len(members) - len(shown)} more"] if len(members) > len(shown) else []
        captions.append("\n".join([*lines, *more]))
    title = "Twins, in the order of their captions: FER2013 faces, do not publish"
    return camlens.sheet(torch.stack(pictures), rows=captions, title=title)


def _ends(members: np.ndarray, usages: np.ndarray, most: int) -> np.ndarray:
    """Return some members of a group, of each of its splits at least one."""
    first = np.array([members[usages[members] == usage][0] for usage in set(usages[members])])
    others = np.setdiff1d(members, first)[: most - len(first)]
    return np.sort(np.concatenate([first, others]))[:most]
