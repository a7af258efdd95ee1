"""The augmentations of each configuration, and the effect of their values."""

import dataclasses

import pytest
import torch

from fer2013.configurations.config import Augmentation
from fer2013.configurations.recipes import CONFIGS
from fer2013.training.augmentation import augment

OFF = Augmentation(rotation=0.0)
FIRST = {
    "RandomHorizontalFlip": {"on": 0.5},
    "RandomResizedCrop": {"area": (0.8, 1.0)},
    "RandomAffine": {
        "angle": (-10, 10),
        "translations": (0, 0),
        "scale": (1, 1),
        "shear_x": (0, 0),
    },
}
STRONGER = {
    "RandomHorizontalFlip": {"on": 0.5},
    "RandomResizedCrop": {"area": (0.7, 1.0)},
    "RandomElasticTransform": {"on": 1.0},
    "RandomPerspective": {"on": 0.5},
    "RandomAffine": {
        "angle": (-15, 15),
        "translations": (-2.4, 2.4),
        "scale": (0.95, 1.05),
        "shear_x": (-5, 5),
    },
    "ColorJitter": {
        "brightness_factor": (0.8, 1.2),
        "contrast_factor": (0.8, 1.2),
        "saturation_factor": (1, 1),
        "hue_factor": (0, 0),
    },
}
OURS = {
    "RandomHorizontalFlip": {"on": 0.5},
    "RandomAffine": {
        "angle": (-10, 10),
        "translations": (-1.92, 1.92),
        "scale": (0.9, 1.1),
        "shear_x": (-4, 4),
    },
    "RandomCrop": {"area": (44**2 / 48**2,) * 2},
}
BASE = {
    "RandomHorizontalFlip": {"on": 0.5},
    "RandomAffine": {
        "angle": (-12, 12),
        "translations": (-4.8, 4.8),
        "scale": (0.85, 1.15),
        "shear_x": (-8, 8),
    },
    "RandomErasing": {"on": 0.25, "values": (0.5, 0.5)},
}
EXPECTED = {
    **dict.fromkeys(
        ("config1", "config2", "config2-modules", "config2-unweighted", "config3"), FIRST
    ),
    **dict.fromkeys(("config4", "config4-original-head"), STRONGER),
    "config5": OURS,
    "base": BASE,
}


def drawn(step, count=3000):
    """Return the parameters that a step draws, with the share of images that it changes."""
    found = step.forward_parameters(torch.Size((count, 1, 48, 48)))
    if "src" in found:
        left_top, right_bottom = found["src"][:, 0], found["src"][:, 2]
        found["area"] = (right_bottom - left_top + 1).prod(dim=1) / 48**2
    found["on"] = (found["batch_prob"] > 0.5).float().mean()
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_steps_draw_the_configured_values(name):
    torch.manual_seed(0)
    steps = augment(CONFIGS[name].augmentation)
    assert [type(step).__name__ for step in steps] == list(EXPECTED[name])
    for step, values in zip(steps, EXPECTED[name].values(), strict=True):
        found = drawn(step)
        assert found["on"] == pytest.approx(values.get("on", 1.0), abs=0.03)
        for key, wanted in values.items():
            if key == "on":
                continue
            # a crop's area is that of whole pixels
            margin = 0.04 if key == "area" else 0.01 * max(map(abs, wanted))
            assert float(found[key].min()) == pytest.approx(wanted[0], abs=margin), key
            assert float(found[key].max()) == pytest.approx(wanted[1], abs=margin), key


@pytest.mark.parametrize("name", CONFIGS)
def test_images_keep_their_range_and_change_independently(name):
    torch.manual_seed(0)
    side = CONFIGS[name].augmentation.crop or 48
    changed = augment(CONFIGS[name].augmentation)(torch.rand(1, 1, 48, 48).repeat(8, 1, 1, 1))
    assert changed.shape == (8, 1, side, side)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.std(dim=(1, 2, 3)).min() > 0.05
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 8


def test_without_other_changes_images_are_only_mirrored():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 48, 48)
    seen = augment(OFF)(image.repeat(16, 1, 1, 1))
    plain, mirrored = (int((seen == y).all(dim=(1, 2, 3)).sum()) for y in (image, image.flip(-1)))
    assert plain + mirrored == 16
    assert plain > 0
    assert mirrored > 0
    still = augment(dataclasses.replace(OFF, mirror=0.0))
    assert torch.equal(still(seen), seen)


def test_a_shift_is_a_fraction_of_the_side():
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 48, 48)
    images[:, 0, 24, 24] = 1.0
    changed = augment(dataclasses.replace(OFF, shift=0.1))(images)
    rows = changed.flatten(1).argmax(dim=1) // 48 - 24
    assert rows.abs().max() in (4, 5)  # 4.8 pixels, rounded


def test_the_elastic_distortion_of_configuration_4_moves_pixels_by_a_fifth():
    torch.manual_seed(0)
    elastic = augment(dataclasses.replace(OFF, mirror=0.0, elastic=9.0))
    ramp = torch.arange(48.0).expand(40, 1, 48, 48) / 48
    moved = 48 * (elastic(ramp) - ramp)[:, :, 6:42, 6:42]
    assert moved.std().item() == pytest.approx(0.18, abs=0.03)
