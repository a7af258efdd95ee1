"""The network architectures: a small CNN for 48x48 greyscale faces, and VGG19 with a new head."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..configurations.config import Config
from ..data.faces import CLASSES, SIDE

#: Mean and standard deviation of ImageNet's channels, with which torchvision's weights expect
#: images to be normalised.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The widest cell, in pixels of the 48x48 face, that separates an eye (7 by 4) from its neighbours.
_FINE = 4.5


def build(config: Config) -> nn.Module:
    """Create a configuration's network with random weights.

    It maps images (N, 1, H, W) in [0, 1], 48x48 or crops of them, to (N, 7) logits in the order of
    ``fer2013.data.faces.CLASSES``.
    """
    if config.network == "base":
        return BaseCNN(dropout=config.dropout)
    return EmotionVGG(config.network, head=config.head, dropout=config.dropout, side=config.side)


def finest_layer(model: nn.Module) -> str:
    """Return the last layer whose cells are at most 4.5 pixels of the 48x48 face wide.

    This is BaseCNN's last block, and VGG19's ReLU after conv3_4 at 48 pixels (12x12 cells) and at
    44 (11x11), after conv4_4 at 96 (12x12), and after conv5_4 at 224 (14x14).
    """
    return study_layers(model)[0]


def study_layers(model: nn.Module) -> tuple[str, str]:
    """Return the two layers that the study of regions explains, :func:`finest_layer` first.

    The second is the preceding block of BaseCNN, on the same grid, and the last ReLU of VGG19's
    next block, whose cells are twice as wide; at 224 pixels, of the preceding block.
    """
    if not isinstance(model, EmotionVGG):
        return "blocks.block4", "blocks.block3"
    last = len(model.blocks()) - 1
    finest = max(i for i in range(last + 1) if 2**i <= _FINE * model.side / SIDE)
    return model.last_relu(finest), model.last_relu(finest + 1 if finest < last else finest - 1)


class BaseCNN(nn.Module):
    """Eight 3x3 convolutions in four blocks, with BatchNorm and ReLU; 1.2 M parameters.

    Only the first two blocks end with pooling, so the last block has a 12x12 grid of 4-pixel cells:
    an eye with its brow covers about three by two cells, and is some four rows above the mouth.

    It maps images (N, 1, 48, 48) in [0, 1], which it normalises, to (N, 7) logits in the order of
    ``fer2013.data.faces.CLASSES``.
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        channels = 1
        self.blocks = nn.Sequential()
        for index, width in enumerate((32, 64, 128, 256), start=1):
            block = _block(channels, width)
            if index <= 2:
                block.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"block{index}", block)
            channels = width
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels, len(CLASSES)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 7) logits of (N, 1, 48, 48) images in [0, 1]."""
        # FER2013's grey levels have mean 0.508 and standard deviation 0.252.
        logits: Tensor = self.head(self.blocks((images - 0.508) / 0.252))
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(outputs),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(outputs),
            relu2=nn.ReLU(),
        )
    )


class EmotionVGG(nn.Module):
    """torchvision's VGG19, with or without BatchNorm, for greyscale faces and seven classes.

    The network itself repeats grey as RGB, normalises and resizes, so that all networks take the
    same images and heatmaps align with these.

    Args:
        architecture: "vgg19" or "vgg19_bn".
        head: "average" or "torchvision"; see :class:`fer2013.configurations.config.Config`.
        dropout: probability in the head.
        side: the side in pixels to which images are resized. The five poolings round down, so
            another side than in training changes more than the scale: the last pooling sees four
            cells of a 3x3 map, and all of a 2x2 map.
    """

    def __init__(self, architecture: str, *, head: str, dropout: float, side: int) -> None:
        super().__init__()
        original: Any = torchvision.models.get_model(architecture, weights=None, dropout=dropout)
        self.side = side
        self.mean: Tensor
        self.deviation: Tensor
        for name, values in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.features: nn.Sequential = original.features
        if head == "torchvision":
            original.classifier[-1] = nn.Linear(4096, len(CLASSES))
            self.head = nn.Sequential(original.avgpool, nn.Flatten(), *original.classifier)
        else:
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(512, 512),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(512, len(CLASSES)),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 7) logits of (N, 1, H, W) images in [0, 1]."""
        if images.shape[-2:] != (self.side, self.side):
            images = interpolate(images, (self.side, self.side), mode="bilinear")
        # Broadcasting repeats grey as RGB.
        logits: Tensor = self.head(self.features((images - self.mean) / self.deviation))
        return logits

    def blocks(self) -> list[nn.Sequential]:
        """Return the five blocks of ``features``, each ending with its pooling layer."""
        ends = [i + 1 for i, m in enumerate(self.features) if isinstance(m, nn.MaxPool2d)]
        return [self.features[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def last_relu(self, block: int) -> str:
        """Return the name of the last ReLU of a block, counted from 0."""
        return f"features.{sum(len(part) for part in self.blocks()[: block + 1]) - 2}"
