"""The deck's galleries: for each emotion, faces that were classified rightly and wrongly.

The sheets show FER2013 faces, so they are for their reader's own eyes and must not be published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import camlens
from camlens import regions

from ..data.faces import CLASSES, SIDE, USAGES, Faces, to_batch
from ..evaluation.predictions import predict
from ..files import write_csv, write_figure
from ..networks.architectures import finest_layer
from .methods import explain_all, take, where
from .pictures import as_pictures, columns


@dataclasses.dataclass(frozen=True)
class _Group:
    """The faces of one sheet.

    Attributes:
        emotion: their true class.
        right: whether that was predicted.
        chosen: (n,) places in the split.
        total: of how many.
    """

    emotion: str
    right: bool
    chosen: Tensor
    total: int

    @property
    def file(self) -> str:
        return f"{self.emotion}_{'correct' if self.right else 'wrong'}.png"


@dataclasses.dataclass(frozen=True)
class _Shown:
    """The faces of all sheets with what the network says of them and why; N faces, in order.

    Attributes:
        faces: the faces.
        targets: (N, 2), the predicted and the true class.
        probabilities: (N, 2), theirs.
        explained: by the name of the method.
    """

    faces: Faces
    targets: Tensor
    probabilities: Tensor
    explained: dict[str, camlens.Explanation]


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
    """Write a sheet of rightly and one of wrongly classified faces of each emotion.

    The prediction is that of the picture itself, which is what is explained, and not the mean over
    several views. The faces are the first of their kind in the data's order, so nobody picked them.

    Args:
        model: a trained network in evaluation mode.
        faces: one split.
        out: the folder of the sheets and of ``index.csv``.
        network: what the titles call it.
        layer: where Grad-CAM looks; default :func:`fer2013.networks.architectures.finest_layer`.
        count: how many faces a sheet has at most.
        device: where to run.

    Yields:
        What was found and written, a line each.

    Raises:
        LookupError: there is no such layer.
        ValueError: no faces are asked for.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 face a sheet, got {count}")
    probabilities = predict(model, faces, averaging="single", device=device).softmax(dim=1)
    predicted, labels = probabilities.argmax(dim=1), torch.from_numpy(faces.labels)
    usage = USAGES[int(faces.usages[0])]
    yield (
        f"{network}: {int((predicted == labels).sum()):,} of {len(faces):,} {usage} faces right, "
        "from the picture itself"
    )
    yield f"shown are the first of each kind in the order of the data, at most {count}"
    groups = _groups(labels, predicted, count)
    chosen = torch.cat([group.chosen for group in groups])
    targets = torch.stack([predicted, labels], dim=1)[chosen]
    images = to_batch(faces.images[chosen.numpy()]).to(device)
    explained = explain_all(model, layer or finest_layer(model), images, targets.to(device))
    explained = {name: explanation.cpu() for name, explanation in explained.items()}
    yield from _resolution(explained["Grad-CAM"])
    shown = _Shown(
        faces.take(chosen.numpy()), targets, probabilities[chosen].gather(1, targets), explained
    )
    yield from _write(groups, shown, out, f"{network}, {usage}")


def _groups(labels: Tensor, predicted: Tensor, count: int) -> list[_Group]:
    found = []
    for index, emotion in enumerate(CLASSES):
        for right in (True, False):
            rows = ((labels == index) & ((predicted == labels) == right)).nonzero().flatten()
            found.append(_Group(emotion, right, rows[:count], len(rows)))
    return found


def _resolution(explanation: camlens.Explanation) -> Iterator[str]:
    """Say what a map of this grid can show."""
    yield f"Grad-CAM {where(explanation)} of {SIDE}; guided backprop has no cells, and hardly"
    yield "depends on the class: it shows where edges are, not what speaks for an emotion"
    scores = regions.score(explanation, camlens.faces.face_template(SIDE))
    fine = scores.resolvable[0, 0].tolist()
    if lost := [name for name, resolved in zip(scores.names, fine, strict=True) if not resolved]:
        yield f"cells too coarse to tell these from their surroundings: {', '.join(lost)}"


def _write(groups: list[_Group], shown: _Shown, out: Path, title: str) -> Iterator[str]:
    rows, start = [], 0
    for group in groups:
        own = torch.arange(start, start + len(group.chosen))
        start += len(own)
        kind = "right" if group.right else "wrong"
        if not len(own):
            (out / group.file).unlink(missing_ok=True)  # an earlier network's
            yield f"{group.emotion}: no face {kind}, no sheet"
            continue
        write_figure(_sheet(group, own, shown, title), out / group.file)
        rows += _rows(group, own, shown)
        yield f"{group.emotion}: {group.file} has {len(own)} of {group.total} {kind}"
    table = pd.DataFrame(rows)
    write_csv(table, out / "index.csv")
    maps = table[["evidence Grad-CAM", "evidence Grad-CAM++"]]
    yield f"maps without evidence: {int((maps == 'no').to_numpy().sum())} of {maps.size}"
    yield f"wrote {out / 'index.csv'}"
    yield "The sheets show FER2013 faces: they are for your own eyes and must not be published."


def _sheet(group: _Group, own: Tensor, shown: _Shown, title: str) -> Figure:
    """Return the sheet of some faces: a row for each face and explained class."""
    roles = 1 if group.right else 2
    explained = {name: take(one, own, roles) for name, one in shown.explained.items()}
    backgrounds = as_pictures(to_batch(shown.faces.images[own.numpy()]))
    pictures = [backgrounds.unsqueeze(1).expand(-1, roles, -1, -1, -1)]
    pictures += columns(backgrounds, explained)
    kind = "classified rightly" if group.right else "classified wrongly"
    return camlens.sheet(
        torch.stack([picture.flatten(0, 1) for picture in pictures], dim=1),
        rows=[_caption(row) for row in _rows(group, own, shown)],
        columns=["face", *explained],
        title=f"{group.emotion}, {kind}: {title}; Grad-CAM {where(explained['Grad-CAM'])}",
    )


def _caption(row: dict[str, Any]) -> str:
    """Say whose evidence a row of pictures shows."""
    lines = [
        f"True: {row['true'].capitalize()} | Pred: {row['predicted'].capitalize()}",
        f"evidence for {row['explained']} ({row['role']}), {row['probability']:.0%}",
        f"face {row['face']}",
    ]
    if lost := [k.removeprefix("evidence ") for k, value in row.items() if value == "no"]:
        lines.append(f"no evidence: {', '.join(lost)}")
    return "\n".join(lines)


def _rows(group: _Group, own: Tensor, shown: _Shown) -> list[dict[str, Any]]:
    """Return the index of a sheet: a row for each face and explained class."""
    rows = []
    for n in own.tolist():
        predicted, true = (CLASSES[c] for c in shown.targets[n].tolist())
        for k, role in enumerate(("predicted",) if group.right else ("predicted", "true")):
            row: dict[str, Any] = {
                "sheet": group.file,
                "face": shown.faces.names[n],
                "true": true,
                "predicted": predicted,
                "role": role,
                "explained": (predicted, true)[k],
                "probability": shown.probabilities[n, k].item(),
            }
            for name, one in shown.explained.items():
                row[f"evidence {name}"] = "yes" if one.evidence[n, k] else "no"
            rows.append(row)
    return rows
