"""What does not depend on the maps runs once for all of them, and changes no value."""

from functools import partial

import pytest
import torch

import camlens
from camlens.faithfulness import SharedPasses, deletion, evaluate, infidelity, mu_fidelity

from .. import metrics

FEW = partial(mu_fidelity, subsets=7, grid=4)


@pytest.fixture
def model():
    return metrics.convolutional()


@pytest.fixture
def scored(model):
    """How many images the model has scored in each pass."""
    counts = []
    with model.register_forward_hook(lambda module, given, output: counts.append(len(output))):
        yield counts


@pytest.mark.parametrize("metric", [FEW, partial(infidelity, subsets=7, grid=4), deletion])
def test_values_are_those_of_calls_on_their_own(model, metric):
    images, shared = metrics.images(), SharedPasses()
    for seed in range(2):
        for maps in (metrics.maps(), metrics.maps().flip(3)):
            given = (model, images, maps)
            alone, together = metric(*given, seed=seed), metric(*given, seed=seed, shared=shared)
            assert torch.equal(alone.values, together.values)
            for name, values in alone.floor_values.items():
                assert torch.equal(values, together.floor_values[name])


def test_subsets_are_scored_once_for_maps_floors_and_metrics(model, scored):
    images, shared = metrics.images(), SharedPasses()
    mu_fidelity(model, images, metrics.maps(), subsets=7, grid=4, shared=shared)
    once = len(scored)
    assert sum(scored[1:]) - 7 * 3 in (1, 2)  # and what shows that images do not depend on others
    for maps in (metrics.maps().flip(2), metrics.maps(targets=1).square()):
        for metric in (mu_fidelity, infidelity):
            metric(model, images, maps, subsets=7, grid=4, shared=shared)
    assert len(scored) == once


@pytest.mark.parametrize(
    "other",
    [
        {"subsets": 8},
        {"share": 0.5},
        {"grid": 3},
        {"baseline": 1.0},
        {"seed": 1},
        {"first": 1},
        {"activation": "none"},
        {"targets": 1},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_options_are_scored_anew(model, other):
    images, maps, shared = metrics.images(), metrics.maps(), SharedPasses()
    FEW(model, images, maps, shared=shared)
    expected = FEW(model, images, maps, **other).values
    assert torch.equal(FEW(model, images, maps, **other, shared=shared).values, expected)


def test_other_images_and_models_are_scored_anew(model):
    maps, shared = metrics.maps(), SharedPasses()
    other = metrics.linear(144, 3, 4)
    for net, images in ((model, metrics.images()), (other, metrics.images())):
        for given in (images, images + 1):
            expected = FEW(net, given, maps, activation="none").values
            found = FEW(net, given, maps, activation="none", shared=shared).values
            assert torch.equal(found, expected)


def test_an_evaluation_scores_unchanged_images_and_subsets_once(model, scored):
    images = metrics.images(5)
    methods = {str(layer): camlens.GradCAM(model, layer) for layer in ("0", "1")}
    methods |= {"saliency": camlens.Saliency(model)}
    options = {"metrics": [FEW], "floors": ("random",), "targets": 0}
    for count in (1, 3):
        chosen = dict(list(methods.items())[:count])
        for explainer in chosen.values():
            explainer(images, targets=0)  # a layer is measured in the first call
        scored.clear()
        for explainer in chosen.values():
            explainer(images, targets=0)
        explained = sum(scored)
        scored.clear()
        found = evaluate(chosen, model, images, **options)
        assert sum(scored) - explained in (5 + 7 * 5 + 1, 5 + 7 * 5 + 2)
    saliency = found.values.query("method == 'saliency'")["value"]
    expected = FEW(model, images, camlens.Saliency(model)(images, targets=0)).values[:, 0]
    assert saliency.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
