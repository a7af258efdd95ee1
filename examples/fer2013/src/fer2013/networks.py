"""The base network: a plain convolutional network for 48x48 grey faces."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from .data import CLASSES


class BaseCNN(nn.Module):
    """Eight 3x3 convolutions in four blocks, BatchNorm, ReLU; 1.2 M parameters.

    Only the first two blocks are followed by pooling, so that the last one still sees the
    face on a 12x12 grid, 4 pixels a cell: an eye with its brow is about three cells wide and two
    high, and lies some four rows above the mouth.

    The input is (N, 1, 48, 48) in [0, 1]; it is centred inside, so that photographs need no
    second recipe. The output is (N, 7) logits in the order of ``fer2013.data.CLASSES``.
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
