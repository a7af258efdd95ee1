"""The explainers: right maps on networks whose maps are known, and on real ones."""

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import camlens
from camlens import explain, heatmap, layers
from camlens.methods import cam
from camlens.methods import gradient as rules

from .nets import Linear1x1, Small, autograd_cam
from .test_layers import real

CAMS = [
    camlens.GradCAM,
    camlens.GradCAMPlusPlus,
    camlens.HiResCAM,
    camlens.LayerCAM,
    camlens.XGradCAM,
    camlens.EigenCAM,
]
INPUT_FAMILY = [camlens.InputGradient, camlens.Deconvnet, camlens.GuidedBackprop]
ALL = [*CAMS, *INPUT_FAMILY, camlens.GuidedGradCAM]


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
    explanation = camlens.GradCAM(model, layer)(images, targets=[[0, 3]] * 3)
    for k, target in enumerate((0, 3)):
        expected = autograd_cam(model, getattr(model, layer), images, target)
        assert_close(explanation.raw[:, k], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("explainer", [c for c in CAMS if c is not camlens.EigenCAM])
def test_each_class_runs_its_function(explainer):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    activations = model.act(model.norm2(model.conv2(model.act(model.norm1(model.conv1(images))))))
    scores = model.head(activations.mean((-2, -1)))
    grads = [
        torch.autograd.grad(scores[:, k].sum(), activations, retain_graph=True)[0] for k in (1, 4)
    ]
    expected = explainer.method(activations.detach(), torch.stack(grads, dim=1))
    explanation = explainer(model, "act")(images, targets=[[1, 4]] * 2)
    assert expected.amax() > 0
    assert_close(explanation.raw, expected)
    assert explanation.method == explainer.__name__


def test_eigen_cam_needs_no_gradient_and_knows_no_class():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    explanation = camlens.EigenCAM(model, "act")(images, targets="all")
    with torch.no_grad():
        x = model.act(model.norm1(model.conv1(images)))
        expected = cam.eigen_cam(model.act(model.norm2(model.conv2(x))))
    assert_close(explanation.raw, expected.expand(-1, 5, -1, -1))


def test_vggs_in_place_relu_does_not_spoil_the_map():
    """The trap of most libraries: features.34 is changed by features.35 after it was captured."""
    model, _ = real("vgg19", 64)
    images = torch.rand(2, 3, 64, 64)
    explanation = camlens.GradCAM(model, "features.34")(images, targets=7)
    with torch.no_grad():
        assert model.features[:35](images).min() < 0
    expected = autograd_cam(model, model.features[34], images, 7)
    assert expected.amax() > 0
    assert_close(explanation.raw[:, 0], expected, rtol=1e-3, atol=expected.amax().item() * 1e-5)


@pytest.mark.parametrize(
    ("name", "layer", "size", "layout"),
    [
        ("swin_t", "norm", 64, lambda t: t.permute(0, 3, 1, 2)),
        ("convnext_tiny", "features.7.0.block.2", 96, lambda t: t.permute(0, 3, 1, 2)),
        (
            "vit_b_32",
            "encoder.layers.encoder_layer_11.ln_1",
            224,
            lambda t: t[:, 1:].transpose(1, 2).reshape(-1, 768, 7, 7),
        ),
    ],
)
def test_channels_last_and_tokens_of_real_networks(name, layer, size, layout):
    model, images = real(name, size)
    explanation = camlens.HiResCAM(model, layer)(images, targets=[[3, 5]])
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.append(out))
    scores = model(images)
    handle.remove()
    for k, target in enumerate((3, 5)):
        gradient = torch.autograd.grad(scores[0, target], kept[0], retain_graph=True)[0]
        expected = layout(kept[0] * gradient).sum(1).relu()
        assert expected.amax() > 0
        assert_close(explanation.raw[:, k], expected.detach(), rtol=1e-3, atol=1e-6)


def test_the_layout_can_be_given():
    model, images = real("vit_b_32", 224)
    layer = "encoder.layers.encoder_layer_11.ln_1"
    inferred = camlens.GradCAM(model, layer)(images)
    given = camlens.GradCAM(model, layer, layout=layers.tokens(1, (7, 7)))(images)
    assert_close(given.raw, inferred.raw)
    with pytest.raises(ValueError, match="does not fit its output"):
        camlens.GradCAM(model, layer, layout=layers.tokens(1, (6, 6)))(images)


def test_several_layers_fuse():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    fused = camlens.GradCAM(model, ["conv1", model.conv2])(images, targets=[[0, 1]] * 2)
    each = [
        camlens.GradCAM(model, name)(images, targets=[[0, 1]] * 2).raw
        for name in ("conv1", "conv2")
    ]
    expected = (heatmap.scale(each[0]) + heatmap.resize(heatmap.scale(each[1]), (8, 8))) / 2
    assert_close(fused.raw, expected)
    assert (fused.layers, fused.grid) == (("conv1", "conv2"), (8, 8))


def test_no_layer_means_the_last_spatial_one_found_once(monkeypatch):
    calls = []
    found = layers.last_layer
    monkeypatch.setattr(layers, "last_layer", lambda *a, **k: calls.append(a) or found(*a, **k))
    explainer = camlens.GradCAM(Small().eval())
    images = torch.rand(4, 3, 8, 8)
    assert explainer(images).layers == explainer(images).layers == ("act",)
    assert [len(call[1]) for call in calls] == [1]  # one dry run, with one image


def test_a_target_layer_used_twice_counts_at_its_last_run():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    assert_close(camlens.GradCAM(model, "act")(images).raw.shape[-2:], torch.Size((4, 4)))


@pytest.mark.parametrize(
    ("explainer", "rule"),
    [
        (camlens.InputGradient, rules.plain_rule),
        (camlens.Deconvnet, rules.deconvnet_rule),
        (camlens.GuidedBackprop, rules.guided_rule),
    ],
)
@pytest.mark.parametrize("relu", ["inplace", "functional"])
def test_input_gradients_by_hand(explainer, rule, relu):
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
        expected = torch.einsum("oc,nohw->nchw", conv, rule(arriving, hidden.relu()))
        assert_close(explanation.gradients[:, k], expected)
        assert_close(explanation.raw[:, k], expected.abs().amax(1))
    assert explanation.grid == explanation.size == (3, 3)
    assert explanation.layers == ()


def test_guided_grad_cam_is_the_product_of_its_parts():
    model, images = Small("inplace").eval(), torch.rand(2, 3, 8, 8)
    both = camlens.GuidedGradCAM(model, "conv2")(images, targets=[[0, 4]] * 2)
    guided = camlens.GuidedBackprop(model)(images, targets=[[0, 4]] * 2)
    heat = camlens.GradCAM(model, "conv2")(images, targets=[[0, 4]] * 2)
    expected = guided.gradients * heat.heatmaps.unsqueeze(2)
    assert expected.any()
    assert_close(both.gradients, expected)
    assert both.grid == (4, 4)  # it is as fine as its Grad-CAM


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


@pytest.mark.parametrize("explainer", ALL)
def test_targets_in_chunks_are_targets_at_once(explainer, monkeypatch):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    at_once = explainer(model)(images, targets="all")
    monkeypatch.setattr(explain, "CHUNK_BYTES", 1)
    in_chunks = explainer(model)(images, targets="all")
    assert_close(in_chunks.raw, at_once.raw)


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
    assert explanation.evidence.all()
    assert explanation.grid == (4, 4)


def test_an_embedding_is_explained_by_its_likeness_to_another():
    model, images = Small().eval(), torch.rand(3, 3, 8, 8)
    reference = torch.randn(5)
    explanation = camlens.GradCAM(model, "conv2")(
        images, targets=lambda out: nn.functional.cosine_similarity(out, reference[None])
    )
    likeness = nn.functional.cosine_similarity(model(images), reference[None])
    assert_close(explanation.scores[:, 0], likeness.detach())


def test_several_inputs_and_keyword_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, images, offset, *, factor):
            return (self.net(images) + offset) * factor

    model, images = Two().eval(), torch.rand(2, 3, 8, 8)
    offset, factor = torch.randn(5), torch.tensor(2.0)
    explanation = camlens.GradCAM(model)(images, offset, factor=factor, targets=1)
    plain = camlens.GradCAM(model.net)(images, targets=1)
    assert explanation.layers == ("net.act",)
    assert_close(explanation.raw, plain.raw * 2)
    assert_close(explanation.scores, (plain.scores + offset[1]) * 2)


def test_a_backbone_that_the_model_runs_under_no_grad():
    class FrozenBackbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            net = self.net
            with torch.no_grad():
                x = net.act(net.norm2(net.conv2(net.act(net.norm1(net.conv1(x))))))
            return net.head(x.mean((-2, -1)))

    model, images = FrozenBackbone().eval(), torch.rand(2, 3, 8, 8)
    expected = camlens.GradCAM(model.net, "conv2")(images, targets=[[0, 1]] * 2)
    assert expected.evidence.any()
    assert camlens.GradCAM(model)(images).layers == ("net.act",)
    assert_close(
        camlens.GradCAM(model, "net.conv2")(images, targets=[[0, 1]] * 2).raw, expected.raw
    )
    both = camlens.GradCAM(model, ["net.conv1", "net.conv2"])(images)
    assert_close(both.raw, camlens.GradCAM(model.net, ["conv1", "conv2"])(images).raw)


def test_a_tap_behind_a_no_grad_block_does_not_hide_that_one_lies_inside():
    class HeadWithMap(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.top = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            with torch.no_grad():
                x = self.body(x).relu()
            return self.top(x).mean((-2, -1))

    model, images = HeadWithMap().eval(), torch.rand(2, 3, 8, 8)
    fused = camlens.GradCAM(model, ["body", "top"])(images, targets=1)
    each = [camlens.GradCAM(model, name)(images, targets=1).raw for name in ("body", "top")]
    assert each[0].any()
    assert_close(fused.raw, heatmap.fuse(each))


def test_attention_weights_are_not_taken_for_a_map():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.softmax = nn.Conv2d(3, 8, 2, stride=2), nn.Softmax(dim=-1)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)  # (N, 16, 8)
            return (self.softmax(x @ x.transpose(1, 2)) @ x).mean(1)

    assert camlens.GradCAM(Attention().eval())(torch.rand(2, 3, 8, 8)).layers == ("embed",)
