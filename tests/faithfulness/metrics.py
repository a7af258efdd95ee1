"""Small networks, images and maps that the tests of metrics share."""

import torch
from torch import nn


def linear(pixels: int, channels: int = 1, outputs: int = 1, seed: int = 0) -> nn.Module:
    """Return a linear model of images, without a bias."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels * channels, outputs, bias=False)).eval()
    draw = torch.Generator().manual_seed(seed)
    model[1].weight.data = torch.randn(outputs, pixels * channels, generator=draw)
    return model


def convolutional(classes: int = 4) -> nn.Module:
    """Return a small random network; layer "1" has the images' size."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        ).eval()


def images(count: int = 3, size: int = 12, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def maps(count: int = 3, targets: int = 1, size: int = 12) -> torch.Tensor:
    return torch.rand(count, targets, size, size, generator=torch.Generator().manual_seed(2))
