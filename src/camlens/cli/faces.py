"""The regions that the commands know by name."""

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
    """From pictures, (N, 3, H, W), to the regions of the largest face in each.

    The detector is opened in the process that uses it. A picture without a face has none of them.
    """

    def __call__(self, pictures: Tensor) -> Regions:
        """Find the faces and return their regions."""
        points = _yunet()(pictures).points[:, 0]
        return from_landmarks(points, (pictures.shape[-2], pictures.shape[-1]))


@dataclasses.dataclass(frozen=True)
class TemplateRegions:
    """From pictures, (N, 3, H, W), to the regions of a face that fills each."""

    def __call__(self, pictures: Tensor) -> Regions:
        """Return the template of the pictures' size."""
        return face_template((pictures.shape[-2], pictures.shape[-1]))


def named(name: str) -> Callable[[Tensor], Regions] | None:
    """Return what finds the regions of a name.

    Raises:
        typer.BadParameter: there are none of that name.
        ImportError, OSError: the face detector or its model file is missing.
    """
    if name not in NAMES:
        raise typer.BadParameter(
            f"expected --regions as {', '.join(NAMES)}, got {name!r}{near(name, NAMES)}"
        )
    if name == "face":
        _yunet()  # so that a missing file is told before anything runs
        return FaceRegions()
    return TemplateRegions() if name == "template" else None


def check_infill(infill: str | None, region_kind: str) -> None:
    """Check --infill, which needs --regions.

    Raises:
        typer.BadParameter: there is no such infill, or there are no regions.
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
