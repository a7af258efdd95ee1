"""What every metric takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import camlens
from camlens import faithfulness


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
