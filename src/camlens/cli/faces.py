"""Regions by name for the command line, and the check of --infill."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import typer
from torch import Tensor

from ..faces import YuNet, face_template, from_landmarks
from ..faithfulness import INFILLS
from ..loading.factories import near
from ..regions import Regions

NAMES = ("face", "template", "none")


@dataclasses.dataclass(frozen=True)
class FaceRegions:
    """Find the regions of the largest face in each of some pictures, (N, 3, H, W).

    The detector is opened in the process that uses it. Masks are zero in pictures without a face.
    """

    def __call__(self, pictures: Tensor) -> Regions:
        """Find the faces and return their regions."""
        points = _yunet()(pictures).points[:, 0]
        return from_landmarks(points, (pictures.shape[-2], pictures.shape[-1]))


@dataclasses.dataclass(frozen=True)
class TemplateRegions:
    """Return the regions of a face that fills each of some pictures, (N, 3, H, W)."""

    def __call__(self, pictures: Tensor) -> Regions:
        """Return the template of the pictures' size."""
        return face_template((pictures.shape[-2], pictures.shape[-1]))


def named(name: str) -> Callable[[Tensor], Regions] | None:
    """Return the function that finds regions, by name; None for none.

    Raises:
        typer.BadParameter: the name is unknown.
        ImportError, OSError: the face detector or its model file is missing.
    """
    if name not in NAMES:
        raise typer.BadParameter(
            f"expected --regions as {', '.join(NAMES)}, got {name!r}{near(name, NAMES)}"
        )
    if name == "face":
        _yunet()  # reports a missing file before anything runs
        return FaceRegions()
    return TemplateRegions() if name == "template" else None


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


@functools.cache
def _yunet() -> YuNet:
    return YuNet()
