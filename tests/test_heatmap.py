"""Resizing and scaling: zero stays zero, units do not matter, values stay where they were."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from camlens import heatmap

#: One, two and three grid axes: (grid, size).
SHAPES = [((5,), (13,)), ((4, 5), (9, 20)), ((2, 3, 4), (5, 3, 9)), ((7, 7), (224, 224))]


def weights(cells, pixels):
    """Return the (pixels, cells) matrix of linear interpolation, from its definition."""
    centres = (np.arange(cells) + 0.5) * pixels / cells
    columns = [np.interp(np.arange(pixels) + 0.5, centres, row) for row in np.eye(cells)]
    return torch.tensor(np.stack(columns, axis=1))


@settings(deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([1e-30, 1e-8, 1.0, 1e20]),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_scale_knows_no_units(seed, factor, grid):
    maps = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(seed))
    assert_close(heatmap.scale(maps * factor), heatmap.scale(maps))


def test_scale_reaches_one_and_keeps_zero():
    maps = torch.tensor([[[[-4.0, 0.0, 1.0, 2.0]], [[-1.0, -2.0, 0.0, -3.0]]]])
    expected = torch.tensor([[[[0.0, 0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    assert_close(heatmap.scale(maps), expected)
    assert heatmap.evidence(maps).tolist() == [[True, False]]


def test_a_lone_low_value_is_not_stretched_to_nothing():
    """Min-max stretching would call the smallest value of a positive map "no evidence"."""
    assert_close(heatmap.scale(torch.tensor([[[[3.0, 4.0]]]])), torch.tensor([[[[0.75, 1.0]]]]))


def test_resize_centres_cells_on_their_area():
    corner = torch.zeros(1, 1, 2, 2)
    corner[..., 0, 0] = 1
    resized = heatmap.resize(corner, (4, 4))
    expected = torch.tensor([1, 0.75, 0.25, 0])
    assert_close(resized[0, 0], expected[:, None] * expected[None])


def test_resize_to_the_same_size_is_the_map_itself():
    maps = torch.rand(1, 2, 3, 4)
    assert heatmap.resize(maps, (3, 4)) is maps


def test_fuse_averages_scaled_maps_on_the_finest_grid():
    coarse = torch.tensor([[[[100.0]]]])
    fine = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    expected = (torch.ones(2, 2) + torch.tensor([[0.0, 0.25], [0.5, 1.0]])) / 2
    assert_close(heatmap.fuse([coarse, fine])[0, 0], expected)
    assert_close(heatmap.fuse([fine, coarse])[0, 0], expected)


def test_fuse_keeps_a_silent_layer_silent():
    silent, loud = torch.zeros(1, 1, 2, 2), torch.eye(2)[None, None]
    assert_close(heatmap.fuse([silent, loud]), loud / 2)
    assert heatmap.evidence(heatmap.fuse([silent, silent])).tolist() == [[False]]


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_resize_is_linear_interpolation_along_each_axis(grid, size):
    maps = torch.rand(2, 3, *grid, dtype=torch.float64)
    expected = maps
    for axis, (cells, pixels) in enumerate(zip(grid, size, strict=True), start=2):
        along = weights(cells, pixels)
        expected = (expected.movedim(axis, -1) @ along.T).movedim(-1, axis)
    assert_close(heatmap.resize(maps, size), expected)


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_scale_and_evidence_map_by_map(grid, size):
    maps = torch.randn(2, 3, *grid)
    maps[0, 1] = -maps[0, 1].abs()
    scaled, evidence = heatmap.scale(maps), heatmap.evidence(maps)
    for n, k in itertools.product(range(2), range(3)):
        positive = maps[n, k].clamp(min=0)
        assert_close(scaled[n, k], positive / (positive.max() if positive.any() else 1))
        assert evidence[n, k] == positive.any()
    assert scaled.flatten(2).amax(2).tolist() == evidence.float().tolist()
    assert not evidence[0, 1]


@pytest.mark.parametrize("axes", [1, 3])
def test_fuse_takes_the_grid_with_the_most_cells(axes):
    coarse = torch.full((1, 1, *(1,) * axes), 100.0)
    fine = torch.zeros(1, 1, *(2,) * axes)
    fine[(0, 0, *(1,) * axes)] = 4
    for maps in ([coarse, fine], [fine, coarse]):
        assert_close(heatmap.fuse(maps), (1 + fine / 4) / 2)


def test_fuse_of_one_layer_is_its_map():
    maps = torch.rand(1, 2, 3)
    assert heatmap.fuse([maps]) is maps


def test_resize_says_which_shapes_it_takes():
    with pytest.raises(ValueError, match=r"a size of 1 numbers for maps of \(1, 1, 4\), got"):
        heatmap.resize(torch.zeros(1, 1, 4), (8, 8))
    with pytest.raises(ValueError, match=r"1 to 3 grid axes as \(N, K, \*grid\), got \(1, 1\)"):
        heatmap.resize(torch.zeros(1, 1), ())
    with pytest.raises(ValueError, match="1 to 3 grid axes"):
        heatmap.resize(torch.zeros(1, 1, 2, 2, 2, 2), (4, 4, 4, 4))


@pytest.mark.parametrize("grid", [(4,), (3, 4), (2, 3, 2)])
def test_scaled_and_resized_maps_are_differentiable(grid):
    maps = torch.rand(2, 1, *grid, dtype=torch.float64) + 0.1
    maps.requires_grad_()
    size = tuple(2 * cells + 1 for cells in grid)
    assert torch.autograd.gradcheck(lambda m: heatmap.scale(heatmap.resize(m, size)), maps)
    silent = torch.zeros(1, 1, *grid, requires_grad=True)
    (gradient,) = torch.autograd.grad(heatmap.scale(silent).sum(), silent)
    assert gradient.isfinite().all()
