"""Taps: right values, nothing left behind, other threads undisturbed."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from camlens import taps
from camlens.derivatives import derivatives
from camlens.methods import gradient as rules

from .nets import SPELLINGS, Small


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


@pytest.mark.parametrize("gradients", [False, True])
def test_an_in_place_relu_behind_cannot_spoil_the_capture(images, gradients):
    model = Small("inplace").eval()
    with taps.tap(model, "norm1", gradients=gradients) as tapped:
        model(images)
    with torch.no_grad():
        expected = model.norm1(model.conv1(images))
    assert expected.min() < 0  # a ReLU would have cut it
    assert_close(tapped.activations["norm1"].detach(), expected)


def test_gradients_are_those_of_plain_autograd(images):
    model = Small().eval()
    with taps.tap(model, ["norm1", "conv2"], gradients=True) as tapped:
        scores = model(images)
        found = tapped.gradients(scores)
        first = tapped.gradients(scores[:, 0])
    a = model.norm1(model.conv1(images)).detach().requires_grad_()
    b = model.conv2(a.relu())
    expected_scores = model.head(model.norm2(b).relu().mean((-2, -1)))
    for k in range(5):
        ga, gb = torch.autograd.grad(expected_scores[:, k].sum(), [a, b], retain_graph=True)
        assert_close(found["norm1"][:, k], ga)
        assert_close(found["conv2"][:, k], gb)
    assert_close(first["conv2"], found["conv2"][:, 0])


def test_no_graph_before_the_first_tap(images):
    model = Small().eval()
    with taps.tap(model, "conv2", gradients=True) as tapped:
        model(images)
    assert tapped.activations["conv2"].is_leaf


def test_the_last_call_of_a_layer_counts(images):
    model = Small().eval()  # model.act runs twice
    with taps.tap(model, "act", gradients=True) as tapped:
        gradient = tapped.gradients(model(images)[:, 0])["act"]
    assert tapped.activations["act"].shape == (3, 8, 4, 4)
    assert_close(gradient, (model.head.weight[0] / 16).view(1, 8, 1, 1).expand(3, 8, 4, 4).detach())


def test_tuples_and_named_tuples_pass_through():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            values, weights = self.attention(x, x, x)
            return values.mean(1) + weights.mean()

    model, x = Attention().eval(), torch.rand(2, 5, 8)
    with taps.tap(model, "attention", gradients=True) as tapped:
        gradient = tapped.gradients(model(x))["attention"]
    assert_close(gradient[:, 0, :, 0], torch.full((2, 5), 0.2))


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_mode_comes_back(images, outer):
    model = Small().eval()
    with outer():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with taps.tap(model, "conv2", gradients=True) as tapped:
            assert tapped.gradients(model(torch.rand(1, 3, 8, 8))[:, 0])["conv2"].any()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(images, error):
    model = Small().eval()
    with (  # noqa: PT012  the error comes after the hooks have run
        pytest.raises(error),
        taps.tap(model, ["conv1", "conv2"], gradients=True),
    ):
        model(images)
        raise error
    assert hooks(model) == 0
    assert torch.is_grad_enabled()


def test_a_layer_that_does_not_run(images):
    model = Small().eval()
    with pytest.raises(LookupError, match=r"\['act6'\] did not run"), taps.tap(model, "act6"):
        model(images)
    assert hooks(model) == 0


def test_gradients_must_be_asked_for(images):
    model = Small().eval()
    with taps.tap(model, "conv2") as tapped:
        scores = model(images)
        with pytest.raises(ValueError, match="use tap\\(model, layers, gradients=True\\)"):
            tapped.gradients(scores)


def test_scores_that_do_not_depend_on_the_layer(images):
    model = Small().eval()
    with taps.tap(model, "conv2", gradients=True) as tapped:
        model(images)
        with pytest.raises(ValueError, match=r"do not depend on \['conv2'\]"):
            tapped.gradients(torch.rand(3, 2))


def test_an_output_without_a_tensor():
    class Odd(nn.Module):
        def forward(self, x):
            return {"x": x}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, x):
            return self.odd(x)["x"]

    model = Model().eval()
    with pytest.raises(TypeError, match="'odd' gives dict"), taps.tap(model, "odd"):
        model(torch.rand(2, 3))
    assert hooks(model) == 0


def test_operations_that_cannot_be_batched_fall_back_to_a_loop():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient.clone().data_ptr() and gradient * 2  # no data pointer under vmap

    x = torch.rand(2, 3, requires_grad=True)
    scores = Twice.apply(x)
    (gradient,) = derivatives(scores, [x], names=["x"])
    assert_close(gradient, 2 * torch.eye(3).expand(2, 3, 3))


def test_another_thread_sees_nothing_of_a_tap(images):
    model = Small().eval()
    with torch.no_grad():
        expected = model(images)
    seen = {}

    def elsewhere():
        seen["output"] = model(images)

    with taps.tap(model, "conv2", gradients=True) as tapped:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert tapped.activations == {}
        model(images)
    # the other thread's graph reaches the parameters, this one's starts at the tap
    assert torch.autograd.grad(seen["output"].sum(), model.conv1.weight)[0].any()
    assert_close(seen["output"].detach(), expected)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("rule", [rules.plain_rule, rules.deconvnet_rule, rules.guided_rule])
def test_every_spelling_of_relu_takes_the_rule(images, spelling, rule):
    model = Small(spelling).eval()
    x = images.clone().requires_grad_()
    with taps.rectifiers(rule) as mode:
        scores = model(x)[:, 1]
    actual = torch.autograd.grad(scores.sum(), x)[0]
    assert mode.count == 2

    # by hand, module by module, from the top
    a1 = model.norm1(model.conv1(images)).detach().requires_grad_()
    a2 = model.norm2(model.conv2(a1.relu())).detach().requires_grad_()
    g2 = (model.head.weight[1] / 16).view(1, 8, 1, 1).expand_as(a2).detach()
    g2 = rule(g2, a2 > 0)
    r1 = a1.detach().relu().requires_grad_()
    g1 = torch.autograd.grad(model.norm2(model.conv2(r1)), r1, g2)[0]
    g1 = rule(g1, a1 > 0)
    x0 = images.clone().requires_grad_()
    expected = torch.autograd.grad(model.norm1(model.conv1(x0)), x0, g1)[0]
    assert expected.any()
    assert_close(actual, expected)


def test_the_rule_can_change_between_two_backward_passes():
    x = torch.tensor([-1.0, 1.0, 2.0], requires_grad=True)
    weights = torch.tensor([1.0, -1.0, 1.0])
    with taps.rectifiers(rules.plain_rule) as mode:
        score = (x.relu() * weights).sum()
    plain = torch.autograd.grad(score, x, retain_graph=True)[0]
    mode.rule = rules.guided_rule
    guided = torch.autograd.grad(score, x)[0]
    assert plain.tolist() == [0, -1, 1]
    assert guided.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), functional.relu6, nn.Hardtanh(0, 6)]
)
def test_relu6_is_silent_above_six(relu6):
    x = torch.tensor([-1.0, 3.0, 7.0], requires_grad=True)
    with taps.rectifiers(rules.guided_rule):
        y = relu6(x.clone())
    assert y.tolist() == [0, 3, 6]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.LeakyReLU(), "leaky_relu"),
        (nn.PReLU(), "prelu"),
        (nn.GELU(), "gelu"),
        (nn.SiLU(), "silu"),
        (nn.Hardswish(), "hardswish"),
        (nn.ELU(), "elu"),
        (nn.Hardtanh(), "hardtanh"),
    ],
)
def test_activations_without_a_rule(activation, name):
    with (
        pytest.raises(ValueError, match=f"ReLU6; this model also uses {name}"),
        taps.rectifiers(rules.guided_rule),
    ):
        activation(torch.rand(3))


def test_no_relu_at_all():
    with pytest.raises(ValueError, match="no ReLU ran"), taps.rectifiers(rules.guided_rule):
        torch.rand(3).sigmoid()


def test_the_mode_ends_with_the_block():
    with taps.rectifiers(rules.deconvnet_rule):
        torch.rand(3).relu()
    x = torch.tensor([-1.0], requires_grad=True)
    assert torch.autograd.grad(x.relu().sum(), x)[0].item() == 0
