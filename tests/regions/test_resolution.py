"""Which regions a map can resolve: beside windows one by one, on 1, 2 and 3 axes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camlens.faces.template import NAMES, face_template
from camlens.regions.resolution import resolvable

from .test_scores import soft

few = settings(max_examples=20, deadline=None)


def test_a_grid_resolves_what_is_as_large_as_its_cells():
    """Parts of a 48 pixel face at the grids of VGG19: 3x3, 6x6 and 12x12."""
    masks = face_template(48).masks
    found = {g: dict(zip(NAMES, resolvable(masks, (g, g))[0].tolist(), strict=True)) for g in
             (1, 3, 6, 12, 48)}  # fmt: skip
    assert not any(found[3][name] for name in ("brows", "eyes", "nose", "mouth"))
    assert found[3]["background"]
    assert all(found[12].values())
    assert all(found[48].values())
    assert not any(found[1].values())


@few
@given(st.integers(0, 1000), st.integers(1, 15), st.integers(1, 18))
def test_resolvable_beside_windows_one_by_one(seed, rows, columns):
    """Area of a cell at least, and half of a cell in some window of a cell, in whole pixels."""
    regions = soft(seed)
    masks = (regions.masks * (regions.masks > 0.6)).double().cpu().numpy()
    cell = max(12 / rows, 1), max(16 / columns, 1)
    window = math.ceil(cell[0]), math.ceil(cell[1])
    views = np.lib.stride_tricks.sliding_window_view(masks, window, (-2, -1)).sum((-2, -1))
    area, filled = masks.sum((-2, -1)), views.max((-2, -1))
    least = cell[0] * cell[1]
    expected = (area >= least) & (filled >= least / 2)
    clear = (abs(area - least) > 1e-3) & (abs(filled - least / 2) > 1e-3)
    found = resolvable(torch.tensor(masks), (rows, columns)).cpu().numpy()
    assert np.array_equal(found[clear], expected[clear])


def test_two_small_parts_are_not_one_large():
    """Cells of 4 x 4: two of 3 x 3 apart are 18 pixels, but each fills more than half a cell."""

    def pair(side):
        masks = torch.zeros(1, 1, 16, 16)
        masks[..., 2 : 2 + side, 1 : 1 + side] = masks[..., 2 : 2 + side, 12 : 12 + side] = 1
        return masks

    assert resolvable(pair(3), (4, 4)).item()
    four = pair(2) + pair(2).roll(6, -2)  # 16 pixels, of which no window has more than 4
    assert four.sum() == 16
    assert not resolvable(four, (4, 4)).item()
    exact = torch.zeros(1, 1, 16, 16)
    exact[..., 1:5, 2:6] = 1
    assert resolvable(exact, (4, 4)).item()
    exact[..., 1, 2] = 0.99
    assert not resolvable(exact, (4, 4)).item()


def test_grids_that_do_not_divide_the_size():
    masks = face_template(48).masks
    for grid in ((5, 7), (7, 7), (47, 48), (11, 13)):
        cell = 48 * 48 / (grid[0] * grid[1])
        found = resolvable(masks, grid)[0]
        assert not found[masks.sum((-2, -1))[0] < cell * 0.999].any()
        full = resolvable(torch.ones(1, 1, 48, 48), grid)
        assert full.all()
    assert resolvable(masks, (96, 500)).equal(resolvable(masks, (48, 48)))


@pytest.mark.parametrize(
    ("size", "grid"),
    [((30,), (4,)), ((7,), (7,)), ((5,), (9,)), ((6, 8, 10), (2, 3, 4)), ((4, 1, 9), (3, 1, 2))],
)
@pytest.mark.parametrize("seed", range(3))
def test_signals_and_volumes_beside_windows_one_by_one(size, grid, seed):
    random = np.random.default_rng(seed)
    masks = random.uniform(size=(2, 5, *size)) * (random.uniform(size=(2, 5, *size)) > 0.5)
    masks *= random.uniform(0, 2, (1, 5, *[1] * len(size)))
    masks = masks.clip(0, 1)
    cell = [max(length / cells, 1) for length, cells in zip(size, grid, strict=True)]
    axes = tuple(range(2, masks.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(masks, [math.ceil(c) for c in cell], axes)
    filled = windows.sum(tuple(range(masks.ndim, windows.ndim))).max(axes)
    least = math.prod(cell)
    expected = (masks.sum(axes) >= least) & (filled >= least / 2)
    found = resolvable(torch.tensor(masks), grid).cpu().numpy()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_receptive_field_is_a_coarser_grid(axes):
    masks = torch.rand(2, 4, *[24] * axes) * (torch.rand(1, 4, *[1] * axes) * 2)
    masks = masks.clamp(max=1)
    for width in (2.0, 3.0, 8.0):
        grid = [int(24 / width)] * axes
        found = resolvable(masks, [24] * axes, receptive_field=[width] * axes)
        assert found.equal(resolvable(masks, grid))
        assert resolvable(masks, grid, receptive_field=[1.0] * axes).equal(found)
