"""Outlines: SVG paths along the masks' edges, in 224ths of the image's longer side."""

import re

import pytest
import torch

from camlens.faces import face_template
from camlens.regions import Regions
from camlens.regions.outlines import outlines


def points(path):
    """Return the corners of a path's lines."""
    lines = []
    for start, steps in re.findall(r"M(\d+,\d+)l([-\d, ]*)z", path):
        moves = [[int(v) for v in move.split(",")] for move in (start, *steps.split())]
        lines.append(torch.tensor(moves).cumsum(dim=0))
    return lines


@pytest.mark.parametrize("size", [(56, 112), (112, 224), (448, 896)])
def test_a_box_at_any_size_is_in_the_same_place(size):
    factor = size[1] / 224
    box = [factor * edge for edge in (32, 16, 160, 224)]  # beyond the lower edge, at 112
    (line,) = points(outlines(Regions.from_boxes(["box"], [box], size))[0]["box"])
    low, high = line.aminmax(dim=0)
    assert (low - torch.tensor([32, 16])).abs().max() <= 1
    assert (high - torch.tensor([160, 112])).abs().max() <= 1
    assert len(line) <= 12


def test_each_part_and_each_hole_is_a_line_and_what_is_absent_has_none():
    masks = torch.zeros(2, 2, 32, 32)
    masks[0, 0, 2:6, 2:6] = 1
    masks[0, 0, 20:30, 10:30] = 1
    masks[0, 0, 24:26, 15:20] = 0
    found = outlines(Regions(["two", "none"], masks))
    assert len(points(found[0]["two"])) == 3
    assert [found[0]["none"], found[1]["two"]] == ["", ""]


def test_a_ragged_region_keeps_its_largest_lines():
    torch.manual_seed(0)
    masks = (torch.rand(1, 1, 224, 224) > 0.7).float()
    masks[..., :50, :] = 0
    masks[..., 10:40, 20:200] = 1  # by far the largest line
    path = outlines(Regions(["ragged"], masks))[0]["ragged"]
    assert 4000 < len(path) <= 8000
    sizes = [(line.amax(dim=0) - line.amin(dim=0)).tolist() for line in points(path)]
    assert any(width >= 179 and height in (29, 30) for width, height in sizes)


def test_a_face_takes_few_bytes_and_its_background_none():
    for side in (48, 224):
        (found,) = outlines(face_template(side))
        assert set(face_template(side).names) - set(found) == {"background"}
        assert sum(map(len, found.values())) < 2500
