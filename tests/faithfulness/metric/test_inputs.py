"""What every metric takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import camlens
from camlens import faithfulness


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("deletion", "insertion", "road", "average_drop", "sufficiency", "saco", "mu_fidelity"),
        *("infidelity", "sparseness", "complexity", "completeness"),
        *("sensitivity", "randomization"),
    ],
)
def test_images_that_require_gradients_have_the_values_of_others(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    images = torch.rand(2, 3, 10, 10)
    explainer = camlens.IntegratedGradients(model, steps=4)
    judged: Any = explainer if name in ("sensitivity", "randomization") else explainer(images)
    metric = getattr(faithfulness, name)
    expected = metric(model, images, judged, progress=False)
    found = metric(model, images.clone().requires_grad_(), judged, progress=False)
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)
    for floor, values in expected.floor_values.items():
        torch.testing.assert_close(found.floor_values[floor], values, equal_nan=True)
    assert repr(found) == repr(expected)  # its means are numpy's


def test_an_explanation_of_other_images_or_of_another_model_is_refused() -> None:
    torch.manual_seed(0)
    model, other = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
        for _ in range(2)
    )
    images = 3 * torch.randn(2, 3, 10, 10)
    explanation = camlens.Saliency(model)(images, targets=[[0, 1], [2, 1]])
    for network, given in ((model, images.flip(0)), (other, images)):
        with pytest.raises(ValueError, match="of different images or a different model"):
            faithfulness.deletion(network, given, explanation, floors=(), progress=False)
        maps, classes = explanation.heatmaps, explanation.targets
        faithfulness.deletion(network, given, maps, targets=classes, floors=(), progress=False)
    half = faithfulness.deletion(
        model.bfloat16(), images.bfloat16(), explanation, floors=(), progress=False
    )
    assert half.values.isfinite().all()


def test_autocast_rounds_neither_the_floors_nor_the_blurred_images() -> None:
    images, seeds = torch.rand(2, 3, 12, 12), torch.arange(2)
    floors = {name: make(images, seeds) for name, make in faithfulness.FLOORS.items()}
    blurred = faithfulness.rise_blur(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name, expected in floors.items():
            assert torch.equal(faithfulness.FLOORS[name](images, seeds), expected), name
        assert torch.equal(faithfulness.rise_blur(images), blurred)


def test_a_seed_too_large_to_count_on_from_is_refused() -> None:
    images, maps = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    faithfulness.sparseness(None, images, maps, seed=2**40)
    with pytest.raises(ValueError, match="a seed of at most"):
        faithfulness.sparseness(None, images, maps, seed=2**63)
