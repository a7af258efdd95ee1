"""What regions are replaced by, beside OpenCV, torchvision and numbers by hand."""

import sys

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms.functional import gaussian_blur

from camlens.faithfulness.infill import INFILLS, replace

ONE = {"atol": 2e-6, "rtol": 1e-5}


@pytest.fixture(params=INFILLS)
def infill(request):
    if request.param == "inpaint":
        pytest.importorskip("cv2")
    return request.param


def hole(size, box):
    """A mask, (1, 1, H, W), of a box: top, left, bottom and right."""
    top, left, bottom, right = box
    mask = torch.zeros(1, 1, *size)
    mask[..., top:bottom, left:right] = 1
    return mask


def inpainted(levels, mask):
    """OpenCV's own call, on 8-bit levels: (C, H, W) and (H, W) to (C, H, W) of 0 to 255."""
    import cv2

    cut = (mask >= 0.5).cpu().numpy().astype("uint8")
    planes = levels.round().byte().cpu().numpy()
    filled = [torch.from_numpy(cv2.inpaint(c.copy(), cut, 3, cv2.INPAINT_TELEA)) for c in planes]
    return torch.stack(filled).to(levels)


def photograph(h=40, w=48):
    """A smooth picture with edges, (1, 3, H, W) from 0 to 1."""
    y, x = torch.arange(h)[:, None] / h, torch.arange(w) / w
    waves = torch.stack([(9 * x).sin() * (7 * y).cos(), (5 * x * y).cos(), (4 * x - 9 * y).sin()])
    picture = waves + (x + y > 1) * 0.7
    return ((picture - picture.amin()) / (picture.amax() - picture.amin())).unsqueeze(0)


@pytest.mark.parametrize("size", [(48, 48), (40, 60), (13, 9)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_is_torchvisions(size, channels):
    images = torch.randn(2, channels, *size)
    sigma = 0.1 * min(size)
    radius = -int(-3 * sigma // 1)
    expected = gaussian_blur(images, [2 * radius + 1] * 2, [sigma, sigma])
    found = replace(images, torch.ones(2, 1, *size), "blur")
    assert_close(found[:, 0], expected, **ONE)


def test_blur_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    image = torch.rand(1, 1, 40, 60)
    plane = image[0, 0].cpu().numpy()
    expected = cv2.GaussianBlur(plane, (25, 25), 4.0, borderType=cv2.BORDER_REFLECT_101)
    found = replace(image, torch.ones(1, 1, 40, 60), "blur")[0, 0, 0]
    assert_close(found, torch.from_numpy(expected).to(found), **ONE)


def test_mean_is_the_whole_images_by_channel():
    images = torch.rand(2, 3, 6, 8)
    found = replace(images, hole((6, 8), (1, 2, 4, 5)).expand(2, 2, -1, -1), "mean")
    mean = images.mean((-2, -1))
    assert_close(found[:, 0, :, 1:4, 2:5], mean[..., None, None].expand(-1, -1, 3, 3))
    half = replace(images, torch.full((2, 1, 6, 8), 0.25), "mean")[:, 0]
    assert_close(half, 0.75 * images + 0.25 * mean[..., None, None])


# Fails until images are inpainted at levels of 0 to 255: OpenCV adds up to 1.4 whatever the range,
# so that an image of 0 to 1 was filled with -1.3 to 2.2.
@pytest.mark.parametrize("box", [(10, 12, 20, 30), (0, 0, 9, 48), (25, 30, 40, 48), (3, 3, 37, 45)])
def test_inpainting_is_opencvs(box):
    pytest.importorskip("cv2")
    levels = (photograph() * 255).round()
    mask = hole((40, 48), box)
    found = replace(levels / 255, mask, "inpaint")[0, 0] * 255
    expected = inpainted(levels[0], mask[0, 0])
    assert (found - expected).abs().amax() < 12
    inside = (found - expected)[:, mask[0, 0] == 1].abs().mean()
    assert inside < 2
    assert found.amin() > -2
    assert found.amax() < 257


# Fails with the one above.
@pytest.mark.parametrize(("scale", "shift"), [(1 / 0.2, -0.5), (255.0, 0.0), (1e-3, 7.0)])
def test_inpainting_knows_no_units(scale, shift):
    pytest.importorskip("cv2")
    images, mask = photograph(), hole((40, 48), (10, 12, 24, 30))
    expected = replace(images, mask, "inpaint")
    found = replace((images + shift) * scale, mask, "inpaint") / scale - shift
    assert_close(found, expected, atol=2e-3, rtol=0)


# Fails with the ones above.
def test_inpainting_continues_what_is_around():
    pytest.importorskip("cv2")
    flat = torch.full((1, 1, 30, 30), 0.3)
    flat[..., 20:] = 0.8
    mask = hole((30, 30), (8, 4, 20, 12))
    found = replace(flat, mask, "inpaint")[0, 0, 0, 8:20, 4:12]
    assert_close(found, torch.full_like(found, 0.3), atol=0.01, rtol=0)
    constant = torch.full((1, 3, 8, 8), -2.0)
    assert_close(replace(constant, hole((8, 8), (2, 2, 6, 6)), "inpaint")[:, 0], constant)


def test_inpainting_does_not_see_what_it_replaces():
    pytest.importorskip("cv2")
    images, mask = photograph(), hole((40, 48), (10, 12, 24, 30))
    other = images.where(mask == 0, torch.rand_like(images))
    found = replace(images, mask, "inpaint")
    assert_close(replace(other, mask, "inpaint"), found, atol=2e-3, rtol=0)


def test_inpainting_cuts_masks_at_a_half():
    pytest.importorskip("cv2")
    images = photograph()
    soft = torch.where(hole((40, 48), (10, 12, 20, 30)) == 1, 0.5, 0.49)
    hard = hole((40, 48), (10, 12, 20, 30))
    assert torch.equal(replace(images, soft, "inpaint"), replace(images, hard, "inpaint"))
    assert_close(replace(images, hard * 0.49, "inpaint")[:, 0], images)


@pytest.mark.parametrize("channels", [1, 3])
def test_outside_the_mask_nothing_changes(infill, channels):
    images = torch.randn(2, channels, 20, 24)
    masks = torch.cat([hole((20, 24), (2, 3, 9, 11)), hole((20, 24), (0, 0, 20, 5))], dim=1)
    found = replace(images, masks.expand(2, -1, -1, -1), infill)
    assert found.shape == (2, 2, channels, 20, 24)
    for index in range(2):
        outside = masks[0, index] == 0
        assert_close(found[:, index][..., outside], images[..., outside], atol=1e-6, rtol=0)
        assert (found[:, index][..., ~outside] != images[..., ~outside]).any()
    assert_close(replace(images, torch.zeros(2, 1, 20, 24), infill)[:, 0], images)


# Fails, for "inpaint", with the ones above.
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_tiny_images(infill, side):
    images = torch.rand(1, 3, side, side)
    found = replace(images, hole((side, side), (0, 0, 1, 1)), infill)
    assert found.shape == (1, 1, 3, side, side)
    assert found.isfinite().all()
    assert (found >= -0.6).all()
    assert (found <= 1.6).all()
    flat = found[0, 0].flatten(1)[:, 1:]
    assert_close(flat, images[0].flatten(1)[:, 1:])


def test_thin_images(infill):
    for size in ((1, 9), (9, 1), (2, 30)):
        found = replace(torch.rand(1, 1, *size), torch.ones(1, 1, *size), infill)
        assert found.isfinite().all()


def test_each_image_is_filled_from_itself(infill):
    images = torch.cat([photograph(), photograph().flip(-1)])
    mask = hole((40, 48), (10, 12, 24, 30))
    both = replace(images, torch.cat([mask, mask.flip(-1)]), infill)
    for index in range(2):
        alone = replace(images[index : index + 1], mask if index == 0 else mask.flip(-1), infill)
        assert_close(both[index], alone[0])


# Fails, for "inpaint", with the ones above, and with bfloat16, which numpy does not have.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_keep_their_type(infill, dtype):
    images, masks = photograph(), hole((40, 48), (10, 12, 20, 30))
    found = replace(images.to(dtype), masks.to(dtype), infill)
    assert found.dtype == dtype
    assert_close(found.float(), replace(images, masks, infill), atol=0.03, rtol=0)


def test_memory_formats_do_not_matter(infill):
    images, masks = photograph(), hole((40, 48), (10, 12, 20, 30))
    last = images.contiguous(memory_format=torch.channels_last)
    assert_close(replace(last, masks, infill), replace(images, masks, infill))


def test_inpainting_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r'needs OpenCV: pip install "camlens\[regions\]"'):
        replace(torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4), "inpaint")


@pytest.mark.parametrize("infill", ["blur", "mean"])
@pytest.mark.parametrize("length", [1, 2, 9, 40])
def test_signals_are_images_of_one_line_in_the_mean(infill, length):
    signals, masks = torch.randn(2, 3, length), torch.rand(2, 2, length)
    found = replace(signals, masks, infill)
    assert found.shape == (2, 2, 3, length)
    if infill == "mean":
        expected = replace(signals.unsqueeze(2), masks.unsqueeze(2), infill).squeeze(3)
        assert_close(found, expected)
    assert_close(replace(torch.ones(1, 1, length), masks[:1], infill), torch.ones(1, 2, 1, length))


@pytest.mark.parametrize("size", [(12,), (10, 12), (10, 11, 12)])
def test_blur_is_the_same_along_every_axis(size):
    """Of an image that varies along its last axis only."""
    line = torch.randn(1, 1, 12)
    images = line.view(1, 1, *[1] * (len(size) - 1), 12).expand(1, 1, *size)
    found = replace(images, torch.ones(1, 1, *size), "blur")[0, 0, 0]
    first = found.reshape(-1, 12)[0]
    assert_close(found, first.expand(size), atol=1e-5, rtol=1e-5)
    sigma = 0.1 * min(size)
    radius = min(-int(-3 * sigma // 1), min(size) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    padded = torch.nn.functional.pad(line, (radius, radius), mode="reflect")
    expected = torch.nn.functional.conv1d(padded, (weights / weights.sum()).view(1, 1, -1))[0, 0]
    assert_close(first, expected, atol=1e-5, rtol=1e-5)


def test_inpainting_needs_images():
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match=r'infill="inpaint" needs 2-D images.*got \(1, 1, 9\)'):
        replace(torch.rand(1, 1, 9), torch.ones(1, 1, 9), "inpaint")
