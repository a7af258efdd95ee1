"""Occlusion, RISE and Score-CAM: numbers that are known, and plain loops."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import camlens
from camlens.methods import perturbation

from ..families import PERTURBATIONS, made
from ..nets import Convolutions, FurtherInputs, Small


class Linear(nn.Module):
    """Scores that are weighted sums of the pixels: (classes, C, *size) weights and a bias."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights, self.bias = weights, bias

    def forward(self, images):
        return torch.einsum("nc...,kc...->nk", images, self.weights) + self.bias


def linear(*size, classes=2, channels=3, bias=0.0):
    return Linear(torch.randn(classes, channels, *size), bias).eval()


# Occlusion.


@pytest.mark.parametrize("size", [(13,), (7, 9), (5, 4, 6)])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_occlusion_of_a_linear_model_is_weight_times_difference(size, window):
    model = linear(*size, bias=5.0)
    images, baseline = torch.randn(2, 3, *size), torch.randn(3, *[1] * len(size))
    explain = camlens.Occlusion(model, window=window, stride=1, baseline=baseline)
    explanation = explain(images, targets="all")
    pixels = (images - baseline)[:, None] * model.weights  # (N, K, C, *size)
    places, windows = torch.zeros(2, 2, 1, *size), torch.zeros(size)
    for first in torch.cartesian_prod(*[torch.arange(s - window + 1) for s in size]).view(
        -1, len(size)
    ):
        inside = (..., *[slice(f, f + window) for f in first.tolist()])
        fall = pixels[inside].flatten(2).sum(dim=2)
        places[inside] += fall.view(2, 2, 1, *[1] * len(size))
        windows[inside] += 1
    assert_close(explanation.gradients, places / windows, rtol=1e-4, atol=1e-4)
    assert_close(explanation.raw, explanation.gradients[:, :, 0].relu())
    assert explanation.grid == tuple(s - window + 1 for s in size)


def test_occlusion_replaces_what_a_loop_replaces():
    model, images = Small().eval(), torch.rand(2, 3, 10, 7)
    explanation = camlens.Occlusion(model, window=(4, 3), stride=(4, 2), batch_size=5)(
        images, targets=[[2, 4]]
    )
    total, windows = torch.zeros(2, 2, 10, 7), torch.zeros(10, 7)
    with torch.no_grad():
        unchanged = model(images)[:, [2, 4]]
        for y in (0, 4, 6):  # the last one is flush with the border
            for x in (0, 2, 4):
                hidden = images.clone()
                hidden[..., y : y + 4, x : x + 3] = 0
                fall = unchanged - model(hidden)[:, [2, 4]]
                total[..., y : y + 4, x : x + 3] += fall[..., None, None]
                windows[y : y + 4, x : x + 3] += 1
    assert windows.min() == 1
    assert_close(explanation.gradients[:, :, 0], total / windows, rtol=1e-4, atol=1e-6)


def test_occlusions_default_window_is_a_seventh_and_every_pixel_is_covered():
    model, images = linear(30, 21), torch.rand(1, 3, 30, 21)
    plain = camlens.Occlusion(model)(images)
    said = camlens.Occlusion(model, window=(4, 3), stride=(2, 2))(images)
    assert plain.grid == (14, 10)
    assert torch.equal(plain.raw, said.raw)
    ones = camlens.Occlusion(Linear(torch.ones(1, 3, 30, 21)).eval())(torch.ones_like(images))
    assert_close(ones.raw, torch.full((1, 1, 30, 21), 3.0 * 4 * 3))


def test_a_baseline_may_be_a_function_of_the_images():
    model, images = linear(6, 6), torch.rand(2, 3, 6, 6)
    by_function = camlens.Occlusion(model, window=2, baseline=lambda x: x.mean((2, 3), True))
    by_value = camlens.Occlusion(model, window=2, baseline=images.mean((2, 3), True))
    assert_close(by_function(images).raw, by_value(images).raw)


# RISE.


def expected_product(length, cells, keep):
    """Return E[m_p m_q] of one axis's weights as (equal, other) parts: sum over the cells."""
    table = perturbation.upsampling_table(length, cells)
    return torch.einsum("spc,sqc->pq", table, table) / len(table)


@pytest.mark.slow
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", [(12,), (9, 8), (4, 5, 6)])
def test_rise_of_an_additive_model_is_its_expectation(center, size):
    """E[f(x m) m_p] / p, with f the sum of w x: m_p m_q has the mean p^2 + p (1 - p) overlap."""
    keep, cells = 0.3, 3
    model, images = linear(*size, bias=2.0), torch.rand(2, 3, *size)
    explain = camlens.RISE(model, masks=3000, grid=cells, keep=keep, center=center, seed=3)
    explanation = explain(images, targets="all")
    parts = (images[:, None] * model.weights).sum(dim=2)  # (N, K, *size)
    spread = parts
    for length in size:
        spread = torch.tensordot(spread, expected_product(length, cells, keep), dims=([2], [0]))
    expected = (1 - keep) * spread
    if not center:
        whole = parts.flatten(2).sum(dim=2)
        expected = expected + (keep * whole + 2.0).view(2, 2, *[1] * len(size))
    error = explanation.measures["standard_error"]
    assert error.shape == explanation.raw.shape == (2, 2, *size)
    deviations = (explanation.gradients[:, :, 0] - expected) / error
    assert deviations.abs().max() < 4
    assert 0.3 < deviations.square().mean().sqrt() < 2
    assert_close(explanation.raw, explanation.gradients[:, :, 0].relu())


@pytest.mark.slow
@pytest.mark.parametrize("center", [False, True])
def test_the_standard_error_is_the_spread_of_repeated_runs(center):
    model, images = Small().eval(), torch.rand(1, 3, 12, 12)
    runs = [
        camlens.RISE(model, masks=60, grid=4, center=center, seed=seed, batch_size=60)(
            images, targets=1
        )
        for seed in range(200)
    ]
    spread = torch.cat([run.gradients for run in runs]).std(dim=0)
    said = torch.cat([run.measures["standard_error"] for run in runs]).square().mean(dim=0).sqrt()
    ratio = said / spread[:, 0]
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert (ratio - 1).abs().max() < 0.25


def test_rise_is_a_plain_loop_over_its_masks():
    model, images = Small().eval(), torch.rand(2, 3, 8, 10)
    seen = []

    def probabilities(out):
        return out.softmax(dim=1)[:, [1, 3]]

    class Seen(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return model(x)

    explain = camlens.RISE(Seen().eval(), masks=37, grid=(3, 4), batch_size=10)
    explanation = explain(torch.ones_like(images), targets=probabilities)
    # Those of the first image; the unchanged one runs behind its first ten, to be compared.
    masks = torch.cat([x[:10] for x in seen if len(x) in (7, 10, 11)])[:37, :1]
    assert masks.shape == (37, 1, 8, 10)
    explanation = camlens.RISE(model, masks=37, grid=(3, 4), batch_size=7)(
        images, targets=probabilities
    )
    with torch.no_grad():
        for n in range(2):
            scores = probabilities(model(images[n] * masks))
            products = scores[:, :, None, None] * masks / 0.5
            assert_close(explanation.raw[n], products.mean(dim=0), rtol=1e-4, atol=1e-6)
            error = products.std(dim=0) / math.sqrt(37)
            assert_close(explanation.measures["standard_error"][n], error, rtol=1e-3, atol=1e-6)


def test_rises_masks_are_soft_shifted_and_of_the_mean_they_say():
    size, cells = (20, 15), (4, 3)
    tables = [perturbation.upsampling_table(*axis) for axis in zip(size, cells, strict=True)]
    assert [t.shape for t in tables] == [(5, 20, 4), (5, 15, 3)]
    for table in tables:
        assert_close(table.sum(dim=2), torch.ones(table.shape[:2]))
    shifts = torch.tensor([[0, 0], [4, 2]])
    grid = torch.rand(2, 4, 3)
    masks = perturbation.smooth_masks(grid, shifts, tables)
    whole = functional.interpolate(grid[:, None], (25, 20), mode="bilinear")[:, 0]
    assert_close(masks[0], whole[0, :20, :15])
    assert_close(masks[1], whole[1, 4:24, 2:17])


def test_rise_is_the_same_for_a_seed_and_touches_no_other_randomness():
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    first, again, other = (
        camlens.RISE(model, masks=20, seed=seed)(images).raw for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), state)


# Score-CAM.


def score_cam_by_a_loop(model, layer, images, target, *, weights):
    """Mask one channel of one image at a time, as the paper or its authors' code says."""
    kept = []
    handle = layer.register_forward_hook(lambda _, __, out: kept.append(out.detach().clone()))
    with torch.no_grad():
        model(images)
        handle.remove()
        maps = []
        for image, channels in zip(images, kept[-1], strict=True):
            scores, used = [], []
            for channel in channels:
                large = functional.interpolate(
                    channel[None, None], image.shape[1:], mode="bilinear"
                )[0, 0]
                if large.max() == large.min():
                    continue
                mask = (large - large.min()) / (large.max() - large.min())
                out = model((image * mask)[None])[0]
                scores.append((out if weights == "paper" else out.softmax(0))[target])
                used.append(channel)
            each = torch.stack(scores)
            each = each.softmax(0) if weights == "paper" else each
            maps.append(torch.einsum("c,chw->hw", each, torch.stack(used)).relu())
    return torch.stack(maps)


@pytest.mark.parametrize("weights", ["paper", "authors"])
@pytest.mark.parametrize("layer", ["conv2", "act"])
def test_score_cam_is_a_plain_loop_over_channels(weights, layer):
    model, images = Small().eval(), torch.rand(2, 3, 12, 10)
    with torch.no_grad():
        model.norm2.bias[3] = -100.0  # dead behind the ReLU
    explanation = camlens.ScoreCAM(model, layer, weights=weights, batch_size=3)(
        images, targets=[[1, 4]]
    )
    for k, target in enumerate((1, 4)):
        reference = score_cam_by_a_loop(
            model, getattr(model, layer), images, target, weights=weights
        )
        assert_close(explanation.raw[:, k], reference, rtol=1e-4, atol=1e-6)
    assert explanation.layers == (layer,)


def test_score_cam_runs_the_model_once_for_each_channel_that_is_not_constant():
    model, images = Small().eval(), torch.rand(2, 3, 12, 10)
    with torch.no_grad():
        model.norm2.bias[3] = -100.0
    explain, rows = camlens.ScoreCAM(model, "act"), []
    explain(images)  # the layer is measured
    handle = model.conv1.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    explain(images, targets="all")
    handle.remove()
    maps = []
    handle = model.act.register_forward_hook(lambda _, __, out: maps.append(out))
    model(images)
    handle.remove()
    channels = maps[-1].detach().flatten(2)
    used = (channels.amax(dim=2) > channels.amin(dim=2)).sum().item()
    assert used < 16
    assert sum(rows) == 2 + used


def test_score_cam_of_dead_channels_has_no_evidence():
    activations, scores = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 5)
    alive = torch.tensor([[False, False, False], [False, True, False]])
    for normalized in (True, False):
        raw = perturbation.score_cam(activations, scores, alive, normalized=normalized)
        weight = 1 if normalized else scores[1, 1].view(5, 1, 1)
        assert raw[0].count_nonzero() == 0
        assert_close(raw[1], (activations[1, 1] * weight).relu().expand(5, 4, 4))


@pytest.mark.parametrize("out", [1, 2])
def test_the_authors_weights_are_the_scores_where_there_is_no_softmax(out):
    model, images = Small(classes=out).eval(), torch.rand(2, 3, 8, 8)
    called = camlens.ScoreCAM(model, "act", weights="authors")(
        images,
        targets=lambda scores: scores[:, 0].sigmoid() if out == 1 else scores.softmax(1)[:, 0],
    )
    if out == 1:
        plain = camlens.ScoreCAM(
            nn.Sequential(model, nn.Sigmoid()).eval(), "0.act", weights="authors"
        )(images)
    else:
        plain = camlens.ScoreCAM(model, "act", weights="authors")(images, targets=0)
    assert_close(called.raw, plain.raw)


def test_score_cam_of_several_layers_is_fused_as_cams_are():
    model, images = Small().eval(), torch.rand(2, 3, 12, 12)
    several = camlens.ScoreCAM(model, ["conv1", "conv2"])(images, targets=1)
    each = [camlens.ScoreCAM(model, layer)(images, targets=1).raw for layer in ("conv1", "conv2")]
    assert_close(several.raw, camlens.heatmap.fuse(each))
    assert several.layers == ("conv1", "conv2")


def test_score_cams_masks_lie_where_the_cells_were_measured():
    torch.manual_seed(0)
    model, images = Small().eval(), torch.rand(2, 3, 32, 32)
    placed = camlens.ScoreCAM(model, "act", registration="measured")(images, targets=0)
    assert placed.registration.kind == "measured"
    stretched = camlens.ScoreCAM(model, "act")(images, targets=0)
    assert not torch.equal(placed.raw, stretched.raw)
    similarity = functional.cosine_similarity(placed.raw.flatten(1), stretched.raw.flatten(1))
    assert (similarity > 0.9).all()


# What they share.


@pytest.mark.parametrize("explainer", PERTURBATIONS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_images_and_volumes(explainer, axes):
    model, images = Convolutions(axes=axes).eval(), torch.rand(2, 2, *[8] * axes)
    explanation = made(explainer, model, "last")(images, targets="all")
    assert explanation.heatmaps.shape == (2, 3, *[8] * axes)
    alone = made(explainer, model, "last")(images[1:], targets=2)
    assert_close(explanation.raw[1:, 2:], alone.raw, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("explainer", PERTURBATIONS)
def test_further_inputs_follow_their_images(explainer):
    model, images = FurtherInputs().eval(), torch.rand(3, 3, 8, 8)
    factor, offset = torch.rand(3, 1) + 0.5, torch.rand(5)
    together = made(explainer, model, "net.conv2")(images, factor, offset=offset, targets=1)
    for n in range(3):
        row = slice(n, n + 1)
        alone = made(explainer, model, "net.conv2")(
            images[row], factor[row], offset=offset, targets=1
        )
        assert_close(together.raw[row], alone.raw, rtol=1e-4, atol=1e-6)


class Tabular(FurtherInputs):
    """The factor lies in a dictionary, and the offset in a list."""

    def forward(self, images, tabular):
        return super().forward(images, tabular["factor"], offset=tabular["shared"][0])


@pytest.mark.parametrize("explainer", [*PERTURBATIONS, camlens.GradCAM, camlens.AblationCAM])
@pytest.mark.parametrize("batch_size", [3, 32])
def test_rows_in_dictionaries_follow_their_images(explainer, batch_size):
    model, images = Tabular().eval(), torch.rand(3, 3, 8, 8)
    factor, shared = torch.tensor([[1.0], [10.0], [0.1]]), [torch.rand(5), "unit"]
    options = {"batch_size": batch_size} if explainer in PERTURBATIONS else {}
    explain = made(explainer, model, "net.conv2", **options)
    together = explain(images, {"factor": factor, "shared": shared}, targets=1)
    for n in range(3):
        row = slice(n, n + 1)
        alone = explain(images[row], {"factor": factor[row], "shared": shared}, targets=1)
        assert_close(together.raw[row], alone.raw, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("explainer", PERTURBATIONS)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_size_of_a_batch_makes_no_difference(explainer, batch_size):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    expected = made(explainer, model)(images).raw
    actual = made(explainer, model, batch_size=batch_size)(images).raw
    assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: camlens.Occlusion(m, window=9)(IMAGES), ValueError, r"within the images' size"),
        (lambda m: camlens.Occlusion(m, window=2, stride=3)(IMAGES), ValueError, "a stride of at"),
        (lambda m: camlens.Occlusion(m, window=(2, 2, 2))(IMAGES), ValueError, "one for each axis"),
        (lambda m: camlens.Occlusion(m, window=0)(IMAGES), ValueError, "window as a positive"),
        (lambda m: camlens.Occlusion(m, batch_size=0), ValueError, "batch_size as an integer"),
        (lambda m: camlens.Occlusion(m, baseline="blur"), TypeError, "a baseline as a number"),
        (
            lambda m: camlens.Occlusion(m, baseline=torch.zeros(7))(IMAGES),
            ValueError,
            r"a baseline that broadcasts to the images' \(2, 3, 8, 8\), got \(7,\)",
        ),
        (
            lambda m: camlens.Occlusion(m, baseline=lambda x: x > 0)(IMAGES),
            TypeError,
            "a baseline in floating point, got torch.bool",
        ),
        (lambda m: camlens.RISE(m, masks=1), ValueError, "masks as an integer of at least 2"),
        (lambda m: camlens.RISE(m, keep=1.0), ValueError, "between 0 and 1, got 1.0"),
        (lambda m: camlens.RISE(m, grid=0.5)(IMAGES), ValueError, "grid as a positive integer"),
        (lambda m: camlens.ScoreCAM(m, weights="peers"), ValueError, '"paper" or "authors"'),
    ],
)
def test_what_cannot_be_right_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make(Small().eval())


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [camlens.Occlusion, camlens.RISE, camlens.ScoreCAM])
def test_models_in_float64_have_the_same_maps(kind):
    model, images = Small().eval(), torch.rand(2, 3, 8, 8)
    options = {"layer": "conv2"} if kind is camlens.ScoreCAM else {}
    single = kind(model, **options)(images, targets=[[1, 2]])
    double = kind(model.double(), **options)(images.double(), targets=[[1, 2]])
    assert_close(double.raw, single.raw, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [camlens.Occlusion, camlens.RISE])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_that_depend_on_the_batch_are_refused(kind, count):
    """Changed images run beside one another, even those of a single image."""
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(norm, nn.GELU(), nn.Flatten(), nn.Linear(192, 4)).eval()
    with pytest.raises(ValueError, match="change with the other images of the batch"):
        kind(model)(torch.rand(count, 3, 8, 8))
