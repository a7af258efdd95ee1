"""Derivatives of many scores from one graph, and the errors that name a model's way of writing."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import camlens
from camlens.probe import Probe
from camlens.probe.derivatives import derivatives, pull_back

from ..nets import Small, plain_gradients


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
def test_derivatives_are_the_jacobians_rows(n, k, shape):
    x, y = torch.randn(n, *shape, requires_grad=True), torch.randn(n, 2, requires_grad=True)
    weights = torch.randn(k, *shape)
    scores = torch.einsum("n...,k...->nk", x, weights).sin() + y.prod(1, keepdim=True)
    slope = torch.einsum("n...,k...->nk", x, weights).cos()
    by_x, by_y = derivatives(scores, [x, y], ["x", "y"], keep_graph=True)
    assert_close(by_x, torch.einsum("nk,k...->kn...", slope, weights))
    assert_close(by_y, y.detach().flip(1).expand(k, -1, -1))
    for start in range(k):
        part = derivatives(scores, [x], ["x"], slice(start, start + 2), keep_graph=True)[0]
        assert_close(part, by_x[start : start + 2])


def test_operations_that_cannot_be_batched_go_one_by_one():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient.clone().data_ptr() and gradient * 2  # no data pointer under vmap

    x = torch.rand(2, 3, requires_grad=True)
    (gradient,) = derivatives(Twice.apply(x), [x], ["x"])
    assert_close(gradient, 2 * torch.eye(3)[:, None].expand(3, 2, 3))


@pytest.mark.parametrize("k", [1, 3])
def test_derivatives_by_a_layer_are_pulled_back_to_its_input(k):
    x, weights = torch.randn(2, 4, requires_grad=True), torch.randn(k, 4)
    layer = x.sin()
    by_layer = derivatives(layer @ weights.T, [layer], ["layer"])[0]
    (pulled,) = pull_back(layer, [x], by_layer, ["x"])
    assert_close(pulled, weights[:, None] * x.detach().cos())


@pytest.mark.parametrize("k", [1, 3])
def test_an_overwritten_tensor_is_an_error_with_a_remedy(k):
    x = torch.rand(2, 3, requires_grad=True)
    output = x.exp()  # exp keeps its result for the backward pass
    output.mul_(2)
    with pytest.raises(ValueError, match="overwrites a tensor that its gradient needs"):
        pull_back(output, [x], torch.ones(k, 2, 3), ["x"])


def test_scores_without_a_gradient():
    x = torch.rand(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match="explained scores have no gradient"):
        derivatives(x.detach(), [x], ["x"])


@pytest.mark.parametrize("k", [1, 3])
def test_a_source_beside_the_way_to_the_scores(k):
    x, y = torch.rand(2, k, requires_grad=True), torch.rand(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"do not depend on \['y'\]"):
        derivatives(x * 2, [x, y], ["x", "y"])


class Boxes(nn.Module):
    """A head that decodes boxes in place behind the convolution."""

    def __init__(self, decode):
        super().__init__()
        self.conv, self.decode = nn.Conv2d(3, 6, 3), decode

    def forward(self, x):
        return self.decode(self.conv(x)).mean((-2, -1))


def _by_slices(y):
    y[:, :2] = y[:, :2].sigmoid() * 2 - 0.5
    y[:, 2:4] = (y[:, 2:4].sigmoid() * 2) ** 2
    return y


def _by_operators(y):
    y += 1
    y[:, :2] *= 2
    y[:, 2:4].exp_()
    return y


def _by_chunks(y):
    centre, rest = y.chunk(2, dim=1)
    centre.sigmoid_()
    return torch.cat([centre, rest], dim=1)


def _over_a_saved_output(y):
    y = y.exp()
    y += 1
    return y


@pytest.mark.parametrize("decode", [_by_slices, _by_operators])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("targets", [1, "all"])
def test_boxes_decoded_in_place(decode, n, targets):
    model, images = Boxes(decode).eval(), torch.randn(n, 3, 6, 6)
    maps, gradients = plain_gradients(model, model.conv, images)
    expected = camlens.methods.cam.hires_cam(maps, gradients)
    expected = expected if targets == "all" else expected[:, [targets]]
    assert expected.any()
    assert_close(camlens.HiResCAM(model, "conv")(images, targets=targets).raw, expected)
    assert camlens.Saliency(model)(images, targets=targets).evidence.all()


@pytest.mark.parametrize("decode", [_by_chunks, _over_a_saved_output])
@pytest.mark.parametrize("explainer", [camlens.GradCAM, camlens.Saliency])
@pytest.mark.parametrize("targets", [1, "all"])
def test_boxes_decoded_in_place_over_what_the_gradient_needs(decode, explainer, targets):
    model = Boxes(decode).eval()
    explain = explainer(model, "conv") if explainer is camlens.GradCAM else explainer(model)
    with pytest.raises(ValueError, match=r"overwrites a tensor .* decoded in place"):
        explain(torch.randn(2, 3, 6, 6), targets=targets)
    assert torch.is_grad_enabled()


class Checkpointed(nn.Module):
    """Recomputes its middle block in the backward pass."""

    def __init__(self, *, reentrant):
        super().__init__()
        self.front, self.back = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.reentrant = reentrant

    def forward(self, x):
        x = self.front(x)
        if self.reentrant is None:
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.back(x).relu().mean((-2, -1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("names", [["front"], ["block.0"], ["block"], ["back"], ["front", "block"]])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("targets", [1, "all"])
def test_checkpointed_blocks(names, reentrant, targets):
    torch.manual_seed(1)
    model, images = Checkpointed(reentrant=None).eval(), torch.randn(2, 3, 9, 9)
    expected = camlens.GradCAM(model, names)(images, targets=targets)
    assert expected.evidence.any()
    model.reentrant = reentrant
    explain = camlens.GradCAM(model, names)
    if reentrant and names != ["back"]:
        with pytest.raises(ValueError, match=r"use_reentrant=False|no gradient|do not depend"):
            explain(images, targets=targets)
    else:
        assert_close(explain(images, targets=targets).raw, expected.raw)


@pytest.mark.parametrize("targets", [1, "all"])
def test_image_gradients_of_checkpointed_models(targets):
    model, images = Checkpointed(reentrant=None).eval(), torch.randn(2, 3, 9, 9)
    expected = {
        explainer: explainer(model)(images, targets=targets).gradients
        for explainer in (camlens.Saliency, camlens.GuidedBackprop)
    }
    model.reentrant = False
    for explainer, gradients in expected.items():
        assert_close(explainer(model)(images, targets=targets).gradients, gradients)
    model.reentrant = True
    with pytest.raises(ValueError, match=r"reentrant torch\.utils\.checkpoint"):
        camlens.Saliency(model)(images, targets=targets)


def test_running_out_of_memory_is_not_tried_again(monkeypatch):
    calls = []

    def full(*_, **__):
        calls.append(1)
        raise torch.OutOfMemoryError("full")

    probe = Probe(nn.Linear(3, 2).eval(), torch.rand(2, 3), targets="all")
    run = probe.run(start="images")
    monkeypatch.setattr(torch.autograd, "grad", full)
    with pytest.raises(torch.OutOfMemoryError):
        run.image_gradients()
    assert len(calls) == 1


def test_recurrent_layers_of_cudnn_in_evaluation_mode():
    """cuDNN's error, which no CPU raises."""

    class Recurrent(Small):
        def forward(self, images):
            scores = super().forward(images)
            if scores.requires_grad:
                scores.register_hook(refuse)
            return scores

    def refuse(gradient):
        raise RuntimeError("cudnn RNN backward can only be called in training mode")

    with pytest.raises(ValueError, match=r"cudnn\.flags\(enabled=False\)"):
        camlens.GradCAM(Recurrent().eval(), "conv2")(torch.rand(1, 3, 8, 8))
