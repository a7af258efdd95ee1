"""Resizing and scaling: zero stays zero, units do not matter, values stay where they were."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from camlens import heatmap


@given(st.integers(0, 1000), st.sampled_from([1e-30, 1e-8, 1.0, 1e20]))
def test_scale_knows_no_units(seed, factor):
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
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
