"""Transforms: the model gets what they return; steps, pictures and places only where they agree."""

import re

import matplotlib.cbook
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from camlens.dataset.fingerprint import fingerprint
from camlens.loading import Preprocessing, Transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = v1.Normalize(MEAN, STD)
BICUBIC, LANCZOS = v1.InterpolationMode.BICUBIC, v1.InterpolationMode.LANCZOS

#: Transforms with what they do.
KNOWN = {
    "resize and crop": (
        v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), NORMALIZE]),
        {"size": (224, 224), "resize": (256, 256), "mean": MEAN, "std": STD},
    ),
    "bicubic": (
        v1.Compose([v1.Resize([60], BICUBIC), v1.CenterCrop((40, 50)), v1.ToTensor()]),
        {"size": (40, 50), "resize": (60, 60), "interpolation": "bicubic"},
    ),
    "version 2": (
        v2.Compose(
            [
                v2.ToImage(),
                v2.Compose([v2.Resize(size=256), v2.CenterCrop(224)]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        ),
        {"size": (224, 224), "resize": (256, 256), "mean": MEAN, "std": STD},
    ),
    "sequence": (
        nn.Sequential(v2.PILToTensor(), v2.Resize((30, 40)), v1.ConvertImageDtype(torch.float32)),
        {"size": (30, 40), "resize": (30, 40), "fit": "stretch"},
    ),
    "shorter side": (v1.Compose([v1.Resize(90), v1.ToTensor()]), {"resize": (90, 90)}),
    "crop": (v1.Compose([v1.CenterCrop(70), v1.ToTensor()]), {"size": (70, 70), "fit": "keep"}),
    "crop with a border": (
        v1.Compose([v1.Resize(50), v1.CenterCrop(91), v1.ToTensor()]),
        {"size": (91, 91), "resize": (50, 50)},
    ),
    "as it is": (v1.ToTensor(), {"fit": "keep"}),
    "grey": (
        v1.Compose([v1.Grayscale(), v1.Resize(48), v1.ToTensor(), v1.Normalize(0.5, 0.25)]),
        {"resize": (48, 48), "channels": 1, "mean": (0.5,), "std": (0.25,)},
    ),
    "preset": (
        ResNet50_Weights.IMAGENET1K_V2.transforms(),
        {"size": (224, 224), "resize": (232, 232), "mean": MEAN, "std": STD},
    ),
}

#: Transforms that do something else, or the same in another order.
UNKNOWN = {
    "flip": v1.Compose([v1.RandomHorizontalFlip(1.0), v1.Resize((64, 64)), v1.ToTensor()]),
    "pad": v1.Compose([v1.Pad(4), v1.Resize((64, 64)), v1.ToTensor()]),
    "crop first": v1.Compose([v1.CenterCrop(99), v1.Resize((64, 64)), v1.ToTensor()]),
    "twice": v1.Compose([v1.Resize((99, 99)), v1.Resize((64, 64)), v1.ToTensor()]),
    "lanczos": v1.Compose([v1.Resize((64, 64), LANCZOS), v1.ToTensor()]),
    "longest side": v1.Compose([v1.Resize(64, max_size=80), v1.ToTensor()]),
    "not scaled": v2.Compose([v2.ToImage(), v2.Resize((64, 64)), v2.ToDtype(torch.float32)]),
    "function": lambda image: v1.functional.to_tensor(image.resize((64, 64))),
    "three greys": v1.Compose([v1.Grayscale(3), v1.Resize((64, 64)), v1.ToTensor()]),
}


def noise(h, w):
    return torch.randint(0, 256, (3, h, w), dtype=torch.uint8)


def as_image(picture):
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KNOWN)
def test_steps_are_read_from_a_transform(kind):
    transform, expected = KNOWN[kind]
    how = Transform.of(transform, "net:make")
    assert how.steps == Preprocessing(**expected)
    assert how.channels == how.steps.channels


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KNOWN, *UNKNOWN])
@pytest.mark.parametrize("size", [(120, 161), (203, 97)])
def test_the_model_gets_what_the_transform_returns(kind, size):
    transform = UNKNOWN.get(kind) or KNOWN[kind][0]
    picture = noise(*size)
    how = Transform.of(transform, "net:make")
    values, shown = how(picture)
    assert torch.equal(values, transform(as_image(picture)))
    assert torch.equal(how.values(picture), values)
    assert torch.equal(how.seen(picture), shown)
    assert type(values) is Tensor
    assert (shown.dtype, shown.shape) == (torch.uint8, (3, *values.shape[1:]))
    if kind in KNOWN:
        expected = how.steps.values(picture)
        # On pure noise, of which Pillow rounds one pass of a resize more than torch.
        assert expected.shape == values.shape
        assert (expected - values).abs().mean() < 0.02


def test_the_picture_is_what_the_model_sees():
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB")
    how = Transform.of(KNOWN["resize and crop"][0], "net:make")
    shown = how.seen(v1.functional.pil_to_tensor(image))
    expected = v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.PILToTensor()])(image)
    assert (shown.int() - expected.int()).abs().max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNKNOWN)
def test_of_other_transforms_the_place_is_unknown(kind):
    how = Transform.of(UNKNOWN[kind], "net:make")
    assert how.steps is None
    assert how.box((120, 161)) is None


def test_what_is_not_in_the_unit_range_is_stretched_in_pictures():
    how = Transform.of(lambda image: torch.tensor([[[-3.0, 0.0, 1.0, 5.0]]]), "net:make")
    assert how.seen(noise(4, 4))[:, 0].tolist() == [[0, 96, 128, 255]] * 3
    assert (how.channels, how.size) == (1, (1, 4))
    how = Transform.of(lambda image: torch.full((5, 2, 2), 0.2), "net:make")
    assert set(how.seen(noise(4, 4)).flatten().tolist()) == {51}
    how = Transform.of(lambda image: torch.full((3, 2, 2), -7.0), "net:make")
    assert set(how.seen(noise(4, 4)).flatten().tolist()) == {0}


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda image: image,
            TypeError,
            r"to return \(C, H, W\) floating point, got Image: end it",
        ),
        (v1.PILToTensor(), TypeError, r"floating point, got torch\.uint8: end it with ToTensor"),
        (lambda image: torch.rand(1, 3, 4, 4), ValueError, r"got \(1, 3, 4, 4\): leave the batch"),
        (lambda image: torch.rand(4, 4), ValueError, r"\(C, H, W\) floating point, got \(4, 4\)"),
        (lambda image: torch.full((3, 4, 4), torch.nan), ValueError, "values that are NaN or inf"),
        (
            lambda image: torch.rand(3, 4, 4),
            ValueError,
            "the transform for evaluation, not for training",
        ),
        (
            lambda image: image.absent,
            ValueError,
            "failed on a picture of 300 x 410 pixels with Att",
        ),
        (
            lambda image: torch.zeros(3 + (image.width > 300), 4, 4),
            ValueError,
            "varying numbers of channels",
        ),
    ],
)
def test_transforms_that_are_none(function, error, message):
    with pytest.raises(error, match=f"transform of net:make .*{message}"):
        Transform.of(function, "net:make")


def test_a_fault_of_the_machine_is_not_the_transforms():
    def full(image):
        raise MemoryError

    with pytest.raises(MemoryError):
        Transform.of(full, "net:make")


def test_what_a_transform_prints_when_it_is_tried_is_no_result(capsys):
    def loud(image):
        print("working")
        return v1.functional.to_tensor(image)

    Transform.of(loud, "net:make")
    assert re.fullmatch(r"(working\n)+", capsys.readouterr().err)


def test_transforms_have_fingerprints():
    prints = [
        fingerprint(Transform.of(transform, "net:make"))
        for transform in (
            v1.Compose([v1.Resize(64), v1.ToTensor()]),
            v1.Compose([v1.Resize(64), v1.ToTensor()]),
            v1.Compose([v1.Resize(65), v1.ToTensor()]),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
