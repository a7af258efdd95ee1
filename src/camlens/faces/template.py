"""The outlines of a face's parts, the average face as a template, and masks from outlines.

Left and right are the person's: the left eye is on the right of a picture, unless it is mirrored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..regions.masks import BACKGROUND, Regions
from .polygons import coverage, signed_distance, smooth

#: The regions of a face: four features, the rest of the face, and the background.
NAMES = ("brows", "eyes", "nose", "mouth", "cheeks", "forehead", "chin", BACKGROUND)

#: Padding of the features' outlines, in distances between the eyes' centres.
PAD = 0.13


@dataclasses.dataclass(frozen=True)
class Outlines:
    """The outlines of the parts of N faces: polygons (N, P, 2), x and y in pixels.

    Attributes:
        right_brow: the person's right brow, on the left of the picture.
        left_brow: the left brow.
        right_eye: the right eye.
        left_eye: the left eye.
        nose: from between the eyes to the base and the wings of the nose.
        mouth: the outer edge of the lips.
        oval: the whole face.
    """

    right_brow: Tensor
    left_brow: Tensor
    right_eye: Tensor
    left_eye: Tensor
    nose: Tensor
    mouth: Tensor
    oval: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Outlines:
        """Return the outlines with a function applied to each."""
        fields = (field.name for field in dataclasses.fields(self))
        return Outlines(**{name: function(getattr(self, name)) for name in fields})


# The person's right half, symmetric about x = 0, in units of the crop's side; y from the crop's
# top. Medians over both halves of those 3,709 of FER2013's first 4,000 Training faces in which
# MediaPipe and YuNet both found the face: python -m fer2013 template
_BROW = (
    (-0.330, 0.295), (-0.298, 0.265), (-0.247, 0.251), (-0.177, 0.259), (-0.091, 0.276),
    (-0.080, 0.322), (-0.171, 0.291), (-0.235, 0.281), (-0.282, 0.290), (-0.312, 0.313),
)  # fmt: skip
_EYE = (
    (-0.260, 0.389), (-0.241, 0.375), (-0.195, 0.363), (-0.136, 0.378), (-0.106, 0.403),
    (-0.131, 0.407), (-0.185, 0.414), (-0.234, 0.407),
)  # fmt: skip
_NOSE = (
    (0.000, 0.380), (-0.044, 0.383), (-0.057, 0.452), (-0.056, 0.489), (-0.077, 0.508),
    (-0.106, 0.585), (-0.115, 0.600), (-0.104, 0.618), (-0.094, 0.638), (-0.046, 0.650),
    (0.000, 0.653),
)  # fmt: skip
_MOUTH = (
    (0.000, 0.732), (-0.046, 0.725), (-0.090, 0.735), (-0.120, 0.747), (-0.140, 0.759),
    (-0.152, 0.774), (-0.141, 0.795), (-0.123, 0.818), (-0.093, 0.841), (-0.050, 0.857),
    (0.000, 0.861),
)  # fmt: skip
_OVAL = (
    (0.000, 0.106), (-0.205, 0.119), (-0.340, 0.184), (-0.390, 0.302), (-0.392, 0.458),
    (-0.375, 0.627), (-0.315, 0.800), (-0.226, 0.908), (-0.133, 0.972), (0.000, 1.002),
)  # fmt: skip
# The centres of the eyes, the nose's tip and the mouth's corners, as YuNet detects them.
_FIVE = ((-0.183, 0.388), (0.183, 0.388), (0.000, 0.605), (-0.150, 0.766), (0.150, 0.766))


def template_outlines() -> Outlines:
    """Return the template's outlines, each (1, P, 2), in units of the crop's side."""

    def place(half: tuple[tuple[float, float], ...], mirror: bool = False) -> Tensor:
        points = torch.tensor([half]) * torch.tensor([-1.0 if mirror else 1.0, 1.0])
        return points + torch.tensor([0.5, 0.0])

    def whole(half: tuple[tuple[float, float], ...]) -> Tensor:
        return torch.cat([place(half), place(half[-2:0:-1], mirror=True)], dim=1)

    return Outlines(
        right_brow=place(_BROW),
        left_brow=place(_BROW, mirror=True),
        right_eye=place(_EYE),
        left_eye=place(_EYE, mirror=True),
        nose=whole(_NOSE),
        mouth=whole(_MOUTH),
        oval=smooth(whole(_OVAL)),
    )


def template_points() -> Tensor:
    """Return the template's five points of YuNet, (5, 2), in units of the crop's side."""
    return torch.tensor(_FIVE) + torch.tensor([0.5, 0.0])


def face_template(size: tuple[int, int] | int, *, sides: bool = False, pad: float = PAD) -> Regions:
    """Return the regions of an upright, frontal face that fills the crop, as in FER2013.

    The brows are a quarter of the height below the top, and the chin is at the lower edge. For
    faces at other positions see :func:`from_landmarks`.

    Args:
        size: (H, W) of the crops in pixels, or the side of a square.
        sides: whether to separate left and right brows, eyes and cheeks; the left eye is the
            person's, on the right of the picture.
        pad: padding of the features' outlines, in distances between the eyes (0.37 of the crop's
            side).

    Returns:
        One set of masks for any number of images: brows, eyes, nose, mouth, cheeks, forehead, chin
        and background. They sum to 1 at each pixel. The skin around the lips belongs to nose or
        mouth, whichever is nearer.

    Raises:
        ValueError: the size is not positive, or ``pad`` is not in [0, 1].

    Example:
        >>> face_template(48)
        Regions(brows, eyes, nose, mouth, cheeks, forehead, chin, background: 1 x (48, 48), on cpu)
    """
    h, w = (size, size) if isinstance(size, int) else size
    if h < 1 or w < 1:
        raise ValueError(f"expected a size of at least 1x1 pixels, got {h}x{w}")
    scale = torch.tensor([float(w), float(h)])
    return face_regions(template_outlines().map(lambda p: p * scale), (h, w), sides=sides, pad=pad)


def face_regions(
    outlines: Outlines, size: tuple[int, int], *, sides: bool = False, pad: float = PAD
) -> Regions:
    """Make the masks of N faces from their outlines.

    The regions of brows, eyes, nose and mouth are their padded outlines; a pixel inside two of them
    belongs to the nearer one. The rest of the face is forehead above the line of the eyes, chin
    below the mouth, and cheeks between. Parts outside the image are ignored. If any point is NaN
    there is no face: all masks are zero, including the background.

    Args:
        outlines: the outlines in pixels.
        size: (H, W) of the images.
        sides: see :func:`face_template`.
        pad: see :func:`face_template`.

    Raises:
        ValueError: ``pad`` is not in [0, 1].
    """
    if not 0 <= pad <= 1:
        raise ValueError(f"expected a pad in [0, 1] distances between the eyes, got {pad}")
    frame = _Frame.of(outlines)
    features = _features(outlines, size, (pad * frame.eyes).unsqueeze(1))
    face = coverage(signed_distance(outlines.oval, size))
    rest = (face - features.sum(dim=1)).clamp(min=0)
    across, down = frame.coordinates(size)
    upper, lower = coverage(down), coverage(frame.mouth - down)
    right = coverage(across - frame.middle)
    middle = rest * (1 - upper) * (1 - lower)
    parts = {
        "right brow": features[:, 0],
        "left brow": features[:, 1],
        "right eye": features[:, 2],
        "left eye": features[:, 3],
        "nose": features[:, 4],
        "mouth": features[:, 5],
        "right cheek": middle * right,
        "left cheek": middle * (1 - right),
        "forehead": rest * upper,
        "chin": rest * lower * (1 - upper),
    }
    if not sides:
        parts = {name: _joined(parts, name) for name in NAMES[:-1]}
    masks = torch.stack(list(parts.values()), dim=1)
    whole = torch.stack([o.isfinite().all(-1).all(-1) for o in vars(outlines).values()]).all(0)
    masks = masks.where(whole[:, None, None, None], 0).clamp(0, 1)
    background = (1 - masks.sum(dim=1, keepdim=True)).clamp(0, 1)
    background = background.where(whole[:, None, None, None], 0)
    return Regions((*parts, BACKGROUND), torch.cat([masks, background], dim=1))


def _joined(parts: dict[str, Tensor], name: str) -> Tensor:
    """Return the mask of a part, or the sum of its right and left side."""
    side = name.removesuffix("s")
    return parts[name] if name in parts else parts[f"right {side}"] + parts[f"left {side}"]


def _features(outlines: Outlines, size: tuple[int, int], pad: Tensor) -> Tensor:
    """Return the masks of brows, eyes, nose and mouth, (N, 6, H, W), disjoint."""
    shapes = list(vars(outlines).values())[:-1]  # all but the oval
    distance = torch.stack([signed_distance(shape, size) for shape in shapes], dim=1)
    nearest = distance.topk(2, dim=1, largest=False)
    first = torch.arange(len(shapes), device=distance.device).view(1, -1, 1, 1)
    first = first == nearest.indices[:, :1]
    other = nearest.values[:, 1:].where(first, nearest.values[:, :1])
    # Halfway between two outlines the difference of the distances is zero; it changes by two for
    # each pixel.
    claimed = torch.maximum(distance - pad, (distance - other) / 2)
    masks = coverage(claimed)
    return masks / masks.sum(dim=1, keepdim=True).clamp(min=1)


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Position and orientation of N faces: all (N, 1, 1), in pixels."""

    origin: tuple[Tensor, Tensor]  # between the eyes
    along: tuple[Tensor, Tensor]  # a unit vector from the right eye to the left one
    eyes: Tensor  # the distance between their centres
    mouth: Tensor  # distance of the mouth's lower end
    middle: Tensor  # position of the nose along the line of the eyes

    @classmethod
    def of(cls, outlines: Outlines) -> _Frame:
        right, left = outlines.right_eye.mean(dim=1), outlines.left_eye.mean(dim=1)
        eyes = (left - right).norm(dim=-1, keepdim=True)
        origin, along = (left + right) / 2, (left - right) / eyes.clamp(min=1e-6)
        down = torch.stack([-along[:, 1], along[:, 0]], dim=-1)

        def project(points: Tensor, axis: Tensor) -> Tensor:
            return ((points - origin.unsqueeze(1)) * axis.unsqueeze(1)).sum(dim=-1)

        mouth = project(outlines.mouth, down).amax(dim=1)
        middle = project(outlines.nose, along).mean(dim=1)
        ox, oy, ax, ay, mouth, middle = (
            v.view(-1, 1, 1) for v in (*origin.unbind(-1), *along.unbind(-1), mouth, middle)
        )
        return cls((ox, oy), (ax, ay), eyes.view(-1, 1, 1), mouth, middle)

    def coordinates(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the pixels' positions along the line of the eyes and below it, (N, H, W) each."""
        x = torch.arange(size[1]).to(self.eyes) + 0.5 - self.origin[0]
        y = (torch.arange(size[0]).to(self.eyes) + 0.5).unsqueeze(1) - self.origin[1]
        return x * self.along[0] + y * self.along[1], y * self.along[0] - x * self.along[1]
