"""Distances beside OpenCV's and matplotlib's, areas in closed form, curves that keep points."""

import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path
from torch.testing import assert_close

from camlens.faces.polygons import coverage, signed_distance, smooth


def ring(count, radius, centre, height=None):
    """Points on a circle or an ellipse, (count, 2)."""
    angle = torch.arange(count) * (2 * math.pi / count)
    x, y = radius * angle.cos(), (height or radius) * angle.sin()
    return torch.stack([x, y], dim=-1) + torch.tensor(centre)


def star(seed, count=9):
    """A polygon that does not cross itself, (count, 2), in a 24 x 20 image and partly beyond."""
    random = np.random.default_rng(seed)
    angle = np.sort(random.uniform(0, 2 * np.pi, count))
    radius = random.uniform(2, 14, count)
    points = np.stack([12 + radius * np.cos(angle), 10 + radius * np.sin(angle)], axis=-1)
    return torch.tensor(points, dtype=torch.float32)


def centres(h, w):
    """(H * W, 2): x and y of the pixels' centres."""
    y, x = np.mgrid[:h, :w] + 0.5
    return np.stack([x.ravel(), y.ravel()], axis=-1)


@pytest.mark.parametrize("seed", range(6))
def test_distances_are_those_of_opencv(seed):
    cv2 = pytest.importorskip("cv2")
    points = star(seed)
    contour = points.cpu().numpy()[:, None]
    expected = [-cv2.pointPolygonTest(contour, tuple(p), True) for p in centres(20, 24)]
    found = signed_distance(points, (20, 24)).flatten()
    assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=2e-4, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_inside_is_what_matplotlib_fills(seed):
    points = star(seed, count=15)
    expected = Path(points.cpu().numpy()).contains_points(centres(20, 24)).reshape(20, 24)
    assert 20 < expected.sum() < 460
    assert np.array_equal((signed_distance(points, (20, 24)) < 0).cpu().numpy(), expected)


def test_inside_is_enclosed_by_an_odd_number_of_edges():
    """A bow tie: two triangles that meet at a point, and nothing beside them."""
    tie = torch.tensor([[0.0, 0.0], [8.0, 8.0], [8.0, 0.0], [0.0, 8.0]])
    inside = signed_distance(tie, (8, 8)) < 0
    row = torch.arange(8).float() + 0.5
    across, down = row - 4, row[:, None] - 4
    assert torch.equal(inside, down.abs() < across.abs())


def test_one_polygon_among_many_and_either_direction_give_the_same():
    polygons = torch.stack([star(seed) for seed in range(4)]).view(2, 2, 9, 2)
    found = signed_distance(polygons, (20, 24))
    assert found.shape == (2, 2, 20, 24)
    assert_close(found[1, 0], signed_distance(star(2), (20, 24)))
    assert_close(signed_distance(polygons.flip(-2), (20, 24)), found, atol=1e-4, rtol=0)
    turned = signed_distance(polygons.roll(3, -2), (20, 24))
    assert_close(turned, found, atol=1e-4, rtol=0)


def test_edges_through_pixel_centres_count_once():
    """Corners on the rows of the centres, and level edges on them, are where rays go wrong."""
    diamond = torch.tensor([[4.5, 0.5], [8.5, 4.5], [4.5, 8.5], [0.5, 4.5]])
    steps = (torch.arange(9).float() - 4).abs()
    exact = (steps + steps[:, None] - 4) / math.sqrt(2)
    found = signed_distance(diamond, (9, 9))
    assert_close(found[exact < 0], exact[exact < 0])
    assert (found[exact > 0] > 0).all()
    assert_close(found[exact == 0], torch.zeros(16))
    box = torch.tensor([[1.5, 1.5], [6.5, 1.5], [6.5, 4.5], [1.5, 4.5]])
    found = signed_distance(box, (7, 9))
    assert (found < 0).sum() == 4 * 2
    assert (found.abs() < 1e-6).sum() == 2 * 6 + 2 * 2
    assert (found[:, 7:] > 0.9).all()


def test_repeated_points_change_nothing_and_a_point_is_no_area():
    points = star(0)
    assert_close(
        signed_distance(points.repeat_interleave(3, 0), (20, 24)), signed_distance(points, (20, 24))
    )
    point = signed_distance(torch.tensor([[3.5, 0.5]]).expand(5, 2), (2, 6))
    assert_close(point[0], torch.tensor([3.0, 2, 1, 0, 1, 2]))


def test_nan_stays_in_its_own_polygon():
    polygons = torch.stack([star(0), star(1)])
    polygons[0, 3, 1] = torch.nan
    found = signed_distance(polygons, (20, 24))
    assert found[0].isnan().all()
    assert_close(found[1], signed_distance(star(1), (20, 24)))
    assert coverage(found)[0].count_nonzero() == 0


@pytest.mark.parametrize(("radius", "error"), [(2.0, 0.02), (5.3, 0.006), (11.7, 0.001)])
def test_the_area_of_a_circle(radius, error):
    masks = coverage(signed_distance(ring(200, radius, (15.2, 14.6)), (30, 30)))
    assert masks.sum().item() == pytest.approx(math.pi * radius**2, rel=error)
    assert masks.amin() == 0
    assert masks.amax() == 1


def test_coverage_is_half_on_the_line_and_padding_is_subtraction():
    distance = torch.tensor([-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 3.0, torch.inf, torch.nan])
    expected = torch.tensor([1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0])
    assert_close(coverage(distance), expected)
    square = torch.tensor([[10.0, 10.0], [20.0, 10.0], [20.0, 20.0], [10.0, 20.0]])
    padded = coverage(signed_distance(square, (30, 30)) - 4).sum().item()
    assert padded == pytest.approx(100 + 4 * 10 * 4 + math.pi * 16, rel=0.002)


def test_smooth_keeps_points_and_cubics():
    """The scheme is exact for cubic curves, wherever it has four neighbours of one."""
    t = torch.arange(8, dtype=torch.float64)

    def curve(t):
        return torch.stack([t**3 - 5 * t**2, 2 - t + 0.5 * t**3], dim=-1)

    found = smooth(curve(t))
    assert_close(found[::2], curve(t))
    assert_close(found[3:13:2], curve(t[1:6] + 0.5))


def test_smooth_rounds_a_ring():
    coarse = ring(8, 10.0, (0.0, 0.0))
    fine = smooth(smooth(torch.stack([coarse, coarse + 5])))
    assert fine.shape == (2, 32, 2)
    assert_close(fine[0, ::4], coarse)
    assert (coarse.roll(1, 0) + coarse)[0].norm() / 2 < 9.3  # a straight edge's middle
    assert (fine[0].norm(dim=-1) - 10).abs().max() < 0.15
    assert_close(fine[1] - 5, fine[0], atol=1e-5, rtol=0)
