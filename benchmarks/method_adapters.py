"""Every method of camlens beside the peers that have it, as calls without arguments.

An adapter takes a loaded case and a number of passes (masks, steps, samples), and returns a call,
down to raw maps. A peer is absent where it has no such method for the network, or where its own is
another method (docs/comparison.rst).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import captum.attr
import pytorch_grad_cam
import torch
import torchcam.methods
import zennit.composites
import zennit.torchvision
from networks import Loaded, without_inplace
from peers import captum_guided, grad_cam_guided, zennit_guided
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from zennit.attribution import Gradient

import camlens

Call = Callable[[], Any]
Adapter = Callable[[Loaded], Call]

#: How often the methods that repeat a pass do so; their cost is reported for each pass.
STEPS, MASKS, SAMPLES = 4, 16, 4
#: A grid of 4 x 4 windows.
WINDOW = 56


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: as camlens spells it, with options that matter.
        tools: adapters by tool.
        forwards: forward passes of each image that the method is defined by; costs are over these.
        models: which networks it explains: ``"cnn"``, ``"transformer"`` or ``"both"``.
        small: whether it is measured on one image of 64 pixels, since a peer runs the whole model
            for every channel.
    """

    name: str
    tools: dict[str, Adapter]
    forwards: int = 1
    models: str = "both"
    small: bool = False


def ours(name: str, *, layer: bool = False, **options: Any) -> Adapter:
    """Return camlens' explainer as an adapter."""

    def adapter(case: Loaded) -> Call:
        more = (case.layer,) if layer else ()
        explainer = getattr(camlens, name)(case.model, *more, **options)
        return lambda: explainer(case.images, targets=case.classes).raw

    return adapter


def of_grad_cam(name: str, **options: Any) -> Adapter:
    """grad-cam takes one class of each image: K targets are K calls."""

    def adapter(case: Loaded) -> Call:
        made = getattr(pytorch_grad_cam, name)
        reshape = _tokens if case.layer.startswith("encoder") else None

        def call() -> Any:
            with made(
                model=case.model, target_layers=[case.module], reshape_transform=reshape
            ) as cam:
                for option, value in options.items():
                    setattr(cam, option, value)
                if case.classes is None:
                    return cam(case.images.clone().requires_grad_(), targets=None)
                return [
                    cam(
                        case.images.clone().requires_grad_(),
                        targets=[ClassifierOutputTarget(c) for c in column.tolist()],
                    )
                    for column in case.classes.T
                ]

        return call

    return adapter


def of_torchcam(name: str, **options: Any) -> Adapter:
    """One forward; a backward pass, or the method's own passes, for each target."""

    def adapter(case: Loaded) -> Call:
        made = getattr(torchcam.methods, name)

        def call() -> Any:
            with made(case.model, case.layer, **options) as cam:
                scores = case.model(case.images.clone().requires_grad_())
                columns = case.columns(scores).tolist()
                graph = {} if name == "ScoreCAM" else {"retain_graph": True}
                return [cam(column, scores, **graph)[0] for column in columns]

        return call

    return adapter


def of_captum(name: str, **options: Any) -> Adapter:
    """captum takes one class of each image; the predicted one costs a forward pass."""

    def adapter(case: Loaded) -> Call:
        attribution = getattr(captum.attr, name)(case.model)

        def call() -> Any:
            if case.classes is None:
                with torch.no_grad():
                    columns = case.columns(case.model(case.images))
            else:
                columns = case.classes.T
            return [
                attribution.attribute(case.images.clone(), target=column, **options)
                for column in columns
            ]

        return call

    return adapter


def of_zennit(composite: str, **options: Any) -> Adapter:
    """zennit asks what to explain once it has the output; K targets are K calls."""

    def adapter(case: Loaded) -> Call:
        model = without_inplace(case.model)
        canonizer = (
            zennit.torchvision.ResNetCanonizer
            if "layer4" in case.layer
            else zennit.torchvision.VGGCanonizer
        )

        def call() -> Any:
            made = getattr(zennit.composites, composite)(canonizers=[canonizer()], **options)
            columns = [None] if case.classes is None else list(case.classes.T)
            found = []
            with Gradient(model=model, composite=made) as attributor:
                for column in columns:

                    def rows(scores: torch.Tensor, column: Any = column) -> torch.Tensor:
                        best = case.columns(scores)[0] if column is None else column
                        return torch.nn.functional.one_hot(best, scores.shape[1]).to(scores)

                    found.append(attributor(case.images.clone(), rows)[1])
            return found

        return call

    return adapter


def _tokens(output: torch.Tensor) -> torch.Tensor:
    """The reshape_transform that grad-cam's users write for torchvision's ViT-B/16."""
    return output[:, 1:].transpose(1, 2).unflatten(2, (14, 14))


def _smooth(case: Loaded) -> Call:
    explainer = camlens.SmoothGrad(camlens.Saliency(case.model), samples=SAMPLES, progress=False)
    return lambda: explainer(case.images, targets=case.classes).raw


def _smooth_layer(case: Loaded) -> Call:
    explainer = camlens.SmoothGrad(camlens.GradCAM(case.model, case.layer), at="layer", samples=50)
    return lambda: explainer(case.images, targets=case.classes).raw


def _expected(case: Loaded) -> Call:
    explainer = camlens.ExpectedGradients(
        case.model, case.images.flip(0), samples=SAMPLES, progress=False
    )
    return lambda: explainer(case.images, targets=case.classes).raw


def _captum_smooth(case: Loaded) -> Call:
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(case.model))

    def call() -> Any:
        with torch.no_grad():
            predicted = case.columns(case.model(case.images))
        columns = predicted if case.classes is None else case.classes.T
        return [
            tunnel.attribute(case.images.clone(), nt_samples=SAMPLES, stdevs=0.15, target=column)
            for column in columns
        ]

    return call


METHODS = (
    Method(
        "GradCAM",
        {
            "camlens": ours("GradCAM", layer=True),
            "torchcam": of_torchcam("GradCAM"),
            "grad-cam": of_grad_cam("GradCAM"),
        },
    ),
    Method(
        "GradCAMPlusPlus",
        {
            "camlens": ours("GradCAMPlusPlus", layer=True),
            "torchcam": of_torchcam("GradCAMpp"),
            "grad-cam": of_grad_cam("GradCAMPlusPlus"),
        },
    ),
    Method(
        "HiResCAM",
        {"camlens": ours("HiResCAM", layer=True), "grad-cam": of_grad_cam("HiResCAM")},
    ),
    Method(
        "LayerCAM",
        {
            "camlens": ours("LayerCAM", layer=True),
            "torchcam": of_torchcam("LayerCAM"),
            "grad-cam": of_grad_cam("LayerCAM"),
        },
    ),
    Method(
        "XGradCAM",
        {
            "camlens": ours("XGradCAM", layer=True),
            "torchcam": of_torchcam("XGradCAM"),
            "grad-cam": of_grad_cam("XGradCAM"),
        },
    ),
    Method(
        "EigenCAM",
        {"camlens": ours("EigenCAM", layer=True), "grad-cam": of_grad_cam("EigenCAM")},
    ),
    Method(
        "EigenGradCAM",
        {"camlens": ours("EigenGradCAM", layer=True), "grad-cam": of_grad_cam("EigenGradCAM")},
    ),
    Method(
        "AblationCAM",
        {"camlens": ours("AblationCAM", layer=True), "grad-cam": of_grad_cam("AblationCAM")},
        models="cnn",
        small=True,
    ),
    Method(
        'AblationCAM, ablate="cells"', {"camlens": ours("AblationCAM", layer=True, ablate="cells")}
    ),
    Method(
        "ScoreCAM",
        {
            "camlens": ours("ScoreCAM", layer=True, progress=False),
            "torchcam": of_torchcam("ScoreCAM", batch_size=64),
            "grad-cam": of_grad_cam("ScoreCAM"),
        },
        models="cnn",
        small=True,
    ),
    Method(
        "DeepFeatureFactorization",
        {"camlens": ours("DeepFeatureFactorization", layer=True, signed=True)},
    ),
    Method(
        "LayerIntegratedGradients, 50 steps",
        {"camlens": ours("LayerIntegratedGradients", layer=True)},
    ),
    Method('SmoothGrad, at="layer", 50 samples', {"camlens": _smooth_layer}),
    Method("Saliency", {"camlens": ours("Saliency"), "captum": of_captum("Saliency")}),
    Method(
        "GuidedBackprop",
        {
            "camlens": ours("GuidedBackprop"),
            "captum": captum_guided,
            "grad-cam": grad_cam_guided,
            "zennit": zennit_guided,
        },
        models="cnn",
    ),
    Method("GuidedGradCAM", {"camlens": ours("GuidedGradCAM", layer=True)}, models="cnn"),
    Method(
        "FullGrad",
        {"camlens": ours("FullGrad"), "grad-cam": of_grad_cam("FullGrad")},
        models="cnn",
    ),
    Method(
        f"Occlusion, {(224 // WINDOW) ** 2} windows",
        {
            "camlens": ours("Occlusion", window=WINDOW, stride=WINDOW, progress=False),
            "captum": of_captum(
                "Occlusion", sliding_window_shapes=(3, WINDOW, WINDOW), strides=(3, WINDOW, WINDOW)
            ),
        },
        forwards=(224 // WINDOW) ** 2,
    ),
    Method(
        f"RISE, {MASKS} masks",
        {"camlens": ours("RISE", masks=MASKS, progress=False)},
        forwards=MASKS,
    ),
    Method(
        f"IntegratedGradients, {STEPS} steps",
        {
            "camlens": ours("IntegratedGradients", steps=STEPS, progress=False),
            "captum": of_captum("IntegratedGradients", n_steps=STEPS, internal_batch_size=4),
        },
        forwards=STEPS,
    ),
    Method(f"ExpectedGradients, {SAMPLES} samples", {"camlens": _expected}, forwards=SAMPLES),
    Method(
        f"SmoothGrad, {SAMPLES} samples",
        {"camlens": _smooth, "captum": _captum_smooth},
        forwards=SAMPLES,
    ),
    Method(
        "LeGrad",
        {"camlens": ours("LeGrad")},
        models="transformer",
    ),
    Method("GenericAttention", {"camlens": ours("GenericAttention")}, models="transformer"),
    Method("AttentionRollout", {"camlens": ours("AttentionRollout")}, models="transformer"),
    Method(
        "LRP",
        {"camlens": ours("LRP"), "zennit": of_zennit("EpsilonPlus")},
        models="cnn",
    ),
    Method("AttnLRP", {"camlens": ours("AttnLRP")}, models="transformer"),
)
