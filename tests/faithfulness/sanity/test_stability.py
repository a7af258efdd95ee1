"""Sensitivity: linear models do not move, others by what a loop over draws finds."""

import pytest
import torch

import camlens
from camlens.faithfulness import sensitivity

from .. import metrics


def test_gradients_of_a_linear_model_do_not_move():
    model, images = metrics.linear(144), metrics.images(3, 12, 1)
    assert sensitivity(model, images, camlens.Saliency(model)).values.max() < 1e-6


def test_it_is_the_largest_of_the_draws():
    model, images = metrics.convolutional(), metrics.images()
    explainer = camlens.GradCAM(model, "1")
    found = sensitivity(model, images, explainer, radius=0.3, samples=3, targets=[[0, 2]])
    before = explainer(images, targets=[[0, 2]]).raw
    worst = torch.zeros(3, 2)
    for sample in range(3):
        for n in range(3):
            draw = torch.Generator().manual_seed(n + (sample + 1) * 15_485_863)
            noise = 2 * torch.rand(3, 12, 12, generator=draw) - 1
            moved = explainer((images[n] + 0.3 * noise)[None], targets=[[0, 2]]).raw[0]
            change = (moved - before[n]).flatten(1).norm(dim=1) / before[n].flatten(1).norm(dim=1)
            worst[n] = torch.maximum(worst[n], change)
    torch.testing.assert_close(found.values, worst, rtol=1e-4, atol=1e-6)


def test_targets_are_those_of_the_unchanged_images():
    model, images = metrics.convolutional(), metrics.images()
    explainer = camlens.GradCAM(model, "1")
    found = sensitivity(model, images, explainer, radius=3.0)
    same = sensitivity(model, images, explainer, radius=3.0, targets=model(images).argmax(dim=1))
    assert torch.equal(found.values, same.values)


def test_a_map_that_ignores_the_image_never_moves():
    model, images = metrics.convolutional(), metrics.images()
    found = sensitivity(model, images, camlens.Saliency(model), radius=0.5)
    assert found.floors["centre"].mean == 0
    assert found.floors["random"].mean > 0.5
    assert 0 < found.floors["input"].mean < found.floors["random"].mean
    assert not found.above_floor.clear


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"radius": 0}, ValueError, "radius"),
        ({"samples": 0}, ValueError, "samples"),
        ({"explainer": torch.rand(3, 1, 12, 12)}, TypeError, "Tensor"),
        ({"explainer": camlens.Saliency(metrics.convolutional())}, ValueError, "another"),
    ],
)
def test_bad_input(options, error, words):
    model = metrics.convolutional()
    given = {"explainer": camlens.Saliency(model), **options}
    with pytest.raises(error, match=words):
        sensitivity(model, metrics.images(), given.pop("explainer"), **given)
