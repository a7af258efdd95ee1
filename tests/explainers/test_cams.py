"""The CAM family: right maps on networks whose maps are known, and on real ones."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import camlens
from camlens import heatmap, layouts
from camlens.methods import cam

from ..families import LAYER_ATTRIBUTIONS
from ..nets import (
    Convolutions,
    Linear1x1,
    Small,
    autograd_cam,
    plain_gradients,
    real,
    small_vit,
)

FUNCTIONS = {
    camlens.GradCAM: cam.grad_cam,
    camlens.GradCAMPlusPlus: cam.grad_cam_plus_plus,
    camlens.HiResCAM: cam.hires_cam,
    camlens.LayerCAM: cam.layer_cam,
    camlens.XGradCAM: cam.xgrad_cam,
    camlens.EigenGradCAM: cam.eigen_grad_cam,
}


def test_grad_cam_in_closed_form():
    """A is the ReLU of a linear map of the image, d score / d A is W / hw: all by hand."""
    conv = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    head = torch.tensor([[2.0, 0.0, 4.0], [0.0, -2.0, 0.0]])
    image = torch.tensor([[[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]]]])
    model = Linear1x1(conv, head).eval()
    explanation = camlens.GradCAM(model, "relu")(image, targets="all")
    # channel 0 is [3 0; 1 0], channel 2 is [0 1; 1 0]; weights are W / 4
    first = torch.tensor([[6.0, 4.0], [6.0, 0.0]]) / 4
    assert_close(explanation.raw, torch.stack([first, torch.zeros(2, 2)])[None])
    assert_close(explanation.heatmaps[0, 0], first / 1.5)
    assert explanation.evidence.tolist() == [[True, False]]
    assert explanation.heatmaps[0, 1].count_nonzero() == 0
    assert_close(explanation.scores, model(image).detach())
    assert_close(explanation.outputs, model(image).detach())
    assert explanation.targets.tolist() == [[0, 1]]
    assert (explanation.grid, explanation.layers, explanation.method) == (
        (2, 2),
        ("relu",),
        "GradCAM",
    )


@pytest.mark.parametrize("relu", ["inplace", "functional", "statement"])
@pytest.mark.parametrize("layer", ["conv1", "norm1", "conv2", "norm2"])
def test_grad_cam_is_plain_autograds(relu, layer):
    model = Small(relu).eval()
    images = torch.rand(3, 3, 10, 8)
    explanation = camlens.GradCAM(model, layer)(images, targets=[[0, 3]])
    for k, target in enumerate((0, 3)):
        expected = autograd_cam(model, getattr(model, layer), images, target)
        assert_close(explanation.raw[:, k], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", LAYER_ATTRIBUTIONS)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("layer", ["first", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signals_images_and_volumes(explainer, axes, n, layer, dtype):
    """Each class runs its function on what plain autograd gives, in either precision."""
    model = Convolutions(axes).eval().to(dtype)
    images = torch.randn(n, 2, *([8] * axes), dtype=dtype)
    explanation = explainer(model, layer, layout=layouts.nchw)(images, targets="all")
    output, gradients = plain_gradients(model, getattr(model, layer), images)
    expected = FUNCTIONS[explainer](output, gradients)
    assert expected.any()
    assert_close(explanation.raw, expected.float(), rtol=1e-4, atol=1e-6)
    assert explanation.raw.dtype == explanation.scores.dtype == torch.float32
    assert explanation.outputs.dtype == dtype
    assert explanation.size == (8,) * axes
    assert explanation.grid == ((8,) if layer == "first" else (4,)) * axes
    assert explanation.method == explainer.__name__


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_eigen_cam_needs_no_gradient_and_knows_no_class(axes):
    model = Convolutions(axes).eval()
    images = torch.randn(2, 2, *([8] * axes))
    explanation = camlens.EigenCAM(model, "last", layout=layouts.nchw)(images, targets="all")
    with torch.no_grad():
        expected = cam.eigen_cam(model.last(model.first(images).relu()))
    assert_close(explanation.raw, expected.expand(-1, 3, *expected.shape[2:]))


def test_an_in_place_relu_does_not_spoil_the_map():
    """The trap of most libraries: norm2 is changed by the ReLU after it was captured."""
    model, images = Small("inplace").eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        x = model.norm2(model.conv2(model.norm1(model.conv1(images)).relu()))
    assert x.min() < 0
    expected = autograd_cam(model, model.norm2, images, 2)
    assert expected.amax() > 0
    assert_close(camlens.GradCAM(model, "norm2")(images, targets=2).raw[:, 0], expected)


# Real networks beside plain autograd.


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer2", "layer4", "layer4.1.bn2"])
def test_resnet_18(layer):
    model, images = real("resnet18", 64)
    explanation = camlens.GradCAM(model, layer)(images, targets=[[7, 300]])
    module = model.get_submodule(layer)
    expected = torch.stack([autograd_cam(model, module, images, k) for k in (7, 300)], dim=1)
    assert expected.any()
    assert_close(explanation.raw, expected, rtol=1e-3, atol=expected.amax().item() * 1e-4)


@pytest.mark.slow
def test_an_alexnet_whose_relu_overwrites_the_layer():
    model, _ = real("alexnet", 64, num_classes=10)
    images = torch.rand(2, 3, 64, 64)
    explanation = camlens.GradCAM(model, "features.10")(images, targets=7)
    with torch.no_grad():
        assert model.features[:11](images).min() < 0
    expected = autograd_cam(model, model.features[10], images, 7)
    assert expected.amax() > 0
    tolerance = expected.amax().item() * 1e-4
    assert_close(explanation.raw[:, 0], expected, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("explainer", LAYER_ATTRIBUTIONS)
@pytest.mark.parametrize("block", [0, 1])
def test_a_vision_transformer(explainer, block):
    model, images = small_vit(), torch.rand(2, 3, 32, 32)
    name = f"encoder.layers.encoder_layer_{block}.ln_1"
    layout = layouts.tokens(1, (4, 4))
    explanation = explainer(model, name, layout=layout)(images, targets="all")
    output, gradients = plain_gradients(model, model.get_submodule(name), images)
    by_class = torch.stack([layout(gradients[:, k]) for k in range(5)], dim=1)
    expected = FUNCTIONS[explainer](layout(output), by_class)
    assert expected.any()
    assert_close(explanation.raw, expected, rtol=1e-3, atol=expected.amax().item() * 1e-4)
    assert explanation.grid == (4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "size", "layout"),
    [
        ("swin_t", "norm", 64, layouts.nhwc),
        ("convnext_tiny", "features.7.0.block.2", 96, layouts.nhwc),
        (
            "vit_b_32",
            "encoder.layers.encoder_layer_11.ln_1",
            224,
            layouts.tokens(1, (7, 7)),
        ),
    ],
)
def test_channels_last_and_tokens_of_real_networks(name, layer, size, layout):
    model, images = real(name, size)

    def both_signs(outputs):
        """Of random weights one of the two has evidence."""
        return torch.stack([outputs[:, 3], -outputs[:, 3]], dim=1)

    explanation = camlens.HiResCAM(model, layer, layout=layout)(images, targets=both_signs)
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.append(out))
    scores = both_signs(model(images))
    handle.remove()
    assert explanation.raw.amax() > 0
    for k in range(2):
        gradient = torch.autograd.grad(scores[0, k], kept[0], retain_graph=True)[0]
        expected = layout(kept[0] * gradient).sum(1).relu()
        assert_close(explanation.raw[:, k], expected.detach(), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_real_segmentation_model_with_a_dictionary_of_outputs():
    torch.manual_seed(0)
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None
    ).eval()
    images = torch.rand(2, 3, 64, 64)
    explanation = camlens.HiResCAM(model, "backbone.16")(
        images, targets=lambda out: out["out"][:, [3, 7]].mean(dim=(-2, -1))
    )
    with torch.no_grad():
        assert_close(explanation.scores, model(images)["out"][:, [3, 7]].mean(dim=(-2, -1)))
    assert explanation.targets.tolist() == [[-1, -1], [-1, -1]]
    assert explanation.outputs is None
    assert explanation.evidence.all()
    assert explanation.grid == (4, 4)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("layers", [["conv1", "conv2"], ["conv2", "act", "conv1"]])
def test_several_layers_fuse(n, layers):
    model, images = Small().eval(), torch.rand(n, 3, 8, 8)
    fused = camlens.GradCAM(model, layers)(images, targets=[[0, 1]])
    each = [camlens.GradCAM(model, name)(images, targets=[[0, 1]]).raw for name in layers]
    expected = sum(heatmap.resize(heatmap.scale(raw), (8, 8)) for raw in each) / len(layers)
    assert_close(fused.raw, expected)
    assert (fused.layers, fused.grid) == (tuple(layers), (8, 8))


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_the_scale_of_the_logits_says_nothing(factor):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    before = camlens.GradCAM(model, "conv2")(images, targets="all")
    with torch.no_grad():
        model.head.weight.mul_(factor)
        model.head.bias.mul_(factor)
    after = camlens.GradCAM(model, "conv2")(images, targets="all")
    assert torch.equal(before.evidence, after.evidence)
    assert before.evidence.any()
    assert_close(after.heatmaps, before.heatmaps, rtol=1e-4, atol=1e-5)


# CAM, which is defined for average pooling and a linear layer alone.


class Headed(nn.Module):
    """A convolution and a ReLU, and a head behind them."""

    def __init__(self, head, *, axes=2):
        super().__init__()
        self.conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](3, 6, 3)
        self.act, self.linear = nn.ReLU(), nn.Linear(6, 4)
        self.pointwise, self.head = nn.Conv2d(6, 4, 1), head
        self.everywhere, self.norm = nn.Linear(6 * 36, 4), nn.BatchNorm1d(6)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, images):
        return self.head(self, self.act(self.conv(images)))


POOLED = {
    "modules": lambda _, x: x,
    "mean": lambda net, x: net.linear(x.mean((-2, -1))),
    "mean twice": lambda net, x: net.linear(x.mean(-1).mean(-1)),
    "sum": lambda net, x: net.linear(x.sum((-2, -1)) / 36),
    "adaptive pooling": lambda net, x: net.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1)),
    "pooling of the grid's size": lambda net, x: net.linear(functional.avg_pool2d(x, 6)[..., 0, 0]),
    "squeeze": lambda net, x: net.linear(x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)),
    "channels last": lambda net, x: net.linear(x.permute(0, 2, 3, 1).mean((1, 2))),
    "tokens": lambda net, x: net.linear(x.flatten(2).transpose(1, 2).mean(1)),
    "1x1 convolution, then pooling": lambda net, x: net.pointwise(x).mean((-2, -1)),
    "pooling, then 1x1 convolution": lambda net, x: net.pointwise(
        x.mean((-2, -1), keepdim=True)
    ).flatten(1),
    "linear, then pooling": lambda net, x: net.linear(x.movedim(1, -1)).mean((1, 2)),
    "matrix product": lambda net, x: x.mean((-2, -1)) @ net.linear.weight.T,
    "einsum": lambda net, x: torch.einsum("nchw,kc->nk", x / 36, net.linear.weight),
    "temperature": lambda net, x: net.linear(x.mean((-2, -1))) / 0.07,
}


def headed(name):
    if name == "modules":
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.Dropout(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).eval(), "1"
    return Headed(POOLED[name]).eval(), "act"


@pytest.mark.slow
@pytest.mark.parametrize("spelling", POOLED)
@pytest.mark.parametrize("targets", [None, 1, [[0, 3]], "all", camlens.targets.top(2)])
@pytest.mark.parametrize("n", [1, 3])
def test_cam_is_grad_cam_times_the_cells(spelling, targets, n):
    model, layer = headed(spelling)
    images = torch.randn(n, 3, 8, 8)
    explanation = camlens.CAM(model, layer)(images, targets=targets)
    grad_cam = camlens.GradCAM(model, layer)(images, targets=targets)
    assert explanation.evidence.any()
    assert_close(explanation.raw, grad_cam.raw * 36, rtol=1e-4, atol=1e-5)
    assert explanation.method == "CAM"


@pytest.mark.parametrize("n", [1, 3])
def test_cam_weighs_channels_by_the_linear_layer(n):
    model, images = Headed(POOLED["mean"]).eval(), torch.randn(n, 3, 8, 8)
    with torch.no_grad():
        maps = model.act(model.conv(images))
        expected = torch.einsum("kc,nchw->nkhw", model.linear.weight, maps).relu()
    assert_close(camlens.CAM(model, "act")(images, targets="all").raw, expected)


@pytest.mark.parametrize("axes", [1, 3])
def test_cam_of_signals_and_volumes(axes):
    pool = (nn.AdaptiveAvgPool1d, None, nn.AdaptiveAvgPool3d)[axes - 1](1)
    model = Headed(lambda net, x: net.linear(pool(x).flatten(1)), axes=axes).eval()
    images = torch.randn(2, 3, *([6] * axes))
    with torch.no_grad():
        maps = model.act(model.conv(images))
        expected = torch.einsum("kc,nc...->nk...", model.linear.weight, maps).relu()
    assert_close(camlens.CAM(model, "act")(images, targets="all").raw, expected)


def test_cam_of_a_difference_of_two_scores():
    model, images = Headed(POOLED["mean"]).eval(), torch.randn(2, 3, 8, 8)
    explanation = camlens.CAM(model, "act")(images, targets=lambda out: out[:, 2] - out[:, 0])
    with torch.no_grad():
        maps, weight = model.act(model.conv(images)), model.linear.weight
        expected = torch.einsum("c,nchw->nhw", weight[2] - weight[0], maps).relu()
    assert_close(explanation.raw[:, 0], expected, rtol=1e-4, atol=1e-5)


NOT_POOLED = {
    "ReLU behind the layer": lambda net, x: net.linear((x - 0.1).relu().mean((-2, -1))),
    "ReLU behind the pooling": lambda net, x: net.linear((x.mean((-2, -1)) - 0.1).relu()),
    "flatten and linear": lambda net, x: net.everywhere(x.flatten(1)),
    "softmax": lambda net, x: net.linear(x.mean((-2, -1))).softmax(1),
    "sigmoid": lambda net, x: net.linear(x.mean((-2, -1))).sigmoid(),
    "maximum": lambda net, x: net.linear(x.amax((-2, -1))),
    "square": lambda net, x: net.linear(x.mean((-2, -1)) ** 2),
    "product with itself": lambda net, x: net.linear(x.mean((-2, -1)) * x.mean((-2, -1))),
    "norm of the features": lambda net, x: net.linear(functional.normalize(x.mean((-2, -1)))),
    "batch norm": lambda net, x: net.linear(net.norm(x.mean((-2, -1)))),
    "pooling to 2 x 2": lambda net, x: net.everywhere(
        functional.adaptive_avg_pool2d(x, 2).flatten(1).repeat(1, 9)
    ),
    "a part of the grid": lambda net, x: net.linear(x[..., :3, :].mean((-2, -1))),
    "3x3 pooling": lambda net, x: net.linear(
        functional.avg_pool2d(x, 3, stride=1, padding=1).mean((-2, -1))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("head", NOT_POOLED)
@pytest.mark.parametrize("targets", [1, "all"])
def test_cam_is_refused_where_it_is_not_defined(head, targets):
    model, images = Headed(NOT_POOLED[head]).eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="CAM is defined for average pooling and a linear layer"):
        camlens.CAM(model, "act")(images, targets=targets)
    assert camlens.GradCAM(model, "act")(images, targets=targets).raw.isfinite().all()


def test_cam_names_what_is_behind_the_layer():
    model, images = Headed(NOT_POOLED["softmax"]).eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"the score also passes through Softmax: use GradCAM"):
        camlens.CAM(model, "act")(images)
    with pytest.raises(ValueError, match="also passes through Relu"):
        camlens.CAM(model, "conv")(images)


@pytest.mark.slow
def test_cam_of_a_resnet():
    model, images = real("resnet18", 64, num_classes=10)
    explanation = camlens.CAM(model, "layer4")(images, targets=[[7, 3]])
    grad_cam = camlens.GradCAM(model, "layer4")(images, targets=[[7, 3]])
    assert explanation.evidence.any()
    assert_close(explanation.raw, grad_cam.raw * 4)
    with pytest.raises(ValueError, match="CAM is defined"):
        camlens.CAM(model, "layer3")(images)


@pytest.mark.parametrize("head", ["normalised scores", "normalised features", "squared norm"])
def test_cam_refuses_products_of_two_results(head):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            features = self.conv(x).relu().mean((-2, -1))
            if head == "normalised scores":
                scores = self.fc(features)
                return scores / scores.sum(1, keepdim=True)
            if head == "normalised features":
                return self.fc(features / features.sum(1, keepdim=True))
            return torch.bmm(features[:, None], features[:, :, None])[:, 0]

    with pytest.raises(ValueError, match=r"the score also passes .* of two results"):
        camlens.CAM(Model().eval(), "conv")(torch.rand(2, 3, 8, 8), targets=0)


def test_eigen_cam_is_no_map_to_train_with():
    explain = camlens.EigenCAM(Small().eval(), "conv2", create_graph=True)
    with pytest.raises(ValueError, match="no gradient where singular values are equal"):
        explain(torch.rand(2, 3, 8, 8))


# Identities behind average pooling and a linear layer.


def shapley_weights(model, maps, target):
    """Return Shapley-CAM's weights: the mean over the grid of g - H A / 2 (arXiv:2501.06261)."""

    def score(values):
        return model(values)[:, target].sum()

    gradient = torch.func.grad(score)(maps)
    curved = torch.autograd.functional.hvp(score, maps, maps)[1]
    return (gradient - curved / 2).mean(dim=(2, 3)), curved


def test_behind_pooling_and_a_linear_layer_the_cams_are_one():
    model, layer = headed("modules")
    images = torch.randn(3, 3, 8, 8)
    grad_cam = camlens.GradCAM(model, layer)(images, targets="all").raw
    for other in (camlens.HiResCAM, camlens.CAM):
        raw = other(model, layer)(images, targets="all").raw
        assert_close(raw * (1 / 36 if other is camlens.CAM else 1), grad_cam)
    with torch.no_grad():
        maps, scores = model[:2](images), model(images)
    for k in range(4):
        weights, curved = shapley_weights(model[2:], maps, k)
        assert not curved.any()  # so that Shapley-CAM has Grad-CAM's weights
        assert_close(torch.einsum("nc,nchw->nhw", weights, maps).relu(), grad_cam[:, k])
        # Ablation-CAM: w_kc times the channel's mean, over the score.
        falls = model[-1].weight[k] * maps.mean(dim=(2, 3)) / scores[:, k, None].abs()
        ablated = camlens.AblationCAM(model, layer)(images, targets=k).raw[:, 0]
        assert_close(torch.einsum("nc,nchw->nhw", falls, maps).relu(), ablated)


def test_with_a_score_that_is_not_linear_shapley_cam_is_another_map():
    """The identity is of the head, not of the method: with ReST as the target it does not hold."""
    model, _ = headed("modules")
    images = torch.randn(2, 3, 8, 8)
    rest = nn.Sequential(*model[2:])
    with torch.no_grad():
        maps = model[:2](images)

    def score(values):
        return camlens.targets.rest(0)(rest(values)).sum()

    _, curved = torch.autograd.functional.hvp(score, maps, maps)
    assert curved.abs().max() > 0
