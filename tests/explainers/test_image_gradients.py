"""Gradients by the image: right values by hand, and guided Grad-CAM as the product of its parts."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.methods import gradient as rules

from ..nets import SPELLINGS, Convolutions, Linear1x1, Small
from ..probe.test_captures import Gated, Reused

RULES = {
    camlens.Saliency: rules.plain_rule,
    camlens.Deconvnet: rules.deconvnet_rule,
    camlens.GuidedBackprop: rules.guided_rule,
}


@pytest.mark.parametrize("explainer", RULES)
@pytest.mark.parametrize("relu", ["inplace", "functional"])
def test_image_gradients_by_hand(explainer, relu):
    """One 1x1 convolution and one ReLU: gradient = rule(W_head / hw, active) times W_conv."""
    conv, head = torch.randn(4, 3), torch.randn(2, 4)
    model = Linear1x1(conv, head)
    del model.relu
    model.relu = nn.ReLU(inplace=True) if relu == "inplace" else nn.functional.relu
    model.eval()
    images = torch.randn(2, 3, 3, 3)
    explanation = explainer(model)(images, targets="all")
    hidden = torch.einsum("oc,nchw->nohw", conv, images)
    for k in range(2):
        arriving = (head[k] / 9).view(1, 4, 1, 1).expand_as(hidden)
        expected = torch.einsum("oc,nohw->nchw", conv, RULES[explainer](arriving, hidden.relu()))
        assert_close(explanation.gradients[:, k], expected)
        assert_close(explanation.raw[:, k], expected.abs().amax(1))
    assert explanation.grid == explanation.size == (3, 3)
    assert explanation.layers == ()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saliency_of_signals_images_and_volumes(axes, n, dtype):
    model = Convolutions(axes).eval().to(dtype)
    images = torch.randn(n, 2, *([8] * axes), dtype=dtype)
    explanation = camlens.Saliency(model)(images, targets="all")
    leaf = images.clone().requires_grad_()
    scores = model(leaf)
    for k in range(3):
        expected = torch.autograd.grad(scores[:, k].sum(), leaf, retain_graph=True)[0].float()
        assert_close(explanation.gradients[:, k], expected)
        assert_close(explanation.raw[:, k], expected.abs().amax(1))
    assert explanation.raw.dtype == explanation.gradients.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("layer", ["conv1", "norm1", "conv2"])
def test_guided_grad_cam_is_the_product_of_its_parts(spelling, n, layer):
    model, images = Small(spelling).eval(), torch.rand(n, 3, 8, 8)
    both = camlens.GuidedGradCAM(model, layer)(images, targets="all")
    guided = camlens.GuidedBackprop(model)(images, targets="all")
    heat = camlens.GradCAM(model, layer)(images, targets="all")
    expected = guided.gradients * heat.heatmaps.unsqueeze(2)
    assert expected.any()
    assert_close(both.gradients, expected)
    assert_close(both.raw, expected.abs().amax(2))
    assert both.grid == heat.grid  # it is as fine as its Grad-CAM


@pytest.mark.slow
@pytest.mark.parametrize("network", [Reused, Gated])
@pytest.mark.parametrize("layer", ["drop", "conv", "stem"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("targets", [1, "all"])
def test_guided_grad_cam_of_a_layer_whose_tensor_has_other_uses(network, layer, n, targets):
    model, images = network().eval(), torch.randn(n, 3, 8, 8)
    both = camlens.GuidedGradCAM(model, layer)(images, targets=targets).gradients
    guided = camlens.GuidedBackprop(model)(images, targets=targets).gradients
    heat = camlens.GradCAM(model, layer)(images, targets=targets).heatmaps
    assert (guided * heat.unsqueeze(2)).any()
    assert_close(both, guided * heat.unsqueeze(2))


def test_guided_grad_cam_of_several_layers():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    both = camlens.GuidedGradCAM(model, ["conv1", "conv2"])(images, targets="all")
    guided = camlens.GuidedBackprop(model)(images, targets="all")
    heat = camlens.GradCAM(model, ["conv1", "conv2"])(images, targets="all")
    assert_close(both.gradients, guided.gradients * heat.heatmaps.unsqueeze(2))


def test_float64_gradients_beyond_float32():
    class Steep(nn.Module):
        def forward(self, x):
            return (x * 1e300).mean((1, 2, 3))[:, None]

    images = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 1e-300
    with pytest.raises(ValueError, match="exceed the range of float32"):
        camlens.Saliency(Steep().eval())(images)
    explanation = camlens.Saliency(Steep().eval())(images, targets=lambda out: out[:, 0] * 1e-300)
    assert_close(explanation.gradients, torch.full((2, 1, 3, 4, 4), 1 / 48))


@pytest.mark.parametrize("explainer", [camlens.GuidedBackprop, camlens.Deconvnet])
def test_a_loss_on_the_outputs_has_plain_gradients(explainer):
    """With create_graph the rule holds for the maps alone, not for the user's backward pass."""
    model, images = Small().eval(), torch.rand(4, 3, 8, 8)
    labels, weight = torch.tensor([0, 1, 2, 0]), model.conv1.weight
    loss = nn.functional.cross_entropy
    (expected,) = torch.autograd.grad(loss(model(images), labels), weight)
    outputs = explainer(model, create_graph=True)(images, targets=labels).outputs
    (found,) = torch.autograd.grad(loss(outputs, labels), weight)
    assert_close(found, expected)
