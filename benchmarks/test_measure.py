"""The counting itself is checked against operations counted by hand."""

import pytest
import torch
from measure import flops
from torch import nn

import camlens


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).eval()


HEAD = 2 * 4 * 4 * 4 * 8 * 9  # multiply and add, 4x4 places, 4 filters of 8x3x3
LAST = 2 * 64 * 5
FIRST = 2 * 6 * 6 * 8 * 3 * 9
MAP = 2 * 8 * 6 * 6  # channels weighted and summed


@pytest.mark.parametrize("targets", [1, 2, 5])
def test_k_targets_cost_one_forward_and_k_tails(targets: int) -> None:
    images, classes = torch.rand(2, 3, 8, 8), torch.arange(targets).expand(2, targets)
    explainer = camlens.GradCAM(network(), "1")
    explainer(images)  # the first call measures the layer
    counted = flops(lambda: explainer(images, targets=classes))
    assert counted == 2 * (FIRST + HEAD + LAST) + 2 * targets * (HEAD + LAST + MAP)


def test_a_plain_backward_pass_is_counted() -> None:
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    model = network().requires_grad_(False)
    counted = flops(lambda: torch.autograd.grad(model(images).sum(), images))
    assert counted == 2 * 2 * (FIRST + HEAD + LAST)
