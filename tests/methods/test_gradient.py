"""The gradient rules as figure 1 of Springenberg et al. shows them, and what is made of them."""

import pytest
import torch
from torch.testing import assert_close

from camlens.methods import gradient


def test_rules_on_the_figures_example():
    """Figure 1c: forward [1 -1 5; 2 -5 -7; -3 2 4], gradient [-2 3 -1; 6 -3 1; 2 -1 3]."""
    forward = torch.tensor([[1.0, -1.0, 5.0], [2.0, -5.0, -7.0], [-3.0, 2.0, 4.0]])
    arriving = torch.tensor([[-2.0, 3.0, -1.0], [6.0, -3.0, 1.0], [2.0, -1.0, 3.0]])
    output = forward.relu()
    plain = torch.tensor([[-2.0, 0.0, -1.0], [6.0, 0.0, 0.0], [0.0, -1.0, 3.0]])
    deconvnet = torch.tensor([[0.0, 3.0, 0.0], [6.0, 0.0, 1.0], [2.0, 0.0, 3.0]])
    guided = torch.tensor([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    assert_close(gradient.plain_rule(arriving, output), plain)
    assert_close(gradient.deconvnet_rule(arriving, output), deconvnet)
    assert_close(gradient.guided_rule(arriving, output), guided)


def test_saliency_takes_the_largest_channel():
    gradients = torch.tensor([[[[[1.0, -5.0]], [[-3.0, 2.0]]]]])
    assert_close(gradient.saliency(gradients), torch.tensor([[[[3.0, 5.0]]]]))


def test_guided_grad_cam_is_the_product():
    gradients = torch.randn(2, 3, 1, 4, 4)
    heat = torch.rand(2, 3, 4, 4)
    product = gradient.guided_grad_cam(gradients, heat)
    assert_close(product[1, 2, 0], gradients[1, 2, 0] * heat[1, 2])


@pytest.mark.parametrize("size", [(6,), (2, 3), (1, 2, 3)])
def test_the_number_of_axes_makes_no_difference(size):
    gradients, heat = torch.randn(2, 3, 4, 6), torch.rand(2, 3, 6)
    expected = gradient.saliency(gradient.guided_grad_cam(gradients, heat))
    arranged = gradient.guided_grad_cam(gradients.unflatten(3, size), heat.unflatten(2, size))
    assert_close(gradient.saliency(arranged), expected.unflatten(2, size))
