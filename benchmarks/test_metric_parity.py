"""Metrics of camlens beside those of torchcam, captum, grad-cam and Quantus, on a small network.

Where a peer's protocol can be made equal, the numbers have to be equal; where random numbers
decide, the peer is given those that camlens drew, read off the images that the model saw. What
remains is asserted as a difference, with the reason: the table "Metrics" of docs/comparison.rst.

Left out: xplique (TensorFlow) and pnpxai, which are only read.
"""

from __future__ import annotations

import contextlib
from typing import Any

import captum.attr
import captum.metrics
import numpy as np
import pytest
import quantus
import torch
import torchcam.metrics
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from quantus.functions.perturb_func import noisy_linear_imputation
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot

import camlens
from camlens import faithfulness

SIDE = 20
PIXELS = SIDE * SIDE
TARGETS = torch.tensor([1, 3, 0, 2])


class Recorder(nn.Module):
    """Keeps the images that a model sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.model(images)

    def last(self, *shape: int) -> Tensor:
        """Return the last images as (*shape, C, H, W)."""
        count = int(np.prod(shape))
        return torch.cat(self.seen)[-count:].unflatten(0, shape)

    def changed(self, *shape: int) -> Tensor:
        """Return the images that a metric of camlens changed at last, as (*shape, C, H, W).

        Their first batch ends with an unchanged image, which is checked to have the same score
        there.
        """
        batches: list[Tensor] = []
        while sum(map(len, batches)) <= int(np.prod(shape)):
            batches.insert(0, self.seen[-1 - len(batches)])
        return torch.cat([batches[0][:-1], *batches[1:]]).unflatten(0, shape)


class GivenMaps:
    """What torchcam's metrics take for an extractor, with maps that are given."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class FirstRows(nn.Module):
    """Scores an image by the mean of its upper half."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, : images.shape[2] // 2].mean(dim=(1, 2, 3))[:, None]


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def network(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 5),
    ).eval()


def pictures(channels: int = 3, count: int = 4, side: int = SIDE) -> Tensor:
    """Return smooth images with some noise, so that imputing is no lottery."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, channels, 4, 4, generator=generator)
    noise = torch.randn(count, channels, side, side, generator=generator)
    return interpolate(coarse, (side, side), mode="bicubic") + 0.2 * noise


def distinct_maps(count: int = 4, seed: int = 2, side: int = SIDE) -> Tensor:
    """Return maps (N, 1, H, W) in (0, 1], of which no two values are equal."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(side**2, generator=generator) for _ in range(count)]
    return ((torch.stack(orders) + 1) / side**2).view(count, 1, side, side)


def of_quantus(
    metric: Any,
    model: nn.Module | None,
    images: Tensor,
    maps: Tensor | None,
    targets: Tensor = TARGETS,
    **options: Any,
) -> Any:
    return metric(
        model=model,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=None if maps is None else maps.numpy(),
        channel_first=True,
        device="cpu",
        **options,
    )


def assert_equal(ours: Tensor, theirs: Any, tolerance: float = 1e-5) -> None:
    theirs = torch.as_tensor(np.asarray(theirs, dtype=np.float32))
    torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=tolerance)


def test_deletion_and_insertion_are_torchcams() -> None:
    model, images, maps = network(), pictures(), distinct_maps()
    metric = torchcam.metrics.DeletionInsertionMetric(
        GivenMaps(model, maps[:, 0]), softmax, steps=10
    )
    metric.update(images, TARGETS.tolist())
    theirs = metric.summary()
    given = {"step": PIXELS // 10, "baseline": 0.0, "targets": TARGETS, "floors": ()}
    for name in ("deletion", "insertion"):
        found = getattr(faithfulness, name)(model, images, maps, **given)
        assert found.values.std() > 1e-4
        assert found.mean == pytest.approx(theirs[f"{name}_auc"], abs=1e-6)


def test_torchcam_changes_pixels_of_equal_value_from_the_top() -> None:
    """A constant map says nothing, so deleting by it should halve the score with half the pixels.

    torchcam sorts stably, so that ties are in raster order: the upper half goes first.
    """
    model, images, flat = FirstRows().eval(), *torch.ones(2, 8, 1, SIDE, SIDE)
    metric = torchcam.metrics.DeletionInsertionMetric(GivenMaps(model, flat[:, 0]), steps=20)
    metric.update(images, 0)
    assert metric.summary()["deletion_auc"] == pytest.approx(0.25)
    found = faithfulness.deletion(model, images, flat, activation="none", floors=())
    assert found.mean == pytest.approx(0.5, abs=0.02)


def test_average_drop_and_increase_are_torchcams() -> None:
    model, images, maps = network(), pictures(), distinct_maps()
    metric = torchcam.metrics.ClassificationMetric(GivenMaps(model, maps[:, 0]), softmax)
    metric.update(images, TARGETS.tolist())
    theirs = metric.summary()
    drop = faithfulness.average_drop(model, images, maps, targets=TARGETS, floors=())
    increase = faithfulness.average_increase(model, images, maps, targets=TARGETS, floors=())
    assert drop.mean == pytest.approx(theirs["avg_drop"], abs=1e-5)
    assert increase.mean == theirs["conf_increase"]
    assert drop.mean > 0
    assert 0 < increase.mean < 1


def test_torchcam_divides_logits_unless_told() -> None:
    """Its default follows logits: a negative one gives a negative drop. camlens refuses."""
    model, images, maps = network(), pictures(), distinct_maps()
    nn.init.constant_(model[6].bias, -5.0)
    metric = torchcam.metrics.ClassificationMetric(GivenMaps(model, maps[:, 0]))
    metric.update(images, TARGETS.tolist())
    assert metric.summary()["avg_drop"] < 0
    with pytest.raises(ValueError, match="compares probabilities"):
        faithfulness.average_drop(model, images, maps, targets=TARGETS, activation="none")


def test_average_increase_is_grad_cams_and_its_drop_is_not_divided() -> None:
    """grad-cam follows what the target gives, and takes p - o for (p - o) / p."""
    model, images, maps = network(), pictures(), distinct_maps()
    chances = nn.Sequential(model, nn.Softmax(dim=1)).eval()
    targets = [ClassifierOutputTarget(t) for t in TARGETS.tolist()]
    cams = maps[:, 0].numpy()
    given = {"targets": TARGETS, "floors": ()}
    increase = faithfulness.average_increase(model, images, maps, **given)
    assert_equal(increase.values[:, 0], IncreaseInConfidence()(images, cams, targets, chances))
    drop = faithfulness.average_drop(model, images, maps, **given).values[:, 0]
    theirs = DropInConfidence()(images, cams, targets, chances)
    p = chances(images).detach().gather(1, TARGETS[:, None])[:, 0]
    assert_equal(drop * p, theirs)
    assert (drop - torch.from_numpy(theirs)).abs().max() > 0.01


def recorded_subsets(**options: Any) -> tuple[Any, Tensor, camlens.Explanation, Tensor]:
    """Return camlens' infidelity, the images, their explanation and the changed images."""
    model, images = Recorder(network()), pictures()
    explanation = camlens.IntegratedGradients(model, steps=4)(images, targets=TARGETS)
    given = {"subsets": 12, "grid": 5, "activation": "none", "floors": ()}
    found = faithfulness.infidelity(model, images, explanation, **given, **options)
    return found, images, explanation, model.changed(len(images), 12)


def captums_infidelity(
    images: Tensor, attributions: Tensor, changed: Tensor, **options: Any
) -> Any:
    def perturb(repeated: Tensor) -> tuple[Tensor, Tensor]:
        rows = changed.flatten(0, 1)
        return (repeated != rows).float(), rows

    return captum.metrics.infidelity(
        network(),
        perturb,
        images,
        attributions,
        target=TARGETS,
        n_perturb_samples=changed.shape[1],
        **options,
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_is_captums(normalize: bool) -> None:
    """Of attributions for each channel; the changes are 0 and 1, times what is replaced."""
    found, images, explanation, changed = recorded_subsets(normalize=normalize)
    theirs = captums_infidelity(images, explanation.gradients[:, 0], changed, normalize=normalize)
    assert theirs.min() > 0
    assert_equal(found.values[:, 0], theirs, 1e-4)


def test_captum_scales_the_opposite_map_right() -> None:
    """Its best factor may be negative, so that a map and its opposite are as good. Ours may not."""
    found, images, explanation, changed = recorded_subsets()
    attributions = explanation.gradients[:, 0]
    right, wrong, nothing = (
        captums_infidelity(images, maps, changed, normalize=True)
        for maps in (attributions, -attributions, torch.zeros_like(attributions))
    )
    assert_equal(right, wrong)
    ours = faithfulness.infidelity(
        network(),
        images,
        -attributions.sum(dim=1, keepdim=True),
        targets=TARGETS,
        subsets=12,
        grid=5,
        activation="none",
        floors=(),
    )
    assert_equal(ours.values[:, 0], nothing, 1e-4)
    assert (ours.values > 1.5 * found.values).all()


def saliency(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
    """Explain as Quantus wants it: captum's gradients, the largest of the channels."""
    images = torch.as_tensor(inputs)
    found = captum.attr.Saliency(model).attribute(images.clone(), torch.as_tensor(targets))
    return found.amax(dim=1, keepdim=True).numpy()


def test_sensitivity_is_captums_and_quantus() -> None:
    """With captum's own gradients, and the noise that camlens drew."""
    model, images, samples = Recorder(network()), pictures(), 5
    ours = faithfulness.sensitivity(
        model, images, camlens.Saliency(model), samples=samples, targets=TARGETS, floors=()
    ).values[:, 0]
    changed = model.last(samples, len(images))
    assert 0.01 < (changed - images).abs().max() <= 0.02
    assert (ours > 0).all()

    def explain(images: Any, target: Tensor) -> Any:
        one = isinstance(images, Tensor)  # else a tuple, for which it wants a tuple
        found = torch.from_numpy(saliency(network(), images if one else images[0], target))
        return found if one else (found,)

    rows = changed.transpose(0, 1).flatten(0, 1)  # of one image after the other
    theirs = captum.metrics.sensitivity_max(
        explain, images, lambda _: rows, n_perturb_samples=samples, target=TARGETS
    )
    assert_equal(ours, theirs, 1e-4)

    draws = iter(changed.flatten(2).flatten(2).numpy())
    metric = quantus.MaxSensitivity(
        nr_samples=samples, perturb_func=lambda arr, **_: next(draws).reshape(arr.shape)
    )
    theirs = of_quantus(metric, network(), images, None, explain_func=saliency)
    assert_equal(ours, theirs, 1e-4)


def test_captum_finds_no_sensitivity_where_there_is_no_map() -> None:
    """It divides by 1 for a map of zeros. camlens has no value for what explains nothing."""
    dead = network()
    nn.init.zeros_(dead[6].weight)
    images = pictures()
    theirs = captum.metrics.sensitivity_max(
        captum.attr.Saliency(dead).attribute, images, target=TARGETS
    )
    ours = faithfulness.sensitivity(
        dead, images, camlens.Saliency(dead), targets=TARGETS, floors=()
    )
    assert (theirs == 0).all()
    assert ours.values.isnan().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_deletion_is_quantus_pixel_flipping(channels: int) -> None:
    """With steps of all channels of some pixels, no ties, and 0 in place of its darkest value.

    Its curve begins after the first step.
    """
    model, images, maps = network(channels), pictures(channels, side=18), distinct_maps(side=18)
    metric = quantus.PixelFlipping(features_in_step=channels * 12, perturb_baseline=0.0)
    theirs = of_quantus(metric, model, images, maps)
    ours = faithfulness.deletion(model, images, maps, step=12, targets=TARGETS, floors=())
    assert_equal(ours.curve[:, 0, 1:], theirs)


def test_quantus_flips_the_channels_of_a_pixel_at_different_steps() -> None:
    """It spreads the map over the channels and sorts values, one by one: three times the passes."""
    model, images, maps = Recorder(network()), pictures(side=6), distinct_maps(side=6)
    of_quantus(quantus.PixelFlipping(perturb_baseline=0.0), model, images, maps)
    assert len(model.seen) == 3 * 36
    gone = model.seen[0] != images
    assert gone.any(dim=1).flatten(1).sum(dim=1).tolist() == [1] * 4
    assert not gone.all(dim=1).any()


def test_quantus_replaces_pixels_by_the_darkest_value() -> None:
    """Its "black" is the least value that is left in the image, whatever black is."""
    model, images, maps = Recorder(network(1)), pictures(1), distinct_maps()
    of_quantus(quantus.PixelFlipping(features_in_step=PIXELS), model, images, maps)
    assert_equal(model.seen[0], images.amin(dim=(1, 2, 3), keepdim=True).expand_as(images))


def test_mu_fidelity_is_quantus_faithfulness_correlation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one channel, a cell for each pixel, with the subsets that camlens drew."""
    model, images, maps, subsets = Recorder(network(1)), pictures(1), distinct_maps(), 20
    ours = faithfulness.mu_fidelity(
        model,
        images,
        maps,
        subsets=subsets,
        grid=SIDE,
        targets=TARGETS,
        activation="none",
        floors=(),
    )
    chosen = (model.changed(len(images), subsets) != images[:, None]).flatten(2)
    draws = iter(chosen.transpose(0, 1).flatten(0, 1))  # Quantus goes through the images first
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(draws).nonzero()[:, 0].numpy())
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=subsets, subset_size=PIXELS // 5, perturb_baseline=0.0, return_aggregate=False
    )
    theirs = of_quantus(metric, network(1), images, maps)
    assert ours.values.abs().max() > 0.1
    assert_equal(ours.values[:, 0], theirs, 1e-4)


def test_quantus_subsets_are_of_single_channels() -> None:
    """Which no map of pixels speaks of; of photographs it means colours that are in none."""
    model, images, maps = Recorder(network()), pictures(), distinct_maps()
    metric = quantus.FaithfulnessCorrelation(nr_runs=3, subset_size=60, perturb_baseline=0.0)
    of_quantus(metric, model, images, maps)
    gone = (model.seen[-1] != images).sum(dim=1)
    assert ((gone == 1) | (gone == 2)).sum(dim=(1, 2)).min() > 40


def test_quantus_infidelity_takes_one_patch_after_the_other_away_for_good() -> None:
    """The patches add up to the whole image, so 5 samples are the same number five times."""
    images, maps = pictures(1), distinct_maps()
    values = []
    for samples in (1, 5):
        model = Recorder(network(1))
        metric = quantus.Infidelity(
            perturb_patch_sizes=[5], n_perturb_samples=samples, perturb_baseline=0.0
        )
        values.append(of_quantus(metric, model, images, maps))
        assert len(model.seen) == 1 + 16 * samples
        assert (model.seen[-1] == 0).all()
    assert_equal(torch.tensor(values[0]), values[1])


def share_removed(remover: Any, percentile: int, maps: Tensor) -> list[float]:
    """Return which share of each image grad-cam removes."""
    kept: list[Tensor] = []
    perturbation = remover(percentile, lambda image, mask: kept.append(mask) or image)
    for map_ in maps[:, 0]:
        perturbation(torch.zeros(1, *map_.shape), map_)
    return [float((mask == 0).float().mean()) for mask in kept]


@pytest.mark.parametrize(
    ("order", "remover"), [("most", RemoveMostRelevantFirst), ("least", RemoveLeastRelevantFirst)]
)
def test_road_is_grad_cams_without_ties(order: Any, remover: Any) -> None:
    """Without noise, of a map of 400 values. It gives the change of the score, ours the score."""
    model, images, maps = network(), pictures() + 2 * distinct_maps(seed=6), distinct_maps()
    targets = [ClassifierOutputTarget(t) for t in TARGETS.tolist()]
    ours = faithfulness.road(
        model,
        images,
        maps,
        order=order,
        percentages=(20, 50, 80),
        noise=0.0,
        targets=TARGETS,
        activation="none",
        floors=(),
    )
    before = model(images).detach().gather(1, TARGETS[:, None])
    for column, percentage in enumerate((20, 50, 80)):
        perturbation = remover(100 - percentage, NoisyLinearImputer(noise=0.0))
        theirs = PerturbationConfidenceMetric(perturbation)(
            images, maps[:, 0].numpy(), targets, model
        )
        change = ours.curve[:, 0, column] - before[:, 0]
        assert change.abs().max() > 0.005
        assert_equal(change, theirs, 1e-4)  # camlens' solver ends at a tolerance


def test_grad_cam_removes_the_whole_image_where_a_map_is_zero() -> None:
    """Its threshold is then zero itself. So is every CAM's that a ReLU has cut off."""
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 4:8, 4:8] = distinct_maps(1)[0, 0, :4, :4]
    for percentile in range(10, 91, 10):
        assert share_removed(RemoveMostRelevantFirst, percentile, maps) == [1.0]
        assert share_removed(RemoveLeastRelevantFirst, percentile, maps) == [240 / 256]
    model, images = Recorder(network()), pictures(count=1, side=16)
    faithfulness.road(model, images, maps, order="most", percentages=(10, 50, 90), floors=())
    gone = (model.changed(1, 3) != images).any(dim=2).flatten(2).sum(dim=2)
    assert gone.tolist() == [[26, 128, 230]]


class Decided(nn.Module):
    """Gives 1 to the class that a model predicts: its mean is an accuracy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        scores = self.model(images)
        return one_hot(scores.argmax(dim=1), scores.shape[1]).float()


def assert_road_is_quantus(model: nn.Module, images: Tensor, maps: Tensor) -> None:
    """Of one channel, without noise, as the accuracy of what was predicted."""
    predicted = model(images).argmax(dim=1)
    percentages = [10, 30, 50, 70, 90]
    metric = quantus.ROAD(percentages=percentages, noise=0.0)
    theirs = of_quantus(metric, model, images, maps, predicted)
    ours = faithfulness.road(
        Decided(model).eval(),
        images,
        maps,
        order="most",
        percentages=percentages,
        noise=0.0,
        targets=predicted,
        activation="none",
        floors=(),
    )
    assert 0 < ours.mean < 1
    assert_equal(ours.curve[:, 0].mean(dim=0), [theirs[p] for p in percentages])


def test_road_is_quantus_of_one_channel() -> None:
    assert_road_is_quantus(network(1), pictures(1, count=12), distinct_maps(12))


def test_imputation_is_quantus_of_colour_images() -> None:
    """Its function takes pixels; its metric gives it values of three channels, see below."""
    image, map_ = pictures(count=1), distinct_maps(1)
    removed = map_[:, 0] > 0.4
    theirs = noisy_linear_imputation(
        image[0].numpy(), removed.flatten().nonzero()[:, 0].numpy(), noise=0.0
    )
    assert_equal(faithfulness.impute(image, removed)[0], theirs, 1e-3)


def test_quantus_road_fails_on_colour_and_counts_the_first_batch_only() -> None:
    model, images, maps = network(), pictures(), distinct_maps()
    with pytest.raises(IndexError):
        of_quantus(quantus.ROAD(percentages=[50]), model, images, maps)

    model, images, maps = network(1), pictures(1, count=6), distinct_maps(6)
    metric = quantus.ROAD(percentages=[1], noise=0.0)
    targets = model(images).argmax(dim=1)
    targets[2:] = (targets[2:] + 1) % 5  # wrong for four of six
    one, several = (
        of_quantus(metric, model, images, maps, targets, batch_size=size)[1] for size in (6, 2)
    )
    assert (one, several) == (pytest.approx(1 / 3), 1.0)


def masks_of_maps() -> tuple[Tensor, Tensor, Tensor]:
    images, maps = pictures(), distinct_maps()
    masks = torch.zeros(4, 1, SIDE, SIDE, dtype=torch.bool)
    masks[:, :, 5:15, 5:15] = True
    maps[:2, :, 8, 8] = 2.0  # two hits at least
    maps[2, :, 0, 0] = 2.0  # and a miss
    return images, maps, masks


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("pointing_game", quantus.PointingGame),
        ("energy_pointing_game", quantus.RelevanceMassAccuracy),
    ],
)
def test_localization_is_quantus(name: str, metric: Any) -> None:
    images, maps, masks = masks_of_maps()
    options = {"tolerance": 0} if name == "pointing_game" else {}
    ours = getattr(faithfulness, name)(None, images, maps, masks, floors=(), **options)
    theirs = of_quantus(metric(), None, images, maps, s_batch=masks.numpy())
    assert 0 < ours.mean < 1
    assert_equal(ours.values[:, 0], theirs)


def test_quantus_pointing_game_counts_an_empty_mask_and_any_of_equal_maxima_as_a_hit() -> None:
    """It stores NaN among booleans, where it is True. A constant map hits wherever it is asked."""
    images, maps, masks = masks_of_maps()
    nothing = torch.zeros_like(masks)
    assert all(of_quantus(quantus.PointingGame(), None, images, maps, s_batch=nothing.numpy()))
    given = {"tolerance": 0, "floors": ()}
    assert faithfulness.pointing_game(None, images, maps, nothing, **given).values.isnan().all()
    flat = torch.full_like(maps, 0.5)
    flat[:, :, 0, 0] = 0.4  # a map that is constant everywhere it refuses
    assert all(of_quantus(quantus.PointingGame(), None, images, flat, s_batch=masks.numpy()))
    found = faithfulness.pointing_game(None, images, flat, masks, **given)
    assert found.values.tolist() == [[pytest.approx(100 / 399)]] * 4  # the share of the equals
    with pytest.raises(TypeError):
        of_quantus(quantus.PointingGame(weighted=True), None, images, maps, s_batch=masks.numpy())


def test_quantus_relevance_mass_of_signed_maps_is_no_share() -> None:
    """It divides by the sum with its sign; camlens counts the positive part."""
    images, maps, masks = masks_of_maps()
    signed = maps - maps.mean(dim=(1, 2, 3), keepdim=True) + 0.001
    theirs = of_quantus(
        quantus.RelevanceMassAccuracy(), None, images, signed, s_batch=masks.numpy()
    )
    ours = faithfulness.energy_pointing_game(None, images, signed, masks, floors=())
    assert np.abs(theirs).max() > 1
    assert 0 < ours.values.min() <= ours.values.max() < 1


@pytest.mark.parametrize(
    ("name", "metric"),
    [("sparseness", quantus.Sparseness), ("complexity", quantus.Complexity)],
)
def test_shape_of_a_map_is_quantus(name: str, metric: Any) -> None:
    images, maps = pictures(), distinct_maps().square()
    signed = maps * torch.where(distinct_maps(seed=5) > 0.5, 1, -1)
    for given in (maps, signed):  # by default it takes absolute values, as camlens does
        ours = getattr(faithfulness, name)(None, images, given, floors=())
        assert_equal(ours.values[:, 0], of_quantus(metric(), None, images, given), 1e-4)


@pytest.mark.parametrize("metric", [quantus.Sparseness, quantus.Complexity])
def test_quantus_changes_attributions_in_place(metric: Any) -> None:
    """Where neither ``normalise`` nor ``abs`` makes a copy. The entropy of signed maps is NaN."""
    images, maps = pictures(), distinct_maps() - 0.3
    given = maps.clone()
    found = of_quantus(metric(normalise=False, abs=False), None, images, given)
    assert not torch.equal(given, maps)
    if metric is quantus.Complexity:
        assert np.isnan(found).all()
    kept = maps.clone()
    of_quantus(metric(), None, images, kept)
    assert torch.equal(kept, maps)


class WithToken(nn.Module):
    """Adds a token, which is a bare parameter of it, to the features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token = nn.Parameter(torch.randn(1, 8))
        self.conv, self.norm, self.head = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.conv(images)).relu().mean(dim=(2, 3))
        return self.head(features + self.token)


def test_quantus_never_randomizes_bare_parameters() -> None:
    """It calls ``reset_parameters``; what has none, such as a class token, stays trained.

    Its BatchNorm becomes the identity, and each layer is drawn with the same seed.
    """
    model, images = WithToken().eval(), pictures(1)
    seen: list[dict[str, Tensor]] = []

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return saliency(model, inputs, targets)

    of_quantus(quantus.MPRT(), model, images, None, explain_func=explain)
    trained, last = seen[0], seen[-1]
    assert torch.equal(trained["token"], last["token"])
    assert not torch.equal(trained["conv.weight"], last["conv.weight"])
    assert (last["norm.running_mean"] == 0).all()
    ours = faithfulness.randomization(
        model, images, camlens.Saliency(model), targets=TARGETS, floors=()
    )
    assert "" in [name for step in ours.step_names for name in step]  # the model's own parameters


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_quantus(ties: bool) -> None:
    """The similarity of maps in the parameter randomisation of both."""
    one, other = distinct_maps(), distinct_maps(seed=3) + distinct_maps()
    if ties:
        one, other = (maps.mul(7).floor() for maps in (one, other))
    theirs = quantus.correlation_spearman(
        one.flatten(1).numpy(), other.flatten(1).numpy(), batched=True
    )
    assert_equal(faithfulness.spearman(one, other)[:, 0], theirs)


def test_quantus_random_logit_seeds_numpy_for_everybody() -> None:
    """It compares with one other class, drawn after a reset of NumPy's global generator."""
    model, images = network(), pictures()
    drawn = []
    for start in range(2):
        np.random.seed(start)  # noqa: NPY002
        of_quantus(
            quantus.RandomLogit(num_classes=5, seed=7), model, images, None, explain_func=saliency
        )
        drawn.append(np.random.random())  # noqa: NPY002
    assert drawn[0] == drawn[1]
