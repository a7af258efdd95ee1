"""What is shown of an image: before normalisation, or stretched, or as it is."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from camlens.dataset.items import pictures_of
from camlens.dataset.tables import thumbnails


def opened(content):
    return Image.open(io.BytesIO(content))


def test_images_in_0_to_1_are_taken_as_they_are():
    images = torch.tensor([[[[0.2, 0.4]]], [[[-1.0, 1.0]]], [[[3.0, 3.0]]]])
    assert pictures_of(images).flatten(1).tolist() == [[51, 102], [0, 255], [0, 0]]


def test_a_function_undoes_the_normalisation():
    images = torch.tensor([[[[-1.0, 0.0, 1.0]]]])
    assert pictures_of(images, lambda x: (x + 1) / 2).flatten().tolist() == [0, 128, 255]
    assert pictures_of(images, lambda x: ((x + 1) * 100).byte()).flatten().tolist() == [0, 100, 200]


@pytest.mark.parametrize(
    ("picture", "match"),
    [
        (lambda x: x, r"what picture= returned in \[0, 1\]"),
        (lambda x: x[0], r"return \(1, 1 or 3, 1, 3\), got \(1, 1, 3\)"),
        (lambda x: x.long(), "or uint8, got torch.int64"),
        (lambda x: None, "or uint8, got NoneType"),
    ],
)
def test_a_function_that_returns_no_pictures_is_refused(picture, match):
    with pytest.raises((TypeError, ValueError), match=match):
        pictures_of(torch.tensor([[[[-1.0, 0.0, 1.0]]]]), picture)


def test_of_other_channels_their_mean_is_shown():
    images = torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    assert pictures_of(images).flatten().tolist() == [64, 64]


def smooth(channels):
    """Two pictures of 48 x 40 without noise, each channel another ramp."""
    ramp = torch.linspace(0, 255, 48 * 40).view(48, 40)
    planes = torch.stack([ramp, 255 - ramp, ramp.flip(1)])[:channels]
    return torch.stack([planes, planes.flip(2)]).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_ones_are_shown_at_their_size(channels):
    pictures = smooth(channels)
    for picture, content in zip(pictures, thumbnails(pictures), strict=True):
        found = opened(content)
        assert found.mode == ("L" if channels == 1 else "RGB")
        pixels = torch.from_numpy(np.array(found)).view(48, 40, channels).permute(2, 0, 1)
        assert (pixels.int() - picture.int()).abs().float().mean() < 2


def test_colours_are_kept_as_fine_as_brightness():
    stripes = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    stripes[:, 0, :, 0::2], stripes[:, 2, :, 1::2] = 200, 200  # red and blue, each a pixel wide
    (content,) = thumbnails(stripes)
    red = torch.from_numpy(np.array(opened(content)))[..., 0].float()
    assert red[:, 0::2].mean() - red[:, 1::2].mean() > 150


def test_grey_ones_of_three_channels_are_kept_as_grey():
    for content in thumbnails(smooth(1).expand(2, 3, 48, 40)):
        assert opened(content).mode == "L"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((200, 100), (100, 200)), ((448, 300), (150, 224)), ((1000, 2), (1, 224))],
)
def test_large_ones_are_jpeg_of_at_most_224_pixels(size, expected):
    pictures = torch.full((1, 3, *size), 200, dtype=torch.uint8)
    (content,) = thumbnails(pictures)
    found = opened(content)
    assert (found.format, found.size) == ("JPEG", expected)
    assert np.abs(np.array(found).astype(int) - 200).max() <= 2
    assert thumbnails(pictures) == [content]
