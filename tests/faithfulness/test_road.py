"""ROAD: exact shares whatever the ties, both orders, every batch, and colour."""

import pytest
import torch

from camlens.faithfulness import road
from camlens.faithfulness.imputation import impute
from camlens.faithfulness.pixel_order import ranks

from . import metrics


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


def test_ties_remove_the_stated_share_in_random_places():
    maps = torch.zeros(1, 1, 16, 16)
    maps[..., :4, :4] = 1  # 16 hot pixels of 256: a threshold would remove all or none
    places = ranks(maps, torch.tensor([3]))
    assert places.flatten().sort().values.tolist() == list(range(256))
    assert places[..., :4, :4].max() == 15
    rows = (places < 128)[0, 0].float().mean(dim=1)
    assert rows[8:].mean() > 0.3  # not the upper half alone


def test_noise_is_drawn_by_image():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    whole = road(model, images, maps, noise=0.5, percentages=(50,))
    parts = [
        road(model, images[n : n + 1], maps[n : n + 1], noise=0.5, percentages=(50,), first=n)
        for n in range(3)
    ]
    torch.testing.assert_close(whole.values, torch.cat([part.values for part in parts]))
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
        ({"noise": -1.0}, "noise"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        road(metrics.convolutional(), metrics.images(), metrics.maps(), **options)


def test_signals_are_refused_with_the_remedy():
    signals = torch.rand(2, 1, 30)
    with pytest.raises(ValueError, match="deletion or insertion"):
        road(metrics.linear(30), signals, signals, activation="none")
