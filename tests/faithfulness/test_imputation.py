"""The imputation: a direct solution of the same equations, affine images, and the extremes."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from camlens.faithfulness.imputation import impute


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
        np.testing.assert_allclose(found[n], expected, atol=2e-3)
    assert torch.equal(found.movedim(1, -1)[~removed], images.movedim(1, -1)[~removed])


def test_affine_images_are_reproduced_away_from_the_border():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    image = (0.3 * y - 0.7 * x + 2).expand(1, 2, 20, 30)
    removed = torch.zeros(1, 20, 30, dtype=torch.bool)
    removed[:, 4:15, 6:25] = True
    torch.testing.assert_close(impute(image, removed), image, atol=5e-3, rtol=1e-3)


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


def test_signals_are_refused():
    with pytest.raises(ValueError, match="deletion or insertion"):
        impute(torch.rand(1, 1, 9), torch.zeros(1, 9, dtype=torch.bool))
