"""Placing: stretched is torch's interpolation, measured draws a cell's value at its centre."""

import dataclasses
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from camlens.registration import Registration, place

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def measured(size, grid, offset, *, error=0.1, pitch=None, pitch_error=None, proven=True):
    axes = len(size)
    return Registration(
        kind="measured",
        size=size,
        grid=grid,
        proven=proven,
        offset=offset,
        offset_error=(error,) * axes,
        pitch=pitch or tuple(s / g for s, g in zip(size, grid, strict=True)),
        pitch_error=pitch_error,
        receptive_field=(3.5,) * axes,
    )


def drawn_by_hand(values, centres, pixels):
    """Return the value at each pixel's centre, looked up between the nearest two cells."""
    drawn = []
    for pixel in range(pixels):
        at = pixel + 0.5
        if at <= centres[0]:
            drawn.append(values[0])
        elif at >= centres[-1]:
            drawn.append(values[-1])
        else:
            right = next(j for j, c in enumerate(centres) if c > at)
            share = (at - centres[right - 1]) / (centres[right] - centres[right - 1])
            drawn.append((1 - share) * values[right - 1] + share * values[right])
    return drawn


@pytest.mark.parametrize(("size", "grid"), [((224,), (7,)), ((299, 75), (35, 8)), ((5, 7), (5, 7))])
def test_stretched_cells_divide_the_image(size, grid):
    registration = Registration.stretched(size, grid)
    for axis, (pixels, cells) in enumerate(zip(size, grid, strict=True)):
        centres = registration.centres(axis)
        assert_close(centres, (torch.arange(cells).double() + 0.5) * pixels / cells)
    assert not registration.moved


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((5,), (17,)),
        ((3, 4), (24, 30)),
        ((4, 3), (4, 3)),
        ((2, 3, 4), (5, 9, 8)),
        ((1, 6), (1, 60)),
    ],
)
@pytest.mark.parametrize("kind", ["stretched", "insignificant", "unproven"])
def test_maps_that_are_not_moved_are_interpolated_by_torch(grid, size, kind):
    maps = torch.randn(2, 3, *grid)
    registration = {
        "stretched": Registration.stretched(size, grid),
        "insignificant": measured(size, grid, (0.19,) * len(size)),
        "unproven": measured(size, grid, (3.0,) * len(size), proven=False),
    }[kind]
    placed = place(maps, registration)
    expected = functional.interpolate(maps, size, mode=MODES[len(grid)], align_corners=False)
    assert torch.equal(placed, expected)


@given(
    st.integers(1, 6),
    st.integers(1, 24),
    st.floats(0.03, 0.6),
    st.floats(0.5, 1.4),
    st.integers(0, 1000),
)
def test_a_cell_is_drawn_at_its_centre(cells, pixels, share, factor, seed):
    pitch = factor * pixels / cells
    offset = share * pitch * (1 if seed % 2 else -1)
    registration = measured(
        (pixels,), (cells,), (offset,), error=0.0, pitch=(pitch,), pitch_error=(0.0,)
    )
    centres = registration.centres(0).tolist()
    if abs(factor - 1) > 0.1:
        distances = [b - a for a, b in itertools.pairwise(centres)]
        assert distances == pytest.approx([pitch] * (cells - 1))
        assert sum(centres) / cells == pytest.approx(pixels / 2 + offset)
    values = torch.randn(cells, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    placed = place(values.view(1, 1, -1), registration)[0, 0].tolist()
    assert placed == pytest.approx(drawn_by_hand(values.tolist(), centres, pixels), abs=1e-9)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_axes_are_placed_one_by_one(axes):
    grid, size, offset = (3, 4, 2)[:axes], (9, 8, 10)[:axes], (1.0, -2.0, 0.5)[:axes]
    factors = [torch.randn(cells, dtype=torch.float64) for cells in grid]
    maps = placed = torch.ones((), dtype=torch.float64)
    for axis, values in enumerate(factors):
        line = measured(size[axis : axis + 1], grid[axis : axis + 1], offset[axis : axis + 1])
        maps = maps[..., None] * values
        placed = placed[..., None] * place(values.view(1, 1, -1), line)[0, 0]
    assert_close(place(maps[None, None], measured(size, grid, offset))[0, 0], placed)


def test_an_offset_of_whole_pixels_moves_the_drawing():
    maps = torch.rand(1, 1, 8, 8)
    drawn = functional.interpolate(maps, (128, 128), mode="bilinear", align_corners=False)
    moved = place(maps, measured((128, 128), (8, 8), (-6.0, 4.0)))
    assert_close(moved[..., 10:100, 14:100], drawn[..., 16:106, 10:96])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_place_keeps_the_type_and_the_range(dtype):
    maps = torch.randn(2, 2, 7, 7).to(dtype)
    placed = place(maps, measured((224, 200), (7, 7), (-14.2, 3.0)))
    assert placed.dtype == dtype
    assert placed.shape == (2, 2, 224, 200)
    tolerance = 4 * torch.finfo(dtype).eps * maps.abs().max()
    assert (placed.amax((2, 3)) <= maps.amax((2, 3)) + tolerance).all()
    assert (placed.amin((2, 3)) >= maps.amin((2, 3)) - tolerance).all()


def test_only_what_is_beyond_two_standard_errors_is_applied():
    registration = measured(
        (64, 64), (8, 8), (0.21, -0.19), pitch=(7.5, 7.5), pitch_error=(0.2, 0.3)
    )
    assert registration.applied_offset == (0.21, 0.0)
    assert registration.applied_pitch == (7.5, 8.0)
    shown = dataclasses.replace(registration, kind="stretched")
    assert shown.applied_offset == (0.0, 0.0)
    assert not shown.moved
    assert shown.offset == (0.21, -0.19)


@pytest.mark.parametrize("span", [((-3.0, 9.0), (2.0, 8.0)), ((0.0, 16.0), (12.0, -4.0))])
def test_a_map_is_stretched_over_its_span(span):
    """Its cells divide the span evenly, and what lies beyond the image is not drawn."""
    size, grid, maps = (9, 12), (6, 5), torch.rand(1, 1, 6, 5)
    registration = Registration.stretched(size, grid, span=span)
    assert registration.moved
    drawn = place(maps, registration)[0, 0]
    expected = maps[0, 0]
    for axis, (first, last) in enumerate(span):
        cells = grid[axis]
        centres = [first + (j + 0.5) * (last - first) / cells for j in range(cells)]
        assert_close(registration.centres(axis).tolist(), centres)
        order = slice(None) if last > first else slice(None, None, -1)
        lines = [
            drawn_by_hand(line[order], centres[order], size[axis])
            for line in expected.movedim(axis, 1).tolist()
        ]
        expected = torch.tensor(lines).movedim(1, axis)
    assert_close(drawn, expected)


def test_measured_places_within_the_error_are_those_of_the_span():
    span = ((0.0, 96.0),)
    stretched = Registration.stretched((64,), (12,), proven=True, span=span)
    found = measured((64,), (12,), (16.1,), pitch=(8.01,), pitch_error=(0.1,))
    found = dataclasses.replace(found, span=span)
    assert_close(found.centres(0), stretched.centres(0))
    away = dataclasses.replace(found, offset=(18.0,))
    assert_close(away.centres(0), stretched.centres(0) + 2)


def test_a_pitch_that_is_not_positive_is_not_applied():
    """Cells that all respond to the middle have no place of their own to be drawn at."""
    nowhere = measured((64,), (8,), (0.0,), pitch=(0.1,), pitch_error=(0.2,))
    assert not nowhere.moved


@pytest.mark.parametrize(
    "registration",
    [
        Registration.stretched((8,), (4,), proven=True),
        Registration.stretched((8, 8), (4, 6), span=((0.0, 8.0), (-2.0, 10.5))),
        measured((8, 9, 10), (4, 3, 2), (0.5, -0.5, 1 / 3), pitch_error=(0.1, None, 0.2)),
    ],
)
def test_json_brings_the_registration_back(registration):
    text = json.dumps(registration.to_dict())
    assert Registration.from_dict(json.loads(text)) == registration


def test_contradicting_fields_are_errors():
    good = Registration.stretched((8, 8), (4, 4))
    with pytest.raises(ValueError, match="expected 2 numbers in grid"):
        dataclasses.replace(good, grid=(4,))
    with pytest.raises(ValueError, match="together"):
        dataclasses.replace(good, offset=(1.0, 1.0))
    with pytest.raises(ValueError, match='expected kind as "stretched" or "measured"'):
        dataclasses.replace(good, kind="drawn")
    for ends in ((1.0, 1.0), (0.0, 4.0, 8.0)):
        with pytest.raises(ValueError, match="span as two different positions per axis"):
            dataclasses.replace(good, span=((0.0, 8.0), ends))
    with pytest.raises(ValueError, match="got \\(1, 1, 4, 5\\)"):
        place(torch.zeros(1, 1, 4, 5), good)
