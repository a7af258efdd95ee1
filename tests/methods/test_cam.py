"""The CAM functions against hand-computed maps, the papers' equations and identities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from camlens.methods import cam

GRADIENT_METHODS = [
    cam.grad_cam,
    cam.grad_cam_plus_plus,
    cam.hires_cam,
    cam.layer_cam,
    cam.xgrad_cam,
    cam.class_activation_map,
]


few = settings(max_examples=25, deadline=None)


def pair(seed=0, grid=(3, 5)):
    n, k, c = 2, 3, 4
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(n, c, *grid, generator=generator).relu()
    return activations, torch.randn(n, k, c, *grid, generator=generator)


def test_grad_cam_by_hand():
    activations = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]], [[0.0, 4.0], [1.0, 0.0]]]])
    gradients = torch.tensor([[[[[4.0, 0.0], [0.0, 0.0]], [[-2.0, 0.0], [0.0, 0.0]]]]])
    # weights 1 and -0.5: [[1 - 0, 0 - 2], [2 - 0.5, 0]]
    expected = torch.tensor([[[[1.0, 0.0], [1.5, 0.0]]]])
    assert_close(cam.grad_cam(activations, gradients), expected)


def test_grad_cam_plus_plus_is_the_papers_equation():
    """Equation 10 with Y = exp(S), whose derivatives come from autograd and not from algebra."""
    activations = torch.rand(1, 2, 2, 3, dtype=torch.float64)
    weights = torch.randn(2, 2, 3, dtype=torch.float64)

    def y(a):
        return torch.exp((weights * a).sum())  # S is linear in A, as the paper assumes

    a = activations[0].clone().requires_grad_()
    first = torch.autograd.grad(y(a), a, create_graph=True)[0]
    second, third = torch.zeros_like(a), torch.zeros_like(a)
    for index in np.ndindex(*a.shape):
        g2 = torch.autograd.grad(first[index], a, create_graph=True)[0][index]
        second[index] = g2.detach()
        third[index] = torch.autograd.grad(g2, a, retain_graph=True)[0][index]
    alpha = second / (2 * second + activations[0].sum((-2, -1), keepdim=True) * third)
    channel = (alpha * weights.relu()).sum((-2, -1))
    expected = (channel[:, None, None] * activations[0]).sum(0).relu()

    actual = cam.grad_cam_plus_plus(activations, weights[None, None])
    assert expected.max() > 0
    assert_close(actual[0, 0], expected.detach())


def test_grad_cam_plus_plus_does_not_underflow():
    activations, gradients = pair()
    tiny = cam.grad_cam_plus_plus(activations, gradients * 1e-20)  # the cube is 0 in float32
    # alpha tends to 1/2 for small gradients
    limit = cam._weighted_sum((gradients.relu() / 2).sum((-2, -1)), activations)
    assert limit.amax() > 0
    assert_close(tiny * 1e20, limit)


def test_xgrad_cam_weights_are_a_weighted_mean():
    activations, gradients = pair()
    constant = gradients[..., :1, :1].expand_as(gradients)
    # of a gradient that is the same everywhere every mean is the same
    assert_close(
        cam.xgrad_cam(activations, constant), cam.grad_cam(activations, constant.contiguous())
    )


def test_xgrad_cam_gives_a_silent_channel_no_weight():
    activations, gradients = pair()
    activations[:, 1] = 0
    maps = cam.xgrad_cam(activations, gradients)
    others = [0, 2, 3]
    assert_close(maps, cam.xgrad_cam(activations[:, others], gradients[:, :, others]))


def test_hires_cam_equals_grad_cam_for_constant_gradients():
    activations, gradients = pair()
    constant = gradients.mean((-2, -1), keepdim=True).expand_as(gradients)
    assert_close(cam.hires_cam(activations, constant), cam.grad_cam(activations, constant))


def test_layer_cam_ignores_negative_gradients():
    activations, gradients = pair()
    assert_close(
        cam.layer_cam(activations, gradients), cam.hires_cam(activations, gradients.relu())
    )
    assert cam.layer_cam(activations, -gradients.abs()).count_nonzero() == 0


def test_eigen_cam_against_numpy():
    activations, _ = pair()
    for image, actual in zip(activations, cam.eigen_cam(activations), strict=True):
        matrix = image.flatten(1).T.numpy()
        projection = matrix @ np.linalg.svd(matrix, full_matrices=False)[2][0]
        # the sign of a singular vector is arbitrary; ReLU activations project to one side
        assert_close(actual.flatten(), torch.from_numpy(np.abs(projection)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
@given(seed=st.integers(0, 10_000))
@few
def test_batch_and_targets_are_independent(method, seed):
    activations, gradients = pair(seed)
    together = method(activations, gradients)
    for n in range(activations.shape[0]):
        for k in range(gradients.shape[1]):
            alone = method(activations[n : n + 1], gradients[n : n + 1, k : k + 1])
            assert_close(together[n : n + 1, k : k + 1], alone)


@pytest.mark.parametrize("method", [m for m in GRADIENT_METHODS if m != cam.grad_cam_plus_plus])
@given(seed=st.integers(0, 10_000), factor=st.sampled_from([1e-8, 1e-3, 8.0, 1e6]))
@few
def test_maps_scale_with_the_gradients(method, seed, factor):
    activations, gradients = pair(seed)
    scaled = method(activations, gradients * factor) / factor
    assert_close(scaled, method(activations, gradients), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_maps_move_with_the_image(method):
    activations, gradients = pair()
    flipped = method(activations.flip(-1), gradients.flip(-1))
    assert_close(flipped, method(activations, gradients).flip(-1))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
@pytest.mark.parametrize("grid", [(30,), (1, 30), (5, 6), (2, 3, 5), (30, 1, 1)])
def test_the_number_of_axes_makes_no_difference(method, grid):
    """The methods sum over cells and weigh cells: how those are arranged is kept, not used."""
    activations, gradients = pair(grid=(30,))
    expected = method(activations, gradients)
    arranged = method(activations.unflatten(2, grid), gradients.unflatten(3, grid))
    assert expected.any()
    assert_close(arranged, expected.unflatten(2, grid))


@pytest.mark.parametrize("grid", [(30,), (5, 6), (2, 3, 5)])
def test_eigen_cam_of_any_number_of_axes(grid):
    activations, _ = pair(grid=(30,))
    expected = cam.eigen_cam(activations)
    assert_close(cam.eigen_cam(activations.unflatten(2, grid)), expected.unflatten(2, grid))


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 2, 3)])
def test_cam_is_grad_cam_times_the_cells(grid):
    activations, gradients = pair(grid=grid)
    cells = activations[0, 0].numel()
    expected = cam.grad_cam(activations, gradients) * cells
    assert_close(cam.class_activation_map(activations, gradients), expected)
