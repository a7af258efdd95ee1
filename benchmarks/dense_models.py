"""Segmentation, detection, video and signals: other scores, or other images."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from architectures import FIRST, LAST, Architecture, BothSigns
from torch import Tensor, nn

import camlens

#: Name and encoder, layer, grid.
SMP: list[Any] = [
    ("Unet", "resnet18", "decoder.blocks.3", (48, 64)),
    ("FPN", "resnet18", "decoder", (24, 32)),
    ("DeepLabV3Plus", "resnet18", "decoder", (24, 32)),
    ("PSPNet", "resnet18", "decoder", (12, 16)),
    ("Linknet", "mobilenet_v2", "decoder.blocks.4.block.0", (48, 64)),
    ("Segformer", "mit_b0", "decoder", (24, 32)),
    ("UPerNet", "resnet18", "decoder", (24, 32)),
]
SEGMENTATION: list[Any] = [
    ("fcn_resnet50", "classifier.2", (12, 16)),
    ("deeplabv3_mobilenet_v3_large", "classifier.3", (6, 8)),
    ("lraspp_mobilenet_v3_large", "backbone.4", (12, 16)),
]
#: Keeps boxes of low scores, of which random weights give no others, and few of them.
_RESIZED = {"min_size": 128, "max_size": 192}
_BOXES = {"score_thresh": 0.0, "topk_candidates": 50, **_RESIZED}
_PROPOSALS = {
    "box_score_thresh": 0.0,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    **_RESIZED,
}
DETECTION: list[Any] = [
    (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        _PROPOSALS,
        "model.backbone.body.13",
        (4, 5),
    ),
    ("fasterrcnn_resnet50_fpn", _PROPOSALS, "model.backbone.body.layer1", (32, 40)),
    ("retinanet_resnet50_fpn", _BOXES, "model.backbone.body.layer2", (16, 20)),
    ("fcos_resnet50_fpn", _BOXES, "model.backbone.body.layer2", (16, 20)),
    (
        "ssdlite320_mobilenet_v3_large",
        {"score_thresh": 0.0},
        "model.backbone.features.0",
        (20, 20),
    ),
]
VIDEO: list[Any] = [
    ("r3d_18", (8, 64, 64), "layer4", FIRST, (1, 4, 4)),
    ("mc3_18", (8, 64, 64), "layer4", FIRST, (8, 4, 4)),
    ("swin3d_t", (8, 64, 96), "norm", LAST, (4, 2, 3)),
]
YOLO: list[Any] = [
    ("yolov8n", "DetectionModel", "model.4", (12, 16)),
    ("yolo11n", "DetectionModel", "model.4", (12, 16)),
    ("yolov8n-seg", "SegmentationModel", "model.4", (12, 16)),
    ("yolo11n-seg", "SegmentationModel", "model.4", (12, 16)),
]


class Listed(nn.Module):
    """A detector of torchvision, which takes a list of images, that takes a batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Return a dictionary for each image."""
        return self.model(list(images))


class SignalBlock(nn.Module):
    """Three convolutions of a signal, and a connection beside them."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for (a, b), kernel in zip(pairwise((before, *[width] * 3)), (7, 5, 3), strict=True):
            parts += [nn.Conv1d(a, b, kernel, padding=kernel // 2), nn.BatchNorm1d(b), nn.ReLU()]
        self.body = nn.Sequential(*parts[:-1])
        self.beside = nn.Sequential(nn.Conv1d(before, width, 1), nn.BatchNorm1d(width))

    def forward(self, signals: Tensor) -> Tensor:
        """Return (N, width, L)."""
        return (self.body(signals) + self.beside(signals)).relu()


class SignalResNet(nn.Module):
    """A ResNet of time series, after Wang et al. 2017 (arXiv:1611.06455)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(SignalBlock(2, 16), SignalBlock(16, 32), SignalBlock(32, 32))
        self.head = nn.Linear(32, 9)

    def forward(self, signals: Tensor) -> Tensor:
        """Return (N, classes)."""
        return self.head(self.blocks(signals).mean(dim=2))


def best_box(output: Any) -> Tensor:
    """Return the highest score of a torchvision detector's boxes."""
    return torch.stack([image["scores"].amax() for image in output])


def best_yolo_box(output: Any) -> Tensor:
    """Return the highest class score of a YOLO's boxes, (N, 4 + classes + ..., boxes)."""
    boxes = output[0]
    boxes = boxes[0] if isinstance(boxes, tuple) else boxes
    return boxes[:, 4:84].amax(dim=(1, 2))


def yolo_logits(output: Any) -> Tensor:
    """Return the logits of six classes of a YOLO that classifies: (probabilities, logits)."""
    return output[1][:, :6]


def smp(name: str, encoder: str) -> nn.Module:
    """Return a network of segmentation_models_pytorch."""
    import segmentation_models_pytorch

    build = getattr(segmentation_models_pytorch, name)
    return build(encoder, encoder_weights=None, classes=5)


def torchvision_segmentation(name: str) -> nn.Module:
    """Return a segmentation network of torchvision."""
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5)


def torchvision_detector(name: str, options: dict[str, Any]) -> nn.Module:
    """Return a detector of torchvision."""
    from torchvision.models import detection

    build = getattr(detection, name)
    return Listed(build(weights=None, weights_backbone=None, num_classes=5, **options))


def torchvision_video(name: str) -> nn.Module:
    """Return a video network of torchvision."""
    from torchvision.models import video

    return getattr(video, name)(weights=None)


def yolo(name: str, kind: str) -> nn.Module:
    """Return a YOLO as its description in ultralytics says."""
    from ultralytics.nn import tasks

    return getattr(tasks, kind)(f"{name}.yaml", verbose=False)


def rows() -> Iterator[Architecture]:
    """Yield the networks."""
    size, made = (96, 128), functools.partial
    class_1 = BothSigns(camlens.targets.segmentation(1))
    for name, encoder, layer, grid in SMP:
        build = made(smp, name, encoder)
        shown = f"{name}, {encoder}"
        library = "segmentation_models_pytorch"
        yield Architecture(library, shown, size, layer, FIRST, grid, build, targets=class_1)
    for name, layer, grid in SEGMENTATION:
        build = made(torchvision_segmentation, name)
        yield Architecture(
            *("torchvision", name, size, layer, FIRST, grid, build),
            targets=class_1,
            settled="mobilenet" in name,
        )
    for name, options, layer, grid in DETECTION:
        yield Architecture(
            "torchvision",
            name,
            (128, 160),
            layer,
            FIRST,
            grid,
            made(torchvision_detector, name, options),
            targets=BothSigns(best_box),
            settled="mobilenet" in name,
        )
    for name, clip, layer, cells, grid in VIDEO:
        build = made(torchvision_video, name)
        yield Architecture("torchvision", name, clip, layer, cells, grid, build)
    for name, kind, layer, grid in YOLO:
        build = made(yolo, name, kind)
        yield Architecture(
            "ultralytics",
            name,
            size,
            layer,
            FIRST,
            grid,
            build,
            targets=BothSigns(best_yolo_box),
            settled=True,
        )
    build = made(yolo, "yolo11n-cls", "ClassificationModel")
    yield Architecture(
        "ultralytics",
        "yolo11n-cls",
        (128, 128),
        "model.10.conv",
        FIRST,
        (4, 4),
        build,
        targets=yolo_logits,
    )
    yield Architecture(
        "torch", "ResNet of signals", (256,), "blocks", FIRST, (256,), SignalResNet, channels=2
    )
