"""Faces in photographs, cropped like FER2013's: two packaged examples, or your own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

import camlens

from .faces import SIDE, to_batch

#: A face's square in a photograph: left, top, right, bottom in pixels.
Box = tuple[int, int, int, int]

#: Side of the displayed face in pixels.
SHOWN = 192


@dataclasses.dataclass(frozen=True)
class Face:
    """A face cropped from a photograph.

    Attributes:
        name: the face's label in pictures and tables.
        picture: (3, 192, 192) uint8, RGB, for display.
        pixels: (48, 48) uint8, greyscale, for the network.
    """

    name: str
    picture: Tensor
    pixels: np.ndarray


def cut(image: np.ndarray, box: Box, name: str) -> Face:
    """Crop a face from a photograph.

    FER2013's faces fill the crop: the brows a quarter from the top, the chin at the lower edge.

    Args:
        image: (H, W, 3) uint8, RGB.
        box: the face's square, entirely within the photograph.
        name: the face's label.

    Raises:
        ValueError: the box is empty, not a square, or extends beyond the photograph.
    """
    left, top, right, bottom = box
    rows, columns = image.shape[:2]
    inside = 0 <= left < right <= columns and 0 <= top < bottom <= rows
    if not inside or right - left != bottom - top:
        raise ValueError(
            f"expected the face as a square left,top,right,bottom inside the {columns}x{rows} "
            f"photograph, got {left},{top},{right},{bottom}"
        )
    crop = image[top:bottom, left:right]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    shown = cv2.resize(crop, (SHOWN, SHOWN), interpolation=cv2.INTER_AREA)
    return Face(
        name=name,
        picture=torch.from_numpy(shown).permute(2, 0, 1),
        pixels=cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
    )


def read(path: Path, box: Box) -> Face:
    """Crop a face from a photograph's file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: OpenCV cannot read it, or the box is not a square inside it.
    """
    return cut(_photograph(path), box, path.stem)


def find(path: Path, detector: camlens.faces.YuNet) -> Face:
    """Detect the largest face in a photograph's file, and crop it like FER2013's.

    The square is the least-squares fit of the face template, scaled and shifted but not rotated, to
    YuNet's landmarks. Beyond the photograph, the pixels of its edge are repeated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: OpenCV cannot read it, or no face is found.
    """
    image = _photograph(path)
    points = detector(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)).points[0, 0].numpy()
    if np.isnan(points).any():
        raise ValueError(
            f"found no face in {path}: specify its square with --box LEFT,TOP,RIGHT,BOTTOM"
        )
    template = camlens.faces.template_points().numpy()
    spread = template - template.mean(axis=0)
    side = round(float((spread * (points - points.mean(axis=0))).sum() / (spread**2).sum()))
    left, top = np.rint(points.mean(axis=0) - side * template.mean(axis=0)).astype(int) + side
    wide = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE)
    return cut(wide, (int(left), int(top), int(left) + side, int(top) + side), path.stem)


def _photograph(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"there is no photograph {path}")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)  # rotated as its EXIF data say
    if image is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read, such as JPEG or PNG")
    return image


def packaged() -> list[Face]:
    """Return the faces of the two photographs that come with matplotlib and scikit-image."""
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    hopper = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return [
        dataclasses.replace(read(hopper, (168, 116, 364, 312)), name="Grace Hopper"),
        cut(astronaut(), (166, 57, 278, 169), "Eileen Collins"),
    ]


def to_images(faces: list[Face]) -> Tensor:
    """Return the networks' input, (N, 1, 48, 48) float32 in [0, 1]."""
    return to_batch(np.stack([face.pixels for face in faces]))
