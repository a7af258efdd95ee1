"""Localization: against counting by hand, with ties, soft masks and images without an object."""

import sys

import numpy as np
import pytest
import torch

from camlens import heatmap
from camlens.faithfulness import (
    class_mean,
    energy_pointing_game,
    intersection_over_union,
    pointing_game,
)
from camlens.regions import Regions

METRICS = (pointing_game, energy_pointing_game, intersection_over_union)


@pytest.fixture
def case():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 20, 24, generator=draw)
    maps = torch.rand(4, 2, 20, 24, generator=draw)
    masks = torch.zeros(4, 20, 24)
    for row, (top, left) in enumerate([(2, 3), (10, 12), (0, 20), (15, 0)]):
        masks[row, top : top + 4, left : left + 4] = 1
    return images, maps, masks


@pytest.mark.parametrize("tolerance", [0, 1, 2.5, 6])
def test_pointing_game_counts_distances(case, tolerance):
    images, maps, masks = case
    found = pointing_game(None, images, maps, masks, tolerance=tolerance, floors=()).values
    for n in range(4):
        inside = np.argwhere(masks[n].numpy() > 0)
        for k in range(2):
            peak = np.unravel_index(int(maps[n, k].argmax()), (20, 24))
            distance = np.sqrt(((inside - np.array(peak)) ** 2).sum(axis=1)).min()
            assert found[n, k] == float(distance <= tolerance)


def test_pointing_game_of_tied_maxima_is_the_share_that_hits(case):
    images, _, masks = case
    constant = torch.ones(4, 1, 20, 24)
    values = pointing_game(None, images, constant, masks, tolerance=0, floors=()).values
    assert torch.allclose(values, torch.full((4, 1), 16 / 480))
    two = torch.zeros(4, 1, 20, 24)
    two[:, :, 0, 0] = 5.0  # beside no object but one; the other peak is on each
    two[torch.arange(4), 0, [3, 11, 1, 16], [4, 13, 21, 1]] = 5.0
    assert pointing_game(None, images, two, masks, tolerance=0, floors=()).values.unique() == 0.5


def test_rounding_does_not_choose_the_maximum():
    """A coarse map has as many hits as its mirror image, where its peak is a flat edge."""
    coarse = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images, mask = torch.zeros(400, 1, 33, 33), torch.zeros(33, 33)
    mask[:, :2] = 1
    mask[:2] = 1
    found = [
        pointing_game(
            None,
            images,
            heatmap.scale(heatmap.resize(maps, (33, 33))),
            masks.expand(400, -1, -1),
            tolerance=0,
            floors=(),
        ).values
        for maps, masks in ((coarse, mask), (coarse.flip(3), mask.flip(1)))
    ]
    assert ((found[0] > 0) & (found[0] < 1)).any()  # some peaks are flat
    torch.testing.assert_close(*found)


def test_energy_is_the_share_of_the_positive_heat(case):
    images, maps, masks = case
    signed = maps - 0.5
    values = energy_pointing_game(None, images, signed, masks, floors=()).values
    heat = signed.clamp(min=0).numpy()
    expected = (heat * masks[:, None].numpy()).sum((2, 3)) / heat.sum((2, 3))
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    nothing = energy_pointing_game(None, images, -maps, masks, floors=()).values
    np.testing.assert_allclose(nothing, 16 / 480, rtol=1e-5)


def test_soft_masks_count_by_their_values(case):
    images, maps, _ = case
    soft = torch.full((4, 20, 24), 0.25)
    assert torch.allclose(
        energy_pointing_game(None, images, maps, soft, floors=()).values, torch.tensor(0.25)
    )
    assert pointing_game(None, images, maps, soft, floors=()).values.isnan().all()


def test_intersection_over_union_of_equal_areas(case):
    images, maps, masks = case
    values = intersection_over_union(None, images, maps, masks, floors=()).values
    for n in range(4):
        for k in range(2):
            flat = maps[n, k].flatten()
            top = np.zeros(480, bool)
            top[flat.argsort(descending=True)[:16].numpy()] = True
            inside = masks[n].flatten().numpy() > 0
            expected = (top & inside).sum() / (top | inside).sum()
            assert values[n, k] == pytest.approx(expected)
    perfect = intersection_over_union(None, images, masks[:, None], masks, floors=()).values
    assert perfect.eq(1).all()


def test_floors_are_chance(case):
    images, _, masks = case
    images, masks = images.repeat(50, 1, 1, 1), masks.repeat(50, 1, 1)
    perfect = masks[:, None]
    found = energy_pointing_game(None, images, perfect, masks)
    assert found.floors["random"].mean == pytest.approx(16 / 480, rel=0.05)
    assert found.above_floor.mean == pytest.approx(1 - max(f.mean for f in found.floors.values()))
    assert found.above_floor.clear


@pytest.mark.parametrize("metric", METRICS)
def test_one_mask_for_each_target_or_one_for_all(case, metric):
    images, maps, masks = case
    other = masks.flip(1)
    both = metric(None, images, maps, torch.stack([masks, other], dim=1), floors=()).values
    first = metric(None, images, maps[:, :1], masks, floors=()).values
    second = metric(None, images, maps[:, 1:], other, floors=()).values
    assert torch.equal(both, torch.cat([first, second], dim=1))
    regions = Regions(["object"], masks[:1])
    single = metric(None, images, maps, masks[:1].expand(4, -1, -1), floors=()).values
    assert torch.equal(metric(None, images, maps, regions, floors=()).values, single)


@pytest.mark.parametrize("metric", METRICS)
def test_boxes_are_masks(case, metric):
    images, maps, masks = case
    boxes = torch.tensor([[3, 2, 7, 6], [12, 10, 16, 14], [20, 0, 24, 4], [0, 15, 4, 19]])
    expected = metric(None, images, maps, masks, floors=()).values
    for given in (boxes, boxes.double()):
        assert torch.equal(metric(None, images, maps, given, floors=()).values, expected)
    boxes[1] = 5  # without an area
    boxes[2] = torch.tensor([30, 0, 40, 4])  # outside of the image
    assert metric(None, images, maps, boxes, floors=()).values.isnan().all(1).tolist() == [
        *(False, True, True, False)
    ]
    with pytest.raises(ValueError, match="left <= right"):
        metric(None, images, maps, boxes.flip(1), floors=())


def test_masks_of_signals_with_as_many_samples_as_a_box_has_edges():
    signals, maps = torch.zeros(2, 1, 2), torch.tensor([[[3.0, 1.0]], [[1.0, 3.0]]])
    masks = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    values = energy_pointing_game(None, signals, maps, masks, floors=()).values
    assert values.flatten().tolist() == [0.25, 0.75]


@pytest.mark.parametrize("metric", METRICS)
def test_batches_equal_single_images(case, metric):
    images, maps, masks = case
    whole = metric(None, images, maps, masks)
    singles = [
        metric(None, images[i : i + 1], maps[i : i + 1], masks[i : i + 1], first=i)
        for i in range(4)
    ]
    assert torch.equal(whole.values, torch.cat([s.values for s in singles]))
    for name, values in whole.floor_values.items():
        torch.testing.assert_close(values, torch.cat([s.floor_values[name] for s in singles]))


@pytest.mark.parametrize("metric", METRICS)
def test_without_an_object_nothing_is_said(case, metric):
    images, maps, masks = case
    masks = masks.clone()
    masks[1] = 0
    found = metric(None, images, maps, masks)
    assert found.values[1].isnan().all()
    assert found.values[[0, 2, 3]].isfinite().all()
    assert found.floor_values["centre"][1].isnan().all()
    known = found.values[[0, 2, 3]].mean().item()
    assert found.mean == pytest.approx(known)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        (torch.zeros(4, 20, 23), ValueError, "20, 24"),
        (torch.zeros(3, 20, 24), ValueError, "4 images"),
        (torch.zeros(4, 3, 20, 24), ValueError, "2 targets"),
        (torch.full((4, 20, 24), 2.0), ValueError, r"within \[0, 1\]"),
        (torch.full((4, 20, 24), torch.nan), ValueError, r"within \[0, 1\]"),
        (torch.zeros(4, 20, 24, dtype=torch.int64), TypeError, "int64"),
        ([[0, 0, 4, 4]], TypeError, "Regions"),
    ],
)
def test_bad_masks_are_errors(case, metric, masks, error, words):
    images, maps, _ = case
    with pytest.raises(error, match=words):
        metric(None, images, maps, masks)


def test_class_mean_weighs_classes_alike():
    values = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [1.0, 0.0]])
    classes = torch.tensor([[0, 1], [0, 1], [2, 1]])
    assert class_mean(values, classes) == pytest.approx((0.5 + 0.5 + 1) / 3)
    with pytest.raises(ValueError, match="NaN"):
        class_mean(torch.full((1, 1), torch.nan), torch.tensor([0]))
    with pytest.raises(ValueError, match="expected values"):
        class_mean(values, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="unknown class"):
        class_mean(values, torch.tensor([0, -1, 2]))
    with pytest.raises(TypeError, match="float32"):
        class_mean(values, torch.tensor([0.0, 1.0, 2.0]))
    assert class_mean(values, torch.tensor([[0, -1], [0, 1], [2, 1]])) > 0  # NaN is left out


def test_a_negative_tolerance_is_an_error(case):
    images, maps, masks = case
    with pytest.raises(ValueError, match="tolerance"):
        pointing_game(None, images, maps, masks, tolerance=-1)


def test_a_tolerance_names_the_extra_that_it_needs(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    assert pointing_game(None, *case, tolerance=0, floors=()).values.shape == (4, 2)
    with pytest.raises(ImportError, match=r'a tolerance needs scipy: pip install "camlens\[metr'):
        pointing_game(None, *case)


@pytest.mark.parametrize("unit", [1e-38, 1e37])
def test_the_energy_game_does_not_depend_on_the_unit_of_the_maps(unit):
    maps = torch.rand(1, 1, 12, 12)
    masks = torch.zeros(1, 12, 12, dtype=torch.bool)
    masks[:, 2:5, 3:7] = True
    images = torch.zeros(1, 3, 12, 12)
    expected, found = (
        energy_pointing_game(None, images, each, masks, floors=()).values
        for each in (maps, unit * maps)
    )
    assert expected.item() > 0
    torch.testing.assert_close(found, expected)
