"""What the study of regions explains: a network, faces, their regions, and the layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

import camlens
from camlens import regions
from camlens.faithfulness import RegionAblation, ablate_regions

from ..data.faces import Faces, to_batch
from ..networks.architectures import study_layers
from .masks import locate

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is explained: a network, faces with their labels and regions, and what it says of them.

    Attributes:
        model: in evaluation mode.
        images: (N, 1, 48, 48) in [0, 1].
        labels: (N,) class ids.
        targets: (N, 2), the predicted class and the runner-up.
        regions: of each face.
        found: (N,) bool, whether they follow the face; else they are the template's.
        layers: which are explained; the report's main tables are of the first.
        precision: in which the check computes. With bfloat16 the base network's single effects on
            120 PublicTest faces, 0.54 on average, were off by 0.006 and a region's mean over these
            by at most 0.001. Maps are always in float32.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    targets: Tensor
    regions: regions.Regions
    found: Tensor
    layers: tuple[str, ...]
    precision: torch.dtype = torch.float32

    def scores(self, images: Tensor) -> Tensor:
        """Return (N, 7) logits of (N, 1, 48, 48) images in the precision of the check."""
        reduced = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision, enabled=reduced):
            logits: Tensor = self.model(images)
        return logits.float()

    def explain(self, method: type[camlens.LayerExplainer], layer: str) -> camlens.Explanation:
        """Explain both classes of all faces by maps; no gradients are kept, which are larger."""
        explainer, parts = method(self.model, layer), []
        for images, targets in zip(
            self.images.split(_BATCH), self.targets.split(_BATCH), strict=True
        ):
            part = explainer(images, targets=targets)
            parts.append(dataclasses.replace(part, gradients=None, outputs=None))
        joined: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("raw", "scores", "targets")
        }
        return dataclasses.replace(parts[0], **joined)

    def ablate(self, count: int | None = None, infill: str = "blur") -> RegionAblation:
        """Measure what the scores of the first faces lose without each region."""
        return ablate_regions(
            self.scores,
            self.images[:count],
            self.regions.of_images(slice(count)),
            targets=self.targets[:count],
            infill=infill,
            placements=4,  # few, since means are over thousands of faces
            batch=_BATCH,
        )


def prepare(
    model: nn.Module,
    faces: Faces,
    yunet: camlens.faces.YuNet,
    device: str = "cpu",
    *,
    layers: tuple[str, ...] = (),
    precision: torch.dtype = torch.float32,
) -> Subject:
    """Predict the faces and find their regions.

    Args:
        model: a trained network.
        faces: one split.
        yunet: the detector of five points.
        device: where to run.
        layers: see :class:`Subject`; default :func:`fer2013.networks.architectures.study_layers`.
        precision: see :class:`Subject`.

    Raises:
        LookupError: the network has no such layer, or none that can be explained.
    """
    images = to_batch(faces.images).to(device)
    # Channels last: the same numbers in two thirds of the time on the processors seen.
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(_BATCH)])
    labels, targets = torch.from_numpy(faces.labels).to(device), logits.topk(2).indices
    layers = layers or study_layers(model)
    for layer in layers:  # an unknown one is to fail now, not after the check
        camlens.GradCAM(model, layer)(images[:1])
    return Subject(model, images, labels, targets, *locate(images, yunet), layers, precision)
