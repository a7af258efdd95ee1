"""VGG19 with a new head: resizing, normalisation, grids and heads."""

import dataclasses

import pytest
import torch
from torch.nn.functional import interpolate

import camlens
from fer2013.configurations.recipes import CONFIGS
from fer2013.networks import architectures


def built(name, **changes):
    torch.manual_seed(0)
    return architectures.build(dataclasses.replace(CONFIGS[name], **changes)).eval()


@pytest.mark.usefixtures("narrow_vgg")
def test_images_are_resized_to_the_side_of_the_training_crops():
    model, faces = built("config5"), torch.rand(2, 1, 48, 48)
    assert CONFIGS["config5"].side == CONFIGS["config5"].augmentation.crop == 44
    with torch.no_grad():
        whole = model(faces)
        shrunk = interpolate(faces, (44, 44), mode="bilinear")
        assert torch.equal(whole, model(shrunk))
        normal = (shrunk - model.mean) / model.deviation
        assert torch.equal(whole, model.head(model.features(normal)))


@pytest.mark.usefixtures("narrow_vgg")
def test_grey_is_repeated_as_rgb_and_normalised_for_imagenet():
    model, faces = built("config1"), torch.rand(1, 1, 48, 48)
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    channels = [(faces - m) / d for m, d in zip(mean, deviation, strict=True)]
    with torch.no_grad():
        expected = model.head(model.features(torch.cat(channels, dim=1)))
        torch.testing.assert_close(model(faces), expected)


@pytest.mark.usefixtures("narrow_vgg")
@pytest.mark.parametrize(
    ("side", "grid"), [(44, (2, 2)), (48, (3, 3)), (96, (6, 6)), (224, (14, 14))]
)
def test_a_larger_side_gives_a_finer_grid_over_the_same_image(side, grid):
    explanation = camlens.GradCAM(built("config1", side=side), "features.34")(
        torch.rand(1, 1, 48, 48)
    )
    assert explanation.grid == grid
    assert explanation.heatmaps.shape == (1, 1, 48, 48)
