"""Methods that camlens leaves out, on evidence whose place is known: what they find at what cost.

``python benchmarks/left_out.py`` trains the network of ``faithfulness.sanity.planted_pictures`` and
prints, for each, the median density of heat on the patch (1 is chance;
tests/test_planted_evidence.py), the share of images with more than 3, forward passes an image, and
the same for the method that camlens has instead. Other libraries' methods with their defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import captum.attr
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from table import facts, table
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens
from camlens.faithfulness.sanity import planted_pictures as planted

LAYER = "features"
IMAGES = 20
#: Segments of 8 x 8 pixels, the size of the patch, for LIME and KernelSHAP.
SEGMENTS = (
    torch.arange((planted.SIZE // 8) ** 2)
    .view(planted.SIZE // 8, -1)
    .repeat_interleave(8, 0)
    .repeat_interleave(8, 1)
)

Heat = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Counted(nn.Module):
    """A model that counts the images it has seen."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.model(images)


def of_torchcam(name: str) -> Heat:
    def heat(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        found = []
        for image, target in zip(images.split(1), classes.tolist(), strict=True):
            with getattr(torchcam.methods, name)(model, f"model.{LAYER}") as cam:
                scores = model(image.clone().requires_grad_())
                found.append(cam(target, scores)[0].detach().float())
        return torch.cat(found)

    return heat


def of_grad_cam(name: str) -> Heat:
    def heat(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        layer = model.get_submodule(f"model.{LAYER}")
        with getattr(pytorch_grad_cam, name)(model=model, target_layers=[layer]) as cam:
            targets = [ClassifierOutputTarget(c) for c in classes.tolist()]
            return torch.as_tensor(cam(images.clone().requires_grad_(), targets=targets))

    return heat


def of_captum(name: str, **options: object) -> Heat:
    def heat(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        attribution = getattr(captum.attr, name)(model)
        parts = [
            attribution.attribute(image.clone(), target=target, **options).detach()
            for image, target in zip(images.split(1), classes.tolist(), strict=True)
        ]
        return torch.cat(parts).sum(dim=1).relu()

    return heat


def ours(name: str, *, layer: bool = False, **options: object) -> Heat:
    def heat(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        more = (f"model.{LAYER}",) if layer else ()
        return getattr(camlens, name)(model, *more, **options)(images, targets=classes).raw[:, 0]

    return heat


METHODS: dict[str, Heat] = {
    "SS-CAM (torchcam)": of_torchcam("SSCAM"),
    "IS-CAM (torchcam)": of_torchcam("ISCAM"),
    "Score-CAM (camlens)": ours("ScoreCAM", layer=True),
    "KPCA-CAM (grad-cam)": of_grad_cam("KPCA_CAM"),
    "FEM (grad-cam)": of_grad_cam("FEM"),
    "Eigen-CAM (camlens)": ours("EigenCAM", layer=True),
    "LIME, 50 samples (captum)": of_captum("Lime", feature_mask=SEGMENTS, n_samples=50),
    "LIME, 1000 samples (captum)": of_captum("Lime", feature_mask=SEGMENTS, n_samples=1000),
    "KernelSHAP, 50 samples (captum)": of_captum("KernelShap", feature_mask=SEGMENTS, n_samples=50),
    "KernelSHAP, 1000 samples (captum)": of_captum(
        "KernelShap", feature_mask=SEGMENTS, n_samples=1000
    ),
    "Occlusion, the same segments (camlens)": ours("Occlusion", window=8, stride=8),
    "RISE, 1000 masks (camlens)": ours("RISE", masks=1000, center=True),
}


class Rectified(nn.Module):
    """A convolution, a ReLU as a module or as a function, and a linear layer."""

    def __init__(self, *, functional: bool) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)
        self.relu, self.functional = nn.ReLU(), functional

    def forward(self, images: Tensor) -> Tensor:
        values = self.convolution(images)
        values = torch.relu(values) if self.functional else self.relu(values)
        return self.linear(values.flatten(1))


def deep_lift_gaps() -> list[tuple[str, str]]:
    """Say by how much captum's DeepLIFT misses the score's difference, relative to it."""
    torch.manual_seed(0)
    models = {f"ReLU as a {kind}": Rectified(functional=kind == "function") for kind in _KINDS}
    models |= {
        name: torchvision.models.get_model(name, weights=None)
        for name in ("resnet18", "vit_b_16", "convnext_tiny")
    }
    nn.init.normal_(models["vit_b_16"].heads.head.weight, std=0.02)  # of zeros, without weights
    lines = []
    for name, model in models.items():
        images = torch.randn(1, 3, *([8, 8] if name.startswith("ReLU") else [224, 224]))
        black = torch.zeros_like(images)
        try:
            found = captum.attr.DeepLift(model.eval()).attribute(images.clone(), black, target=0)
        except RuntimeError as error:
            lines.append((name, f"error: {str(error)[:60]} ..."))
            continue
        with torch.no_grad():
            difference = (model(images) - model(black))[0, 0]
        gap = ((found.sum() - difference) / difference).abs().item()
        lines.append((name, f"{gap:.0%}"))
    return lines


_KINDS = ("module", "function")


def main() -> None:
    model = planted.trained()
    images, classes, masks = planted.pictures(IMAGES, seed=1)
    lines = []
    for name, heat in METHODS.items():
        counted = Counted(model).eval()
        maps = heat(counted, images, classes)
        sized = interpolate(maps.unsqueeze(1).float(), masks.shape[1:], mode="bilinear").squeeze(1)
        density = planted.density(sized.clamp(min=0).nan_to_num(), masks)
        line = (
            name,
            f"{density.median():.1f}",
            f"{(density > 3).float().mean():.0%}",
            f"{int((maps.flatten(1) > 0).any(dim=1).logical_not().sum())}",
            f"{counted.images / IMAGES:.0f}",
        )
        lines.append(line)
        print(", ".join(line), file=sys.stderr, flush=True)
    print(facts("cpu"))
    head = ("method", "median density", "above 3", "empty maps", "forward passes an image")
    print(table(head, lines))
    print(table(("DeepLIFT (captum) of", "misses the score's difference by"), deep_lift_gaps()))


if __name__ == "__main__":
    main()
