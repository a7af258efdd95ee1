"""Taps: right values, nothing left behind, other threads undisturbed."""

import threading
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from camlens import taps
from camlens.derivatives import derivatives

from .nets import Small


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


def test_named_tuples_stay_named_tuples():
    class Pair(NamedTuple):
        maps: torch.Tensor
        other: str

    class Named(nn.Module):
        def forward(self, x):
            return Pair(x * 2, "kept")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.named = Named()

        def forward(self, x):
            pair = self.named(x)
            assert pair.other == "kept"
            return pair.maps.sum(dim=1)

    model, x = Model().eval(), torch.rand(2, 3)
    with taps.tap(model, "named", gradients=True) as tapped:
        gradient = tapped.gradients(model(x))["named"]
    assert_close(tapped.activations["named"].detach(), x * 2)
    assert_close(gradient, torch.ones(2, 3))


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True)])
def test_a_layer_that_returns_its_input_keeps_its_values(layer):
    """What such a layer gives is its input's memory, which the model may write to afterwards."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            x = x * 1
            y = self.layer(x) * 3
            x += y
            return (x + y).sum(dim=(1, 2, 3))

    model, x = Residual().eval(), torch.rand(2, 1, 3, 3)
    with taps.tap(model, "layer", gradients=True) as tapped:
        tapped.gradients(model(x))
    assert_close(tapped.activations["layer"].detach(), x)


def test_tuples_pass_through():
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
