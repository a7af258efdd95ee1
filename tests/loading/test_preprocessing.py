"""From a picture to a model's input: bit for bit what torchvision's weights do."""

import pytest
import torch
from torchvision.models import EfficientNet_B1_Weights, ResNet50_Weights, VGG19_Weights

from camlens.loading import Preprocessing
from camlens.loading.transform_steps import preset_steps


def noise(h, w):
    return torch.randint(0, 256, (3, h, w), dtype=torch.uint8)


@pytest.mark.parametrize(
    "weights",
    [VGG19_Weights.DEFAULT, ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B1_Weights.DEFAULT],
)
@pytest.mark.parametrize("size", [(300, 411), (411, 300), (60, 50), (224, 224), (257, 256)])
def test_equals_torchvision(weights, size):
    picture, transforms = noise(*size), weights.transforms()
    values, seen = preset_steps(transforms)(picture)
    assert torch.equal(values, transforms(picture))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transforms.mean, transforms.std))
    assert torch.allclose(values * std + mean, seen / 255, atol=1e-6)


def test_as_it_is():
    picture = noise(5, 7)
    values, seen = Preprocessing()(picture)
    assert torch.equal(seen, picture)
    assert torch.equal(values, picture / 255)


def test_the_middle_of_a_wide_picture():
    picture = torch.arange(8, dtype=torch.uint8).repeat(3, 4, 1)
    _, seen = Preprocessing(size=(4, 4))(picture)
    assert seen[0, 0].tolist() == [2, 3, 4, 5]
    _, seen = Preprocessing(size=(4, 2))(picture)
    assert seen[0, 0].tolist() == [3, 4]


def test_a_size_of_other_proportions_is_covered():
    _, seen = Preprocessing(size=(10, 40))(noise(20, 20))
    assert seen.shape == (3, 10, 40)
    half = torch.zeros(3, 20, 20, dtype=torch.uint8)
    half[:, 10:] = 255  # upper half black, lower half white, and so it stays
    _, seen = Preprocessing(size=(10, 40))(half)
    assert seen[:, :3].max() < 5
    assert seen[:, 7:].min() > 250


def test_a_line_of_pixels_costs_no_gigabytes():
    values, _ = Preprocessing(size=(64, 64))(noise(1, 100_000))
    assert values.shape == (3, 64, 64)


def test_grey():
    picture = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1)
    values, seen = Preprocessing(channels=1, mean=(0.5,), std=(0.25,))(picture)
    assert seen.flatten().tolist() == [124] * 3  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert values.shape == (1, 1, 1)
    assert values.item() == pytest.approx((124 / 255 - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 3)}, r"expected size as \(H, W\) of at least 1 pixel"),
        ({"mean": (0.1, 0.2)}, "expected one mean for all channels or one for each of 3, got 2"),
        ({"std": (0.0,)}, "expected std > 0"),
        ({"channels": 4}, r"expected 1 channel \(grey\) or 3 \(RGB\), got 4"),
        ({"interpolation": "nearest"}, "expected one of .*bilinear.*, got 'nearest'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


def test_bad_pictures():
    with pytest.raises(TypeError, match=r"expected a uint8 picture, got torch\.float32"):
        Preprocessing()(torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match=r"expected a picture as \(3, H, W\), got \(1, 2, 2\)"):
        Preprocessing()(torch.zeros(1, 2, 2, dtype=torch.uint8))
