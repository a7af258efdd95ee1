"""Regions of FER2013's faces: the template, placed by YuNet, compared with MediaPipe's mesh."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

import camlens
from camlens import regions

from ..data.faces import SIDE

#: The facial features, whose masks can be right or wrong; other regions are what remains.
FEATURES = ("brows", "eyes", "nose", "mouth")

_SIZE = (SIDE, SIDE)


def locate(images: Tensor, detector: camlens.faces.YuNet) -> tuple[regions.Regions, Tensor]:
    """Place the template's regions at YuNet's landmarks.

    Args:
        images: (N, 1, 48, 48) in [0, 1].
        detector: detects five landmarks.

    Returns:
        The regions, those of the fixed template where no face was found; and (N,) bool, whether a
        face was found.
    """
    points = detector(images).points[:, 0]
    found = points.isfinite().all(dim=(-2, -1))
    followed = camlens.faces.from_landmarks(points, _SIZE)
    template = camlens.faces.face_template(SIDE).to(images.device)
    masks = followed.masks.where(found[:, None, None, None], template.masks)
    return regions.Regions(template.names, masks), found


def _both(
    images: Tensor, yunet: camlens.faces.YuNet, mesh: camlens.faces.MediaPipe
) -> tuple[Tensor, Tensor]:
    """Return landmarks (M, 5, 2) and mesh (M, 478, 2) of the faces that both detectors find."""
    five, whole = (detector(images).points[:, 0] for detector in (yunet, mesh))
    both = five.isfinite().all(dim=(-2, -1)) & whole.isfinite().all(dim=(-2, -1))
    return five[both], whole[both]


def compare_masks(
    images: Tensor, yunet: camlens.faces.YuNet, mesh: camlens.faces.MediaPipe
) -> pd.DataFrame:
    """Compare the masks of the template and of YuNet with those of MediaPipe's mesh.

    Args:
        images: (N, 1, 48, 48) in [0, 1]; the first 500 faces that both detectors find are used.
        yunet: detects five landmarks.
        mesh: detects the mesh, which is taken as the truth.

    Returns:
        A row for each region with the mean intersection over union of both masks. The attribute
        ``faces`` is the number of faces.
    """
    five, whole = (points[:500] for points in _both(images, yunet, mesh))
    truth = camlens.faces.from_landmarks(whole, _SIZE)
    tried = {
        "fixed template": camlens.faces.face_template(SIDE),
        "YuNet + template": camlens.faces.from_landmarks(five, _SIZE),
    }
    columns = {name: _iou(r.masks, truth.masks).tolist() for name, r in tried.items()}
    frame = pd.DataFrame({"region": truth.names, **columns})
    features = frame[frame["region"].isin(FEATURES)].mean(numeric_only=True)
    mean = pd.DataFrame([{"region": "mean of the four features", **features}])
    frame = pd.concat([frame, mean], ignore_index=True)
    frame.attrs = {"faces": len(five)}
    return frame


def _iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Return the mean IoU of soft masks, (R,), over the images in which either is not empty."""
    both = torch.minimum(masks, truth).sum(dim=(-2, -1))
    either = torch.maximum(masks, truth).sum(dim=(-2, -1))
    return (both / either).nanmean(dim=0)


def measure_template(
    images: Tensor, yunet: camlens.faces.YuNet, mesh: camlens.faces.MediaPipe
) -> tuple[int, dict[str, list[tuple[float, float]]]]:
    """Measure camlens's face template: half of a symmetric face, in units of the crop's side.

    Args:
        images: (N, 1, 48, 48) in [0, 1].
        yunet: detects five landmarks.
        mesh: detects the mesh.

    Returns:
        The number of faces that both detectors find; and for each part of
        ``camlens.faces.template`` the median points over these faces and both halves: x from the
        middle, negative on the person's right, y from the top.
    """
    found = _both(images, yunet, mesh)
    middle = torch.tensor([0.5, 0.0])
    five, points = (each.median(dim=0).values / SIDE - middle for each in found)
    order = camlens.faces.MESH
    halves = {
        part: _symmetric(*(points[list(order[f"{side}_{part}"])] for side in ("right", "left")))
        for part in ("brow", "eye")
    }
    for part in ("nose", "mouth", "oval"):
        loop = points[list(order[part])]
        mirrored = loop[[0, *range(len(loop) - 1, 0, -1)]]
        halves[part] = _symmetric(loop, mirrored)[: len(loop) // 2 + 1]
    halves["eye"], halves["oval"] = halves["eye"][::2], halves["oval"][::2]
    halves["five"] = _symmetric(five, five[[1, 0, 2, 4, 3]])
    rounded = {
        part: [(round(x, 3) + 0.0, round(y, 3)) for x, y in half.tolist()]
        for part, half in halves.items()
    }
    return len(found[0]), rounded


def _symmetric(right: Tensor, left: Tensor) -> Tensor:
    """Return the mean of points and their mirror images."""
    return (right + left * torch.tensor([-1.0, 1.0])) / 2
