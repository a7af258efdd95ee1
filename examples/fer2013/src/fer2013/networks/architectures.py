"""The networks: a plain convolutional one for 48x48 grey faces, and VGG19 with a new head."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..configurations.config import Config
from ..data.faces import CLASSES, SIDE

# ImageNet's mean and standard deviation, which torchvision's weights expect.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The widest cell in pixels of the 48x48 face on which an eye, 7 by 4, and a mouth are cells apart.
_FINE = 4.5


def build(config: Config) -> nn.Module:
    """Return a configuration's network with random weights.

    Its input is (N, 1, H, W) in [0, 1], 48x48 or a part of it, and its output (N, 7) logits in the
    order of ``fer2013.data.faces.CLASSES``.
    """
    if config.network == "base":
        return BaseCNN(dropout=config.dropout)
    return EmotionVGG(config.network, head=config.head, dropout=config.dropout, side=config.side)


def finest_layer(model: nn.Module) -> str:
    """Return the last layer whose grid can tell parts of a 48x48 face apart.

    Its cells are at most 4.5 pixels of the face wide: BaseCNN's last block, and VGG19's ReLU after
    conv3_4 at 48 pixels (12x12) and at 44 (11x11), conv4_4 at 96 (12x12), conv5_4 at 224 (14x14).
    """
    if isinstance(model, EmotionVGG):
        return model.last_relu(_finest_block(model))
    return "blocks.block4"


def study_layers(model: nn.Module) -> tuple[str, str]:
    """Return the two layers of the study of regions, the finest that can tell parts apart first.

    The second is the one before it in BaseCNN, on the same grid, and the last ReLU of the next
    block in VGG19, whose cells are twice as wide; at 224 pixels, of the block before.
    """
    if not isinstance(model, EmotionVGG):
        return "blocks.block4", "blocks.block3"
    finest = _finest_block(model)
    last = len(model.blocks()) - 1
    return model.last_relu(finest), model.last_relu(finest + 1 if finest < last else finest - 1)


def _finest_block(model: EmotionVGG) -> int:
    """Return the last block, from 0, whose cells are no wider than 4.5 pixels of the face."""
    return max(i for i in range(len(model.blocks())) if 2**i <= _FINE * model.side / SIDE)


class BaseCNN(nn.Module):
    """Eight 3x3 convolutions in four blocks, BatchNorm, ReLU; 1.2 M parameters.

    Only the first two blocks are followed by pooling, so that the last one still sees the
    face on a 12x12 grid, 4 pixels a cell: an eye with its brow is about three cells wide and two
    high, and lies some four rows above the mouth.

    The input is (N, 1, 48, 48) in [0, 1]; it is centred inside, so that photographs need no
    second recipe. The output is (N, 7) logits in the order of ``fer2013.data.faces.CLASSES``.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), dropout: float = 0.5) -> None:
        super().__init__()
        channels = 1
        self.blocks = nn.Sequential()
        for index, width in enumerate(widths, start=1):
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
    """torchvision's VGG19, with or without BatchNorm, with seven outputs.

    Grey is repeated to RGB, normalised as ImageNet's pictures and resized inside, so that every
    network here takes the same faces, and heatmaps lie over those.

    Args:
        architecture: "vgg19" or "vgg19_bn".
        head: "average" or "torchvision"; see :class:`fer2013.configurations.config.Config`.
        dropout: probability in the head.
        side: to what faces, and crops of them, are resized. Five poolings halve it and drop what is
            left over, so that another side than the one trained on is not only another scale: of a
            3x3 map the last pooling sees four cells, of a 2x2 map all.
    """

    def __init__(self, architecture: str, *, head: str, dropout: float, side: int) -> None:
        super().__init__()
        original: Any = torchvision.models.get_model(architecture, weights=None, dropout=dropout)
        self.side = side
        self.mean: Tensor
        self.deviation: Tensor
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
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
        # broadcasting repeats grey to RGB
        logits: Tensor = self.head(self.features((images - self.mean) / self.deviation))
        return logits

    def blocks(self) -> list[nn.Sequential]:
        """Return the five blocks of ``features``, each with the pooling that ends it."""
        ends = [i + 1 for i, m in enumerate(self.features) if isinstance(m, nn.MaxPool2d)]
        return [self.features[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def last_relu(self, block: int) -> str:
        """Return the name of the ReLU before the pooling that ends a block, counted from 0."""
        return f"features.{sum(len(part) for part in self.blocks()[: block + 1]) - 2}"
