"""From a picture to a model's input: bit for bit what torchvision's weights do."""

import pytest
import torch
from torchvision import transforms as v1
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


def test_a_picture_as_long_as_the_input_keeps_all_of_it():
    picture = noise(8, 400)
    assert torch.equal(Preprocessing(size=(8, 400))(picture)[1], picture)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resize": (50, 50)}, [v1.Resize(50)]),
        ({"resize": (50, 70), "fit": "stretch"}, [v1.Resize((50, 70))]),
        (
            {"resize": (50, 70), "size": (40, 40), "fit": "stretch"},
            [v1.Resize((50, 70)), v1.CenterCrop(40)],
        ),
        ({"size": (41, 30), "fit": "keep"}, [v1.CenterCrop((41, 30))]),
        ({"size": (140, 31), "fit": "keep"}, [v1.CenterCrop((140, 31))]),
        ({"resize": (50, 50), "size": (61, 60)}, [v1.Resize(50), v1.CenterCrop((61, 60))]),
        ({"resize": (50, 50), "size": (61, 91)}, [v1.Resize(50), v1.CenterCrop((61, 91))]),
    ],
)
@pytest.mark.parametrize("size", [(60, 77), (77, 60), (50, 50)])
def test_fits_are_torchvisions(options, expected, size):
    picture = noise(*size)
    assert torch.equal(Preprocessing(**options).seen(picture), v1.Compose(expected)(picture))


def test_too_large_a_result():
    with pytest.raises(ValueError, match="100000 pixels would be resized to 64 x 6400000, more"):
        Preprocessing(resize=(64, 64))(noise(1, 100_000))


BOXES = {
    "as it is": {},
    "covered": {"size": (50, 50)},
    "resized and cropped": {"size": (44, 40), "resize": (52, 52)},
    "resized": {"resize": (48, 48)},
    "stretched": {"size": (60, 40), "fit": "stretch"},
    "stretched and cropped": {"resize": (60, 60), "size": (40, 50), "fit": "stretch"},
    "cropped": {"size": (80, 60), "fit": "keep"},
    "with a border": {"size": (90, 90), "resize": (70, 70)},
    "enlarged": {"size": (224, 224), "resize": (256, 256)},
    "cut before the resize": {"size": (4, 4)},
}


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("size", [(120, 150), (151, 100), (60, 900)])
def test_a_dot_in_a_photograph_lands_where_the_box_says(kind, size):
    preprocess = Preprocessing(**BOXES[kind])
    top, left, height, width = preprocess.box(size)
    # A soft dot, in the middle of the photograph but not in the middle of anything that is cut.
    y, x = size[0] * 0.5 + 2.3, size[1] * 0.5 - 3.1
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    wide = max(2.0, 0.02 * min(height, width))
    dot = torch.exp(-((rows - y)[:, None] ** 2 + (columns - x) ** 2) / (2 * wide**2))
    picture = (dot * 255).round().to(torch.uint8).expand(3, -1, -1)
    seen = preprocess.seen(picture)[0].float()
    h, w = seen.shape
    found_y = (seen.sum(1) * (torch.arange(h) + 0.5)).sum() / seen.sum()
    found_x = (seen.sum(0) * (torch.arange(w) + 0.5)).sum() / seen.sum()
    # In pixels of the photograph, to half a pixel of the coarser of the two.
    tolerance = 0.5 * max(1, height / h, width / w)
    assert abs(top + found_y * height / h - y) < tolerance
    assert abs(left + found_x * width / w - x) < tolerance


def test_boxes_in_numbers():
    assert Preprocessing().box((30, 40)) == (0, 0, 30, 40)
    assert Preprocessing(size=(10, 10)).box((100, 300)) == (0, 100, 100, 100)
    assert Preprocessing(size=(224, 224), resize=(256, 256)).box((512, 1024)) == (32, 288, 448, 448)
    assert Preprocessing(size=(9, 9), fit="stretch").box((30, 40)) == (0, 0, 30, 40)
    # A border of black pixels lies beyond the photograph.
    assert Preprocessing(size=(50, 20), fit="keep").box((30, 40)) == (-10, 10, 50, 20)


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
        ({"fit": "contain"}, r"expected fit to be one of .*stretch.*, got 'contain'"),
        (
            {"fit": "keep", "resize": (3, 3)},
            r"no resize if 'keep', got 'keep' with resize=\(3, 3\)",
        ),
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
