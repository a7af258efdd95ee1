"""Integrated and expected gradients, SmoothGrad: numbers that are known."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens.methods import path

from ..families import CAMS, PATHS, made
from ..nets import Convolutions, FurtherInputs, Small

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Quadratic(nn.Module):
    """Scores sum w x + x Q x: the gradient is linear in x, so one midpoint is exact."""

    def __init__(self, size=12, classes=2):
        super().__init__()
        self.w, self.q = torch.randn(classes, size), torch.randn(classes, size, size)

    def forward(self, images):
        x = images.flatten(1)
        return x @ self.w.T + torch.einsum("na,kab,nb->nk", x, self.q, x)


def smooth():
    """A float64 network without kinks."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Softplus(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(96, 4),
    ).double().eval()  # fmt: skip


def difference(model, images, baseline, targets):
    with torch.no_grad():
        return (model(images) - model(baseline))[:, targets]


# Integrated gradients.


@pytest.mark.parametrize("steps", [1, 5])
def test_integrated_gradients_of_a_linear_model_are_weight_times_way(steps):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    baseline = torch.randn(3, 1, 1)
    explanation = camlens.IntegratedGradients(model, steps=steps, baseline=baseline)(
        IMAGES, targets="all"
    )
    weights = model[1].weight.detach().view(2, 3, 8, 8)
    expected = (IMAGES - baseline)[:, None] * weights
    assert_close(explanation.gradients, expected, rtol=1e-4, atol=1e-6)
    assert_close(explanation.raw, expected.sum(dim=2).relu(), rtol=1e-4, atol=1e-6)
    assert explanation.measures["completeness_gap"].max() < 1e-4


@pytest.mark.parametrize("steps", [1, 4])
def test_integrated_gradients_of_a_quadratic_model_are_exact(steps):
    """The mean gradient from b to x is the gradient halfway."""
    model, images = Quadratic().eval(), torch.randn(2, 3, 2, 2)
    baseline = torch.randn_like(images)
    explanation = camlens.IntegratedGradients(model, steps=steps, baseline=baseline)(
        images, targets="all"
    )
    halfway = ((images + baseline) / 2).flatten(1)
    gradients = model.w + torch.einsum("kab,nb->nka", model.q + model.q.mT, halfway)
    expected = gradients * (images - baseline).flatten(1)[:, None]
    assert_close(explanation.gradients.flatten(2), expected, rtol=1e-4, atol=1e-4)
    assert (explanation.measures["completeness_gap"] < 1e-3).all()


def test_attributions_add_up_and_the_gap_says_how_far_they_do():
    model, images = smooth(), IMAGES.double()
    gaps = []
    for steps in (2, 8, 32):
        explanation = camlens.IntegratedGradients(model, steps=steps)(images, targets=[[0, 3]])
        total = explanation.gradients.double().flatten(2).sum(dim=2)
        expected = difference(model, images, torch.zeros_like(images), [0, 3])
        gap = explanation.measures["completeness_gap"]
        assert gap.shape == (2, 2)
        assert_close(gap.double(), (total - expected).abs(), rtol=1e-2, atol=1e-6)
        gaps.append(gap.max().item())
    assert gaps[2] < gaps[1] / 8 < gaps[0] / 64 * 2  # the error of midpoints falls as 1 / steps^2


def passes_of(model):
    """Count the images that a model sees."""
    seen = []
    model.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    return seen


def test_a_tolerance_is_reached_and_no_gradient_is_computed_twice():
    model, images = smooth(), IMAGES.double()
    coarse = camlens.IntegratedGradients(model, steps=2)(images[:1], targets=0)
    tolerance = coarse.measures["completeness_gap"].item() / 20
    seen = passes_of(model)
    fine = camlens.IntegratedGradients(model, steps=2, tolerance=tolerance)(images[:1], targets=0)
    assert fine.measures["completeness_gap"].item() <= tolerance
    steps = sum(seen) - 2  # of the image and of the baseline
    assert steps in (6, 18)
    same = camlens.IntegratedGradients(model, steps=steps)(images[:1], targets=0)
    assert_close(fine.gradients, same.gradients)


def test_only_what_is_above_the_tolerance_changes():
    """So a batch is its single images, and K targets are K calls, with a tolerance too."""
    model, images = smooth(), torch.cat([IMAGES.double(), IMAGES.double() * 6])
    coarse = camlens.IntegratedGradients(model, steps=2)(images, targets="all")
    gaps = coarse.measures["completeness_gap"]
    between = gaps.flatten().sort().values[7:9].mean().item()
    explain = camlens.IntegratedGradients(model, steps=2, tolerance=between)
    together = explain(images, targets="all")
    kept = gaps <= explain.tolerance
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(together.gradients[kept], coarse.gradients[kept])
    assert not torch.equal(together.gradients[~kept], coarse.gradients[~kept])
    for n in range(4):
        for k in range(4):
            alone = explain(images[n : n + 1], targets=k)
            assert_close(together.gradients[n, k], alone.gradients[0, 0])


def test_a_tolerance_out_of_reach_is_an_error():
    explain = camlens.IntegratedGradients(Small().eval(), steps=2, tolerance=1e-12, max_steps=20)
    with pytest.raises(
        ValueError, match=r"with 18 steps the attributions of the images \[.*\] differ by up to .* "
        "from the difference of the scores, and the tolerance is 1e-12",
    ):  # fmt: skip
        explain(IMAGES)


def test_finer_midpoints_add_to_the_coarse_ones():
    for steps in (1, 2, 5):
        both = sorted([*path.midpoints(steps), *path.finer_midpoints(steps)])
        assert both == pytest.approx(path.midpoints(3 * steps))


# Expected gradients.


def test_expected_gradients_with_one_baseline_are_integrated_gradients():
    model, images = smooth(), IMAGES.double()
    baseline = torch.rand(1, 3, 8, 8).double()
    integrated = camlens.IntegratedGradients(model, steps=100, baseline=baseline)(
        images, targets=[[1, 2]]
    )
    expected = camlens.ExpectedGradients(model, baseline, samples=300)(images, targets=[[1, 2]])
    assert_close(expected.gradients, integrated.gradients, rtol=2e-2, atol=1e-5)


def test_expected_gradients_of_a_linear_model_start_at_the_mean_baseline():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    baselines = torch.randn(5, 3, 8, 8)
    explanation = camlens.ExpectedGradients(model, baselines, samples=10)(IMAGES, targets="all")
    weights = model[1].weight.detach().view(2, 3, 8, 8)
    expected = (IMAGES - baselines.mean(dim=0))[:, None] * weights
    assert_close(explanation.gradients, expected, rtol=1e-3, atol=1e-5)
    sums = ((IMAGES[:, None, None] - baselines) * weights[:, None]).sum(dim=3)  # (N, K, 5, H, W)
    error = sums.std(dim=2, correction=0) / math.sqrt(9)
    assert_close(explanation.measures["standard_error"], error, rtol=1e-3, atol=1e-5)


def test_expected_gradients_are_within_their_standard_error_of_the_exact_mean():
    model, images = smooth(), IMAGES.double()
    baselines = torch.rand(3, 3, 8, 8).double()
    exact = torch.stack(
        [
            camlens.IntegratedGradients(model, steps=200, baseline=b)(images, targets=1).gradients
            for b in baselines
        ]
    ).mean(dim=0)
    for seed in range(3):
        found = camlens.ExpectedGradients(model, baselines, samples=30, seed=seed)(
            images, targets=1
        )
        away = (found.gradients - exact).sum(dim=2).abs() / found.measures["standard_error"]
        assert away.square().mean().sqrt() < 1.2
        assert away.max() < 5


def test_draws_are_spread_evenly():
    draws = path.expected_draws(10, 3, seed=4)
    picks = [pick for pick, _ in draws]
    assert sorted(picks.count(each) for each in range(3)) == [3, 3, 4]
    assert sorted(int(10 * alpha) for _, alpha in draws) == list(range(10))
    assert draws == path.expected_draws(10, 3, seed=4) != path.expected_draws(10, 3, seed=5)


def test_expected_gradients_contrast_with_the_unchanged_images_classes():
    """Whose points lie near the baselines, where other classes may be the highest."""
    torch.manual_seed(0)
    model, baselines = Small().eval(), 9 * torch.randn(6, 3, 8, 8)
    explain = camlens.ExpectedGradients(model, baselines, samples=12)
    with torch.no_grad():
        logits = model(IMAGES)
    logits[:, 4] = -torch.inf
    for row, other in enumerate(logits.argmax(dim=1).tolist()):
        image = IMAGES[row : row + 1]
        found = explain(image, targets=camlens.targets.contrast(4, 1))
        expected = explain(image, targets=camlens.targets.contrast(4, [other]))
        assert_close(found.gradients, expected.gradients)


# SmoothGrad.


OF = [
    camlens.Saliency,
    camlens.GradCAM,
    camlens.EigenCAM,
    camlens.GuidedGradCAM,
    camlens.IntegratedGradients,
    camlens.Occlusion,
    camlens.ScoreCAM,
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF)
@pytest.mark.parametrize("targets", [None, [[3, 1]], camlens.targets.top(2)])
def test_without_noise_smoothgrad_is_the_explainer(kind, targets):
    explain = made(kind, Small().eval())
    plain = explain(IMAGES, targets=targets)
    smoothed = camlens.SmoothGrad(explain, samples=3, noise=0)(IMAGES, targets=targets)
    for name in ("raw", "scores", "targets", "outputs"):
        assert_close(getattr(smoothed, name), getattr(plain, name))
    assert (smoothed.grid, smoothed.layers) == (plain.grid, plain.layers)
    assert (smoothed.registration is None) == (plain.registration is None)
    if plain.gradients is not None:
        assert_close(smoothed.gradients, plain.gradients)


def test_smoothgrad_averages_signed_gradients_of_noisy_images():
    model, images = Small().eval(), IMAGES * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    explain = camlens.SmoothGrad(camlens.Saliency(model), samples=4, noise=0.3, seed=7)
    explanation = explain(images)
    total = 0
    width = 0.3 * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))
    for sample in range(4):
        noisy = images + smooth_noise(7, sample, (3, 8, 8)) * width.view(2, 1, 1, 1)
        total = total + camlens.Saliency(model)(noisy, targets=explanation.targets).gradients
    assert_close(explanation.gradients, total / 4)
    assert_close(explanation.raw, (total / 4).abs().amax(dim=2))


def smooth_noise(seed, sample, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 2**20 + sample))


@pytest.mark.parametrize("kind", CAMS)
@pytest.mark.parametrize("layer", ["conv2", ["conv1", "conv2"]])
def test_smoothgrad_of_a_layer_without_noise_is_the_explainer(kind, layer):
    if not issubclass(kind, camlens.LayerAttribution):
        with pytest.raises(ValueError, match=r"such as GradCAM\(model\), got EigenCAM"):
            camlens.SmoothGrad(kind(Small().eval(), layer), at="layer")
        return
    explain = kind(Small().eval(), layer)
    plain = explain(IMAGES, targets=[[3, 1]])
    smoothed = camlens.SmoothGrad(explain, at="layer", samples=3, noise=0)(IMAGES, targets=[[3, 1]])
    assert_close(smoothed.raw, plain.raw)
    assert smoothed.layers == plain.layers


def test_smoothgrad_of_a_layer_averages_gradients_at_noisy_activations():
    model, images = Small().eval(), torch.cat([IMAGES, 5 * IMAGES])
    explain = camlens.SmoothGrad(
        camlens.GradCAM(model, "conv2"), at="layer", samples=5, noise=0.4, seed=3
    )
    explanation = explain(images, targets=[[2, 0]])
    captured = []
    handle = model.conv2.register_forward_hook(lambda *given: captured.append(given[2].detach()))
    with torch.no_grad():
        model(images)
    handle.remove()
    (maps,) = captured
    width = 0.4 * (maps.amax((1, 2, 3)) - maps.amin((1, 2, 3)))
    expected = []
    for k in (2, 0):
        total = torch.zeros_like(maps)
        for sample in range(5):
            noisy = maps + smooth_noise(3, sample, maps.shape[1:]) * width.view(-1, 1, 1, 1)
            noisy.requires_grad_()
            handle = model.conv2.register_forward_hook(lambda *_, value=noisy: value)
            total += torch.autograd.grad(model(images)[:, k].sum(), noisy)[0]
            handle.remove()
        weights = (total / 5).mean(dim=(2, 3), keepdim=True)
        expected.append((weights * maps).sum(dim=1).relu())
    assert_close(explanation.raw, torch.stack(expected, dim=1))


def test_smoothgrad_keeps_the_targets_of_the_unchanged_image():
    model = Small().eval()
    explanation = camlens.SmoothGrad(camlens.GradCAM(model, "act"), noise=5.0)(IMAGES)
    with torch.no_grad():
        assert explanation.targets[:, 0].tolist() == model(IMAGES).argmax(dim=1).tolist()
        assert_close(explanation.outputs, model(IMAGES))


@pytest.mark.slow
def test_smoothgrad_of_a_quadratic_models_gradient_is_its_gradient():
    """The gradient is linear, and the noise has no mean."""
    model, images = Quadratic().eval(), torch.randn(1, 3, 2, 2)
    plain = camlens.Saliency(model)(images, targets=0).gradients
    smoothed = camlens.SmoothGrad(camlens.Saliency(model), samples=2000)(images, targets=0)
    width = 0.15 * (images.max() - images.min())
    error = width * (model.q[0] + model.q[0].T).norm(dim=1) / math.sqrt(2000)
    assert ((smoothed.gradients - plain).flatten().abs() / error).max() < 4


# What they share.


@pytest.mark.parametrize("explainer", PATHS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_images_and_volumes(explainer, axes):
    model, images = Convolutions(axes=axes).eval(), torch.rand(2, 2, *[8] * axes)
    if explainer is camlens.ExpectedGradients:
        explain = camlens.ExpectedGradients(model, torch.zeros(2, 1, *[1] * axes), samples=3)
    else:
        explain = made(explainer, model)
    explanation = explain(images, targets="all")
    assert explanation.gradients.shape == (2, 3, 2, *[8] * axes)
    assert_close(explanation.raw[1:, 2:], explain(images[1:], targets=2).raw)


@pytest.mark.parametrize("explainer", PATHS)
def test_further_inputs_follow_their_images(explainer):
    model, factor, offset = FurtherInputs().eval(), torch.rand(2, 1) + 0.5, torch.rand(5)
    together = made(explainer, model)(IMAGES, factor, offset=offset, targets=1)
    for n in range(2):
        row = slice(n, n + 1)
        alone = made(explainer, model)(IMAGES[row], factor[row], offset=offset, targets=1)
        assert_close(together.raw[row], alone.raw)


@pytest.mark.parametrize("explainer", PATHS)
def test_the_same_at_every_call_and_no_other_randomness_is_touched(explainer):
    explain, state = made(explainer, Small().eval()), torch.get_rng_state()
    assert torch.equal(explain(IMAGES).raw, explain(IMAGES).raw)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: camlens.IntegratedGradients(m, steps=0), ValueError, "steps from 1 to max"),
        (lambda m: camlens.IntegratedGradients(m, steps=2000), ValueError, "max_steps=1000"),
        (lambda m: camlens.IntegratedGradients(m, tolerance=0), ValueError, "a tolerance above 0"),
        (
            lambda m: camlens.IntegratedGradients(m, baseline=torch.zeros(5))(IMAGES),
            ValueError,
            "a baseline that broadcasts",
        ),
        (lambda m: camlens.ExpectedGradients(m, [0.0]), TypeError, "baselines as a floating-point"),
        (lambda m: camlens.ExpectedGradients(m, torch.zeros(3)), ValueError, r"as \(B, C, \*size"),
        (
            lambda m: camlens.ExpectedGradients(m, torch.zeros(2, 3, 5, 5))(IMAGES),
            ValueError,
            "a baseline that broadcasts",
        ),
        (camlens.SmoothGrad, TypeError, r"SmoothGrad\(Saliency\(model\)\), got Small"),
        (lambda m: camlens.SmoothGrad(camlens.Saliency(m), noise=-1), ValueError, "noise of at"),
        (lambda m: camlens.SmoothGrad(camlens.Saliency(m), samples=1), ValueError, "at least 2"),
        (lambda m: camlens.SmoothGrad(camlens.Saliency(m), at="x"), ValueError, 'at="layer", got'),
        (
            lambda m: camlens.SmoothGrad(camlens.Saliency(m), at="layer"),
            ValueError,
            "needs a class activation map without create_graph",
        ),
    ],
)
def test_what_cannot_be_right_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make(Small().eval())
