"""Insertion and deletion: closed forms, RISE's protocol step by step, ties, and bad input."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

import camlens
from camlens.faithfulness import FLOORS, deletion, insertion, rise_blur

from .. import metrics

BOTH = (deletion, insertion)


def rises_curve(model, image, heat, target, step, *, insert):
    """Follow eclique/RISE's evaluation.py for one image, in NumPy's words."""
    pixels = heat.numel()
    order = heat.flatten().argsort(descending=True)
    blurred = rise_blur(image[None])[0]
    start, finish = (blurred, image) if insert else (image, torch.zeros_like(image))
    now, scores = start.clone(), []
    for i in range(-(-pixels // step) + 1):
        with torch.no_grad():
            scores.append(model(now[None]).softmax(dim=1)[0, target].item())
        places = order[i * step : (i + 1) * step]
        now.flatten(1)[:, places] = finish.flatten(1)[:, places]
    curve = np.array(scores)
    return curve, (curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)


@pytest.mark.parametrize("metric", BOTH)
def test_rises_protocol(metric):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    found = metric(model, images, maps, targets=2, floors=())
    for n in range(3):
        curve, area = rises_curve(model, images[n], maps[n, 0], 2, 12, insert=metric is insertion)
        np.testing.assert_allclose(found.curve[n, 0], curve, rtol=1e-5)
        assert found.values[n, 0].item() == pytest.approx(area, rel=1e-5)


def test_the_blur_is_that_of_rise():
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    image = np.zeros((21, 21))
    image[10, 10] = 1
    found = rise_blur(torch.from_numpy(image)[None, None])[0, 0]
    np.testing.assert_allclose(found[5:16, 5:16], kernel, atol=1e-9)
    assert found[:5].abs().max() == 0


@pytest.mark.parametrize("metric", BOTH)
def test_a_random_map_of_an_additive_model_has_an_area_of_one_half(metric):
    model = metrics.linear(400)
    model[1].weight.data = model[1].weight.data.abs()
    images = torch.ones(8, 1, 20, 20)
    found = metric(
        model, images, metrics.maps(8, 1, 20), activation="none", baseline=0.0, floors=("random",)
    )
    whole = model[1].weight.sum().item()
    assert (found.values / whole).mean().item() == pytest.approx(0.5, abs=0.02)
    assert found.floors["random"].mean / whole == pytest.approx(0.5, abs=0.02)


def test_the_best_map_of_a_linear_model_has_the_closed_form():
    model, images = metrics.linear(36), metrics.images(2, 6, 1)
    terms = images * model[1].weight.detach().view(1, 1, 6, 6)
    found = deletion(model, images, terms, activation="none", step=1, floors=())
    falling = terms.flatten(1).sort(dim=1, descending=True).values
    curve = terms.sum(dim=(1, 2, 3)).unsqueeze(1) - torch.cat(
        [torch.zeros(2, 1), falling.cumsum(dim=1)], dim=1
    )
    torch.testing.assert_close(found.curve[:, 0], curve, atol=1e-5, rtol=1e-5)


def test_ties_are_in_random_order_and_not_row_by_row():
    model = metrics.linear(400)
    model[1].weight.data = torch.zeros(20, 20).index_fill(0, torch.arange(10), 1.0).view(1, -1)
    found = deletion(
        model, torch.ones(20, 1, 20, 20), torch.zeros(20, 1, 20, 20), activation="none", floors=()
    )
    # Row by row from the top the upper half would go first: an area of a quarter.
    assert (found.values / 200).mean().item() == pytest.approx(0.5, abs=0.02)
    assert found.values.unique().numel() > 10


@pytest.mark.parametrize("metric", BOTH)
def test_k_targets_are_k_calls_and_batches_are_single_images(metric):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps(3, 2)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    whole = metric(model, images, maps, targets=classes, step=30)
    for k in range(2):
        part = metric(model, images, maps[:, k : k + 1], targets=classes[:, k], step=30)
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values)
        for name in FLOORS:
            torch.testing.assert_close(
                whole.floor_values[name][:, k : k + 1], part.floor_values[name]
            )
    for n in range(3):
        part = metric(
            model, images[n : n + 1], maps[n : n + 1], targets=classes[n : n + 1], step=30, first=n
        )
        torch.testing.assert_close(whole.values[n : n + 1], part.values)
        torch.testing.assert_close(whole.curve[n : n + 1], part.curve)
        for name in FLOORS:
            torch.testing.assert_close(whole.floor_values[name][n : n + 1], part.floor_values[name])


def test_an_explanation_brings_its_targets_and_heatmaps():
    model, images = metrics.convolutional(), metrics.images()
    explanation = camlens.GradCAM(model, "1")(images, targets=[[0, 2]])
    found = deletion(model, images, explanation, floors=())
    same = deletion(model, images, explanation.heatmaps, targets=[[0, 2]], floors=())
    assert torch.equal(found.values, same.values)


def test_callable_targets_are_followed_as_they_are():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    found = deletion(model, images, maps, targets=lambda out: out[:, 1], floors=())
    same = deletion(model, images, maps, targets=1, activation="none", floors=())
    torch.testing.assert_close(found.values, same.values)
    explanation = camlens.GradCAM(model, "1")(images, targets=lambda out: out[:, 1])
    with pytest.raises(ValueError, match="pass the same callable"):
        deletion(model, images, explanation)


def test_the_model_and_the_random_state_are_left_as_they_were():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    insertion(model, images, maps)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_volumes_and_signals():
    for size in ((30,), (4, 5, 6)):
        pixels = int(np.prod(size))
        model = metrics.linear(pixels)
        images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
        for metric in BOTH:
            found = metric(model, images, images, activation="none", step=7)
            assert found.values.isfinite().all()
            assert found.curve[:, 0, -1 if metric is insertion else 0].tolist() == pytest.approx(
                model(images).flatten().tolist(), rel=1e-4
            )


@pytest.mark.parametrize("metric", BOTH)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"explanation": torch.rand(3, 1, 6, 6)}, ValueError, "camlens.heatmap.resize"),
        ({"explanation": torch.full((3, 1, 12, 12), torch.nan)}, ValueError, "NaN"),
        ({"explanation": torch.rand(2, 1, 12, 12)}, ValueError, "3 images"),
        ({"explanation": torch.rand(3, 2, 12, 12)}, ValueError, "1 targets"),
        ({"explanation": torch.ones(3, 1, 12, 12).long()}, TypeError, "int64"),
        ({"explanation": [1.0]}, TypeError, "list"),
        ({"floors": ("nothing",)}, ValueError, "nothing"),
        ({"floors": "random"}, ValueError, "random"),
        ({"step": 0}, (ValueError, TypeError), "step"),
        ({"seed": -1}, ValueError, "seed"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"activation": "tanh"}, ValueError, "tanh"),
        ({"baseline": "blur"}, TypeError, "baseline"),
        ({"targets": 9}, ValueError, "0 to 3"),
        ({"nothing": 1}, TypeError, "nothing"),
    ],
)
def test_bad_input_is_an_error_that_says_so(metric, options, error, words):
    given = {"explanation": metrics.maps(), **options}
    explanation = given.pop("explanation")
    with pytest.raises(error, match=words):
        metric(metrics.convolutional(), metrics.images(), explanation, **given)


def test_a_model_with_one_output_has_no_softmax():
    with pytest.raises(ValueError, match="sigmoid"):
        deletion(metrics.linear(144), metrics.images(3, 12, 1), metrics.maps())


def test_scores_that_depend_on_the_batch_are_an_error():
    class Mixing(nn.Module):
        def forward(self, images):
            scores = images.flatten(1)[:, :4]
            return scores - scores.mean(dim=0)

    with pytest.raises(ValueError, match="other images of the batch"):
        deletion(Mixing().eval(), metrics.images(), metrics.maps())
