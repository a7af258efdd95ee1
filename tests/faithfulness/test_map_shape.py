"""Sparseness, complexity and completeness: closed forms and scipy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

import camlens
from camlens.faithfulness import completeness, complexity, sparseness

from . import metrics


def test_sparseness_is_the_mean_absolute_difference():
    maps = metrics.maps(3, 2, 6) - 0.3
    found = sparseness(None, metrics.images(3, 6), maps, floors=()).values
    for n in range(3):
        for k in range(2):
            values = maps[n, k].abs().flatten().double().numpy()
            differences = np.abs(values[:, None] - values[None]).mean()
            assert found[n, k].item() == pytest.approx(differences / (2 * values.mean()), rel=1e-5)


def test_complexity_is_scipys_entropy():
    maps = metrics.maps(3, 2, 6) - 0.3
    found = complexity(None, metrics.images(3, 6), maps, floors=()).values
    expected = entropy(maps.abs().flatten(2).numpy(), axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_constant_and_single_pixel_and_zero_maps():
    images = metrics.images(3, 6)
    maps = torch.zeros(3, 1, 6, 6)
    maps[0] = 2.0
    maps[1, 0, 3, 2] = 0.1
    dense = complexity(None, images, maps, floors=()).values.flatten()
    assert dense[:2].tolist() == pytest.approx([math.log(36), 0.0], abs=1e-6)
    thin = sparseness(None, images, maps, floors=()).values.flatten()
    assert thin[:2].tolist() == pytest.approx([0.0, 35 / 36], abs=1e-6)
    assert dense[2].isnan()
    assert thin[2].isnan()


def test_maps_are_not_changed():
    maps = metrics.maps() - 0.5
    before = maps.clone()
    for metric in (sparseness, complexity):
        metric(None, metrics.images(), maps)
    assert torch.equal(maps, before)


def test_integrated_gradients_add_up_and_saliency_of_a_linear_model_does():
    model, images = metrics.convolutional(), metrics.images()
    paths = camlens.IntegratedGradients(model, baseline=0.2, progress=False)(images)
    assert completeness(model, images, paths, baseline=0.2).values.max() < 0.02
    assert completeness(model, images, paths, baseline=-1.0).values.max() > 0.1
    linear, grey = metrics.linear(144), metrics.images(3, 12, 1)
    gradients = camlens.Saliency(linear)(grey)
    assert completeness(linear, grey, gradients, baseline=0.4).values.max() < 1e-4


def test_completeness_needs_signed_attributions_and_has_no_floors():
    model, images = metrics.convolutional(), metrics.images()
    for unfit in (metrics.maps(), camlens.GradCAM(model, "1")(images)):
        with pytest.raises(ValueError, match="IntegratedGradients"):
            completeness(model, images, unfit)
    for complete in (camlens.FullGrad(model), camlens.LayerIntegratedGradients(model, "1")):
        explanation = complete(images)
        with pytest.raises(ValueError, match=f"got {explanation.method}, without such"):
            completeness(model, images, explanation)
    paths = camlens.IntegratedGradients(model, progress=False)(images)
    coarse = dataclasses.replace(paths, raw=paths.raw[..., ::2, ::2], grid=(6, 6))
    with pytest.raises(ValueError, match="without such attributions"):
        completeness(model, images, coarse)
    assert completeness(model, images, paths).floors == {}
