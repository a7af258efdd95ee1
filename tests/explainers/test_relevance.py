"""LRP and AttnLRP as explainers: conservation, other implementations, targets, what is refused."""

import copy

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import camlens

from ..nets import Small, flops, real, small_vit
from ..test_guarantees import assert_same, state_of

BOX = {"composite": "epsilon_gamma_box", "low": -4.0, "high": 4.0}
PRESETS = [{}, BOX]


def unbiased(model, seed=0):
    """Take all biases away, and what BatchNorm shifts by; scales are drawn."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name and "relative" not in name:
                nn.init.zeros_(parameter)
    return model.eval()


def pictures(n, size, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed)).clip(-4, 4)


# A tiny independent implementation, for a sequential network: relevance by layers, divided as in
# the papers.


def reference(model, image, target, low=None, high=None):
    """Share out a score layer by layer, by the gradient of each layer alone."""
    values = [image]
    for layer in model:
        values.append(layer(values[-1]))
    relevance = torch.zeros_like(values[-1])
    relevance[:, target] = values[-1][:, target]
    for layer, a in zip(reversed(model), reversed(values[:-1]), strict=True):
        if isinstance(layer, nn.Conv2d) and low is not None:
            first = a is image
            relevance = (
                z_box(layer, a, relevance, low, high) if first else gammas(layer, a, relevance)
            )
        elif isinstance(layer, nn.Conv2d):
            relevance = halves(layer, a, relevance)
        elif isinstance(layer, nn.ReLU):
            continue
        elif isinstance(layer, nn.MaxPool2d):
            relevance = of_gradient(layer, a, relevance)
        else:
            relevance = of_gradient(layer, a, relevance / stable(layer(a))) * a
    return relevance


def stable(z):
    return z + 1e-6 * ((z >= 0) * 2.0 - 1)


def of_gradient(function, a, values):
    leaf = a.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(function(leaf), leaf, values.detach())[0]


def like(layer, change, bias):
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.copy_(change(layer.weight))
        other.bias.copy_(bias)
    return other


def halves(layer, a, relevance):
    up = like(layer, lambda w: w.clamp(min=0), layer.bias.clamp(min=0))
    down = like(layer, lambda w: w.clamp(max=0), layer.bias * 0)
    return by_parts([(up, a.clamp(min=0)), (down, a.clamp(max=0))], relevance)


def by_parts(parts, relevance):
    s = relevance / stable(sum(layer(a) for layer, a in parts))
    return sum(a * of_gradient(layer, a, s) for layer, a in parts)


def gammas(layer, a, relevance, gamma=0.25):
    z, plus, minus = layer(a), a.clamp(min=0), a.clamp(max=0)
    b = layer.bias
    more = like(layer, lambda w: w + gamma * w.clamp(min=0), b + gamma * b.clamp(min=0))
    less = like(layer, lambda w: w + gamma * w.clamp(max=0), b + gamma * b.clamp(max=0))
    more_0 = like(layer, lambda w: w + gamma * w.clamp(min=0), b * 0)
    less_0 = like(layer, lambda w: w + gamma * w.clamp(max=0), b * 0)
    above = by_parts([(more, plus), (less_0, minus)], relevance * (z > 0))
    return above + by_parts([(less, plus), (more_0, minus)], relevance * (z < 0))


def z_box(layer, a, relevance, low, high):
    w = layer.weight
    parts = [
        (like(layer, lambda w: w, layer.bias * 0), a),
        (like(layer, lambda w: -w.clamp(min=0), layer.bias * 0), torch.full_like(a, low)),
        (like(layer, lambda w: -w.clamp(max=0), layer.bias * 0), torch.full_like(a, high)),
    ]
    assert w.requires_grad
    return by_parts(parts, relevance)


@pytest.mark.parametrize("options", PRESETS, ids=["plus", "box"])
def test_a_sequential_network_is_shared_out_layer_by_layer(options):
    torch.manual_seed(4)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 5, 3, stride=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4)),
    ).double().eval()  # fmt: skip
    images = pictures(2, 20).double()
    found = camlens.LRP(model, **options)(images, targets="all")
    for target in range(4):
        with torch.no_grad():
            expected = reference(
                model, images, target, options.get("low"), options.get("high")
            ).float()
        assert expected.abs().max() > 0
        assert_close(found.gradients[:, target], expected, rtol=1e-4, atol=1e-7)
    assert_close(found.raw, found.gradients.sum(2).relu())
    gap = (found.scores - found.gradients.sum((2, 3, 4))).abs()
    assert_close(found.measures["conservation_gap"], gap, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", PRESETS, ids=["plus", "box"])
@pytest.mark.parametrize("name", ["resnet18", "alexnet", "densenet121", "googlenet"])
def test_without_biases_all_of_the_score_arrives(name, options):
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model, _ = real(name, **more)
    model = unbiased(model).double()
    images = pictures(2, 64).double()
    found = camlens.LRP(model, **options)(images, targets=[[1, 7]])
    assert (found.measures["conservation_gap"] < 1e-3 * found.scores.abs() + 1e-5).all()
    assert (found.gradients.abs().sum((2, 3, 4)) > 0).all()


@pytest.mark.parametrize("explainer", [camlens.LRP, camlens.AttnLRP])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_and_volumes(explainer, axes):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    largest = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
    torch.manual_seed(0)
    model = nn.Sequential(
        *(convolution(2, 4, 3, bias=False), nn.ReLU(), largest(2), mean(2)),
        *(nn.Flatten(), nn.Linear(4 * 2**axes, 3, bias=False)),
    ).double().eval()  # fmt: skip
    images = torch.randn(2, 2, *[10] * axes, dtype=torch.float64)
    found = explainer(model)(images, targets="all")
    assert found.raw.shape == (2, 3, *[10] * axes)
    assert (found.measures["conservation_gap"] < 1e-4).all()


@pytest.mark.slow
def test_networks_with_gates_are_refused():
    for name in ("mobilenet_v3_small", "efficientnet_b0"):
        with pytest.raises(ValueError, match=r"LRP has no rule for .*IntegratedGradients"):
            camlens.LRP(real(name)[0])(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"no rule for native_layer_norm.*AttnLRP"):
        camlens.LRP(real("convnext_tiny")[0])(torch.rand(1, 3, 64, 64))


def test_an_unusual_gate_has_no_rule_in_a_transformer_either():
    with pytest.raises(ValueError, match=r"AttnLRP has no rule for hardsigmoid.*IntegratedGradie"):
        camlens.AttnLRP(real("mobilenet_v3_small")[0])(torch.rand(1, 3, 64, 64))


class Checkpointed(nn.Module):
    """A layer and its ReLU that are recomputed; all tensors that are saved have the same shape."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.head, self.recompute = nn.Linear(3, 2), False

    def inner(self, x):
        return self.body(x).relu()

    def forward(self, x):
        x = self.stem(x)
        x = checkpoint(self.inner, x, use_reentrant=False) if self.recompute else self.inner(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("explainer", [camlens.LRP, camlens.AttnLRP])
def test_what_is_recomputed_without_rules_is_refused(explainer):
    """torch's own check compares shapes, which here are alike."""
    model, images = Checkpointed().eval(), pictures(2, 8)
    expected = explainer(model)(images)
    model.recompute = True
    with pytest.raises(ValueError, match=r"within torch\.utils\.checkpoint.*switch gradient"):
        explainer(model)(images)
    model.recompute = False
    assert_close(explainer(model)(images).raw, expected.raw)


def test_a_target_that_is_not_linear_is_refused():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="LRP has no rule for softmax"):
        camlens.LRP(model)(images, targets=lambda out: out.softmax(1)[:, 0])
    whole = camlens.LRP(model)(images, targets="all").gradients
    contrast = camlens.LRP(model)(images, targets=lambda out: out[:, 1] - 2 * out[:, 3])
    assert_close(contrast.gradients[:, 0], whole[:, 1] - 2 * whole[:, 3])


def test_batch_norm_is_that_of_the_merged_network():
    model = unbiased(Small())
    for norm in (model.norm1, model.norm2):
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    merged = copy.deepcopy(model)
    for name, norm in (("conv1", "norm1"), ("conv2", "norm2")):
        layer = nn.utils.fuse_conv_bn_eval(getattr(model, name), getattr(model, norm))
        setattr(merged, name, layer)
        setattr(merged, norm, nn.Identity().eval())
    images = pictures(2, 8)
    for options in PRESETS:
        expected = camlens.LRP(merged, **options)(images, targets="all").gradients
        actual = camlens.LRP(model, **options)(images, targets="all").gradients
        assert_close(actual, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"composite": "flat"}, ValueError, "expected composite"),
        ({"composite": 3}, TypeError, "an object with a context"),
        ({"composite": "epsilon_gamma_box"}, ValueError, "needs low and high"),
        ({"low": 0.0}, ValueError, "options of composite=.epsilon_gamma_box. only"),
        ({"epsilon": -1.0}, ValueError, "epsilon as a number of at least 0"),
        ({"gamma": float("inf")}, ValueError, "gamma as a number of at least 0"),
    ],
)
def test_options(options, error, text):
    with pytest.raises(error, match=text):
        camlens.LRP(Small().eval(), **options)


def test_bounds_that_do_not_fit():
    model, images = Small().eval(), torch.rand(1, 3, 8, 8)
    for low, high in ((0.0, 0.5), (1.0, 0.0), (0.5, 1.0)):
        with pytest.raises(ValueError, match="some values are outside"):
            camlens.LRP(model, "epsilon_gamma_box", low=low, high=high)(images)
    with pytest.raises(ValueError, match="broadcast to an image"):
        camlens.LRP(model, "epsilon_gamma_box", low=torch.zeros(2), high=1.0)(images)
    each = camlens.LRP(
        model, "epsilon_gamma_box", low=torch.zeros(3, 1, 1), high=torch.ones(1, 3, 1, 1)
    )
    plain = camlens.LRP(model, "epsilon_gamma_box", low=0.0, high=1.0)
    assert_close(each(images).raw, plain(images).raw)


class Doubling:
    """What a composite of zennit's does, without its rules: hooks, and changed weights."""

    def __init__(self):
        self.module, self.before, self.handle = None, None, None

    def context(self, module):
        self.module = module
        return self

    def __enter__(self):
        self.before = self.module.head.weight.data
        self.module.head.weight.data = 2 * self.before
        self.handle = self.module.head.register_forward_hook(lambda m, a, out: 2 * out)

    def __exit__(self, *error):
        self.remove()

    def remove(self):
        if self.handle is not None:
            self.module.head.weight.data = self.before
            self.handle.remove()
            self.handle = None


@pytest.mark.parametrize("fail", [None, RuntimeError("within"), KeyboardInterrupt()])
def test_a_composite_is_applied_and_taken_away(fail):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    before = state_of(model)
    composite = Doubling()
    if fail is None:
        found = camlens.LRP(model, composite)(images, targets=[[1, 2]])
        plain = camlens.Saliency(model)(images, targets=[[1, 2]])
        with torch.no_grad():
            scores = 4 * (model(images) - model.head.bias / 2)[:, [1, 2]]
        assert_close(found.scores, scores)
        expected = 4 * plain.gradients * scores[..., None, None, None]
        assert_close(found.gradients, expected)
    else:

        def target(out):
            raise fail

        with pytest.raises(type(fail)):
            camlens.LRP(model, composite)(images, targets=target)
    assert_same(before, state_of(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "once", "each"),
    [("vgg11", {}, 2, 1), ("resnet18", {}, 2, 1), ("resnet18", BOX, 2, 2)],
)
def test_a_forward_pass_counts_twice_and_rules_once_or_twice(name, options, once, each):
    model, images = real(name, 64)

    with torch.no_grad():
        bare = flops(lambda: model(images))
    explain = camlens.LRP(model, **options)
    assert flops(lambda: explain(images)) / bare == pytest.approx(once + each, abs=0.2)
    seven = flops(lambda: explain(images, targets=[list(range(7))]))
    assert seven / bare == pytest.approx(once + 7 * each, abs=0.6)


# Transformers.


def without_constants(model, seed=0):
    """A transformer without biases, embeddings and class tokens, whose head is drawn."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        bias = name.endswith(("bias", "relative_position_bias_table"))
        if bias or any(w in name for w in ("pos_emb", "position_emb", "reg_token", "mask_token")):
            nn.init.zeros_(parameter)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.1)
        if any(
            word in name for word in ("cls_token", "class_token", "class_embedding", "dist_token")
        ):
            nn.init.zeros_(parameter)
    return model.double().eval()


def timm_model(name, **options):
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **options)


def hf_vit():
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=5, initializer_range=0.2,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


class ClipVision(nn.Module):
    """CLIP's image tower, whose GELU is x times the sigmoid of 1.702 x."""

    def __init__(self):
        super().__init__()
        config = transformers.CLIPVisionConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            image_size=32, patch_size=8, projection_dim=5, hidden_act="quick_gelu",
            initializer_factor=10.0,
        )  # fmt: skip
        self.tower = transformers.CLIPVisionModelWithProjection(config)

    def forward(self, images):
        return self.tower(images).image_embeds


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TRANSFORMERS = {
    "torchvision ViT": (lambda: small_vit(32), 32),
    "timm ViT": (timm_model("vit_tiny_patch16_224", **SMALL), 32),
    "timm DeiT": (timm_model("deit_tiny_distilled_patch16_224", **SMALL), 32),
    "timm ViT, pooled by attention": (timm_model("vit_base_patch16_siglip_224", **SMALL), 32),
    "timm EVA-02": (timm_model("eva02_tiny_patch14_224", **SMALL), 32),
    "timm Swin": (
        timm_model(
            "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16,
            depths=(2, 2), num_heads=(2, 2),
        ),
        32,
    ),
    "torchvision Swin": (
        lambda: torchvision.models.SwinTransformer(
            [4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=5, stochastic_depth_prob=0.0
        ),
        32,
    ),
    "Hugging Face ViT": (hf_vit, 32),
    "Hugging Face CLIP vision": (ClipVision, 32),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_with_constant_attention_all_of_the_score_arrives(name):
    make, size = TRANSFORMERS[name]
    model = without_constants(make())
    images = pictures(2, size).double()
    for gamma in (0.0, (0.25, 0.1)):
        explain = camlens.AttnLRP(model, attention="values", gamma=gamma)
        found = explain(images, targets=[[1, 3]])
        gap = found.measures["conservation_gap"]
        assert (gap < 1e-3 * found.scores.abs() + 1e-6).all(), gap
        assert (found.gradients.abs().sum((2, 3, 4)) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_score_is_that_of_the_model_and_the_softmax_matters(name):
    make, size = TRANSFORMERS[name]
    model = without_constants(make())
    images = pictures(2, size).double()
    with torch.no_grad():
        outputs = model(images)
    scores = getattr(outputs, "logits", outputs)
    full = camlens.AttnLRP(model)(images, targets="all")
    values = camlens.AttnLRP(model, attention="values")(images, targets="all")
    assert_close(full.scores, scores.float(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(full.gradients, values.gradients, rtol=0.01)
    for k in (0, 4):
        alone = camlens.AttnLRP(model)(images[1:], targets=k)
        assert_close(alone.gradients[0, 0], full.gradients[1, k], rtol=1e-4, atol=1e-8)


def test_what_the_softmax_absorbs_is_the_gap():
    """One block: the gap is what each softmax and each norm's constants do not pass on."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 6, bias=False) for _ in range(3))
            self.head = nn.Linear(6, 3, bias=False)

        def forward(self, x):
            x = x.flatten(2).mT
            out = nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
            return self.head(out.mean(1))

    model = Block().double().eval()
    images = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    found = camlens.AttnLRP(model)(images, targets=1)
    with torch.no_grad():
        x = images.flatten(2).mT
        logits = model.q(x) @ model.k(x).mT / 6**0.5
        p, v = logits.softmax(-1), model.v(x)
        by_p = (model.head.weight[1] / 9) @ v.mT / 2  # the gradient by p, halved
        by_p = by_p.unsqueeze(1).expand_as(p)
        r_p = p * by_p
        r_logits = logits * (r_p - p * r_p.sum(-1, keepdim=True))
        absorbed = (r_p - r_logits).sum((1, 2))
    assert_close(found.measures["conservation_gap"][:, 0], absorbed.abs().float())


def test_options_of_attention():
    model = small_vit(32)
    with pytest.raises(ValueError, match='expected attention "softmax" or "values"'):
        camlens.AttnLRP(model, attention="none")
    with pytest.raises(ValueError, match="gamma as a number or a pair"):
        camlens.AttnLRP(model, gamma=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="gamma as a number of at least 0"):
        camlens.AttnLRP(model, gamma=-1.0)
    with pytest.raises(ValueError, match="AttnLRP has no rule for sigmoid"):
        camlens.AttnLRP(real("efficientnet_b0")[0])(torch.rand(1, 3, 64, 64))
