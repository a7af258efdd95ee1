"""What all explainers share: how they are called, what they return, and maps to train with."""

import collections
import dataclasses
import types
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import camlens
from camlens import layouts
from camlens.methods import cam
from camlens.probe import Probe, passes

from ..families import ALL, EVERY, LAYER_ATTRIBUTIONS, WITHOUT_GRAPH, made
from ..nets import Convolutions, Linear1x1, Small, small_vit


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: camlens.GradCAM(Small().eval(), "conv2"),
            "GradCAM(Small, create_graph=False, fuse='mean', layers=('conv2',), layout=None, "
            "registration='stretched')",
        ),
        (
            lambda: camlens.CAM(
                Small().eval(), ["conv1", "act"], layout=layouts.nhwc, create_graph=True
            ),
            "CAM(Small, create_graph=True, fuse='mean', layers=('conv1', 'act'), layout=nhwc, "
            "registration='stretched')",
        ),
        (lambda: camlens.Saliency(Small().eval()), "Saliency(Small, create_graph=False)"),
        (
            lambda: camlens.EigenCAM(nn.DataParallel(Small().eval())),
            "EigenCAM(Small, create_graph=False, fuse='mean', layers=None, layout=None, "
            "registration='stretched')",
        ),
    ],
)
def test_the_repr_names_method_model_layers_and_options(make, expected):
    assert repr(make()) == expected


def test_the_repr_of_a_method_of_ones_own():
    class Ones(camlens.Explainer):
        def __init__(self, model, *, value):
            super().__init__(model)
            self.value, self._cache = value, {}

        def attribute(self, probe):
            return camlens.Attribution(raw=torch.full((len(probe.images), 1, 2, 2), self.value))

    explain = Ones(Small().eval(), value=3.0)
    assert repr(explain) == "Ones(Small, create_graph=False, value=3.0)"
    explanation = explain(torch.rand(2, 3, 8, 8))
    assert explanation.raw.unique().item() == 3
    assert (explanation.method, explanation.grid, explanation.layers) == ("Ones", (2, 2), ())


@pytest.mark.parametrize(
    "family",
    [
        camlens.Explainer,
        camlens.LayerExplainer,
        camlens.LayerAttribution,
        camlens.GradientAttribution,
    ],
)
def test_a_family_is_no_method(family):
    with pytest.raises(TypeError, match="abstract"):
        family(Small().eval())


@pytest.mark.slow
@pytest.mark.parametrize("explainer", EVERY)
def test_every_form_of_targets(explainer):
    model, images = Small().eval(), torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        logits = model(images)
    every = made(explainer, model)(images, targets="all").raw
    for targets in (None, 2, [[3, 1]], camlens.targets.top(3), "all"):
        explanation = made(explainer, model)(images, targets=targets)
        expected = camlens.targets.select(logits, targets)
        assert explanation.targets.tolist() == expected.classes.tolist(), targets
        assert_close(explanation.scores, expected.scores)
        assert_close(explanation.outputs, logits)
        index = expected.classes[:, :, None, None].expand(-1, -1, *every.shape[2:])
        assert_close(explanation.raw, every.gather(1, index), rtol=1e-4, atol=1e-6)
        assert not explanation.raw.requires_grad
        assert not explanation.outputs.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ALL)
def test_targets_in_chunks_are_targets_at_once(explainer, monkeypatch):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    at_once = made(explainer, model)(images, targets="all")
    monkeypatch.setattr(passes, "CHUNK_BYTES", 1)
    in_chunks = made(explainer, model)(images, targets="all")
    assert_close(in_chunks.raw, at_once.raw)


def test_an_embedding_is_explained_by_its_likeness_to_another():
    model, images = Small().eval(), torch.rand(3, 3, 8, 8)
    reference = torch.randn(5)
    explanation = camlens.GradCAM(model, "conv2")(
        images, targets=lambda out: functional.cosine_similarity(out, reference[None])
    )
    likeness = functional.cosine_similarity(model(images), reference[None])
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
    explanation = camlens.GradCAM(model, "net.act")(images, offset, factor=factor, targets=1)
    plain = camlens.GradCAM(model.net, "act")(images, targets=1)
    assert_close(explanation.raw, plain.raw * 2)
    assert_close(explanation.scores, (plain.scores + offset[1]) * 2)


@dataclasses.dataclass(slots=True)
class Slotted:
    logits: torch.Tensor


class Plain:
    def __init__(self, logits):
        self.logits = logits


class Named(NamedTuple):
    logits: torch.Tensor


class ModelOutput(collections.OrderedDict):
    """As libraries of transformers write it: a mapping whose items are attributes too."""

    def __getattr__(self, name):
        return self[name]


KINDS = [Slotted, Plain, Named, types.SimpleNamespace, dict, ModelOutput]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, lambda logits: (logits, None), lambda logits: [logits]])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.EigenCAM, camlens.GuidedGradCAM])
@pytest.mark.parametrize("n", [1, 3])
def test_outputs_as_objects(kind, explainer, n):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return kind(logits=self.net(x))

    model, images = Wrapped().eval(), torch.rand(n, 3, 8, 8)
    expected = explainer(model.net, "conv2")(images, targets=[[1, 4]])
    explain = explainer(model, "net.conv2")
    explanation = explain(images, targets=[[1, 4]])
    assert_close(explanation.raw, expected.raw)
    assert_close(explanation.outputs, expected.outputs)

    def by_hand(out):
        if isinstance(out, (tuple, list)):
            return out[0][:, [1, 4]]
        return (out["logits"] if isinstance(out, dict) else out.logits)[:, [1, 4]]

    called = explain(images, targets=by_hand)
    assert_close(called.raw, expected.raw)
    assert_close(called.outputs, expected.outputs)


def test_outputs_that_hold_text_or_no_scores():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return {"first": self.net(x), "second": self.net(x) * 2, "name": "cat"}

    model, images = Named().eval(), torch.rand(2, 3, 8, 8)
    explain = camlens.GradCAM(model, "net.conv2")
    explanation = explain(images, targets=lambda out: out["second"][:, 0])
    assert_close(explanation.raw, camlens.GradCAM(model.net, "conv2")(images, targets=0).raw * 2)
    assert explanation.outputs is None
    with pytest.raises(TypeError, match=r"returned dict without exactly one .* callable"):
        explain(images)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.slow
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.EigenCAM, camlens.Saliency])
@pytest.mark.parametrize("factor", [1e300, -1e300, 1e42])
@pytest.mark.parametrize("targets", [None, 1, "all"])
def test_scores_beyond_float32(explainer, factor, targets):
    net = Convolutions().eval()
    model = nn.Sequential(collections.OrderedDict(net=net, times=Times(factor))).double().eval()
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    explain = made(explainer, model, "net.last")
    with pytest.raises(ValueError, match=r"exceed the range of float32.*out\[:, 3\] / 1e300"):
        explain(images, targets=targets)
    smaller = explain(images, targets=lambda out: out / factor)
    assert_close(smaller.raw, made(explainer, net, "last")(images, targets="all").raw)


@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.Saliency])
def test_maps_that_float32_would_round_to_zero(explainer):
    net = Convolutions().eval()
    model = nn.Sequential(collections.OrderedDict(net=net, times=Times(1e-60))).double().eval()
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    expected = made(explainer, net, "last")(images, targets="all")
    assert expected.evidence.any()
    explain = made(explainer, model, "net.last")
    with pytest.raises(ValueError, match="too small for float32"):
        explain(images, targets="all")
    assert_close(explain(images, targets=lambda out: out * 1e60).raw, expected.raw)


def test_no_layer_means_the_last_map_of_the_image():
    model, images = Small().eval(), torch.rand(4, 3, 8, 8)
    explain = camlens.GradCAM(model)
    assert explain(images).layers == explain(images).layers == ("act",)
    assert_close(explain(images).raw, camlens.GradCAM(model, "act")(images).raw)


def test_attention_weights_are_not_taken_for_a_map():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.softmax = nn.Conv2d(3, 8, 2, stride=2), nn.Softmax(dim=-1)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)  # (N, 16, 8)
            return (self.softmax(x @ x.transpose(1, 2)) @ x).mean(1)

    assert camlens.GradCAM(Attention().eval())(torch.rand(2, 3, 8, 8)).layers == ("embed",)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_layer_of_a_model_whose_output_is_an_object(kind):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return kind(logits=self.net(x))

    images = torch.rand(2, 3, 8, 8)
    assert camlens.GradCAM(Wrapped().eval())(images, targets=1).layers == ("net.act",)


def test_the_layout_can_be_given():
    model, images = small_vit(), torch.rand(2, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_1.ln_1"
    measured = camlens.GradCAM(model, layer)(images)
    given = camlens.GradCAM(model, layer, layout=layouts.tokens(1, (4, 4)))(images)
    assert_close(given.raw, measured.raw)
    with pytest.raises(ValueError, match="layout"):
        camlens.GradCAM(model, layer, layout=layouts.tokens(1, (3, 3)))(images)


@pytest.mark.parametrize("targets", [1, "all"])
def test_a_layout_may_do_what_vmap_cannot(targets):
    def by_value(tokens):
        return layouts.tokens(1 if tokens.isfinite().all().item() else 0, (4, 4))(tokens)

    model, images = small_vit(), torch.rand(2, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_0"
    measured = camlens.GradCAM(model, layer)(images, targets=targets)
    given = camlens.GradCAM(model, layer, layout=by_value)(images, targets=targets)
    assert_close(given.raw, measured.raw)


# Maps to train with.

DIFFERENTIABLE = [*LAYER_ATTRIBUTIONS, camlens.Saliency, camlens.GuidedBackprop, camlens.Deconvnet]


@pytest.mark.slow
@pytest.mark.parametrize("explainer", [e for e in EVERY if e not in WITHOUT_GRAPH])
@pytest.mark.parametrize("targets", [1, "all"])
@pytest.mark.parametrize("n", [1, 3])
def test_maps_with_a_graph_are_the_plain_maps(explainer, targets, n):
    model, images = Small().eval(), torch.rand(n, 3, 8, 8)
    plain = made(explainer, model)(images, targets=targets)
    graph = made(explainer, model, create_graph=True)(images, targets=targets)
    assert graph.raw.requires_grad
    assert graph.scores.requires_grad
    assert graph.outputs.requires_grad
    for name in ("raw", "scores", "outputs", "heatmaps"):
        assert_close(getattr(graph, name).detach(), getattr(plain, name))


def smooth():
    """A float64 network without kinks, whose second derivatives are everywhere defined."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Conv2d(3, 3, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(3 * 9, 2),
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize("explainer", [*LAYER_ATTRIBUTIONS, camlens.Saliency])
@pytest.mark.parametrize("targets", [0, "all"])
def test_derivatives_of_maps_by_parameters_are_finite_differences(explainer, targets):
    model, images = smooth(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    explain = made(explainer, model, "1", create_graph=True)

    def maps():
        return explain.attribute(Probe(model, images, targets=targets, create_graph=True)).raw

    raw = maps()  # float64, which an explanation is not
    assert_close(raw.float(), explain(images, targets=targets).raw)
    weights = torch.rand_like(raw)
    parameters = [model[0].weight, model[2].weight, model[5].weight]
    gradients = torch.autograd.grad((weights * raw).sum(), parameters, allow_unused=True)
    step = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
            values.append((weights * maps()).sum().item())
            with torch.no_grad():
                parameter.sub_(direction, alpha=sign * step)
        expected = (values[0] - values[1]) / (2 * step)
        if gradient is None:  # Eigen-CAM knows nothing of what is behind the layer
            assert expected == 0
        else:
            found = (gradient * direction).sum().item()
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("explainer", LAYER_ATTRIBUTIONS)
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_derivatives_of_maps_by_parameters_are_plain_autograds(explainer, layer):
    model, images = Small("functional").eval(), torch.rand(3, 3, 8, 8)
    raw = made(explainer, model, layer, create_graph=True)(images, targets="all").raw
    outputs = []
    hook = getattr(model, layer).register_forward_hook(lambda _, __, out: outputs.append(out))
    scores = model(images)
    hook.remove()
    gradients = [
        torch.autograd.grad(score, outputs[0], create_graph=True)[0] for score in scores.sum(0)
    ]
    functions = {
        camlens.GradCAM: cam.grad_cam,
        camlens.GradCAMPlusPlus: cam.grad_cam_plus_plus,
        camlens.HiResCAM: cam.hires_cam,
        camlens.LayerCAM: cam.layer_cam,
        camlens.XGradCAM: cam.xgrad_cam,
    }
    expected = functions[explainer](outputs[0], torch.stack(gradients, dim=1))
    assert_close(raw, expected)
    parameters = [p for p in model.parameters() if p is not model.head.bias]
    for found, right in zip(
        torch.autograd.grad((raw**2).sum(), parameters, allow_unused=True),
        torch.autograd.grad((expected**2).sum(), parameters, allow_unused=True),
        strict=True,
    ):
        assert (found is None) == (right is None)
        if found is not None:
            assert_close(found, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_scores_with_a_graph_train_as_the_models_own(training):
    model, images = Small().train(training), torch.rand(4, 3, 8, 8)
    labels = torch.tensor([0, 1, 2, 3])
    explanation = camlens.GradCAM(model, "conv2", create_graph=True)(images, targets="all")
    loss = functional.cross_entropy(explanation.outputs, labels)
    found = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.autograd.grad(
        functional.cross_entropy(model(images), labels), list(model.parameters())
    )
    for mine, plain in zip(found, expected, strict=True):
        assert_close(mine, plain)


def test_training_mode_is_for_maps_to_train_with():
    model, images = Small().train(), torch.rand(4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"training mode .*create_graph=True"):
        camlens.GradCAM(model, "conv2")(images)
    explanation = camlens.GradCAM(model, "conv2", create_graph=True)(images)
    assert explanation.raw.isfinite().all()
    assert model.training
    assert model.norm1.num_batches_tracked == 1  # one forward pass, as of any training step


class Attending(nn.Module):
    """Patches, one block of attention as torch's fused function spells it, and a head."""

    def __init__(self, **options):
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
        self.head, self.options, self.by_definition = nn.Linear(8, 5), options, False

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        q, k, v = self.mix(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.by_definition:
            scores = q @ k.mT * self.options.get("scale", 0.5)
            if self.options.get("is_causal"):
                scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1)
            mixed = scores.softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, **self.options)
        return self.head((x + mixed.transpose(1, 2).flatten(2)).tanh().mean(1))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.HiResCAM, camlens.Saliency])
@pytest.mark.parametrize("targets", [1, "all"])
def test_maps_of_fused_attention_have_second_derivatives(options, explainer, targets):
    torch.manual_seed(1)
    model, images = Attending(**options).eval(), torch.rand(2, 3, 12, 12)
    explain = made(explainer, model, "patches", create_graph=True)
    gradients = []
    for model.by_definition in (True, False):
        raw = explain(images, targets=targets).raw
        gradients.append(torch.autograd.grad((raw**2).sum(), model.mix.weight)[0])
    assert gradients[0].any()
    assert_close(gradients[1], gradients[0], rtol=1e-3, atol=gradients[0].abs().max().item() * 1e-4)


@pytest.mark.parametrize("targets", [1, "all"])
def test_a_vision_transformers_maps_have_second_derivatives(targets):
    model, images = small_vit(), torch.rand(2, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_0.ln_1"
    explain = camlens.HiResCAM(model, layer, layout=layouts.tokens(1, (4, 4)), create_graph=True)
    raw = explain(images, targets=targets).raw
    explain.create_graph = False
    assert_close(raw.detach(), explain(images, targets=targets).raw)
    gradient = torch.autograd.grad(raw.sum(), model.conv_proj.weight)[0]
    assert gradient.isfinite().all()
    assert gradient.any()


def striped(n, seed):
    """(N, 1, 12, 12) images of two classes, told by the left half alone or the right half alone.

    Class 1 has vertical bars on the left and a bright right half, class 0 horizontal bars on the
    left and a dark right half.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    images = torch.randn(n, 1, 12, 12, generator=generator) * 0.3
    bars = torch.tensor([1.0, -1.0]).repeat(6)
    images[labels == 1, :, :, :6] += bars[:6]
    images[labels == 0, :, :, :6] += bars[:, None]
    images[:, :, :, 6:] += (labels * 2.0 - 1).view(-1, 1, 1, 1) * 0.7
    return images, labels


def trained_to_look(half, *, heat, steps=50):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(8 * 36, 2),
    )  # fmt: skip
    explain = camlens.HiResCAM(model, "2", create_graph=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for step in range(steps):
        images, labels = striped(64, step)
        explanation = explain(images, targets=labels)
        loss = functional.cross_entropy(explanation.outputs, labels)
        if half is not None:
            maps = getattr(explanation, heat)[:, 0]
            outside = maps[..., 6:] if half == "left" else maps[..., :6]
            loss = loss + (5 if heat == "heatmaps" else 1) * outside.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("heat", ["raw", pytest.param("heatmaps", marks=pytest.mark.slow)])
def test_a_network_is_trained_to_look_where_it_is_told(heat):
    images, labels = striped(256, 10_000)
    shares = {}
    for half in ("left", None, "right"):
        model = trained_to_look(half, heat=heat)
        explanation = camlens.HiResCAM(model, "2")(images, targets=labels)
        assert (explanation.outputs.argmax(1) == labels).float().mean() > 0.98
        raw = explanation.raw[:, 0]
        shares[half] = (raw[..., :6].sum() / raw.sum()).item()
    assert shares["left"] > 0.9
    assert shares["right"] < 0.1
    assert 0.15 < shares[None] < 0.85


def test_one_step_of_training_lowers_the_loss_on_the_map():
    model = Linear1x1(torch.rand(4, 3), torch.rand(2, 4))
    explain = camlens.GradCAM(model, "relu", create_graph=True)
    images = torch.rand(2, 3, 4, 4)
    before = explain(images, targets=0).raw.mean()
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=0.01)
    assert explain(images, targets=0).raw.mean() < before
