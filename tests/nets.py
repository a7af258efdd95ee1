"""Small networks whose right answers are known, or that break a naive implementation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode


class Linear1x1(nn.Module):
    """A 1x1 convolution, a ReLU, the mean over the map: d score_k / d A_c = W[k, c] / hw."""

    def __init__(self, conv: Tensor, head: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.shape[1], conv.shape[0], 1, bias=False)
        self.relu = nn.ReLU()
        self.head = nn.Linear(head.shape[1], head.shape[0], bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(conv[:, :, None, None])
            self.head.weight.copy_(head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(images)).mean(dim=(-2, -1)))


class Small(nn.Module):
    """Two convolutions with BatchNorm and ReLU, as spelled by ``relu``."""

    def __init__(self, relu: str = "module", channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=relu == "inplace")
        self.act6 = nn.ReLU6()
        self.head = nn.Linear(8, classes)
        self.spelling = relu
        for norm in (self.norm1, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)

    def rectify(self, x: Tensor) -> Tensor:
        if self.spelling in ("module", "inplace"):
            return self.act(x)
        if self.spelling == "relu6":
            return self.act6(x)
        if self.spelling == "functional":
            return functional.relu(x)
        if self.spelling == "functional inplace":
            return functional.relu(x, True)
        if self.spelling == "method":
            return x.relu()
        x.relu_()  # "statement": nothing uses the returned value
        return x

    def forward(self, images: Tensor) -> Tensor:
        x = self.rectify(self.norm1(self.conv1(images)))
        x = self.rectify(self.norm2(self.conv2(x)))
        return self.head(x.mean(dim=(-2, -1)))


SPELLINGS = ("module", "inplace", "functional", "functional inplace", "method", "statement")


class FurtherInputs(nn.Module):
    """A network that takes a factor for each image and an offset of its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Small()

    def forward(self, images: Tensor, factor: Tensor, *, offset: Tensor) -> Tensor:
        return self.net(images) * factor + offset


class Convolutions(nn.Module):
    """Two convolutions with a ReLU each and a linear head over all cells, for 1, 2 or 3 axes."""

    def __init__(self, axes: int = 2, cells: int = 4, classes: int = 3) -> None:
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.first = convolution(2, 4, 3, padding=1)
        self.last = convolution(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5 * cells**axes, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.first(images).relu()).relu().flatten(1))


def real(name: str, size: int = 64, **options: object) -> tuple[nn.Module, Tensor]:
    """A torchvision network with seeded weights; its classes may all be of equal score."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter in model.parameters():
        if not parameter.any():  # a ViT's head starts at zero, and nothing depends on anything
            nn.init.normal_(parameter, std=0.02)
    return model, torch.rand(1, 3, size, size)


def small_vit(size: int = 32) -> nn.Module:
    """A vision transformer of 8 x 8 patches with a class token in front, two blocks deep."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(size, 8, 2, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def flops(call: Callable[[], object]) -> int:
    """Return the floating point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def hooks(model: nn.Module) -> int:
    """Count the hooks on a model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def plain_gradients(
    model: nn.Module, layer: nn.Module, images: Tensor, *inputs: object
) -> tuple[Tensor, Tensor]:
    """A layer's output and its (N, classes, *output) gradients, by torch's own hooks and autograd.

    What the model computes from the layer's output is all of the gradient: the layer's tensor
    itself, which others may share or overwrite, is replaced by a copy.
    """
    leaves: list[Tensor] = []

    def replace(_: object, __: object, output: object) -> object:
        first = output[0] if isinstance(output, tuple) else output
        leaf = first.detach().clone().requires_grad_()
        leaves.append(leaf)
        return (leaf.clone(), *output[1:]) if isinstance(output, tuple) else leaf.clone()

    handle = layer.register_forward_hook(replace)
    scores = model(images, *inputs)
    handle.remove()
    gradients = [
        torch.autograd.grad(score, leaves[-1], retain_graph=True)[0] for score in scores.sum(0)
    ]
    return leaves[-1].detach(), torch.stack(gradients, dim=1)


def autograd_cam(model: nn.Module, layer: nn.Module, images: Tensor, target: int) -> Tensor:
    """Grad-CAM the slow way: one image at a time, the whole graph, hooks of torch's own."""
    maps = []
    for image in images:
        kept: list[Tensor] = []

        def keep(_: object, __: object, out: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(out)
            return out.clone()

        handle = layer.register_forward_hook(keep)
        score = model(image[None].detach().requires_grad_())[0, target]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept[-1])
        weights = gradient.flatten(2).mean(dim=2)
        maps.append(torch.einsum("nc,nc...->n...", weights, kept[-1]).relu())
    return torch.cat(maps).detach()
