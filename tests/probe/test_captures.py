"""Captures: what a layer returned, whatever the model does with that tensor afterwards."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens import heatmap
from camlens.probe import Probe, Site
from camlens.probe.captures import first_tensor, replace_first

from ..nets import Small, hooks, plain_gradients


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


def traced(model, names, images, *inputs, start="sites", targets="all"):
    probe = Probe(model, images, inputs, targets=targets)
    return probe.run(sites=[Site(name) for name in names], start=start)


@pytest.mark.parametrize("start", ["sites", "images", "parameters", None])
def test_an_in_place_relu_behind_the_layer_does_not_change_the_capture(images, start):
    model = Small("inplace").eval()
    captured = traced(model, ["norm1"], images, start=start).captured["norm1"]
    with torch.no_grad():
        expected = model.norm1(model.conv1(images))
    assert expected.min() < 0  # a ReLU would have cut it
    assert_close(captured.detach(), expected)


def test_no_graph_before_the_first_layer(images):
    model = Small().eval()
    captured = traced(model, ["conv2", "norm1"], images).captured
    assert captured["norm1"].is_leaf
    assert not captured["conv2"].is_leaf


def test_the_last_run_of_a_layer_counts(images):
    model = Small().eval()  # model.act runs twice
    run = traced(model, ["act"], images, targets=0)
    assert run.captured["act"].shape == (3, 8, 4, 4)
    (gradient,) = run.gradients()
    expected = (model.head.weight[0] / 16).view(1, 1, 8, 1, 1).expand(3, 1, 8, 4, 4)
    assert_close(gradient, expected.detach())


def test_named_tuples_stay_named_tuples():
    class Pair(NamedTuple):
        maps: torch.Tensor
        label: str

    class Named(nn.Module):
        def forward(self, x):
            return Pair(x * 2, "a label")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.named = Named()

        def forward(self, x):
            pair = self.named(x)
            if pair.label != "a label":
                raise RuntimeError("the rest of the tuple was lost")
            return pair.maps.sum(dim=1)

    x = torch.rand(2, 3, 1)
    run = traced(Model().eval(), ["named"], x)
    assert_close(run.captured["named"].detach(), x * 2)
    assert_close(run.gradients()[0], torch.ones(2, 1, 3, 1))


@pytest.mark.parametrize("kind", [tuple, list])
def test_the_first_of_several_outputs_is_captured(kind):
    first, second = torch.rand(2, 3), torch.rand(2)
    output = kind([first, second])
    assert first_tensor(output) is first
    replaced = replace_first(output, second)
    assert type(replaced) is kind
    assert replaced[0] is second
    assert replaced[1] is second


def test_tuples_pass_through():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            values, weights = self.attention(x, x, x)
            return values.mean(1) + weights.mean()

    (gradient,) = traced(
        Attention().eval(), ["attention"], torch.rand(2, 5, 8), targets=0
    ).gradients()
    assert_close(gradient[:, 0, :, 0], torch.full((2, 5), 0.2))


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("start", ["sites", "images", None])
@pytest.mark.parametrize("keyword", [False, True])
def test_a_layer_that_returns_its_input_keeps_its_values(layer, start, keyword):
    """What such a layer gives is its input's memory, which the model may write to afterwards."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            x = x * 1
            y = (self.layer(input=x) if keyword else self.layer(x)) * 3
            x += y
            return (x + y).sum(dim=(1, 2))

    x = torch.rand(2, 1, 3, 3)
    assert_close(traced(Residual().eval(), ["layer"], x, start=start).captured["layer"], x)


class Reused(nn.Module):
    """``drop`` returns its input in evaluation mode, and the input is used a second time."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.drop, self.a, self.b = nn.Dropout(), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        shared = self.conv(self.stem(x)).relu()
        return self.a(self.drop(shared).mean((-2, -1))) + self.b((shared**2).mean((-2, -1)))


class Gate(nn.Module):
    """Returns maps and a gate that it computes from them."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 6)

    def forward(self, x):
        maps = self.conv(x).relu()
        return maps, self.gate(maps.mean((-2, -1))).sigmoid()


class Gated(nn.Module):
    """A layer whose second output is computed from its first."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), Gate()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        maps, gate = self.drop(self.conv(self.stem(x)))
        return self.head((maps * gate[..., None, None]).mean((-2, -1)))


class Frozen(nn.Module):
    """Parts that run under no_grad, with gradients switched off and on between them."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.drop, self.head = nn.Identity(), nn.Linear(6, 3)
        self.frozen = True

    def forward(self, x):
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            x = self.stem(x).relu()
        x = self.conv(x)
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            x = self.drop(x.relu())
        return self.head((x**2).mean((-2, -1)))


@pytest.mark.parametrize("network", [Reused, Gated])
@pytest.mark.parametrize("beside", [[], ["stem"], ["stem", "conv"], ["conv"]])
@pytest.mark.parametrize("start", ["sites", "images", "parameters"])
@pytest.mark.parametrize("n", [1, 3])
def test_gradients_do_not_depend_on_the_layers_beside(network, beside, start, n):
    model, images = network().eval(), torch.randn(n, 3, 6, 9)
    output, expected = plain_gradients(model, model.drop, images)
    names = [*beside, "drop"]
    run = traced(model, names, images, start=start)
    assert expected.any()
    assert_close(run.captured["drop"].detach(), output)
    assert_close(run.gradients()[-1], expected)


@pytest.mark.parametrize("start", ["sites", "images", "parameters"])
@pytest.mark.parametrize("n", [1, 3])
def test_gradients_of_a_layer_that_runs_under_no_grad(start, n):
    model, images = Frozen().eval(), torch.randn(n, 3, 6, 9)
    model.frozen = False
    output, expected = plain_gradients(model, model.drop, images)
    model.frozen = True
    run = traced(model, ["drop"], images, start=start)
    assert_close(run.captured["drop"].detach(), output)
    assert_close(run.gradients()[0], expected)
    with pytest.raises(ValueError, match=r"do not depend on \['conv'\]: .* under no_grad"):
        traced(model, ["conv", "drop"], images, start=start).gradients()


@pytest.mark.parametrize("network", [Reused, Gated])
@pytest.mark.parametrize("names", [["stem", "drop"], ["drop", "conv"], ["stem", "conv", "drop"]])
def test_fused_maps_are_the_mean_of_the_layers_own_maps(network, names):
    model, images = network().eval(), torch.randn(2, 3, 8, 8)
    fused = camlens.GradCAM(model, names)(images, targets=[[1, 2]]).raw
    each = [camlens.GradCAM(model, name)(images, targets=[[1, 2]]).raw for name in names]
    assert fused.any()
    assert_close(fused, heatmap.fuse(each))


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
    expected = camlens.GradCAM(model.net, "conv2")(images, targets=[[0, 1]])
    assert expected.evidence.any()
    assert_close(camlens.GradCAM(model, "net.conv2")(images, targets=[[0, 1]]).raw, expected.raw)
    both = camlens.GradCAM(model, ["net.conv1", "net.conv2"])(images)
    assert_close(both.raw, camlens.GradCAM(model.net, ["conv1", "conv2"])(images).raw)


def test_a_layer_inside_and_one_behind_a_no_grad_block():
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


def test_a_layer_that_does_not_run(images):
    model = Small().eval()
    for start in ("sites", None):
        with pytest.raises(LookupError, match=r"\['act6'\] did not run"):
            traced(model, ["act6"], images, start=start)
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda x: {"x": x}, "dict"),
        (lambda x: (x.long(), x), "tuple"),
        (lambda x: x.long(), r"torch\.int64"),
        (lambda _: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("start", ["sites", None])
def test_an_output_that_does_not_begin_with_a_tensor(make, kind, start):
    class Odd(nn.Module):
        def forward(self, x):
            return make(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, x):
            self.odd(x)
            return x

    model = Model().eval()
    with pytest.raises(TypeError, match=f"layer 'odd' gives {kind}: expected a floating-point"):
        traced(model, ["odd"], torch.rand(2, 3, 4), start=start)
    assert hooks(model) == 0


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_layer_that_gives_a_quantized_tensor():
    class Quantize(nn.Module):
        def forward(self, x):
            return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantize = Quantize()

        def forward(self, x):
            return self.quantize(x).dequantize().mean((-2, -1))

    for explainer in (camlens.GradCAM, camlens.EigenCAM):
        with pytest.raises(TypeError, match=r"gives a quantized tensor \(torch\.quint8\)"):
            explainer(Model().eval(), "quantize")(torch.rand(2, 3, 8, 8))
