"""What --regions names: detectors, the template, or files; and the check of --infill."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import typer
from torch import Tensor

from ..dataset import RegionsOf
from ..faces import MediaPipe, YuNet, face_template, from_landmarks, model_files
from ..faithfulness import INFILLS
from ..loading.factories import near
from ..regions import Regions
from . import console
from .photographs import Photographs
from .region_files import RegionFiles

NAMES = ("face", "mediapipe", "template", "none")

#: So many photographs are searched for a face where the template is asked for.
_SEARCHED = 16


@dataclasses.dataclass(frozen=True)
class FaceRegions:
    """Find the regions of the largest face in each of some pictures, (N, 3, H, W).

    The detector is opened in the process that uses it. Masks are zero in pictures without a face.
    """

    detector: str

    def __call__(self, pictures: Tensor) -> Regions:
        """Find the faces and return their regions."""
        points = _detector(self.detector)(pictures).points[:, 0]
        return from_landmarks(points, (pictures.shape[-2], pictures.shape[-1]))


@dataclasses.dataclass(frozen=True)
class TemplateRegions:
    """Return the regions of a face that fills each of some pictures, (N, 3, H, W)."""

    def __call__(self, pictures: Tensor) -> Regions:
        """Return the template of the pictures' size."""
        return face_template((pictures.shape[-2], pictures.shape[-1]))


def named(text: str) -> tuple[RegionsOf | None, RegionFiles | None]:
    """Return what --regions names: a function of pictures, and the files of photographs' own.

    Raises:
        typer.BadParameter: it is neither a name nor a file.
        ImportError, OSError: the face detector or its model file is missing.
        ValueError: a file is of an unknown kind.
    """
    if text in ("face", "mediapipe"):
        _detector(text)  # reports a missing file before anything runs
        return FaceRegions(text), None
    if text == "template":
        return TemplateRegions(), None
    if text == "none":
        return None, None
    path = Path(text)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return "own", RegionFiles(path)
    raise typer.BadParameter(
        f"expected --regions as {', '.join(NAMES)} or a file or folder, got {text!r}"
        f"{near(text, NAMES)}"
    )


def check_infill(infill: str | None, region_kind: str) -> None:
    """Check --infill, which needs --regions.

    Raises:
        typer.BadParameter: the infill is unknown, or there are no regions.
    """
    if infill is None:
        return
    if infill not in INFILLS:
        raise typer.BadParameter(
            f"expected --infill as {', '.join(INFILLS)}, got {infill!r}{near(infill, INFILLS)}"
        )
    if region_kind == "none":
        raise typer.BadParameter(
            "--infill removes regions, but there are none: give --regions too, or leave it out"
        )


def note_pictures_without_a_face(photographs: Photographs) -> None:
    """Say where the template is laid over pictures in which YuNet finds no face."""
    if not model_files.is_here("yunet"):
        console.note(
            "whether the pictures show a face was not checked, since YuNet's file is not here: the "
            "template marks where the parts of a face that fills the picture would be"
        )
        return
    without = []
    for index in range(min(_SEARCHED, len(photographs))):
        try:
            picture = photographs[index].picture
        except Exception:  # it is listed with its reason when it is its turn
            continue
        if picture is not None and not _detector("face")(picture[None]).found.any():
            without.append(photographs.name(index))
    if without:
        console.note(_without(without, min(_SEARCHED, len(photographs)), len(photographs)))


def _without(names: Sequence[str], searched: int, count: int) -> str:
    listed = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"
    part = f" (of the first {searched} pictures)" if searched < count else ""
    return (
        f"YuNet finds no face in {listed}{part}: --regions template marks there where the parts of "
        "a face that fills the picture would be, whatever is in it"
    )


@functools.cache
def _detector(name: str) -> YuNet | MediaPipe:
    return YuNet() if name == "face" else MediaPipe()
