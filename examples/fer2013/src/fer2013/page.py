"""The web page of a few explained faces."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import camlens
from camlens import dataset, report

from .data import CLASSES, SIDE
from .networks import finest_layer
from .photos import Face, to_images
from .pictures import explainers


def write_page(model: nn.Module, faces: list[Face], targets: Tensor, out: Path) -> Path:
    """Explain faces by four methods and write what was found as one HTML file.

    It says of each face which of the maps are above the floors by metrics of faithfulness.

    Args:
        model: a trained network in evaluation mode.
        faces: the faces.
        targets: (N, K) emotions to explain.
        out: the HTML file.

    Returns:
        The file.
    """
    samples = [
        dataset.Sample(image, name=face.name, picture=torch.from_numpy(face.pixels).unsqueeze(0))
        for face, image in zip(faces, to_images(faces), strict=True)
    ]
    # The run itself is not kept: of other photographs it would be another one.
    with tempfile.TemporaryDirectory() as folder:
        run = dataset.explain_dataset(
            list(explainers(model, finest_layer(model)).values()),
            samples,
            folder,
            dataset.RunOptions(
                regions=camlens.faces.face_template(SIDE),
                targets=targets.cpu(),
                infill="blur",
                metrics=["insertion", "deletion", "road", "sufficiency"],
                classes=CLASSES,
            ),
            progress=False,
        )
        return report.write_report(run, out)
