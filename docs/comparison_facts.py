"""What the page "Beside other libraries" says of them, tried on networks of a few layers.

Run it with the libraries' environment: ``.venv-bench/bin/python docs/comparison_facts.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from captum.attr import GuidedBackprop, LayerGradCam
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchcamGradCAM
from zennit.attribution import Gradient
from zennit.composites import GuidedBackprop as ZennitGuidedBackprop

import camlens


class Functional(nn.Module):
    """A network whose ReLU is a function, ``F.relu``, and no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.relu(self.conv(images)).mean(dim=(2, 3)))


def network(inplace: bool = False) -> nn.Sequential:
    """Return a convolution, a ReLU and a head, the same at each call."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


def camlens_map(model: nn.Module, images: Tensor) -> Tensor:
    return camlens.GradCAM(model, "0")(images, targets=0).heatmaps[:, 0]


def captum_map(model: nn.Module, images: Tensor) -> Tensor:
    return LayerGradCam(model, model[0]).attribute(images, 0, relu_attributions=True)[:, 0]


def grad_cam_map(model: nn.Module, images: Tensor) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=model, target_layers=[model[0]]) as cam:
        return torch.from_numpy(cam(images, [ClassifierOutputTarget(0)] * len(images)))


def torchcam_map(model: nn.Module, images: Tensor) -> Tensor:
    with TorchcamGradCAM(model, "0") as cam:
        return cam(0, model(images))[0]


def camlens_guided(model: nn.Module, images: Tensor) -> Tensor:
    return camlens.GuidedBackprop(model)(images, targets=0).gradients[:, 0]


def captum_guided(model: nn.Module, images: Tensor) -> Tensor:
    return GuidedBackprop(model).attribute(images, 0)


def grad_cam_guided(model: nn.Module, images: Tensor) -> Tensor:
    guided = GuidedBackpropReLUModel(model, device="cpu")
    return torch.stack([torch.from_numpy(guided(x.clone(), 0)) for x in images.split(1)]).movedim(
        -1, 1
    )


def zennit_guided(model: nn.Module, images: Tensor) -> Tensor:
    first = torch.eye(3)[:1].expand(len(images), -1)
    with Gradient(model=model, composite=ZennitGuidedBackprop()) as attributor:
        return attributor(images, first)[1]


MAPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "camlens": camlens_map,
    "captum": captum_map,
    "grad-cam": grad_cam_map,
    "torchcam": torchcam_map,
}
GUIDED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "camlens": camlens_guided,
    "captum": captum_guided,
    "grad-cam": grad_cam_guided,
    "zennit": zennit_guided,
}


def inplace(images: Tensor) -> None:
    """Explain a convolution that an in-place ReLU follows; the plain ReLU's map is right."""
    print("A convolution with an in-place ReLU behind it: the same map as with a plain one?")
    for name, tool in MAPS.items():
        right, got = tool(network(), images.clone()), tool(network(inplace=True), images.clone())
        print(f"  {name}: {torch.allclose(right, got, atol=1e-5)}")


def functional(images: Tensor) -> None:
    """Compare guided backprop with the plain gradient where the ReLU is a function."""
    torch.manual_seed(0)
    model = Functional().eval()
    plain = camlens.InputGradient(model)(images, targets=0).gradients[:, 0]
    print("Guided backprop where the ReLU is F.relu:")
    for name, tool in GUIDED.items():
        got = tool(model, images.clone())
        same = torch.allclose(plain, got.detach(), atol=1e-6)
        print(f"  {name}: {'the plain gradient' if same else 'not the plain gradient'}")


def traces(images: Tensor) -> None:
    """Say what a call leaves behind on the model."""
    print("A call on a frozen model, and one on a model in training mode:")
    for name, tool in {**MAPS, **{f"{k}, guided": v for k, v in GUIDED.items()}}.items():
        model = network().requires_grad_(False)
        try:
            tool(model, images.clone())
            frozen = "works"
        except (RuntimeError, AttributeError, IndexError, ValueError, TypeError) as error:
            frozen = f"{type(error).__name__}: {error}"[:60]
        model = network().train()
        kinds = [type(m).__name__ for m in model.modules()]
        try:
            tool(model, images.clone())
        except ValueError as error:
            mode = f"refused: {error}"[:60]
        else:
            mode = f"mode kept: {model.training}"
        grads = any(p.grad is not None for p in model.parameters())
        same = kinds == [type(m).__name__ for m in model.modules()]
        print(f"  {name}: frozen: {frozen}; {mode}; writes .grad: {grads}; modules kept: {same}")


def no_evidence() -> None:
    """Explain a score against which every cell speaks: is the map empty?"""
    print("A score that nothing speaks for: the largest value of the map")
    model = network()
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.zero_()
        model[4].weight.fill_(-1.0)
    for name, tool in MAPS.items():
        print(f"  {name}: {tool(model, torch.rand(2, 1, 12, 12)).max():.2g}")
    tiny = network()
    with torch.no_grad():
        tiny[4].weight.mul_(1e-9)
    print("Weights of the head times 1e-9: the largest value of the map")
    for name, tool in MAPS.items():
        print(f"  {name}: {tool(tiny, torch.rand(2, 1, 12, 12)).max():.2g}")


def main() -> None:
    """Print the versions and every fact."""
    warnings.simplefilter("ignore")
    names = ("torch", "camlens", "grad-cam", "torchcam", "captum", "zennit")
    print(", ".join(f"{name} {version(name)}" for name in names))
    torch.manual_seed(1)
    images = torch.randn(2, 1, 12, 12)
    inplace(images)
    functional(images)
    traces(images)
    no_evidence()


if __name__ == "__main__":
    main()
