"""ROAD: exact shares whatever the ties, both orders, every batch, and colour."""

import pytest
import torch
from torch import nn

from camlens.faithfulness import impute, road

from .. import metrics


@pytest.mark.parametrize("order", ["most", "least"])
def test_the_curve_is_that_of_imputing_by_hand(order):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    found = road(
        model, images, maps, targets=1, order=order, percentages=(25, 50), noise=0.0, floors=()
    )
    sign = 1 if order == "most" else -1
    for n in range(3):
        for s, count in enumerate((36, 72)):
            hottest = (sign * maps[n, 0]).flatten().argsort(descending=True)[:count]
            removed = torch.zeros(144, dtype=torch.bool).index_fill(0, hottest, True)
            with torch.no_grad():
                score = model(impute(images[n : n + 1], removed.view(1, 12, 12))).softmax(dim=1)
            assert found.curve[n, 0, s].item() == pytest.approx(score[0, 1].item(), abs=1e-4)
    torch.testing.assert_close(found.values, found.curve.mean(dim=2))
    assert found.steps.tolist() == [0.25, 0.5]
    assert found.better == ("lower" if order == "most" else "higher")


def test_combined_is_half_the_difference():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    most, least, both = (
        road(model, images, maps, order=order).values for order in ("most", "least", "combined")
    )
    torch.testing.assert_close(both, (least - most) / 2)


class Whole(nn.Module):
    """The share of the pixels that are whole numbers, above and below the middle."""

    def forward(self, images):
        return (images == images.round()).all(dim=1).float().unflatten(1, (2, -1)).mean(dim=(2, 3))


def tied_maps():
    """A map of 16 hot pixels of 256, one without evidence, and a constant one."""
    maps = torch.zeros(3, 1, 16, 16)
    maps[0, :, :4, :4] = 1
    maps[2] = 0.5
    return maps


@pytest.mark.parametrize("order", ["most", "least"])
def test_exactly_the_stated_share_is_removed_whatever_the_ties(order):
    images = torch.randint(9, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    model, shares = Whole().eval(), (6.25, 10, 50, 90)
    options = {"targets": "all", "activation": "none", "percentages": shares, "floors": ("random",)}
    found = road(model, images, tied_maps().expand(-1, 2, -1, -1), order=order, **options)
    removed = 1 - found.curve.mean(dim=1)  # of both halves
    expected = torch.tensor([16, 26, 128, 230]) / 256
    torch.testing.assert_close(removed, expected.expand(3, 4))
    # Ties go at random: not one half before the other.
    assert ((1 - found.curve[1:, :, 2]) - 0.5).abs().max() < 0.15
    if order == "most":  # the hot pixels first
        assert (1 - found.curve[0, :, 0]).tolist() == [0.125, 0.0]


def test_a_constant_map_has_no_order_of_its_own():
    model, images = metrics.convolutional(), metrics.images()
    one, other = (
        road(model, images, torch.full((3, 1, 12, 12), value), seed=5, floors=()).values
        for value in (0.0, 0.7)
    )
    assert torch.equal(one, other)
    assert not torch.equal(
        one, road(model, images, torch.zeros(3, 1, 12, 12), seed=6, floors=()).values
    )


def test_a_map_of_the_evidence_is_above_the_random_floor():
    """The score is the mean of the middle, where the map is."""
    heat = torch.zeros(1, 1, 16, 16)
    heat[..., 6:10, 6:10] = 1 + torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    model = metrics.linear(256)
    model[1].weight.data = heat.gt(0).float().flatten(1) / 16
    draw = torch.Generator().manual_seed(1)
    images = heat + 0.1 * torch.rand(6, 1, 16, 16, generator=draw)
    found = road(model, images, heat.expand(6, -1, -1, -1), activation="none", floors=("random",))
    assert found.above_floor.clear
    assert found.mean > 0.4
    assert abs(found.floors["random"].mean) < 0.1


def test_noise_is_drawn_by_image():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    whole = road(model, images, maps, noise=0.5, percentages=(50,))
    parts = [
        road(model, images[n : n + 1], maps[n : n + 1], noise=0.5, percentages=(50,), first=n)
        for n in range(3)
    ]
    torch.testing.assert_close(whole.values, torch.cat([part.values for part in parts]))
    for name, values in whole.floor_values.items():
        torch.testing.assert_close(values, torch.cat([part.floor_values[name] for part in parts]))
    quiet = road(model, images, maps, noise=0.0, percentages=(50,))
    assert not torch.allclose(whole.values, quiet.values)


def test_k_targets_are_k_calls():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps(3, 2)
    whole = road(model, images, maps, targets=[[0, 3]])
    for k, target in enumerate((0, 3)):
        part = road(model, images, maps[:, k : k + 1], targets=target)
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "both"}, "both"),
        ({"percentages": ()}, "percentages"),
        ({"percentages": (0, 50)}, "percentages"),
        ({"percentages": (50, 99.9)}, r"of 144 pixels.*\[72, 144\]"),
        ({"percentages": (0.1,)}, r"of 144 pixels.*\[0\]"),
        ({"noise": -1.0}, "noise"),
        ({"noise": float("nan")}, "noise"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        road(metrics.convolutional(), metrics.images(), metrics.maps(), **options)


def test_signals_are_refused_with_the_remedy():
    signals = torch.rand(2, 1, 30)
    with pytest.raises(ValueError, match="deletion or insertion"):
        road(metrics.linear(30), signals, signals, activation="none")


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.rand(3, 1, 6, 6), "heatmap.resize"),
        (torch.rand(2, 1, 12, 12), "for 3 images"),
        (torch.rand(3, 2, 12, 12), "a map for each of 1 targets"),
        (torch.full((3, 1, 12, 12), torch.nan), "NaN"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, words):
    with pytest.raises(ValueError, match=words):
        road(metrics.convolutional(), metrics.images(), maps)
