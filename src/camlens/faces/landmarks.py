"""From points on faces to the faces' regions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..regions.masks import Regions
from .polygons import smooth
from .template import PAD, Outlines, face_regions, template_outlines, template_points

#: Points of MediaPipe's mesh, in order around each part; the mirror image of a point has another
#: number. Nose, mouth and oval begin in the middle of the top and go to the person's right.
MESH = {
    "right_brow": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    "left_brow": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
    "right_eye": (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    "left_eye": (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    "nose": (168, 193, 188, 174, 217, 49, 129, 64, 98, 97, 2,
             326, 327, 294, 358, 279, 437, 399, 412, 417),
    "mouth": (0, 37, 39, 40, 185, 61, 146, 91, 181, 84, 17,
              314, 405, 321, 375, 291, 409, 270, 269, 267),
    "oval": (10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58,
             172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365,
             397, 288, 361, 323, 454, 356, 389, 251, 284, 332, 297, 338),
}  # fmt: skip

# Of the 68 points (Sagonas et al. 2013, the iBUG 300-W annotation), counted from 0.
_IBUG = {
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "nose": (27, 31, 32, 33, 34, 35),
    "mouth": range(48, 60),
}


def from_landmarks(
    points: Tensor, size: tuple[int, int], *, sides: bool = False, pad: float = PAD
) -> Regions:
    """Return the regions of the face in each image, from points on it.

    Args:
        points: (N, P, 2) floating point, or (P, 2) for one image: x and y in pixels, the
            centre of the first pixel at (0.5, 0.5). P says what the points are: 5, YuNet's (the
            person's right eye, left eye, nose tip, right and left corner of the mouth), over which
            the template of :func:`face_template` is laid by the similarity that fits them best;
            68, of iBUG 300-W, as dlib and many others give them; 468 or 478, MediaPipe's mesh.
            Points may lie outside the image. An image with a NaN among its points, or with all
            of them in one place, has no face: all its masks are zero, so nothing is measured of
            it.
        size: (H, W) of the images.
        sides: whether brows, eyes and cheeks are told apart into left and right, which are the
            person's own.
        pad: how far the features' outlines are padded, in distances between the eyes.

    Returns:
        The regions of :func:`face_template`, on the points' device.

    Raises:
        TypeError: the points are no floating-point tensor.
        ValueError: a wrong shape or number of points, infinite points, or a bad pad.
    """
    if not isinstance(points, Tensor) or not points.is_floating_point():
        kind = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"expected points as a floating-point tensor, got {kind}")
    points = points.unsqueeze(0) if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2 or len(points) == 0:
        raise ValueError(f"expected points as (N, P, 2) or (P, 2), got {tuple(points.shape)}")
    if points.isinf().any():
        raise ValueError("expected points that are finite, or NaN where there is no face")
    readers = {5: _carried, 68: _ibug, 468: _mesh, 478: _mesh}
    if points.shape[1] not in readers:
        raise ValueError(
            f"expected 5 points (YuNet), 68 (iBUG 300-W) or 468 or 478 (MediaPipe) a face, got "
            f"{points.shape[1]}"
        )
    # Not every outline has every point, but a face is whole or not there at all.
    missing = points.isnan().any(dim=-1).any(dim=-1)
    missing |= (points == points[:, :1]).all(dim=-1).all(dim=-1)
    missing = missing[:, None, None]
    outlines = readers[points.shape[1]](points.float().masked_fill(missing, torch.nan))
    return face_regions(outlines, size, sides=sides, pad=pad)


def _mesh(points: Tensor) -> Outlines:
    return Outlines(**{part: points[:, list(which)] for part, which in MESH.items()})


def _ibug(points: Tensor) -> Outlines:
    parts = {part: smooth(points[:, list(which)]) for part, which in _IBUG.items()}
    for brow in ("right_brow", "left_brow"):  # an open line: there and back
        line = points[:, list(_IBUG[brow])]
        parts[brow] = torch.cat([line, line.flip(1)], dim=1)
    # The 68 points end at the brows. The forehead is closed by the upper half of an ellipse over
    # the jaw's ends, as high above the brows as the template's.
    jaw, brows = points[:, :17], points[:, 17:27].mean(dim=1)
    up = (brows - jaw[:, 8]) * 0.27
    middle, half = (jaw[:, 0] + jaw[:, 16]) / 2, (jaw[:, 16] - jaw[:, 0]) / 2
    top = brows + up - middle
    angle = torch.arange(1, 12).to(points) * torch.pi / 12
    arc = half[:, None] * angle.cos()[:, None] + top[:, None] * angle.sin()[:, None]
    return Outlines(**parts, oval=torch.cat([jaw, middle[:, None] + arc], dim=1))


def _carried(points: Tensor) -> Outlines:
    """Lay the template over five points by the similarity of least squared distance."""
    known = template_points().to(points)
    here, there = known.mean(dim=0), points.mean(dim=1, keepdim=True)
    # As complex numbers, a similarity is a multiplication and its least squares have one line.
    template = torch.view_as_complex((known - here).contiguous())
    target = torch.view_as_complex((points - there).contiguous())
    turn = (target * template.conj()).sum(dim=1, keepdim=True) / template.abs().square().sum()

    def carry(outline: Tensor) -> Tensor:
        relative = torch.view_as_complex((outline.to(points) - here).contiguous())
        return torch.view_as_real(turn * relative) + there

    return template_outlines().map(carry)
