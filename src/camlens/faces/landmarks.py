"""Regions of faces from landmarks: 5 (YuNet), 68 (iBUG 300-W) or 478 (MediaPipe) points."""

from __future__ import annotations

import torch
from torch import Tensor

from ..regions.masks import Regions
from .polygons import smooth
from .template import PAD, Outlines, face_regions, template_outlines, template_points

#: Indices of MediaPipe's mesh, in order around each part. Nose, mouth and oval start at the middle
#: of the top and continue to the person's right.
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
    """Return the regions of one face per image, from its landmarks.

    Args:
        points: (N, P, 2) floating point, or (P, 2) for one image: x and y in pixels, with the
            centre of the first pixel at (0.5, 0.5). Their number P determines their meaning. 5:
            YuNet's points (the person's right eye, left eye, nose tip, right and left corner of the
            mouth), to which the template of :func:`face_template` is fitted by a similarity
            transform; 68: iBUG 300-W, as in dlib; 468 or 478: MediaPipe's mesh. Points may lie
            outside the image. An image with a NaN among its points, or with all points at one
            position, has no face: its masks are zero and its scores NaN.
        size: (H, W) of the images.
        sides: whether to separate the person's left and right brows, eyes and cheeks.
        pad: padding of the features' outlines, in distances between the eyes.

    Returns:
        The regions of :func:`face_template`, on the points' device.

    Raises:
        TypeError: the points are not a floating-point tensor.
        ValueError: the shape or number of points is wrong, points are infinite, or ``pad`` is out
            of range.
    """
    if not isinstance(points, Tensor) or not points.is_floating_point():
        kind = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"expected points as a floating-point tensor, got {kind}")
    points = points.unsqueeze(0) if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[2] != 2 or len(points) == 0:
        raise ValueError(f"expected points as (N, P, 2) or (P, 2), got {tuple(points.shape)}")
    if points.isinf().any():
        raise ValueError("expected points that are finite, or NaN for images without a face")
    readers = {5: _fitted, 68: _ibug, 468: _mesh, 478: _mesh}
    if points.shape[1] not in readers:
        raise ValueError(
            f"expected 5 points (YuNet), 68 (iBUG 300-W) or 468 or 478 (MediaPipe) per face, got "
            f"{points.shape[1]}"
        )
    # A face is either complete or absent, although not every outline uses every point.
    missing = points.isnan().any(dim=-1).any(dim=-1)
    missing |= (points == points[:, :1]).all(dim=-1).all(dim=-1)
    missing = missing[:, None, None]
    outlines = readers[points.shape[1]](points.float().masked_fill(missing, torch.nan))
    return face_regions(outlines, size, sides=sides, pad=pad)


def _mesh(points: Tensor) -> Outlines:
    return Outlines(**{part: points[:, list(which)] for part, which in MESH.items()})


def _ibug(points: Tensor) -> Outlines:
    parts = {part: smooth(points[:, list(which)]) for part, which in _IBUG.items()}
    for brow in ("right_brow", "left_brow"):  # an open line, followed in both directions
        line = points[:, list(_IBUG[brow])]
        parts[brow] = torch.cat([line, line.flip(1)], dim=1)
    # The 68 points do not cover the forehead. Half an ellipse over the jaw's ends closes it, at the
    # template's height above the brows.
    jaw, brows = points[:, :17], points[:, 17:27].mean(dim=1)
    up = (brows - jaw[:, 8]) * 0.27
    middle, half = (jaw[:, 0] + jaw[:, 16]) / 2, (jaw[:, 16] - jaw[:, 0]) / 2
    top = brows + up - middle
    angle = torch.arange(1, 12).to(points) * torch.pi / 12
    arc = half[:, None] * angle.cos()[:, None] + top[:, None] * angle.sin()[:, None]
    return Outlines(**parts, oval=torch.cat([jaw, middle[:, None] + arc], dim=1))


def _fitted(points: Tensor) -> Outlines:
    """Fit the template to five points by the similarity transform with the least squared error."""
    reference = template_points().to(points)
    origin, centre = reference.mean(dim=0), points.mean(dim=1, keepdim=True)
    # In complex numbers a similarity transform is a multiplication, so least squares are one line.
    template = torch.view_as_complex((reference - origin).contiguous())
    target = torch.view_as_complex((points - centre).contiguous())
    factor = (target * template.conj()).sum(dim=1, keepdim=True) / template.abs().square().sum()

    def transform(outline: Tensor) -> Tensor:
        relative = torch.view_as_complex((outline.to(points) - origin).contiguous())
        return torch.view_as_real(factor * relative) + centre

    return template_outlines().map(transform)
