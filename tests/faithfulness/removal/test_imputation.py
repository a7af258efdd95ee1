"""The imputation: a direct solution of the same equations, affine images, and the extremes."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch.nn.functional import interpolate

from camlens.faithfulness import impute
from camlens.faithfulness.removal import imputation


def solved(image, removed):
    """Solve the equations of one image directly."""
    channels, height, width = image.shape
    places = {tuple(p): i for i, p in enumerate(np.argwhere(removed))}
    matrix, right = lil_matrix((len(places), len(places))), np.zeros((len(places), channels))
    for (y, x), i in places.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dy, dx) == (0, 0) or not (0 <= y + dy < height and 0 <= x + dx < width):
                    continue
                weight = 1 / 6 if dy * dx == 0 else 1 / 12
                matrix[i, i] += weight
                if (y + dy, x + dx) in places:
                    matrix[i, places[y + dy, x + dx]] -= weight
                else:
                    right[i] += weight * image[:, y + dy, x + dx]
    values = spsolve(matrix.tocsc(), right).reshape(len(places), channels)
    filled = image.copy()
    for (y, x), i in places.items():
        filled[:, y, x] = values[i]
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["scattered", "square"])
def test_it_solves_the_equations(share, kind):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 24, 20, generator=draw)
    removed = torch.rand(3, 24, 20, generator=draw) < share
    if kind == "square":
        side = share**0.5
        removed = torch.zeros(3, 24, 20, dtype=torch.bool)
        removed[:, : int(24 * side), : int(20 * side)] = True
    found = impute(images, removed)
    for n in range(3):
        expected = solved(images[n].double().numpy(), removed[n].numpy())
        np.testing.assert_allclose(found[n], expected, atol=2e-4)
    assert torch.equal(found.movedim(1, -1)[~removed], images.movedim(1, -1)[~removed])


def test_affine_images_are_reproduced_away_from_the_border():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    image = (0.3 * y - 0.7 * x + 2).expand(1, 2, 20, 30)
    removed = torch.zeros(1, 20, 30, dtype=torch.bool)
    removed[:, 4:15, 6:25] = True
    torch.testing.assert_close(impute(image, removed), image, atol=1e-3, rtol=0)


def test_a_single_pixel_that_is_left_is_everywhere():
    image = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    removed = torch.ones(1, 9, 9, dtype=torch.bool)
    removed[0, 2, 3] = False
    expected = image[:, :, 2:3, 3:4].expand(1, 3, 9, 9)
    torch.testing.assert_close(impute(image, removed), expected, atol=2e-3, rtol=1e-3)


def test_of_nothing_removed_and_of_everything():
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    removed = torch.tensor([False, True]).view(2, 1, 1).expand(2, 8, 8)
    found = impute(images, removed)
    assert torch.equal(found[0], images[0])
    mean = images[1].mean(dim=(1, 2), keepdim=True).expand(3, 8, 8)
    torch.testing.assert_close(found[1], mean)


def test_a_wide_hole_is_within_a_thousandth_of_the_exact_values():
    coarse = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    heat = interpolate(coarse, (96, 96), mode="bilinear").view(-1)
    removed = torch.zeros(96 * 96, dtype=torch.bool)
    removed[heat.argsort(descending=True)[: round(0.9 * 96 * 96)]] = True
    removed = removed.view(1, 96, 96)
    image = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    expected = solved(image[0].double().numpy(), removed[0].numpy())
    np.testing.assert_allclose(impute(image, removed)[0], expected, atol=1e-3)


def test_an_image_does_not_depend_on_the_others():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(4, 2, 20, 20, generator=draw)
    removed = torch.rand(4, 20, 20, generator=draw) < torch.tensor([0.1, 0.5, 0.9, 1]).view(4, 1, 1)
    removed[1, 2:18, 2:18] = True
    whole = impute(images, removed)
    for n in range(4):
        part = impute(images[n : n + 1], removed[n : n + 1])
        torch.testing.assert_close(whole[n : n + 1], part, atol=1e-6, rtol=1e-6)


def test_it_follows_contrast_and_brightness():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 16, 16, generator=draw)
    removed = torch.rand(1, 16, 16, generator=draw) < 0.7
    expected = 50 * impute(images, removed) + 1000
    torch.testing.assert_close(impute(50 * images + 1000, removed), expected, atol=2e-2, rtol=0)


def test_what_a_removed_pixel_holds_plays_no_part():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 16, 16, generator=draw)
    removed = torch.rand(1, 16, 16, generator=draw) < 0.5
    other = images.masked_fill(removed.unsqueeze(1), torch.nan)
    assert torch.equal(impute(images, removed), impute(other, removed))


def test_a_hole_in_black_is_black_though_the_rest_is_not():
    image = torch.zeros(1, 1, 24, 24)
    image[..., 20:] = 1
    removed = torch.zeros(1, 24, 24, dtype=torch.bool)
    removed[:, 4:12, 4:12] = True
    torch.testing.assert_close(impute(image, removed), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1), (2, 2)])
def test_narrow_images(size):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, 2, *size, generator=draw)
    removed = torch.zeros(1, *size, dtype=torch.bool)
    removed[:, -1, -1] = True
    removed[:, : size[0] // 2, : size[1] // 2] = True
    found = impute(images, removed)
    assert found.isfinite().all()
    if not removed.all():
        expected = solved(images[0].double().numpy(), removed[0].numpy())
        np.testing.assert_allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pixels_that_stay_keep_their_values_in_any_precision(dtype):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, 1, 12, 12, generator=draw, dtype=torch.float64).to(dtype)
    removed = torch.rand(1, 12, 12, generator=draw) < 0.5
    found = impute(images, removed)
    assert found.dtype == dtype
    assert torch.equal(found[:, 0][~removed], images[:, 0][~removed])


def test_autocast_does_not_lower_the_precision():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, 1, 12, 12, generator=draw)
    removed = torch.rand(1, 12, 12, generator=draw) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        found = impute(images, removed)
    assert torch.equal(found, impute(images, removed))


def test_that_it_did_not_converge_is_said(monkeypatch):
    monkeypatch.setattr(imputation, "_MOST_STEPS", 0)
    removed = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.9
    with pytest.raises(RuntimeError, match="did not converge"):
        impute(torch.rand(1, 1, 12, 12), removed)


def test_signals_are_refused():
    with pytest.raises(ValueError, match="deletion or insertion"):
        impute(torch.rand(1, 1, 9), torch.zeros(1, 9, dtype=torch.bool))


@pytest.mark.parametrize(
    ("removed", "error", "words"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.bool), ValueError, r"\(1, 4, 4\), got \(2, 4, 4\)"),
        (torch.zeros(1, 4, 4), TypeError, "as bool"),
    ],
)
def test_what_is_removed_has_to_fit(removed, error, words):
    with pytest.raises(error, match=words):
        impute(torch.rand(1, 1, 4, 4), removed)
