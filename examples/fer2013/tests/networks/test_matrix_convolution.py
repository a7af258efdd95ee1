"""Convolutions as matrix products, compared with torch's."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import vgg19_bn

from fer2013.networks.matrix_convolution import MatrixConv2d, _Convolve, use_matrix_products


def test_output_and_gradients_equal_those_of_conv2d():
    generator = torch.Generator().manual_seed(0)
    images, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 4, 6), (7, 5, 3, 3))
    )
    product = _Convolve.apply(images, weight)
    convolved = nn.functional.conv2d(images, weight, padding=1)
    torch.testing.assert_close(product, convolved, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(product.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad(product, (images, weight), upstream)
    theirs = torch.autograd.grad(convolved, (images, weight), upstream)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (alone,) = torch.autograd.grad(_Convolve.apply(images.detach(), weight), weight, upstream)
    torch.testing.assert_close(alone, theirs[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_in_bfloat16_the_error_is_about_that_of_conv2d(bias):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(64, 512, 3, padding=1, bias=bias))
    changed = copy.deepcopy(plain)
    use_matrix_products(changed)
    assert type(changed[0]) is MatrixConv2d
    images = torch.randn(4, 64, 6, 6)
    exact = plain(images).detach()
    assert torch.equal(changed(images), exact)  # without autocast it is the same operation
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = changed(images).detach(), plain(images).detach()
    assert ours.dtype == theirs.dtype == torch.bfloat16
    errors = [float((found - exact).abs().max()) for found in (ours, theirs)]
    assert errors[0] <= 1.5 * errors[1] > 0


def test_only_the_deepest_layers_of_vgg_are_changed():
    model = vgg19_bn()
    names = list(model.state_dict())
    use_matrix_products(model)
    changed = [name for name, layer in model.named_modules() if isinstance(layer, MatrixConv2d)]
    blocks = {"features.27", "features.30", "features.33", "features.36"}
    assert set(changed) == blocks | {"features.40", "features.43", "features.46", "features.49"}
    assert list(model.state_dict()) == names
    strided = nn.Sequential(nn.Conv2d(3, 512, 3, stride=2, padding=1), nn.Conv2d(3, 512, 3))
    use_matrix_products(strided)
    assert {type(layer) for layer in strided} == {nn.Conv2d}
