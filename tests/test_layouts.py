"""Layouts move values to their places, under vmap too, and say what does not fit."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from camlens import layouts

GRIDS = [(5,), (3, 5), (4, 4), (2, 3, 4)]


def folded(maps, window, levels, cells_first):
    """Order the cells of (N, C, *grid) by windows, one cell at a time."""
    grid = maps.shape[2:]

    def key(cell):
        windows = []  # from the coarsest
        for level in reversed(range(levels + 1)):
            block = [w**level for w in window]
            windows.append(tuple(i // b for i, b in zip(cell, block, strict=True)))
        digits = [windows[0]] + [
            tuple(i % w for i, w in zip(fine, window, strict=True)) for fine in windows[1:]
        ]
        return digits[::-1] if cells_first else digits

    cells = sorted(itertools.product(*map(range, grid)), key=key)
    return torch.stack([maps[(slice(None), slice(None), *cell)] for cell in cells], dim=1)


@pytest.mark.parametrize("grid", GRIDS)
def test_channels_first_and_last(grid):
    maps = torch.rand(2, 4, *grid)
    assert layouts.nchw(maps) is maps
    assert_close(layouts.nhwc(maps.movedim(1, -1)), maps)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (1, 0), (5, 0), (0, 3), (2, 4)])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
def test_tokens(grid, prefix, suffix, batch_first, channels_first):
    maps = torch.rand(2, 4, *grid)
    output = torch.cat([torch.rand(2, 4, prefix), maps.flatten(2), torch.rand(2, 4, suffix)], 2)
    output = output if channels_first else output.transpose(1, 2)
    output = output if batch_first else output.transpose(0, 1)
    layout = layouts.tokens(
        prefix, grid, suffix=suffix, batch_first=batch_first, channels_first=channels_first
    )
    assert_close(layout(output), maps)


@pytest.mark.parametrize(
    ("window", "grid", "levels"),
    [
        ((2, 2), (4, 4), 1),
        ((2, 2), (8, 4), 2),
        ((3, 2), (6, 6), 1),
        ((2, 2), (8, 16), 3),
        ((2,), (8,), 2),
        ((1, 2, 2), (3, 4, 4), 1),
    ],
)
@pytest.mark.parametrize("cells_first", [False, True])
def test_windows(window, grid, levels, cells_first):
    maps = torch.rand(2, 3, *grid)
    layout = layouts.windows(window, grid, levels=levels, cells_first=cells_first, prefix=1)
    output = folded(maps, window, levels, cells_first)
    assert_close(layout(torch.cat([torch.rand(2, 1, 3), output], 1)), maps)


def test_windows_that_do_not_divide_the_grid():
    with pytest.raises(ValueError, match=r"windows of \(2, 2\) in 2 levels do not divide .*\(6, 4"):
        layouts.windows((2, 2), (6, 4), levels=2)


def test_permuted_and_groups():
    maps = torch.rand(2, 3, 4, 5)
    assert_close(layouts.permuted(1, 3, (2, 0))(maps.permute(3, 0, 2, 1)), maps)
    rows = torch.rand(6, 4, 5, 3)
    grouped = layouts.groups(3, layouts.nhwc)(rows)
    assert grouped.shape == (2, 9, 4, 5)
    assert_close(grouped[1, 3:6], rows[4].movedim(-1, 0))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (layouts.nhwc, (2, 3, 4, 5)),
        (layouts.permuted(1, 0, (2, 3)), (2, 3, 4, 5)),
        (layouts.tokens(1, (2, 3), suffix=1), (2, 8, 4)),
        (layouts.tokens(0, (2, 3), batch_first=False), (6, 2, 4)),
        (layouts.windows((2, 2), (4, 4), cells_first=True), (2, 16, 3)),
        (layouts.groups(2), (4, 3, 2, 2)),
    ],
)
def test_layouts_under_vmap(layout, shape):
    outputs = torch.rand(3, *shape)
    expected = torch.stack([layout(output) for output in outputs])
    assert_close(torch.vmap(layout)(outputs), expected)


def test_layouts_say_what_they_are_and_equal_their_like():
    layout = layouts.tokens(1, (2, 3), suffix=4, batch_first=False)
    assert repr(layout) == "tokens(1, (2, 3), suffix=4, batch_first=False)"
    assert layout == layouts.tokens(1, [2, 3], suffix=4, batch_first=False)
    assert repr(layouts.windows((2, 2), (4, 4), cells_first=True)) == (
        "windows((2, 2), (4, 4), cells_first=True)"
    )
    assert repr(layouts.permuted(1, 0, (3, 2))) == "permuted(1, 0, (3, 2))"


def test_reading_may_move_the_batch():
    output = torch.rand(16, 3, 8)
    maps = layouts.read(output, lambda out: out.permute(1, 2, 0).unflatten(2, (4, 4)), "x", 3)
    assert maps.shape == (3, 8, 4, 4)
    assert layouts.read(maps, None, "x", 3, axes=2) is maps


@pytest.mark.parametrize(
    ("shape", "layout", "axes", "message"),
    [
        (
            (2, 5, 3),
            layouts.tokens(1, (3, 3)),
            2,
            r"layer 'a.b' returns \(2, 5, 3\), which the layout tokens\(1, \(3, 3\)\) cannot read: "
            r".*10 tokens.*Expected \(N, C, h, w\) with N = 2: pass layout=",
        ),
        ((2, 5, 3), lambda out: out.flatten(1), 2, r"<lambda> turns into \(2, 15\)"),
        ((2, 5, 3), lambda out: None, 2, "turns into NoneType"),
        ((2, 5, 3), lambda out: out.unflatten(1, (2, 2)), None, r"Expected \(N, C, \*grid\)"),
        ((8, 5, 3, 3), layouts.nchw, 2, r"nchw turns into \(8, 5, 3, 3\)"),
        ((2, 5, 3, 3), None, 3, r"\(N, C, d, h, w\)"),
        ((2, 5, 3, 3), None, 1, r"\(N, C, l\)"),
        ((6, 5, 3, 3), layouts.groups(5), 2, "cannot read"),
    ],
)
def test_reading_what_does_not_fit(shape, layout, axes, message):
    with pytest.raises(ValueError, match=message):
        layouts.read(torch.rand(shape), layout, "a.b", 2, axes=axes)
