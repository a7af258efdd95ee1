"""Sufficiency: closed forms, a search without bisection, and the ends."""

import numpy as np
import pytest
import torch

from camlens.faithfulness import rise_blur, sufficiency

from .. import metrics


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


def test_it_is_a_crossing_that_a_full_search_finds():
    """A curve that is not monotone: at the value the score is kept, one pixel earlier it is not."""
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    found = sufficiency(model, images, maps, targets=1, floors=())
    blurred, falls = rise_blur(images), []
    for n in range(3):
        order = maps[n].flatten().argsort(descending=True)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(144)).view(12, 12)
        shown = torch.stack([images[n].where(places < count, blurred[n]) for count in range(145)])
        with torch.no_grad():
            scores = model(shown).softmax(dim=1)[:, 1]
        kept = scores >= 0.9 * scores[-1]
        count = round(found.values[n, 0].item() * 144)
        assert kept[count]
        assert count == 0 or not kept[count - 1]
        falls.append((scores.diff() < 0).any().item())
    assert any(falls)


def test_k_targets_are_k_calls_and_batches_are_single_images():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps(3, 2)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    whole = sufficiency(model, images, maps, targets=classes)
    for k in range(2):
        part = sufficiency(model, images, maps[:, k : k + 1], targets=classes[:, k])
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values)
        for name, values in whole.floor_values.items():
            torch.testing.assert_close(values[:, k : k + 1], part.floor_values[name])
    for n in range(3):
        rows = slice(n, n + 1)
        part = sufficiency(model, images[rows], maps[rows], targets=classes[rows], first=n)
        torch.testing.assert_close(whole.values[rows], part.values)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_map_is_a_random_one(value):
    """Of a model that counts pixels, 60 of 100 are needed, in whatever order they come."""
    model = metrics.linear(100)
    model[1].weight.data = torch.ones(1, 100)
    flat = torch.full((2, 1, 10, 10), value)
    given = {"baseline": 0.0, "keep": 0.6, "activation": "none", "floors": ()}
    assert sufficiency(model, torch.ones(2, 1, 10, 10), flat, **given).mean == pytest.approx(0.6)
    # The upper half alone decides: in raster order half of that would do.
    model[1].weight.data[:, 50:] = 0
    halves = sufficiency(model, torch.ones(2, 1, 10, 10), flat, **given)
    assert halves.values.min() > 0.4


def test_forward_passes_are_those_stated():
    seen = []
    model = metrics.convolutional()
    model.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    images, maps = metrics.images(), metrics.maps()
    sufficiency(model, images, maps, floors=())
    # Of each image 1 without pixels and 7 or 8 halvings of 144; besides the unchanged images, and
    # one of them once more in the first batch.
    assert 3 * (1 + 7) <= sum(seen) - 3 - 1 <= 3 * (1 + 8)


def test_signals_too():
    model, signals = metrics.linear(30), torch.ones(1, 1, 30)
    model[1].weight.data = torch.arange(30.0).view(1, 30)
    found = sufficiency(
        model, signals, signals * torch.arange(30.0), baseline=0.0, activation="none", floors=()
    )
    kept = np.cumsum(np.arange(29, -1, -1)) >= 0.9 * 435
    assert found.values.item() == pytest.approx((kept.argmax() + 1) / 30)


@pytest.mark.parametrize(
    ("maps", "words"),
    [(torch.rand(3, 1, 6, 6), "resize"), (torch.full((3, 1, 12, 12), torch.nan), "NaN")],
)
def test_maps_that_do_not_fit_are_refused(maps, words):
    with pytest.raises(ValueError, match=words):
        sufficiency(metrics.convolutional(), metrics.images(), maps)
