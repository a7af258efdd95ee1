"""Which augmentations are on in each configuration, and that each one does what its values say."""

import dataclasses

import pytest
import torch
from torchvision.transforms import v2

from fer2013.configurations.config import Augmentation
from fer2013.configurations.recipes import CONFIGS
from fer2013.training.augmentation import augment

OFF = Augmentation(rotation=0.0)


def steps(name):
    return {type(t).__name__: t for t in augment(CONFIGS[name].augmentation).transforms}


@pytest.mark.parametrize("name", ["config1", "config2", "config2-modules", "config3"])
def test_the_decks_first_augmentation(name):
    found = steps(name)
    assert list(found) == ["RandomHorizontalFlip", "RandomResizedCrop", "RandomAffine"]
    assert found["RandomHorizontalFlip"].p == 0.5
    assert found["RandomResizedCrop"].scale == (0.8, 1.0)
    assert found["RandomResizedCrop"].size == (48, 48)
    assert found["RandomAffine"].degrees == [-10.0, 10.0]
    assert (found["RandomAffine"].translate, found["RandomAffine"].shear) == (None, None)
    assert found["RandomAffine"].scale == (1.0, 1.0)
    assert CONFIGS[name].augmentation.mixup == 0


@pytest.mark.parametrize("name", ["config4", "config4-original-head"])
def test_the_decks_stronger_augmentation(name):
    found = steps(name)
    assert list(found) == [
        *("RandomHorizontalFlip", "RandomResizedCrop", "ElasticTransform"),
        *("RandomPerspective", "RandomAffine", "ColorJitter"),
    ]
    assert found["RandomResizedCrop"].scale == (0.7, 1.0)
    assert found["ElasticTransform"].alpha == [9.0, 9.0]
    assert found["ElasticTransform"].sigma == [4.0, 4.0]
    assert found["RandomPerspective"].distortion_scale == 0.2
    assert found["RandomAffine"].degrees == [-15.0, 15.0]
    assert found["RandomAffine"].translate == (0.05, 0.05)
    assert found["RandomAffine"].shear == [-5.0, 5.0]
    assert tuple(found["ColorJitter"].brightness) == pytest.approx((0.8, 1.2))
    assert tuple(found["ColorJitter"].contrast) == pytest.approx((0.8, 1.2))
    assert found["ColorJitter"].saturation is None
    assert found["ColorJitter"].hue is None


def test_configuration_5s_augmentation():
    found = steps("config5")
    assert list(found) == ["RandomHorizontalFlip", "RandomAffine", "RandomCrop", "RandomErasing"]
    assert found["RandomCrop"].size == (44, 44)
    assert found["RandomErasing"].p == 0.25
    assert found["RandomAffine"].scale == (0.9, 1.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_faces_keep_their_range(name):
    side = CONFIGS[name].augmentation.crop or 48
    change = augment(CONFIGS[name].augmentation)
    for image in torch.rand(5, 1, 48, 48):
        changed = change(image)
        assert changed.shape == (1, side, side)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert changed.std() > 0.05


def test_nothing_on_only_mirrors():
    image = torch.rand(1, 48, 48)
    change = augment(OFF)
    seen = [change(image) for _ in range(16)]
    plain, mirrored = (sum(torch.equal(x, y) for x in seen) for y in (image, image.flip(-1)))
    assert plain + mirrored == 16
    assert plain > 0
    assert mirrored > 0


def test_a_shift_is_a_part_of_the_side():
    change = augment(dataclasses.replace(OFF, shift=0.1))
    image = torch.zeros(1, 48, 48)
    image[0, 24, 24] = 1.0
    found = torch.stack([change(image)[0].argmax() for _ in range(200)])
    rows = found // 48 - 24
    assert rows.abs().max() in (4, 5)  # 4.8 pixels, rounded


def test_the_elastic_distortion_of_configuration_4_is_gentle():
    """torchvision's alpha is halves of a pixel, of noise that the blur has made small."""
    torch.manual_seed(0)
    transform = steps("config4")["ElasticTransform"]
    ramp = torch.arange(48.0).view(1, 1, 48).expand(1, 48, 48)
    inside = (slice(None), slice(6, 42), slice(6, 42))
    moved = torch.stack([transform(ramp)[inside] - ramp[inside] for _ in range(40)])
    assert moved.std().item() == pytest.approx(0.18, abs=0.03)
    assert isinstance(transform, v2.ElasticTransform)
