"""A training step of VGG19 with BatchNorm, with and without matrix products for convolutions.

``python benchmarks/training_step.py``: the two take turns in one process, on an idle machine.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import vgg19_bn

from fer2013.networks.matrix_convolution import use_matrix_products


def step_of(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> Callable[[], None]:
    """Return a training step in bfloat16."""
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(images).float(), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Print the median seconds of a step, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 40, 48])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    plain = vgg19_bn(num_classes=200)
    plain.avgpool, plain.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 200)
    changed = copy.deepcopy(plain)
    use_matrix_products(changed)
    for side in options.sides:
        images = torch.randn(options.batch, 3, side, side)
        images = images.contiguous(memory_format=torch.channels_last)
        classes = torch.randint(200, (options.batch,))
        steps = [step_of(model, images, classes) for model in (plain, changed)]
        seconds: list[list[float]] = [[], []]
        for number in range(options.rounds + 2):
            for kind, step in zip(seconds, steps, strict=True):
                begun = time.perf_counter()
                step()
                if number >= 2:  # the first steps choose kernels
                    kind.append(time.perf_counter() - begun)
        before, after = map(statistics.median, seconds)
        print(
            f"{options.batch} images of {side} pixels: {before:.3f} s, with matrix products "
            f"{after:.3f} s, {after / before:.2f} of the time",
            flush=True,
        )


if __name__ == "__main__":
    main()
