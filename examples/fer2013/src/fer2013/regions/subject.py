"""The subject of the study of regions: a network, images with regions, and the explained layers."""

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
    """A network, and images with labels, predictions and regions.

    Attributes:
        model: the network in evaluation mode.
        images: (N, 1, 48, 48) in [0, 1].
        labels: (N,) classes.
        targets: (N, 2), the predicted class and the runner-up.
        regions: the regions of each image.
        found: (N,) bool, whether YuNet placed the regions; otherwise they are the fixed template's.
        layers: names of the explained layers; the main tables use the first one.
        precision: data type of the ablations. With bfloat16, the base network's excesses on 120
            PublicTest images, 0.54 on average, change by 0.006, and a region's mean over these by
            at most 0.001. Maps are always computed in float32.
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
        """Return (N, 7) logits of (N, 1, 48, 48) images, computed with ``precision``."""
        reduced = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision, enabled=reduced):
            logits: Tensor = self.model(images)
        return logits.float()

    def explain(self, method: type[camlens.LayerExplainer], layer: str) -> camlens.Explanation:
        """Explain both targets of all images, without keeping image gradients, which are large."""
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
        """Ablate each region of the first ``count`` images; default all."""
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
    """Predict the images and locate their regions.

    Args:
        model: a trained network.
        faces: one split.
        yunet: detects five landmarks.
        device: torch device.
        layers: see :class:`Subject`; default :func:`fer2013.networks.architectures.study_layers`.
        precision: see :class:`Subject`.

    Raises:
        LookupError: the network has no such layer.
    """
    images = to_batch(faces.images).to(device)
    # Channels-last takes two thirds of the time.
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(_BATCH)])
    labels, targets = torch.from_numpy(faces.labels).to(device), logits.topk(2).indices
    layers = layers or study_layers(model)
    for layer in layers:  # raise errors now, not after the ablations
        camlens.GradCAM(model, layer)(images[:1])
    return Subject(model, images, labels, targets, *locate(images, yunet), layers, precision)
