"""Pictures, checked pixel by pixel."""

import matplotlib
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from camlens import render, slices


def test_overlay_is_the_weighted_mean_of_image_and_colour():
    image = torch.full((1, 3, 1, 3), 0.2)
    heat = torch.tensor([[[[0.0, 0.5, 1.0]]]])
    picture = render.overlay(image, heat, colormap="jet", alpha=0.25)
    jet = matplotlib.colormaps["jet"](np.array([0, 128, 255]))[:, :3]
    expected = np.round((0.75 * 0.2 + 0.25 * jet) * 255).astype(np.uint8)
    assert picture.dtype == torch.uint8
    assert picture[0, 0, :, 0].T.tolist() == expected.tolist()


def test_colour_is_looked_up_after_resizing():
    """Between cold and hot lies the middle of the colormap, not a mix of its two ends."""
    picture = render.overlay(
        torch.zeros(1, 1, 1, 8), torch.tensor([[[[0.0, 1.0]]]]), colormap="jet", alpha=1.0
    )
    middle = picture[0, 0, :, 0, 3].tolist()
    assert middle[1] == 255  # green; a mix of dark blue and dark red has none
    assert picture[0, 0, :, 0, 0].tolist() == [0, 0, 128]


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_and_float_images_are_the_same(channels):
    images = torch.randint(0, 256, (2, channels, 4, 5), dtype=torch.uint8)
    heat = torch.rand(2, 3, 4, 5)
    assert_close(render.overlay(images, heat), render.overlay(images.float() / 255, heat))


def test_a_batch_is_its_pictures():
    images, heat = torch.rand(3, 3, 6, 7), torch.rand(3, 2, 3, 4)
    together = render.overlay(images, heat)
    for n in range(3):
        for k in range(2):
            one = render.overlay(images[n : n + 1], heat[n : n + 1, k : k + 1])
            assert_close(together[n, k], one[0, 0])


def test_alpha_zero_is_the_image():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    assert_close(render.overlay(images, torch.rand(2, 1, 4, 5), alpha=0)[:, 0], images)


def test_a_colormap_object():
    colormap = matplotlib.colormaps["viridis"]
    images, heat = torch.rand(1, 3, 2, 2), torch.rand(1, 1, 2, 2)
    assert_close(
        render.overlay(images, heat, colormap=colormap),
        render.overlay(images, heat, colormap="viridis"),
    )


def test_nothing_given_is_changed():
    images, heat = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    copies = images.clone(), heat.clone()
    render.overlay(images, heat)
    render.contours(images, heat)
    assert torch.equal(images, copies[0])
    assert torch.equal(heat, copies[1])


def test_overlay_on_the_device(device):
    assert render.overlay(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)).device.type == device.type


@pytest.mark.parametrize(
    ("images", "heat", "error", "message"),
    [
        (
            torch.rand(1, 3, 4, 4) * 5 - 2,
            torch.rand(1, 1, 4, 4),
            ValueError,
            "undo the normalisation",
        ),
        (torch.full((1, 3, 4, 4), float("nan")), torch.rand(1, 1, 4, 4), ValueError, r"\[0, 1\]"),
        (torch.rand(1, 2, 4, 4), torch.rand(1, 1, 4, 4), ValueError, r"got \(1, 2, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4).int(), torch.rand(1, 1, 4, 4), TypeError, r"torch\.int32"),
        (torch.rand(2, 3, 4, 4), torch.rand(1, 1, 4, 4), ValueError, r"\(2, K, h, w\), got"),
        (torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4), ValueError, r"\(1, K, h, w\), got"),
        (torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4) * 9, ValueError, "explanation.heatmaps"),
    ],
)
def test_bad_overlays(images, heat, error, message):
    with pytest.raises(error, match=message):
        render.overlay(images, heat)


def test_bad_options():
    images, heat = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="no colormap 'rainbows'"):
        render.overlay(images, heat, colormap="rainbows")
    with pytest.raises(ValueError, match="alpha in"):
        render.overlay(images, heat, alpha=2)
    with pytest.raises(ValueError, match="a level in"):
        render.contours(images, heat, level=1.0)


def test_contours_lie_where_the_value_is():
    ramp = torch.linspace(0, 1, 41).repeat(5, 1)[None, None]
    line = render.contours(torch.zeros(1, 1, 5, 41), ramp, level=0.25, color=(1, 0, 0))
    column = line[0, 0, 0].float().mean(0)
    assert column.argmax() == 10
    assert column[10] == 255
    assert column[:8].sum() == column[13:].sum() == 0
    assert line[0, 0, 1:].count_nonzero() == 0


@pytest.mark.parametrize("slope", [0.02, 0.1])
def test_contours_are_equally_wide_in_flat_and_steep_places(slope):
    ramp = (0.5 + slope * (torch.arange(51) - 25)).clamp(0, 1).repeat(3, 1)[None, None]
    line = render.contours(torch.zeros(1, 1, 3, 51), ramp, width=3.0)
    assert line[0, 0, 0, 1].float().sum() / 255 == pytest.approx(3.0, abs=0.1)


def test_contours_of_an_empty_map_draw_nothing():
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert_close(render.contours(images, torch.zeros(1, 1, 8, 8))[:, 0], images)


def test_contours_go_over_overlays():
    images, heat = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    picture = render.overlay(images, heat)
    drawn = render.contours(picture, heat, color=(0, 0, 0))
    assert drawn.shape == picture.shape
    assert (drawn <= picture).all()
    assert (drawn < picture).any()


def test_signed_shows_zero_as_grey():
    gradients = torch.tensor([[[[[-1.0, 0.0]], [[0.0, 0.5]], [[0.0, 0.0]]]]])
    picture = render.signed(gradients)
    assert picture[0, 0, :, 0].T.tolist() == [[0, 128, 128], [128, 191, 128]]
    assert render.signed(torch.zeros(1, 1, 1, 2, 2)).unique().tolist() == [128]
    with pytest.raises(ValueError, match="1 or 3"):
        render.signed(torch.zeros(1, 1, 2, 2, 2))


def test_contours_of_a_plateau_on_the_level_draw_nothing():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert render.contours(images, torch.full((1, 1, 8, 8), 0.5)).count_nonzero() == 0


def test_more_bad_input():
    images, heat = torch.rand(1, 3, 8, 8), torch.rand(1, 2, 8, 8)
    with pytest.raises(TypeError, match="expected images as a tensor, got ndarray"):
        render.overlay(images.numpy(), heat)
    with pytest.raises(ValueError, match=r"a color of values in \[0, 1\], got \(255, 0, 0\)"):
        render.contours(images, heat, color=(255, 0, 0))
    with pytest.raises(ValueError, match="expected 3 heatmaps per image, one per picture, got 2"):
        render.contours(torch.zeros(1, 3, 3, 8, 8, dtype=torch.uint8), heat)


def test_a_rounding_error_beyond_the_range_is_none():
    image = torch.full((1, 3, 2, 2), 1 + 2e-7)
    assert (render.overlay(image, torch.zeros(1, 1, 2, 2), alpha=0.0) == 255).all()
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\]"):
        render.overlay(image + 0.01, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_overlay_of_a_volume_is_the_overlay_of_its_slices(channels, axis):
    volumes = torch.randint(0, 256, (2, channels, 4, 5, 6), dtype=torch.uint8)
    heat = torch.rand(2, 3, 4, 5, 6)
    every = render.overlay(volumes, heat, slices=range(volumes.shape[2 + axis]), axis=axis)
    for index in range(volumes.shape[2 + axis]):
        expected = render.overlay(volumes.select(2 + axis, index), heat.select(2 + axis, index))
        assert torch.equal(every[:, :, index], expected)
        assert torch.equal(render.overlay(volumes, heat, slices=index, axis=axis), expected)
    hottest = render.overlay(volumes, heat, axis=axis)
    chosen = slices.hottest(heat, axis=axis)
    for n in range(2):
        for k in range(3):
            assert torch.equal(hottest[n, k], every[n, k, chosen[n, k]])


def test_overlay_resizes_the_heat_of_volumes_before_cutting():
    heat = torch.zeros(1, 1, 2, 1, 1)
    heat[0, 0, 1] = 1
    picture = render.overlay(
        torch.zeros(1, 1, 4, 1, 1), heat, colormap="gray", alpha=1.0, slices=range(4)
    )
    assert picture[0, 0, :, 0, 0, 0].tolist() == [0, 64, 191, 255]


def test_bad_volumes_and_signals():
    volume, heat = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 1, 4, 5, 6)
    with pytest.raises(ValueError, match=r"heatmaps as \(2, K, d, h, w\), got \(2, 1, 5, 6\)"):
        render.overlay(volume, heat[:, :, 0])
    with pytest.raises(ValueError, match=r"\(N, 1, D, H, W\) or \(N, 3, D, H, W\), got \(2, 2,"):
        render.overlay(volume[:, :2], heat)
    with pytest.raises(IndexError, match="slices from 0 to 3 along axis 0"):
        render.overlay(volume, heat, slices=4)
    with pytest.raises(ValueError, match=r"choose a cut through volumes .*\(2, 3, 5, 6\)"):
        render.overlay(volume[:, :, 0], heat[:, :, 0], slices=0)
    with pytest.raises(ValueError, match="undo the normalisation"):
        render.overlay(volume * 3, heat)
    with pytest.raises(ValueError, match=r"explanation\.show\(signals\)"):
        render.overlay(torch.rand(2, 1, 50), torch.rand(2, 1, 50))
    with pytest.raises(ValueError, match=r"images\.unsqueeze\(0\)"):
        render.overlay(volume[0, :, 0], heat[:, :, 0])
