"""ADCC: the formula in numpy, and what it says of constant maps."""

import numpy as np
import pytest
import torch
from scipy import stats

import camlens
from camlens.faithfulness import FLOORS, adcc, average_drop

from .. import metrics


class OfTheImage(camlens.Explainer):
    """Shows the first channel, of target k to the power k + 1."""

    def attribute(self, probe):
        powers = range(1, probe.unchanged().scores.shape[1] + 1)
        raw = torch.stack([probe.images[:, 0] ** power for power in powers], dim=1)
        return camlens.Attribution(raw=raw)


def by_hand(p, o, heat, seen):
    drop = max(0.0, p - o) / p
    coherency = (stats.pearsonr(heat.ravel(), seen.ravel()).statistic + 1) / 2
    return 3 / (1 / coherency + 1 / (1 - heat.mean()) + 1 / (1 - drop))


@pytest.fixture
def case():
    images = torch.rand(3, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    model = metrics.linear(30, channels=2, outputs=3)
    return model, images, OfTheImage(model)


def test_the_formula_in_numpy(case):
    model, images, explainer = case
    classes = [[0, 2], [1, 0], [2, 1]]
    found = adcc(model, images, explainer, targets=classes, floors=("centre", "edges"))
    expected = {name: np.empty((3, 2)) for name in ("own", "centre", "edges")}
    for n, k in np.ndindex(3, 2):
        image, c = images[n : n + 1], classes[n][k]

        def chance(of, c=c):
            return model(of).softmax(dim=1)[0, c].item()

        def power(of, k=k):
            heat = of[:, :1] ** (k + 1)
            return heat / heat.max()

        makes = {
            "own": power,
            **{name: lambda of, name=name: FLOORS[name](of, torch.zeros(1)) for name in FLOORS},
        }
        for name, values in expected.items():
            heat = makes[name](image)
            heat = heat / heat.max()
            again = makes[name](image * heat)
            values[n, k] = by_hand(
                chance(image), chance(image * heat), heat.double().numpy(), again.double().numpy()
            )
    assert found.values.numpy() == pytest.approx(expected["own"], abs=1e-5)
    for name in ("centre", "edges"):
        assert found.floor_values[name].numpy() == pytest.approx(expected[name], abs=1e-5)


def test_with_full_coherency_it_is_the_mean_of_drop_and_area():
    """A map of which the masked image has the same: 3 / (1 + 1 / (1 - com) + 1 / (1 - drop))."""

    class Left(camlens.Explainer):
        def attribute(self, probe):
            raw = torch.zeros(len(probe.images), probe.unchanged().scores.shape[1], *probe.size)
            raw[..., :2] = 1
            return camlens.Attribution(raw=raw)

    model, images = metrics.linear(8, outputs=2), torch.ones(1, 1, 2, 4)
    model[1].weight.data = torch.tensor([[1.0] * 8, [0.0] * 8]) / 8
    found = adcc(model, images, Left(model), targets=0, activation="none", floors=())
    assert found.mean == pytest.approx(3 / (1 + 2 + 2))  # half of the area, half of the score
    drop = average_drop(model, images, Left(model)(images, targets=0), activation="none")
    assert drop.mean == pytest.approx(0.5)


def test_constant_maps_have_no_value(case):
    model, images, _ = case

    class Constant(camlens.Explainer):
        value = 1.0

        def attribute(self, probe):
            raw = probe.images.new_full((len(probe.images), 1, *probe.size), self.value)
            return camlens.Attribution(raw=raw)

    constant = Constant(model)
    assert adcc(model, images, constant, floors=()).values.isnan().all()
    constant.value = 0.0
    found = adcc(model, images, constant)
    assert found.values.isnan().all()
    assert found.floors["centre"].mean > 0


def test_k_targets_are_k_calls_and_batches_are_single_images():
    model, images = metrics.convolutional(), metrics.images()
    explainer, classes = camlens.Saliency(model), torch.tensor([[0, 3], [1, 1], [2, 0]])
    whole = adcc(model, images, explainer, targets=classes)
    for k in range(2):
        part = adcc(model, images, explainer, targets=classes[:, k])
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values)
        for name, values in whole.floor_values.items():
            torch.testing.assert_close(values[:, k : k + 1], part.floor_values[name])
    part = adcc(model, images[1:2], explainer, targets=classes[1:2], first=1)
    torch.testing.assert_close(whole.values[1:2], part.values)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"explainer": torch.rand(3, 1, 12, 12)}, TypeError, "expected an explainer"),
        ({"explainer": camlens.Saliency(metrics.convolutional())}, ValueError, "another"),
        ({"activation": "none"}, ValueError, "probabilities"),
    ],
)
def test_bad_input(options, error, words):
    model = metrics.convolutional()
    with pytest.raises(error, match=words):
        adcc(model, 9 * metrics.images(), **{"explainer": camlens.Saliency(model), **options})
