"""Slices of volumes: the hottest one, and slices by index, along each axis."""

import pytest
import torch
from torch.testing import assert_close

from camlens import heatmap, slices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_hottest_slice_has_the_largest_total(axis):
    heat = torch.rand(3, 4, 5, 6, 7)
    others = [a for a in (2, 3, 4) if a != 2 + axis]
    assert torch.equal(slices.hottest(heat, axis=axis), heat.sum(dim=others).argmax(dim=-1))


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ([0, 0, 0, 0, 0], 2),
        ([0, 0, 0, 0], 1),
        ([1, 1, 1, 0, 0], 1),
        ([0, 3, 3, 0, 0], 1),
        ([0, 0, 0, 0, 2], 4),
        ([5, 0, 0, 0, 5], 0),
        ([1, 1 + 1e-7, 1, 0, 0], 1),
        ([0, 1, 1.1, 1, 0], 2),
    ],
)
def test_ties_are_broken_towards_the_middle(totals, expected):
    heat = torch.tensor(totals, dtype=torch.float32).view(1, 1, -1, 1, 1).expand(1, 1, -1, 3, 2) / 6
    assert slices.hottest(heat).tolist() == [[expected]]


def test_the_hottest_slice_of_an_interpolated_cell_is_within_the_cell():
    """The outermost cells are constant up to the border: the slice is not the border itself."""
    cells = torch.zeros(1, 2, 4, 3, 3)
    cells[0, 0, 0, 1, 1] = cells[0, 1, 3, 1, 1] = 1
    heat = heatmap.scale(heatmap.resize(cells, (32, 6, 6)))
    assert slices.hottest(heat).tolist() == [[1, 29]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cuts_are_the_slices_themselves(axis):
    volumes, heat = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 2, 4, 5, 6)
    one_image, one_heat = slices.cut(volumes, heat, slices=1, axis=axis)
    assert torch.equal(one_image[:, 0], volumes.select(2 + axis, 1))
    assert torch.equal(one_heat, heat.select(2 + axis, 1))
    some_images, some_heat = slices.cut(volumes, heat, slices=[2, -1, 0], axis=axis)
    for place, index in enumerate([2, -1, 0]):
        assert torch.equal(some_images[:, 0, place], volumes.select(2 + axis, index))
        assert torch.equal(some_heat[:, :, place], heat.select(2 + axis, index))
    images, cut = slices.cut(volumes, heat, axis=axis)
    chosen = slices.hottest(heat, axis=axis)
    for n in range(2):
        for k in range(2):
            index = int(chosen[n, k])
            assert_close(images[n, k], volumes[n].select(1 + axis, index))
            assert_close(cut[n, k], heat[n, k].select(axis, index))


def test_bad_cuts():
    volumes, heat = torch.rand(1, 1, 4, 5, 6), torch.rand(1, 1, 4, 5, 6)
    with pytest.raises(IndexError, match=r"slices from 0 to 4 along axis 1 .*, got \[5\]"):
        slices.cut(volumes, heat, slices=[5], axis=1)
    with pytest.raises(IndexError, match=r"slices from 0 to 3 along axis 0 .*, got -5"):
        slices.cut(volumes, heat, slices=-5)
    with pytest.raises(ValueError, match="at least one slice"):
        slices.cut(volumes, heat, slices=[])
    with pytest.raises(ValueError, match="0, 1 or 2 for D, H or W, got 3"):
        slices.cut(volumes, heat, axis=3)
    with pytest.raises(ValueError, match=r"\(N, K, D, H, W\), got \(1, 4, 5, 6\)"):
        slices.hottest(heat[0])
