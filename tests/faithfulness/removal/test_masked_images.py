"""Drops, increases and gains: formulas written out, and what games them."""

import pytest
import torch

from camlens.faithfulness import average_drop, average_gain, average_increase
from camlens.heatmap import scale

from .. import metrics

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
    for metric in COMPARED:
        assert metric(model, images, torch.ones(3, 1, 12, 12), floors=()).mean < 1e-5
    blank = torch.zeros(3, 1, 12, 12)
    with torch.no_grad():
        p = model(images).softmax(dim=1).amax(dim=1)
        o = model(torch.zeros(1, 3, 12, 12)).softmax(dim=1)[0, model(images).argmax(dim=1)]
    found = average_drop(model, images, blank, floors=()).values[:, 0]
    torch.testing.assert_close(found, (p - o).clamp(min=0) / p)


def test_rounding_is_no_increase():
    model = torch.nn.Sequential(metrics.convolutional(), Jitter()).eval()
    images = metrics.images(4)
    found = average_increase(model, images, torch.full((4, 1, 12, 12), 0.3), floors=())
    assert found.values.tolist() == [[0]] * 4


class Jitter(torch.nn.Module):
    """Scores that are some roundings larger the more often they were computed."""

    calls = 0

    def forward(self, scores):
        self.calls += 1
        shift = torch.zeros_like(scores).scatter_(1, scores.argmax(dim=1, keepdim=True), 1)
        return scores + 1e-6 * self.calls * shift


def test_a_baseline_of_the_image_itself_loses_nothing():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    assert average_drop(model, images, maps, baseline=lambda x: x, floors=()).mean < 1e-5
    other = average_drop(model, images, torch.zeros_like(maps), baseline=images.flip(0), floors=())
    with torch.no_grad():
        chances = model(images).softmax(dim=1)
    classes = chances.argmax(dim=1, keepdim=True)
    p, o = chances.gather(1, classes), chances.flip(0).gather(1, classes)
    torch.testing.assert_close(other.values, (p - o).clamp(min=0) / p)


def test_of_certain_and_of_impossible_classes_there_is_no_value():
    model, images = metrics.linear(4, outputs=2), torch.ones(1, 1, 2, 2)
    model[1].weight.data = torch.tensor([[300.0] * 4, [-300.0] * 4])
    given = {"targets": "all", "floors": ()}
    maps = torch.ones(1, 2, 2, 2)
    assert average_drop(model, images, maps, **given).values.isnan().tolist() == [[False, True]]
    assert average_gain(model, images, maps, **given).values.isnan().tolist() == [[True, False]]
    assert average_increase(model, images, maps, **given).values.tolist() == [[0, 0]]


@pytest.mark.parametrize("metric", COMPARED)
def test_signals_too(metric):
    signals = torch.rand(2, 1, 30, generator=torch.Generator().manual_seed(0))
    model, maps = metrics.linear(30, outputs=3), signals.flip(0)
    with torch.no_grad():
        p, o = (model(x).softmax(dim=1)[:, 1:2] for x in (signals, signals * scale(maps)))
    found = metric(model, signals, maps, targets=1, floors=()).values
    expected = {
        average_drop: (p - o).clamp(min=0) / p,
        average_increase: (o > p).float(),
        average_gain: (o - p).clamp(min=0) / (1 - p),
    }
    torch.testing.assert_close(found, expected[metric])


@pytest.mark.parametrize("metric", COMPARED)
def test_a_score_of_a_masked_image_outside_0_to_1_is_no_probability(metric):
    model = metrics.linear(4)
    model[1].weight.data = torch.tensor([[2.0, 1.0, -1.0, -1.5]])
    images, maps = torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert model(images).item() == 0.5
    with pytest.raises(ValueError, match="from 3 to 3"):
        metric(model, images, maps, activation="none", floors=())


@pytest.mark.parametrize("metric", COMPARED)
def test_a_single_output_is_followed_by_its_sigmoid(metric):
    model, images, maps = metrics.linear(144), metrics.images(3, 12, 1) / 10, metrics.maps()
    with pytest.raises(ValueError, match="sigmoid"):
        metric(model, images, maps)
    own = metric(model, images, maps, activation="sigmoid", floors=())
    asked = metric(model, images, maps, targets=lambda out: out.sigmoid(), floors=())
    torch.testing.assert_close(own.values, asked.values)


@pytest.mark.parametrize("metric", COMPARED)
@pytest.mark.parametrize(
    ("maps", "words"),
    [(torch.rand(3, 1, 6, 6), "resize"), (torch.full((3, 1, 12, 12), torch.nan), "NaN")],
)
def test_maps_that_do_not_fit_are_refused(metric, maps, words):
    with pytest.raises(ValueError, match=words):
        metric(metrics.convolutional(), metrics.images(), maps)


@pytest.mark.parametrize("metric", COMPARED)
def test_scores_that_are_no_probabilities_are_refused(metric):
    with pytest.raises(ValueError, match="probabilities"):
        metric(metrics.linear(144), metrics.images(3, 12, 1), metrics.maps(), activation="none")


@pytest.mark.parametrize("metric", COMPARED)
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
