"""Networks that people use, with random weights, and what is known of them from their sources.

``benchmarks/models.py`` and ``tests/layers/test_default_layers_of_networks.py`` check camlens on
them. No weights are downloaded. A network's library is imported when it is built.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: The classes that are explained where nothing else is said.
CLASSES = [[0, 1, 2, 3, 4, 5]]
#: A part of the error of networks in which no layer carries all evidence.
BESIDE = "some evidence bypasses"


#: From a model's output to (N,) or (N, 1) scores.
Score = Callable[[Any], Tensor]


@dataclasses.dataclass(frozen=True)
class Cells:
    """Where a layer's output holds the cells of its map, row by row, and their channels.

    Attributes:
        channels: dimension of the channels.
        before: tokens in front of the patches.
        after: tokens behind them.
    """

    channels: int
    before: int = 0
    after: int = 0

    def of(self, output: Tensor) -> Tensor:
        """Return (N, cells, C)."""
        places = output.movedim(self.channels, -1).flatten(1, -2)
        return places[:, self.before : places.shape[1] - self.after]

    def __str__(self) -> str:
        """Write the layout as a table does."""
        if self.channels == 1:
            return "N, C, cells"
        tokens = [*([f"{self.before} tokens"] if self.before else []), "cells"]
        tokens += [f"{self.after} tokens"] if self.after else []
        return f"N, {' + '.join(tokens)}, C".replace("1 tokens", "1 token")


FIRST, LAST = Cells(1), Cells(-1)


def tokens(before: int, after: int = 0) -> Cells:
    """Return the layout of patches between other tokens."""
    return Cells(-1, before, after)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network, and what is known of it from its source.

    Attributes:
        library: the module that it needs.
        name: as its library calls it.
        size: of the images.
        layer: its default layer, or one to name where it has none.
        cells: where that layer's output holds its cells, and ``grid`` how many along each axis.
        build: makes the network.
        targets: what is explained.
        refused: a part of the error where there is no default layer.
        channels: of the images.
        settled: whether normalisations take their statistics from random images: without them
            nothing of the image is left in some networks' last layers.
    """

    library: str
    name: str
    size: tuple[int, ...]
    layer: str
    cells: Cells
    grid: tuple[int, ...]
    build: Callable[[], nn.Module]
    targets: Any = dataclasses.field(default_factory=lambda: CLASSES)
    refused: str = ""
    channels: int = 3
    settled: bool = False

    def __str__(self) -> str:
        """Name the network and the size of its images."""
        return f"{self.library} {self.name} {'x'.join(map(str, self.size))}"

    def model(self) -> nn.Module:
        """Return the network with seeded random weights, in evaluation mode."""
        torch.manual_seed(0)
        model = with_random_head(self.build().eval())
        if self.settled:
            settle(model, self.images(8))
        return model

    def images(self, count: int = 2) -> Tensor:
        """Return seeded images."""
        generator = torch.Generator("cpu").manual_seed(1)
        return torch.rand(count, self.channels, *self.size, generator=generator, device="cpu")

    @property
    def missing(self) -> bool:
        """Whether the network's library is not installed."""
        return importlib.util.find_spec(self.library) is None


def with_random_head(model: nn.Module) -> nn.Module:
    """Draw the parameters that are zero, such as an untrained head, of which no score depends."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Give normalisations the statistics of these images."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of a square, or of what is none as it is."""
    return (size, size) if isinstance(size, int) else size


def architectures() -> Iterator[Architecture]:
    """Yield all networks, those of one library together."""
    import classifiers
    import dense_models
    import hub_models

    for rows in (classifiers.rows, hub_models.rows, dense_models.rows):
        yield from rows()


@dataclasses.dataclass(frozen=True)
class BothSigns:
    """A score and its negative: where a network is random, one of their maps may be empty."""

    score: Score

    def __call__(self, output: Any) -> Tensor:
        """Return (N, 2) scores."""
        scores = self.score(output).flatten()
        return torch.stack([scores, -scores], dim=1)
