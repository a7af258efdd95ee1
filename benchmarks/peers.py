"""One adapter for each method of each tool, written the way the tool's documentation does.

An adapter takes a loaded case and returns a call without arguments. What a user does once (a
copy of the model where the tool needs one) is done before; what he does for each batch is in the
call, down to heatmaps of the images' size (one array for each target where the tool takes one
target at a time).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam
from networks import Loaded, without_inplace
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torch.nn.functional import interpolate
from torchcam.methods import GradCAM as TorchcamGradCAM
from zennit.attribution import Gradient
from zennit.composites import GuidedBackprop as ZennitGuidedBackprop

import camlens

Call = Callable[[], Any]
Adapter = Callable[[Loaded], Call]

TOOLS = ("camlens", "torchcam", "captum", "grad-cam", "zennit")


def bare_forward(case: Loaded) -> Call:
    """Plain inference, which every ratio is relative to."""

    def call() -> Any:
        with torch.no_grad():
            return case.model(case.images)

    return call


def camlens_grad_cam(case: Loaded) -> Call:
    explainer = camlens.GradCAM(case.model, case.layer)
    return lambda: explainer(case.images, targets=case.classes).heatmaps


def camlens_grad_cam_all(case: Loaded) -> Call:
    """Every class of the model; raw maps, since heatmaps of all are 1000 times the images."""
    explainer = camlens.GradCAM(case.model, case.layer)
    return lambda: explainer(case.images, targets="all").raw


def camlens_guided(case: Loaded) -> Call:
    return lambda: camlens.GuidedBackprop(case.model)(case.images, targets=case.classes).gradients


def grad_cam_grad_cam(case: Loaded) -> Call:
    """grad-cam finds the predicted class itself; of given ones it takes one, so K are K calls."""

    def call() -> Any:
        with GradCAM(model=case.model, target_layers=[case.module]) as cam:
            if case.classes is None:
                return cam(case.images, targets=None)
            return [
                cam(case.images, targets=[ClassifierOutputTarget(c) for c in column.tolist()])
                for column in case.classes.T
            ]

    return call


def grad_cam_guided(case: Loaded) -> Call:
    """grad-cam takes one image; it swaps the model's ReLUs and back, hence a copy."""
    guided = GuidedBackpropReLUModel(copy.deepcopy(case.model), device=case.images.device)
    count = len(case.images)

    def call() -> Any:
        classes = [None] * count if case.classes is None else case.classes[:, 0].tolist()
        pairs = zip(case.images.split(1), classes, strict=True)
        return [guided(image.clone(), target_category=c) for image, c in pairs]

    return call


def torchcam_grad_cam(case: Loaded) -> Call:
    """One forward; for each target but the last a backward pass that keeps the graph."""
    size = case.images.shape[-2:]

    def call() -> Any:
        with TorchcamGradCAM(case.model, case.layer) as cam:
            scores = case.model(case.images)
            columns = case.columns(scores).tolist()
            maps = [
                cam(column, scores, retain_graph=i < len(columns) - 1)[0]
                for i, column in enumerate(columns)
            ]
        return interpolate(torch.stack(maps, dim=1), size, mode="bilinear", align_corners=False)

    return call


def _columns_for_captum(case: Loaded) -> Tensor:
    """Return (K, N) classes. captum wants them given: to know the prediction is a forward pass."""
    if case.classes is not None:
        return case.classes.T
    with torch.no_grad():
        return case.columns(case.model(case.images))


def captum_grad_cam(case: Loaded) -> Call:
    """captum takes one target an image: K targets are K calls."""
    size = tuple(case.images.shape[-2:])

    def call() -> Any:
        cam = LayerGradCam(case.model, case.module)
        maps = [
            cam.attribute(case.images, column, relu_attributions=True)
            for column in _columns_for_captum(case)
        ]
        return [LayerAttribution.interpolate(m, size, "bilinear") for m in maps]

    return call


def captum_guided(case: Loaded) -> Call:
    guided = GuidedBackprop(without_inplace(case.model))

    def call() -> Any:
        with warnings.catch_warnings():  # it says at each call that it sets hooks
            warnings.simplefilter("ignore")
            return guided.attribute(case.images.clone(), _columns_for_captum(case)[0])

    return call


def zennit_guided(case: Loaded) -> Call:
    """zennit asks what to explain once it has the output: the prediction costs it nothing."""
    model = without_inplace(case.model)

    def rows(scores: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(case.columns(scores)[0], scores.shape[1]).to(scores)

    def call() -> Any:
        with Gradient(model=model, composite=ZennitGuidedBackprop()) as attributor:
            return attributor(case.images.clone(), rows)[1]

    return call


#: By method and tool; a tool that is absent cannot do the method, or none for it here.
ADAPTERS: dict[str, dict[str, Adapter]] = {
    "Grad-CAM": {
        "camlens": camlens_grad_cam,
        "torchcam": torchcam_grad_cam,
        "captum": captum_grad_cam,
        "grad-cam": grad_cam_grad_cam,
    },
    "Grad-CAM, all classes": {"camlens": camlens_grad_cam_all},
    "Guided backprop": {
        "camlens": camlens_guided,
        "captum": captum_guided,
        "grad-cam": grad_cam_guided,
        "zennit": zennit_guided,
    },
}
