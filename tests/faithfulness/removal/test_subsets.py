"""mu-fidelity, infidelity and SaCo: linear models, and each formula written out in NumPy."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

import camlens
from camlens.faithfulness import infidelity, mu_fidelity, saco

from .. import metrics

SUBSETS = (mu_fidelity, infidelity)
ALL = (*SUBSETS, saco)


def own_attributions(model, images):
    return images * model[1].weight.detach().view(1, *images.shape[1:])


def test_of_a_linear_model_the_attributions_are_exact():
    model, images = metrics.linear(144), metrics.images(3, 12, 1)
    exact = own_attributions(model, images)
    assert mu_fidelity(model, images, exact, activation="none", floors=()).values.min() > 0.9999
    given = {"activation": "none", "floors": ()}
    lost = infidelity(model, images, torch.zeros_like(exact), normalize=False, **given).values
    for normalize in (True, False):
        found = infidelity(model, images, exact, normalize=normalize, **given).values
        assert (found / lost).max() < 1e-9
    scaled = infidelity(model, images, 7 * exact, **given).values
    assert (scaled / lost).max() < 1e-9
    wrong = infidelity(model, images, 7 * exact, normalize=False, **given).values
    torch.testing.assert_close(wrong, 36 * lost, rtol=1e-3, atol=0)


@pytest.mark.parametrize("metric", SUBSETS)
def test_derivatives_count_times_the_change_of_the_image(metric):
    model, images = metrics.linear(192, 3), metrics.images(2, 8, 3)
    model[1].weight.data = model[1].weight.data[:, :192]
    given = {"activation": "none", "floors": (), "grid": 4, "baseline": 0.3}
    of_gradients = metric(model, images, camlens.Saliency(model)(images), **given).values
    paths = camlens.IntegratedGradients(model, baseline=0.3, progress=False)(images)
    of_paths = metric(model, images, paths, **given).values
    if metric is mu_fidelity:
        assert min(of_gradients.min(), of_paths.min()) > 0.9999
    else:
        scale = metric(model, images, torch.zeros(2, 1, 8, 8), **given).values
        assert torch.maximum(of_gradients, of_paths).div(scale).max() < 1e-6


@pytest.mark.parametrize("weights", ["positive", "tiny"])
def test_derivatives_are_told_by_more_than_their_sign_and_size(weights):
    """Of one channel without negative weights they look like attributions; tiny ones like zeros."""
    channels = 1 if weights == "positive" else 3
    model, images = metrics.linear(144, channels), metrics.images(3, 12, channels)
    weight = model[1].weight.data
    model[1].weight.data = weight.abs() if weights == "positive" else 1e-9 * weight
    given = {"activation": "none", "floors": ()}
    for explainer in (camlens.Saliency(model), camlens.IntegratedGradients(model, progress=False)):
        explanation = explainer(images)
        assert mu_fidelity(model, images, explanation, **given).values.min() > 0.999
    smooth = camlens.SmoothGrad(camlens.Saliency(model), samples=2, progress=False)(images)
    assert mu_fidelity(model, images, smooth, **given).values.min() > 0.999


def test_windows_without_a_rise_are_attributions_not_derivatives():
    """Occlusion has one channel: where no fall is negative, absolute and positive maps are one."""
    model = metrics.linear(144)
    model[1].weight.data = model[1].weight.data.abs()
    images = metrics.images(3, 12, 1).abs()
    falls = camlens.Occlusion(model, window=1, stride=1, progress=False)(images)
    assert falls.gradients.min() >= 0
    found = mu_fidelity(model, images, falls, activation="none", floors=())
    assert found.values.min() > 0.999


def test_infidelity_of_the_opposite_map_is_that_of_zeros():
    model, images = metrics.linear(144), metrics.images(3, 12, 1)
    opposite = -own_attributions(model, images)
    given = {"activation": "none", "floors": ()}
    zeros = infidelity(model, images, torch.zeros_like(opposite), **given).values
    assert zeros.min() > 0
    torch.testing.assert_close(infidelity(model, images, opposite, **given).values, zeros)


def test_a_score_that_does_not_change_speaks_for_no_map():
    class Constant(torch.nn.Module):
        def forward(self, images):
            return 0 * images.flatten(1)[:, :2] + torch.tensor([1.0, 2.0])

    for metric in (mu_fidelity, saco):
        found = metric(Constant().eval(), metrics.images(), metrics.maps(), floors=())
        assert found.values.isnan().all()


def drawn(image_seed, subsets, cells, several):
    generator = torch.Generator().manual_seed(image_seed)
    return torch.rand(subsets, cells, generator=generator).argsort(dim=1)[:, :several].numpy()


def test_both_formulas_in_numpy():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    given = {"targets": 1, "activation": "none", "grid": (3, 4), "share": 0.3, "subsets": 25}
    correlation = mu_fidelity(model, images, maps, floors=(), **given)
    plain = infidelity(model, images, maps, floors=(), normalize=False, **given)
    normal = infidelity(model, images, maps, floors=(), **given)
    signs = set()
    for n in range(3):
        told, lost = [], []
        with torch.no_grad():
            whole = model(images[n : n + 1])[0, 1].item()
        for cells in drawn(n, 25, 12, 4):
            gone = torch.zeros(12, 12, dtype=torch.bool)
            for cell in cells:
                row, column = divmod(int(cell), 4)
                gone[row * 4 : row * 4 + 4, column * 3 : column * 3 + 3] = True
            with torch.no_grad():
                lost.append(whole - model(images[n : n + 1].masked_fill(gone, 0))[0, 1].item())
            told.append(maps[n, 0][gone].sum().item())
        told, lost = np.array(told), np.array(lost)
        assert correlation.values[n, 0].item() == pytest.approx(pearsonr(told, lost)[0], abs=1e-4)
        assert plain.values[n, 0].item() == pytest.approx(((told - lost) ** 2).mean(), rel=1e-4)
        best = (told * lost).sum() / (told**2).sum()
        signs.add(best > 0)
        expected = ((max(best, 0.0) * told - lost) ** 2).mean()
        assert normal.values[n, 0].item() == pytest.approx(expected, rel=1e-3)
    assert signs == {False, True}  # a map is never turned round


@pytest.mark.parametrize("metric", SUBSETS)
def test_the_standard_error_is_how_far_other_subsets_move_it(metric):
    model, images, maps = metrics.convolutional(), metrics.images(1), metrics.maps(1)
    found = [metric(model, images, maps, targets=0, floors=(), seed=seed) for seed in range(40)]
    spread = torch.stack([one.values for one in found]).std().item()
    told = torch.stack([one.standard_error for one in found]).mean().item()
    assert 0.7 < told / spread < 1.4


@pytest.mark.parametrize("metric", SUBSETS)
def test_sums_of_large_maps_do_not_overflow(metric):
    model, images = metrics.convolutional(), metrics.images()
    maps = metrics.maps() / metrics.maps().abs().amax()
    given = {"targets": 1, "grid": 3, "share": 0.5, "floors": ()}
    expected = metric(model, images, maps, **given).values
    assert expected.isfinite().all()
    found = metric(model, images, maps * 3e38, **given).values
    assert torch.allclose(found, expected, rtol=1e-3)


def test_saco_in_numpy():
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps()
    found = saco(model, images, maps, targets=1, activation="none", groups=6, floors=()).values
    for n in range(3):
        order = maps[n, 0].flatten().argsort(descending=True).view(6, 24)
        heat, drop = [], []
        with torch.no_grad():
            whole = model(images[n : n + 1])[0, 1].item()
            for group in order:
                gone = torch.zeros(144, dtype=torch.bool).index_fill(0, group, True).view(12, 12)
                drop.append(whole - model(images[n : n + 1].masked_fill(gone, 0))[0, 1].item())
                heat.append(maps[n, 0][gone].mean().item())
        total = weight = 0.0
        for i, j in itertools.combinations(range(6), 2):
            difference = heat[i] - heat[j]
            total += difference * np.sign(drop[i] - drop[j])
            weight += abs(difference)
        assert found[n, 0].item() == pytest.approx(total / weight, abs=1e-4)


def test_saco_of_a_linear_model_is_one_for_it_and_minus_one_against_it():
    model, images = metrics.linear(144), torch.ones(2, 1, 12, 12)
    exact = own_attributions(model, images).expand(2, -1, -1, -1)
    given = {"activation": "none", "floors": ()}
    assert saco(model, images, exact, **given).values.tolist() == [[1.0], [1.0]]
    assert saco(model, images, -exact, **given).values.tolist() == [[-1.0], [-1.0]]


@pytest.mark.parametrize("metric", ALL)
def test_constant_maps(metric):
    model, images = metrics.convolutional(), metrics.images()
    for value in (0.0, 1.0):  # the 9 x 9 cells of 12 pixels are of different sizes
        found = metric(model, images, torch.full((3, 1, 12, 12), value), floors=())
        if metric is infidelity:
            assert found.values.isfinite().all()
        else:
            assert found.values.isnan().all()


@pytest.mark.parametrize("metric", ALL)
def test_k_targets_are_k_calls_and_batches_are_single_images(metric):
    model, images, maps = metrics.convolutional(), metrics.images(), metrics.maps(3, 2)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    given = {"baseline": 0.1}
    whole = metric(model, images, maps, targets=classes, **given)
    for k in range(2):
        part = metric(model, images, maps[:, k : k + 1], targets=classes[:, k], **given)
        torch.testing.assert_close(whole.values[:, k : k + 1], part.values, atol=1e-4, rtol=1e-3)
        for name, values in whole.floor_values.items():
            torch.testing.assert_close(
                values[:, k : k + 1], part.floor_values[name], atol=1e-4, rtol=1e-3
            )
    for n in range(3):
        rows = slice(n, n + 1)
        part = metric(model, images[rows], maps[rows], targets=classes[rows], first=n, **given)
        torch.testing.assert_close(whole.values[rows], part.values, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("metric", "options", "words"),
    [
        (mu_fidelity, {"subsets": 2}, "subsets"),
        (mu_fidelity, {"share": 0.0}, "share"),
        (infidelity, {"share": 1.0}, "share"),
        (infidelity, {"grid": 2, "share": 0.05}, "at least one"),
        (saco, {"groups": 1}, "groups"),
        (saco, {"groups": 145}, "144"),
    ],
)
def test_bad_options(metric, options, words):
    with pytest.raises(ValueError, match=words):
        metric(metrics.convolutional(), metrics.images(), metrics.maps(), **options)


@pytest.mark.parametrize("metric", [mu_fidelity, saco])
def test_a_score_that_is_only_rounded_says_nothing_of_a_map(metric):
    """1,000 has neighbours 6e-5 away: a change of 3e-5 is there or not by rounding."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(81, 1)).eval()
    model[1].weight.data = torch.full((1, 81), 3e-6)
    model[1].bias.data = torch.tensor([1000.0])
    images, maps = torch.rand(2, 1, 9, 9) * 3, torch.rand(2, 1, 9, 9)
    found = metric(model, images, maps, activation="none", floors=(), progress=False)
    assert found.values.isnan().all()
