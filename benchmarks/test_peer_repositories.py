"""Metrics of camlens beside what repositories hold and packages do not.

Quantus' own network and digits (a trained LeNet, MNIST; tests/assets), and the code of ROAD's
authors. ``QUANTUS=FOLDER ROAD=FOLDER make parity`` reads them from clones, bare or not, of
github:understandable-machine-intelligence-lab/Quantus and github:tleemann/road_evaluation; without
them the tests are skipped. The maps are saliency of the trained network, with ties broken, since
what Quantus does with ties is told in test_metric_parity.py.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.model.models import LeNet
from test_metric_parity import (
    Recorder,
    assert_equal,
    assert_road_is_quantus,
    distinct_maps,
    of_quantus,
    pictures,
)
from torch import Tensor, nn

import camlens
from camlens import faithfulness

SIDE, COUNT = 28, 16
ENDS = "", "_x", "_y"  # of the assets: weights, images, labels

Digits = tuple[nn.Module, Tensor, Tensor, Tensor]


def _read(repository: str, path: str) -> bytes:
    folder = os.environ.get(repository)
    if not folder:
        pytest.skip(f"{repository} names no clone of the repository: see this file's first lines")
    command = ["git", "-C", folder, "show", f"HEAD:{path}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def digits() -> Digits:
    """The network, images, labels, and saliency maps without ties."""
    model = LeNet()
    weights, x, y = (io.BytesIO(_read("QUANTUS", f"tests/assets/mnist{end}")) for end in ENDS)
    model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    model.eval()
    pixels = np.loadtxt(x).reshape(-1, 1, SIDE, SIDE)[:COUNT]
    labels = np.loadtxt(y).astype(int)[:COUNT]
    images, targets = torch.from_numpy(pixels).float(), torch.from_numpy(labels)
    with torch.no_grad():
        assert (model(images).argmax(dim=1) == targets).float().mean() > 0.9
    maps = camlens.Saliency(model)(images, targets=targets).heatmaps
    return model, images, targets, maps + 1e-4 * distinct_maps(COUNT, side=SIDE)


@pytest.mark.parametrize("features", [28, 112])
def test_deletion_is_pixel_flipping(digits: Digits, features: int) -> None:
    model, images, targets, maps = digits
    metric = quantus.PixelFlipping(features_in_step=features, perturb_baseline=0.0)
    theirs = of_quantus(metric, model, images, maps, targets)
    ours = faithfulness.deletion(model, images, maps, step=features, targets=targets, floors=())
    assert ours.curve.std() > 0.1
    assert_equal(ours.curve[:, 0, 1:], theirs)


def test_mu_fidelity_is_faithfulness_correlation(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, targets, maps = digits
    recorder, subsets = Recorder(model), 40
    baseline = 5.0  # a value that no pixel has, so that what was changed can be read off
    ours = faithfulness.mu_fidelity(
        recorder,
        images,
        maps,
        subsets=subsets,
        grid=SIDE,
        baseline=baseline,
        targets=targets,
        activation="none",
        floors=(),
    )
    chosen = (recorder.changed(COUNT, subsets) == baseline).flatten(2)
    draws = iter(chosen.transpose(0, 1).flatten(0, 1))  # Quantus goes through the images first
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(draws).nonzero()[:, 0].numpy())
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=subsets,
        subset_size=int(chosen[0, 0].sum()),
        perturb_baseline=baseline,
        return_aggregate=False,
    )
    theirs = of_quantus(metric, model, images, maps, targets)
    assert ours.values.abs().max() > 0.1
    assert_equal(ours.values[:, 0], theirs, 1e-3)


def test_road_is_road(digits: Digits) -> None:
    model, images, _, maps = digits
    assert_road_is_quantus(model, images, maps)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("sparseness", quantus.Sparseness), ("complexity", quantus.Complexity)],
)
def test_shape_of_a_map(digits: Digits, name: str, metric: type) -> None:
    _, images, targets, maps = digits
    ours = getattr(faithfulness, name)(None, images, maps, floors=())
    assert_equal(ours.values[:, 0], of_quantus(metric(), None, images, maps, targets), 1e-4)


def test_relevance_mass_is_energy_pointing_game(digits: Digits) -> None:
    """The object is the digit's ink."""
    _, images, targets, maps = digits
    ink = images > images.amin(dim=(1, 2, 3), keepdim=True)
    ours = faithfulness.energy_pointing_game(None, images, maps, ink, floors=())
    theirs = of_quantus(
        quantus.RelevanceMassAccuracy(), None, images, maps, targets, s_batch=ink.numpy()
    )
    assert 0 < ours.mean < 1
    assert_equal(ours.values[:, 0], theirs)


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_imputation_is_that_of_roads_authors(
    monkeypatch: pytest.MonkeyPatch, channels: int, contiguous: bool
) -> None:
    """Without noise to the solver's tolerance; theirs, with it, no further off than the noise."""
    source = _read("ROAD", "road/imputations.py")
    for name in ("road", "road.gisp", "road.gisp.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    unused = types.ModuleType("road.gisp.models.gsmv")
    unused.GNet_ResNet = None  # of an imputer that is not compared
    monkeypatch.setitem(sys.modules, unused.__name__, unused)
    theirs: dict[str, Any] = {}
    exec(compile(source, "imputations.py", "exec"), theirs)
    image = pictures(channels, count=1)
    removed = distinct_maps(1)[:, 0] > 0.3
    if contiguous:
        removed = torch.zeros_like(removed)
        removed[:, 3:17, 2:15] = True
    kept = (~removed[0]).float()
    exact = theirs["NoisyLinearImputer"](noise=0.0)(image[0], kept)
    ours = faithfulness.impute(image, removed)[0]
    assert_equal(ours, exact, 1e-3)
    torch.manual_seed(0)
    noisy = theirs["NoisyLinearImputer"](noise=0.01)(image[0], kept)
    assert (ours - noisy)[:, removed[0]].std() < 0.011
    torch.testing.assert_close(ours[:, ~removed[0]], image[0, :, ~removed[0]])
