"""Drops, increases, gains and sufficiency: formulas written out, and what games them."""

import numpy as np
import pytest
import torch

from camlens.faithfulness import average_drop, average_gain, average_increase, sufficiency
from camlens.heatmap import scale

from . import metrics

COMPARED = (average_drop, average_increase, average_gain)


def test_the_three_formulas():
    model, images, maps = metrics.convolutional(), metrics.images(8), metrics.maps(8)
    with torch.no_grad():
        p = model(images).softmax(dim=1)
        o = model(images * scale(maps)).softmax(dim=1)
    assert (o > p).any()
    assert (o < p).any()
    maps = maps.expand(-1, 4, -1, -1)
    found = [m(model, images, maps, targets="all", floors=()).values for m in COMPARED]
    torch.testing.assert_close(found[0], (p - o).clamp(min=0) / p)
    torch.testing.assert_close(found[1], (o > p).float())
    torch.testing.assert_close(found[2], (o - p).clamp(min=0) / (1 - p))


def test_a_map_of_ones_loses_nothing_and_one_of_zeros_all_but_the_baseline():
    model, images = metrics.convolutional(), metrics.images()
    assert average_drop(model, images, torch.ones(3, 1, 12, 12), floors=()).mean == 0
    blank = torch.zeros(3, 1, 12, 12)
    with torch.no_grad():
        p = model(images).softmax(dim=1).amax(dim=1)
        o = model(torch.zeros(1, 3, 12, 12)).softmax(dim=1)[0, model(images).argmax(dim=1)]
    found = average_drop(model, images, blank, floors=()).values[:, 0]
    torch.testing.assert_close(found, (p - o).clamp(min=0) / p)


@pytest.mark.parametrize("metric", COMPARED)
def test_scores_that_are_no_probabilities_are_refused(metric):
    with pytest.raises(ValueError, match="probabilities"):
        metric(metrics.linear(144), metrics.images(3, 12, 1), metrics.maps(), activation="none")


@pytest.mark.parametrize("metric", [*COMPARED, sufficiency])
def test_k_targets_are_k_calls_and_batches_are_single_images(metric):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps(3, 2)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    whole = metric(model, images, maps, targets=classes)
    for k in range(2):
        part = metric(model, images, maps[:, k : k + 1], targets=classes[:, k])
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values)
        for name, values in whole.floor_values.items():
            torch.testing.assert_close(values[:, k : k + 1], part.floor_values[name])
    for n in range(3):
        rows = slice(n, n + 1)
        part = metric(model, images[rows], maps[rows], targets=classes[rows], first=n)
        torch.testing.assert_close(whole.values[rows], part.values)


def test_sufficiency_of_an_additive_model_is_the_closed_form():
    model = metrics.linear(400)
    model[1].weight.data = model[1].weight.data.abs()
    images = torch.ones(3, 1, 20, 20)
    maps = metrics.maps(3, 1, 20)
    found = sufficiency(model, images, maps, baseline=0.0, keep=0.6, activation="none", floors=())
    weights = model[1].weight.detach().flatten().numpy()
    for n in range(3):
        order = maps[n].flatten().argsort(descending=True).numpy()
        kept = np.cumsum(weights[order]) >= 0.6 * weights.sum()
        assert found.values[n, 0].item() == pytest.approx((kept.argmax() + 1) / 400)


def test_sufficiency_at_the_ends():
    model, images = metrics.linear(144), torch.ones(2, 1, 12, 12)
    model[1].weight.data = torch.ones(1, 144)
    ones = metrics.maps(2)
    given = {"activation": "none", "floors": ()}
    assert sufficiency(model, images, ones, baseline=1.0, **given).values.eq(0).all()
    assert sufficiency(model, images, ones, baseline=0.0, keep=1.0, **given).values.eq(1).all()
    assert sufficiency(model, -images, ones, baseline=0.0, **given).values.isnan().all()
    with pytest.raises(ValueError, match="keep"):
        sufficiency(model, images, ones, keep=0.0, **given)
