"""The networks, layers and images that are explained: seeded weights, nothing to download."""

from __future__ import annotations

import copy
import dataclasses

import torch
import torchvision
from torch import Tensor, nn

_LAYERS = {
    "vgg19": "features.34",
    "resnet50": "layer4",
    "vit_b_16": "encoder.layers.encoder_layer_11.ln_1",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One workload: a method on a batch of images through a network.

    ``targets`` is how many given classes of each image are explained; None is the usual question,
    the predicted class, which nobody knows before a forward pass.
    """

    network: str
    batch: int
    targets: int | None = None
    method: str = "Grad-CAM"
    size: int = 224

    @property
    def layer(self) -> str:
        """The layer that the issue's bars are stated for."""
        return _LAYERS[self.network]

    def __str__(self) -> str:
        given = f", {self.targets} given targets" if self.targets else ""
        return f"{self.method}, {self.network}@{self.size}, batch {self.batch}{given}"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A case in memory: what every tool's adapter starts from."""

    model: nn.Module
    layer: str
    images: Tensor
    classes: Tensor | None  # (N, K); None: the predicted class

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.layer)

    def columns(self, scores: Tensor) -> Tensor:
        """Return (K, N) classes, given the model's output, for tools that loop over targets."""
        return scores.argmax(dim=1)[None] if self.classes is None else self.classes.T


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a torchvision network in eval mode with random weights."""
    torch.manual_seed(seed)
    return torchvision.models.get_model(name, weights=None).eval()


def load(case: Case, device: str) -> Loaded:
    """Build a case's network, images and targets (different ones for each image)."""
    model = build(case.network).to(device)
    images = random_images(case.batch, case.size).to(device)
    if case.targets is None:
        return Loaded(model, case.layer, images, None)
    classes = torch.arange(case.batch * case.targets).view(case.batch, case.targets) % 1000
    return Loaded(model, case.layer, images, classes.to(device))


def random_images(count: int, size: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def without_inplace(model: nn.Module) -> nn.Module:
    """Return a copy whose ReLUs write no tensor over, as captum and zennit ask for."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model
