"""Read --regions (detectors, the template or files) and --infill."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from torch import Tensor

from ..dataset import RegionsOf
from ..faces import MediaPipe, YuNet, face_template, from_landmarks, model_files
from ..faithfulness import INFILLS
from ..loading.factories import near
from ..regions import Regions
from .photographs import Photographs
from .region_files import RegionFiles

NAMES = ("face", "mediapipe", "template", "none")

#: Number of photographs that are searched for a face if the template is used.
_SEARCHED = 16

#: What the template takes for granted, as notes say it.
_ASSUMED = (
    "the template assumes a face that fills the picture, the brows a quarter from the top and the "
    "chin at the lower edge: compare its outlines on the page before you believe a number"
)


@dataclasses.dataclass(frozen=True)
class FaceRegions:
    """Detects the largest face in each picture, (N, 3, H, W), and returns its regions.

    The detector is opened in the process that uses it. Masks are zero in pictures without a face.
    """

    detector: str

    def __call__(self, pictures: Tensor) -> Regions:
        """Find the faces and return their regions."""
        points = _detector(self.detector)(pictures).points[:, 0]
        return from_landmarks(points, (pictures.shape[-2], pictures.shape[-1]))


@dataclasses.dataclass(frozen=True)
class TemplateRegions:
    """Returns the regions of a face that fills the picture, for pictures (N, 3, H, W)."""

    def __call__(self, pictures: Tensor) -> Regions:
        """Return the template of the pictures' size."""
        return face_template((pictures.shape[-2], pictures.shape[-1]))


def named(text: str) -> tuple[RegionsOf | None, RegionFiles | None]:
    """Return the source of regions that --regions names, and the region files if there are any.

    Raises:
        typer.BadParameter: the text is neither a name nor a file.
        ImportError, OSError: the face detector or its model file is missing.
        ValueError: the type of a file is unknown.
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


def check_infill(infill: str | None, placements: int | None, region_kind: str) -> None:
    """Check --infill, which needs --regions, and --placements, which needs --infill.

    Raises:
        typer.BadParameter: the infill is unknown, or what an option needs is missing.
    """
    if infill is None:
        if placements is not None:
            raise typer.BadParameter(
                "--placements is about removed regions, but none are removed: add --infill"
            )
        return
    if infill not in INFILLS:
        raise typer.BadParameter(
            f"expected --infill as {', '.join(INFILLS)}, got {infill!r}{near(infill, INFILLS)}"
        )
    if region_kind == "none":
        raise typer.BadParameter(
            "--infill removes regions, but there are none: add --regions, or leave --infill out"
        )


def notes(region_kind: str, photographs: Photographs) -> Iterator[str]:
    """Yield notes about the first pictures: without a face for the template, or with cut boxes."""
    searched = range(min(_SEARCHED, len(photographs)))
    part = f" (of the first {_SEARCHED} pictures)" if len(searched) < len(photographs) else ""
    if region_kind == "template" and not model_files.is_here("yunet"):
        yield (
            "could not check whether the pictures show a face, since YuNet's model file is "
            f"missing; {_ASSUMED}"
        )
        return
    without, cut = [], []
    for index in searched:
        name = photographs.name(index)
        try:
            if region_kind == "template":
                picture = photographs[index].picture
                if picture is not None and not _detector("face")(picture[None]).found.any():
                    without.append(name)
            cut += [f"{box!r} in {name}" for box in photographs.cut_boxes(index)]
        except Exception:  # the run lists it with the reason
            continue
    if without:
        yield f"YuNet finds no face in {_listed(without)}{part}; {_ASSUMED}"
    if cut:
        yield (
            f"boxes reach beyond the photograph and are cut at its edge{part}: {_listed(cut)}. "
            "Expected [left, top, right, bottom] in pixels of the photograph"
        )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"


@functools.cache
def _detector(name: str) -> YuNet | MediaPipe:
    return YuNet() if name == "face" else MediaPipe()
