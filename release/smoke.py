"""Use an installed camlens as its first user would: explain, draw, save, load, measure.

It needs nothing but camlens' own requirements, and fails with the first step that does not work.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

import camlens
from camlens import faithfulness


def main() -> None:
    """Run the steps and print the versions that they ran with."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    explanation = camlens.GradCAM(model)(images)
    assert explanation.heatmaps.shape == (2, 1, 32, 32)

    # The paper's formula, by plain autograd.
    activations = model[:5](images).detach().requires_grad_()
    scores = model[5:](activations)
    (gradients,) = torch.autograd.grad(scores.max(dim=1).values.sum(), activations)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    expected = (weights * activations).sum(dim=1, keepdim=True).relu()
    torch.testing.assert_close(explanation.raw, expected)

    pictures = (images * 255).byte()
    assert camlens.overlay(pictures, explanation.heatmaps).dtype == torch.uint8
    with tempfile.TemporaryDirectory() as folder:
        figure = Path(folder, "figure.png")
        camlens.sheet(camlens.overlay(pictures, explanation.heatmaps)).savefig(figure)
        assert figure.stat().st_size > 0
        file = Path(folder, "explanation.safetensors")
        explanation.save(file)
        assert torch.equal(camlens.Explanation.load(file).raw, explanation.raw)

    for name in ("Saliency", "GuidedBackprop", "IntegratedGradients", "RISE", "LRP"):
        assert getattr(camlens, name)(model)(images).raw.isfinite().all(), name
    deletion = faithfulness.deletion(model, images, explanation)
    assert 0 <= deletion.mean <= 1
    print(deletion)  # scipy, which gives the interval, is an extra
    names = ("camlens", "torch", "numpy", "jaxtyping", "safetensors", "matplotlib")
    print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))


if __name__ == "__main__":
    main()
