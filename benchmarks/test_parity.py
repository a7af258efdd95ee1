"""Raw maps of camlens beside those of captum, torchcam and grad-cam, over eight networks.

Each comparison states how far two maps may be apart relative to the reference's largest value,
and that the reference is not all zero: comparing two empty maps shows nothing. Peers are only
asked for what they get right; where one is left out, a comment says why.

Left out altogether:
- torchcam 0.5.0's Grad-CAM++: it divides a copy (``alpha[mask].div_``), so its weights are the
  undivided sum, and its denominator sums A g^3, not A.
- grad-cam at a convolution with an in-place ReLU behind it (VGG's ``features.34``): on a CPU its
  activations are those after the ReLU, its gradients those before. Here all layers are such that
  nothing behind them writes into their output.
- grad-cam's Eigen-CAM centres the matrix, which the paper does not: numpy's SVD is the reference.
- captum's LayerGradCam on tokens and NHWC: it takes dimensions from the second on as the places.
- grad-cam's Score-CAM: it makes all masked images of a batch at once, and its softmax is over the
  channels of all layers' masks of a raw score as torchcam's is, which stands for both.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from lxt_vision import cp_LRP, monkey_patch
from networks import build, random_images, without_inplace
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models import vision_transformer
from zennit.attribution import Gradient
from zennit.canonizers import Canonizer
from zennit.composites import EpsilonGammaBox, EpsilonPlus
from zennit.composites import GuidedBackprop as ZennitGuidedBackprop
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

import camlens
from camlens.probe import Probe, Site

COMPOSITES = {"epsilon_plus": EpsilonPlus, "epsilon_gamma_box": EpsilonGammaBox}


def image_like(output: Tensor) -> Tensor:
    return output


def channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def patches(output: Tensor) -> Tensor:
    """Drop the class token of a ViT with 14x14 patches."""
    return output[:, 1:].reshape(len(output), 14, 14, -1).permute(0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network, the layer explained, and how its output becomes (N, C, h, w)."""

    network: str
    layer: str
    targets: tuple[int, int] = (3, 7)
    size: int = 128
    layout: Callable[[Tensor], Tensor] = image_like

    def __str__(self) -> str:
        return self.network


#: The layers of the first three give ReLU outputs, those of the others signed ones. Where it can be
#: none is right before the global pooling, where the gradients are constants and most methods the
#: same; before a LayerNorm (ConvNeXt's features.5) the sum of gradient times activation is zero.
#: The targets are such that no reference is empty: with random weights many a map is.
SUBJECTS = [
    Subject("vgg19", "features.35", size=64),
    Subject("resnet50", "layer3", targets=(4, 2)),
    Subject("densenet121", "features.denseblock4.denselayer16.relu2", targets=(1, 6)),
    Subject("mobilenet_v3_large", "features.12"),
    Subject("efficientnet_b0", "features.6"),
    Subject("convnext_tiny", "features.7"),
    Subject("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", size=224, layout=patches),
    Subject("swin_t", "features.7.0", layout=channels_last),
]
RECTIFIED = SUBJECTS[:3]
IMAGE_LIKE = [subject for subject in SUBJECTS if subject.layout is image_like]


@dataclasses.dataclass(frozen=True)
class Ready:
    """A subject in memory."""

    subject: Subject
    model: nn.Module
    images: Tensor

    @property
    def layer(self) -> nn.Module:
        return self.model.get_submodule(self.subject.layer)

    @property
    def targets(self) -> Tensor:
        return torch.tensor(self.subject.targets)


@pytest.fixture(scope="module")
def ready(request: pytest.FixtureRequest) -> Ready:
    subject = request.param
    model = build(subject.network).requires_grad_(True)
    if subject.network == "vit_b_16":
        nn.init.normal_(model.heads.head.weight, std=0.05)  # torchvision leaves it zero
    return Ready(subject, model, random_images(2, subject.size))


def over(subjects: list[Subject]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ready", subjects, ids=str, indirect=True, scope="module")


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Compare image by image, relative to the largest value of the reference."""
    assert ours.shape == theirs.shape
    for i, (mine, reference) in enumerate(zip(ours, theirs, strict=True)):
        largest = reference.abs().max().item()
        assert largest > 0, f"the reference of image {i} is empty: choose other targets"
        apart = (mine - reference).abs().max().item() / largest
        assert apart <= tolerance, f"image {i}"


def ours(explainer: camlens.LayerExplainer, ready: Ready) -> Tensor:
    return explainer(ready.images, targets=ready.targets).raw[:, 0]


def of_torchcam(method: str, ready: Ready) -> Tensor:
    kind = getattr(torchcam.methods, method)
    transform = ready.subject.layout
    with kind(ready.model, ready.subject.layer, reshape_transform=transform) as extractor:
        scores = ready.model(ready.images)
        return extractor(ready.targets.tolist(), scores, normalized=False)[0]


def of_grad_cam(method: str, ready: Ready, model: nn.Module | None = None) -> Tensor:
    """Its call gives scaled and resized maps, so the raw ones are made from what it captured."""
    kind = getattr(pytorch_grad_cam, method)
    targets = [ClassifierOutputTarget(t) for t in ready.subject.targets]
    layout = ready.subject.layout
    with kind(model or ready.model, [ready.layer], reshape_transform=layout) as cam:
        cam(ready.images, targets)
        captured = cam.activations_and_grads
        activations, gradients = captured.activations[0].numpy(), captured.gradients[0].numpy()
        raw = cam.get_cam_image(ready.images, ready.layer, targets, activations, gradients, False)
    return torch.from_numpy(np.maximum(raw, 0))


@over(IMAGE_LIKE)
def test_grad_cam_is_captums(ready: Ready) -> None:
    cam = captum.attr.LayerGradCam(ready.model, ready.layer)
    reference = cam.attribute(ready.images, ready.targets, relu_attributions=True)
    explainer = camlens.GradCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), reference[:, 0].detach(), 1e-4)


@over(SUBJECTS)
def test_hires_cam_is_captums_gradient_times_activation(ready: Ready) -> None:
    product = captum.attr.LayerGradientXActivation(ready.model, ready.layer)
    placed = ready.subject.layout(product.attribute(ready.images, ready.targets))
    explainer = camlens.HiResCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), placed.sum(dim=1).relu().detach(), 1e-4)


@over(SUBJECTS)
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
def test_cams_are_torchcams(method: str, ready: Ready) -> None:
    explainer = getattr(camlens, method)(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), of_torchcam(method, ready).detach(), 1e-4)


@over(SUBJECTS)
@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM", "LayerCAM"])
def test_cams_are_grad_cams(method: str, ready: Ready) -> None:
    explainer = getattr(camlens, method)(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), of_grad_cam(method, ready), 1e-4)


@over(RECTIFIED)
@pytest.mark.parametrize("reference", [of_torchcam, of_grad_cam])
def test_xgrad_cam_is_torchcams_and_grad_cams(
    reference: Callable[[str, Ready], Tensor], ready: Ready
) -> None:
    """Only ReLU outputs, for which the method is meant.

    It divides by the sum of a channel's activations, to which the peers add 1e-8 and 1e-7. Signed
    activations may sum to less than that: with these weights, those of MobileNet and EfficientNet
    (1e-12) vanish in grad-cam's epsilon.
    """
    explainer = camlens.XGradCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), reference("XGradCAM", ready).detach(), 1e-4)


class Louder(nn.Module):
    """Multiplies a model's logits, and with them the gradients."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) * self.factor


@over(RECTIFIED)
def test_grad_cam_plus_plus_is_grad_cams(ready: Ready) -> None:
    """Only ReLU outputs, as the paper assumes: else the denominator can pass through zero.

    grad-cam adds 1e-6 to a denominator of the order of g^2, which swamps the small gradients of
    these networks; with logits 10,000 times as large it does not matter.
    """
    model = Louder(ready.model, 1e4).eval()
    explainer = camlens.GradCAMPlusPlus(model, f"model.{ready.subject.layer}")
    assert_close(ours(explainer, ready), of_grad_cam("GradCAMPlusPlus", ready, model), 1e-3)


@over(SUBJECTS)
def test_eigen_cam_is_numpys_svd(ready: Ready) -> None:
    site = Site(ready.subject.layer, ready.subject.layout)
    (maps,) = Probe(ready.model, ready.images).run(sites=[site], start=None).activations()
    activations = maps.double()
    references = []
    for image in activations.flatten(2).numpy():  # (C, hw)
        _, _, directions = np.linalg.svd(image.T, full_matrices=False)
        projection = image.T @ directions[0]
        references.append(np.maximum(projection * np.sign(projection.sum()), 0))
    reference = torch.from_numpy(np.stack(references)).view(2, *activations.shape[-2:])
    explainer = camlens.EigenCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready).double(), reference, 1e-4)


@over(SUBJECTS)
def test_saliency_is_captums(ready: Ready) -> None:
    saliency = captum.attr.Saliency(ready.model)
    reference = saliency.attribute(ready.images.clone(), ready.targets, abs=False)
    explanation = camlens.Saliency(ready.model)(ready.images, targets=ready.targets)
    assert_close(explanation.gradients[:, 0], reference, 1e-4)


@over(SUBJECTS[:2])
def test_occlusion_is_captums(ready: Ready) -> None:
    """Windows that fit: captum cuts the last window at the border, ours is moved back inside."""
    side = ready.subject.size // 4
    occlusion = captum.attr.Occlusion(ready.model)
    with torch.no_grad():
        reference = occlusion.attribute(
            ready.images,
            (3, side, side),
            strides=(3, side // 2, side // 2),
            target=ready.targets,
            perturbations_per_eval=8,
        )
    explainer = camlens.Occlusion(ready.model, window=side, stride=side // 2)
    explanation = explainer(ready.images, targets=ready.targets)
    # captum's is the same for the three channels, which are covered together.
    assert_close(explanation.gradients[:, 0, 0], reference[:, 0].float(), 1e-3)


@over(SUBJECTS[:4])
def test_integrated_gradients_are_captums(ready: Ready) -> None:
    """In float64: in float32 a point's last bit decides some ReLUs, 0.2% of the largest value."""
    model, images = copy.deepcopy(ready.model).double(), ready.images.double()
    integrated = captum.attr.IntegratedGradients(model)
    baseline = torch.full_like(images, 0.25)
    reference = integrated.attribute(
        images,
        baseline,
        target=ready.targets,
        n_steps=8,
        method="riemann_middle",
        internal_batch_size=2,
    )
    explainer = camlens.IntegratedGradients(model, steps=8, baseline=0.25)
    explanation = explainer(images, targets=ready.targets)
    assert_close(explanation.gradients[:, 0], reference.float(), 1e-6)


@over(SUBJECTS[:1])
def test_score_cam_is_torchcams(ready: Ready) -> None:
    """At a layer of the image's size: torchcam scales its masks before it resizes them.

    It also runs channels that are not active, whose share of the softmax scales the map.
    """
    layer, size = "features.3", ready.subject.size
    torchcams = torchcam.methods.ScoreCAM
    with torchcams(ready.model, layer, input_shape=(3, size, size)) as extractor, torch.no_grad():
        scores = ready.model(ready.images)
        reference = extractor(ready.targets.tolist(), scores, normalized=False)[0]
    maps = ours(camlens.ScoreCAM(ready.model, layer), ready)
    for map_, other in zip(maps, reference, strict=True):
        assert_close(map_[None] / map_.max(), other[None] / other.max(), 1e-3)


@over(SUBJECTS[:1])
def test_score_cam_is_grad_cams(ready: Ready) -> None:
    """At a layer of the image's size: grad-cam aligns the corners of its masks.

    It sums the channels' maps after the softmax over their logits, as the paper does; the baseline
    drops out of the softmax.
    """
    shallow = dataclasses.replace(ready, subject=dataclasses.replace(ready.subject, layer=_SHALLOW))
    reference = of_gradient_free("ScoreCAM", shallow)
    maps = ours(camlens.ScoreCAM(ready.model, _SHALLOW), ready)
    for map_, other in zip(maps, reference, strict=True):
        assert_close(map_[None] / map_.max(), other[None] / other.max(), 1e-3)


#: Few channels, since each takes a pass.
_ALEXNET = Subject("alexnet", "features.11", targets=(1, 6), size=64)


@over([_ALEXNET])
def test_ablation_cam_is_grad_cams(ready: Ready) -> None:
    """Behind a ReLU, where its replacement is zero; of a negative score its weights change sign."""
    with torch.no_grad():
        scores = ready.model(ready.images).gather(1, ready.targets[:, None])
    reference = of_gradient_free("AblationCAM", ready, sign=scores.sign())
    explainer = camlens.AblationCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready), reference, 1e-3)


#: A layer of the image's own size, behind a ReLU.
_SHALLOW = "features.3"


def of_gradient_free(method: str, ready: Ready, sign: Tensor | None = None) -> Tensor:
    """Return the map of grad-cam's weights, raw."""
    targets = [ClassifierOutputTarget(t) for t in ready.subject.targets]
    kind = getattr(pytorch_grad_cam, method)
    with torch.no_grad():
        captured = []
        handle = ready.layer.register_forward_hook(lambda *given: captured.append(given[2]))
        ready.model(ready.images)
        handle.remove()
        (activations,) = captured
        activations = activations.clone()
        with kind(ready.model, [ready.layer]) as cam:
            cam.activations_and_grads.release()
            weights = cam.get_cam_weights(
                ready.images, ready.layer, targets, activations.numpy(), None
            )
    weights = torch.as_tensor(weights) * (1 if sign is None else sign)
    return torch.einsum("nc,nchw->nhw", weights.float(), activations).relu()


@over(SUBJECTS[:2])
def test_eigen_grad_cam_is_numpys_svd(ready: Ready) -> None:
    """Not grad-cam's, which centres the matrix and leaves the sign to chance."""
    site = Site(ready.subject.layer, ready.subject.layout)
    traced = Probe(ready.model, ready.images, targets=ready.targets).run(sites=[site])
    (gradients,), (maps,) = traced.gradients(), traced.activations()
    references = []
    for products in (gradients[:, 0] * maps).detach().double().flatten(2).numpy():
        _, _, directions = np.linalg.svd(products.T, full_matrices=False)
        projection = products.T @ directions[0]
        sign = np.sign((projection * products.sum(axis=0)).sum())
        references.append(np.maximum(projection * sign, 0))
    reference = torch.from_numpy(np.stack(references)).view(2, *maps.shape[-2:])
    explainer = camlens.EigenGradCAM(ready.model, ready.subject.layer)
    assert_close(ours(explainer, ready).double(), reference, 1e-3)


@over([subject for subject in SUBJECTS if subject.network == "vit_b_16"])
def test_legrad_is_torchcams(ready: Ready) -> None:
    """On torchvision's ViT alone, all blocks: torchcam knows no other without a projection.

    It has a gradient for each layer of one graph; prefix tokens and grid are given or guessed.
    """
    blocks = list(ready.model.encoder.layers)
    with torchcam.methods.LeGrad(ready.model, blocks) as extractor:
        scores = ready.model(ready.images)
        (reference,) = extractor(ready.targets.tolist(), scores, normalized=False)
    explanation = camlens.LeGrad(ready.model)(ready.images, targets=ready.targets)
    assert_close(explanation.raw[:, 0], reference.detach(), 1e-4)


def spelled_out(ready: Ready) -> nn.Module:
    """Return a copy in which captum and zennit meet every ReLU.

    They see modules alone, and none that write in place. DenseNet's last ReLU is a function
    call, which captum would silently pass with the plain gradient.
    """
    model = without_inplace(ready.model)
    if ready.subject.network != "densenet121":
        return model
    pool, head = nn.AdaptiveAvgPool2d(1), model.classifier
    return nn.Sequential(model.features, nn.ReLU(), pool, nn.Flatten(), head).eval()


@over(RECTIFIED)
@pytest.mark.parametrize(
    ("ours", "theirs"), [("GuidedBackprop", "GuidedBackprop"), ("Deconvnet", "Deconvolution")]
)
def test_modified_relus_are_captums(ours: str, theirs: str, ready: Ready) -> None:
    attribution = getattr(captum.attr, theirs)(spelled_out(ready))
    reference = attribution.attribute(ready.images.clone(), ready.targets)
    explanation = getattr(camlens, ours)(ready.model)(ready.images, targets=ready.targets)
    assert_close(explanation.gradients[:, 0], reference, 1e-5)


@over(RECTIFIED)
def test_guided_backprop_is_zennits(ready: Ready) -> None:
    rows = nn.functional.one_hot(ready.targets, 1000).float()
    with Gradient(spelled_out(ready), composite=ZennitGuidedBackprop()) as attributor:
        _, reference = attributor(ready.images.clone(), rows)
    explanation = camlens.GuidedBackprop(ready.model)(ready.images, targets=ready.targets)
    assert_close(explanation.gradients[:, 0], reference, 1e-5)


@over(RECTIFIED)
def test_guided_grad_cam_is_captums(ready: Ready) -> None:
    """captum does not scale the map, so both are compared up to a factor for each image.

    Its default interpolation is nearest; ours, and the paper's, is bilinear.
    """
    model = spelled_out(ready)
    layer = ready.subject.layer
    inside = layer.removeprefix("features.") if isinstance(model, nn.Sequential) else layer
    root = model[0] if isinstance(model, nn.Sequential) else model
    guided = captum.attr.GuidedGradCam(model, root.get_submodule(inside))
    reference = guided.attribute(
        ready.images.clone(), ready.targets, interpolate_mode="bilinear"
    ).detach()
    explainer = camlens.GuidedGradCAM(ready.model, layer)
    explanation = explainer(ready.images, targets=ready.targets)
    assert reference.abs().amax(dim=(1, 2, 3)).min() > 0
    assert_close(unit(explanation.gradients[:, 0]), unit(reference), 1e-4)


def unit(gradients: Tensor) -> Tensor:
    return gradients / gradients.abs().amax(dim=(1, 2, 3), keepdim=True)


# Relevance.


def with_statistics(network: str) -> nn.Module:
    """Build a network in float64 whose every bias and statistic matters."""
    model = build(network).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.requires_grad_(True)


@pytest.mark.parametrize(
    ("network", "canonizer"),
    [("vgg11", VGGCanonizer), ("vgg11_bn", VGGCanonizer), ("resnet18", ResNetCanonizer)],
)
@pytest.mark.parametrize("preset", ["epsilon_plus", "epsilon_gamma_box"])
def test_relevance_by_zennits_presets(
    network: str, canonizer: type[Canonizer], preset: str
) -> None:
    """Relevance of each score itself: zennit's, of 1, times the score.

    They differ by about 1e-3: the BatchNorm that zennit merged still divides by the root of
    1 + eps, and zennit adds its stabilizer to residual sums and average pooling too. Without both
    they agree to 2e-8 (ResNet-18, float64).
    """
    torch.manual_seed(0)
    model = with_statistics(network)
    before = copy.deepcopy(model.state_dict())
    images = random_images(2, 64).double().clip(-3, 3)
    box = {"low": -3.0, "high": 3.0} if preset == "epsilon_gamma_box" else {}
    composite = COMPOSITES[preset](canonizers=[canonizer()], stabilizer=1e-6, **box)
    theirs = camlens.LRP(model, composite)(images, targets=[[1, 5]])
    ours = camlens.LRP(model, preset, **box)(images, targets=[[1, 5]])
    attributed = []
    with Gradient(model=model, composite=composite) as attributor:
        for target in (1, 5):
            start = torch.eye(1000, dtype=torch.float64)[[target]] * model(images).detach()
            attributed.append(attributor(images, start)[1].detach())
    reference = torch.stack(attributed, dim=1).float()
    assert_close(theirs.gradients, reference, 1e-6)  # a composite given to camlens
    assert_close(ours.gradients, reference, 3e-3)  # the preset of the same name
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.fixture
def lxt_on_torchvision() -> Iterator[None]:
    """Patch torchvision's classes as lxt does, which never takes it back."""
    classes = [nn.GELU, nn.LayerNorm, nn.MultiheadAttention]
    before = [cls.forward for cls in classes]
    monkey_patch(vision_transformer, cp_LRP)
    yield
    for cls, forward in zip(classes, before, strict=True):
        cls.forward = forward
        if hasattr(cls, "original_forward"):
            del cls.original_forward


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    model = vision_transformer.VisionTransformer(64, 16, 3, 4, 64, 128, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.double().eval()


def test_relevance_of_a_transformer_by_lxt(lxt_on_torchvision: None) -> None:
    """lxt holds attention probabilities constant on torchvision's ViT: attention="values".

    Its factor f(x) / (x + 1e-10) of an activation is no more than 1e-6 from f(x) / x here.
    """
    model, images = small_vit(), random_images(2, 64).double()
    reference = []
    for target in (1, 3):
        leaf = images.clone().requires_grad_()
        model(leaf)[:, target].sum().backward()
        reference.append(leaf.grad * images)
    for cls in (nn.GELU, nn.MultiheadAttention):
        cls.patched, cls.forward = cls.forward, cls.original_forward
    ours = camlens.AttnLRP(copy.deepcopy(model), attention="values")(images, targets=[[1, 3]])
    assert_close(ours.gradients, torch.stack(reference, dim=1).float(), 1e-5)
    for cls in (nn.GELU, nn.MultiheadAttention):
        cls.forward = cls.patched
        del cls.patched
