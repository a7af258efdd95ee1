"""Measured centres against arithmetic where it holds, and networks whose answer is known."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from camlens.geometry.centres import fit, marginals, measure_place


class Reached(Exception):  # noqa: N818
    """Carries a layer's output out of a forward pass, which ends there."""


def output_of(model, layer, images):
    def leave(_, __, output):
        raise Reached(output)

    handle = layer.register_forward_hook(leave)
    try:
        model(images)
    except Reached as reached:
        return reached.args[0]
    finally:
        handle.remove()


def gradients_of(model, layer, layout=lambda output: output):
    """Return what measure_place calls, with a hook of torch's own."""

    def gradients(images, cells, signs):
        images = images.clone().requires_grad_()
        output = layout(output_of(model, layer, images))
        rows = torch.arange(len(images), device=images.device)
        picked = output.movedim(1, -1)[(rows, *cells.unbind(1))]
        return torch.autograd.grad((picked * signs).sum(), images)[0]

    return gradients


def measure(model, layer, images, layout=lambda output: output, **options):
    with torch.no_grad():
        channels, *grid = layout(output_of(model, layer, images[:1])).shape[1:]
    gradients = gradients_of(model, layer, layout)
    return measure_place(gradients, images, tuple(grid), channels, proven=True, **options)


class Arithmetic:
    """Where a stack of sliding windows looks: cell j at ``first + j * pitch``, ``field`` wide."""

    def __init__(self):
        self.first, self.pitch, self.field = 0.5, 1, 1

    def add(self, kernel, stride, padding, dilation):
        extent = dilation * (kernel - 1)
        self.first += (extent / 2 - padding) * self.pitch
        self.field += extent * self.pitch
        self.pitch *= stride

    def free(self, cells, pixels):
        """Return whether the border is far from the three or four middle cells.

        A cell counts as clipped when there is a gradient in a band along the border, as wide as
        half a stretched pitch and as the gradient's spread (less than 0.4 of its width).
        """
        indices = range((cells - 3) // 2, cells - (cells - 3) // 2)
        centres = [self.first + j * self.pitch for j in indices]
        reach = self.field / 2 + max(pixels / max(cells, 1), 0.4 * self.field)
        return cells >= 3 and centres[0] >= reach and centres[-1] <= pixels - reach


@st.composite
def windows(draw):
    """Draw (pooling, kernel, stride, padding, dilation)."""
    pooling = draw(st.booleans())
    kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    dilation = 1 if pooling else draw(st.integers(1, 3))
    most = kernel // 2 if pooling else dilation * (kernel - 1)
    return pooling, kernel, stride, draw(st.integers(0, most)), dilation


def layer(window, axes):
    pooling, kernel, stride, padding, dilation = window
    if pooling:
        return (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1](kernel, stride, padding)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    built = convolution(1, 1, kernel, stride, padding, dilation, bias=False)
    nn.init.constant_(built.weight, 1 / built.weight.numel())
    return built


def arithmetic_of(stack, size):
    """Return the arithmetic and the grid; None where the border clips the middle cells."""
    expected, grid = Arithmetic(), []
    for _, *window in stack:
        expected.add(*window)
    for pixels in size:
        cells = pixels
        for _, kernel, stride, padding, dilation in stack:
            cells = (cells + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if not expected.free(cells, pixels):
            return None
        grid.append(cells)
    return expected, tuple(grid)


def check_against_arithmetic(stack, size, expected, grid):
    model = nn.Sequential(*(layer(window, len(size)) for window in stack))
    registration = measure(model, model, torch.randn(1, 1, *size))
    assert registration.grid == grid
    for axis, cells in enumerate(grid):
        arithmetic = expected.first + torch.arange(cells).double() * expected.pitch
        # Every cell, and so the pitch to a fraction of that.
        assert (registration.centres(axis) - arithmetic).abs().max() <= 0.1 * expected.pitch


@settings(deadline=None, max_examples=30)
@given(st.lists(windows(), min_size=1, max_size=4), st.integers(40, 200))
def test_signals_agree_with_arithmetic(stack, pixels):
    known = arithmetic_of(stack, (pixels,))
    assume(known is not None)
    check_against_arithmetic(stack, (pixels,), *known)


@settings(deadline=None, max_examples=12)
@given(st.lists(windows(), min_size=1, max_size=4), st.integers(32, 96), st.integers(32, 96))
def test_images_agree_with_arithmetic(stack, height, width):
    known = arithmetic_of(stack, (height, width))
    assume(known is not None)
    check_against_arithmetic(stack, (height, width), *known)


def test_volumes_agree_with_arithmetic():
    stack, size = [(False, 3, 2, 1, 1), (True, 2, 2, 0, 1)], (32, 28, 36)
    check_against_arithmetic(stack, size, *arithmetic_of(stack, size))


def test_axes_may_differ():
    model = nn.Conv2d(1, 1, (3, 5), stride=(2, 4), padding=(1, 0), bias=False)
    nn.init.ones_(model.weight)
    registration = measure(model, model, torch.randn(1, 1, 48, 61))
    # Cell j looks at 2 j + 0.5 and at 4 j + 2.5 of 24 and 15 cells.
    assert registration.offset == pytest.approx((-0.5, 0.0), abs=1e-5)
    assert registration.pitch == pytest.approx((2.0, 4.0), abs=1e-5)


def test_a_pooling_that_chooses_agrees_with_arithmetic():
    """Which pixel is the largest is a matter of the content: on average it is the middle one."""
    average = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(average.weight)
    model = nn.Sequential(average, nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2))
    registration = measure(model, model, torch.randn(8, 1, 64, 64), pairs=256)
    for axis in (0, 1):
        # 3x3 at stride 2 from an even size looks at 2 j + 0.5, pairs of those at 4 j + 1.5.
        arithmetic = 1.5 + 4 * torch.arange(16).double()
        assert (registration.centres(axis) - arithmetic).abs().max() <= 0.4


@pytest.mark.parametrize("patch", [2, 4, 7, 16])
def test_patches_lie_where_stretching_puts_them(patch):
    torch.manual_seed(patch)
    model = nn.Conv2d(3, 96, patch, patch)
    registration = measure(model, model, torch.randn(2, 3, 8 * patch, 12 * patch))
    assert not registration.moved
    assert registration.pitch == pytest.approx((patch, patch))
    assert registration.receptive_field == pytest.approx((patch, patch), rel=0.02)


def test_content_does_not_pull_the_cells():
    """All energy lies in the right half; cells behind a ReLU do not move towards it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 7, 4, 3), nn.ReLU()
    )
    images = 0.1 * torch.randn(4, 1, 64, 64) - 0.5
    images[..., 32:] = torch.randn(4, 1, 64, 32)
    registration = measure(model, model, images)
    # 7x7 at stride 4 with padding 3 looks at 4 j + 0.5, 1.5 px left of the middle of 4 px.
    for offset, error in zip(registration.offset, registration.offset_error, strict=True):
        assert abs(offset + 1.5) <= 3 * error
        assert error < 0.2


@pytest.mark.slow
def test_content_in_the_middle_does_not_pull_the_cells_together():
    """Photographs are like this, and no mirroring of the image takes it away."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 9, 4, 4), nn.ReLU()
    )
    line = torch.exp(-((torch.linspace(-2, 2, 64)) ** 2))
    images = torch.randn(8, 1, 64, 64) * line[:, None] * line
    registration = measure(model, model, images, pairs=128)
    for pitch, error in zip(registration.pitch, registration.pitch_error, strict=True):
        assert abs(pitch - 4) <= 3 * error
        assert error < 0.05


def test_clipped_cells_leave_the_pitch_alone():
    model = nn.Conv2d(1, 1, 31, stride=8, padding=15, bias=False)
    nn.init.ones_(model.weight)
    registration = measure(model, model, torch.randn(1, 1, 32, 32))
    assert registration.pitch == (8.0, 8.0)
    assert registration.pitch_error == (None, None)


@pytest.mark.parametrize("grid", [(1, 9), (2, 9), (3, 9)])
def test_grids_with_few_cells(grid):
    model = nn.AvgPool2d((6 // grid[0], 2))
    registration = measure(model, model, torch.randn(1, 1, 6, 18))
    assert registration.grid == grid
    assert registration.offset == pytest.approx((0, 0), abs=1e-6)
    assert not registration.moved


def test_cells_without_a_gradient_are_left_out():
    model = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.ReLU())
    images = torch.randn(4, 1, 64, 64)
    images[:2] = 0
    nn.init.constant_(model[0].bias, -0.1)
    registration = measure(model, model, images)
    assert registration.pitch == pytest.approx((4, 4), abs=0.1)


def test_a_layer_without_any_gradient_is_not_measured():
    model = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.ReLU())
    nn.init.constant_(model[0].bias, -1e6)
    registration = measure(model, model, torch.randn(2, 1, 64, 64))
    assert registration.kind == "stretched"
    assert registration.offset is None
    assert registration.receptive_field is None


def test_units_of_the_gradient_do_not_matter():
    gradients = torch.randn(3, 2, 8, 9)
    for one, other in zip(marginals(gradients), marginals(gradients * 1e-25), strict=True):
        torch.testing.assert_close(one, other)


def test_the_receptive_field_is_the_width_of_a_box():
    for width in (1, 4, 10):
        spread = torch.zeros(6, 2, 64, dtype=torch.float64)
        spread[:, :, 32 - width // 2 : 32 - width // 2 + width] = 1 / width
        centre = 32 + (width % 2) / 2
        registration = fit([spread], torch.zeros(6, 1, dtype=torch.long), (1,))
        assert registration.offset == pytest.approx((centre - 32,))
        assert registration.receptive_field == pytest.approx((width,))


@pytest.mark.slow
def test_the_standard_error_is_that_of_repeated_measurements():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, 4, 2))
    images = torch.randn(4, 3, 64, 64)
    runs = [measure(model, model, images, seed=seed) for seed in range(40)]
    offsets = torch.tensor([run.offset for run in runs])
    errors = torch.tensor([run.offset_error for run in runs]).mean(dim=0)
    ratio = offsets.std(dim=0) / errors
    assert ((ratio > 0.6) & (ratio < 1.5)).all()


@pytest.mark.parametrize(("count", "rows"), [(1, 8), (5, 5), (20, 8)])
def test_every_call_has_the_rows_asked_for(count, rows):
    """A model may take no other number of images, or further inputs for each of them."""
    model, images = nn.Conv2d(1, 4, 4, 4), torch.randn(count, 1, 32, 32)
    gradients = gradients_of(model, model)
    calls = []

    def watched(batch, cells, signs):
        calls.append((batch.sum(dim=(1, 2, 3)), len(cells), len(signs)))
        return gradients(batch, cells, signs)

    measure_place(watched, images, (8, 8), 4, pairs=12, rows=rows)
    assert len(calls) == 2 * -(-12 // rows)
    expected = images.sum(dim=(1, 2, 3))[torch.arange(rows) % count]
    for sums, *lengths in calls:
        # Shifting and mirroring an image leaves its sum alone.
        torch.testing.assert_close(sums, expected, atol=1e-4, rtol=1e-4)
        assert lengths == [rows, rows]


def test_measuring_leaves_the_generator_and_the_parameters_alone():
    model = nn.Conv2d(3, 8, 4, 4)
    images = torch.randn(1, 3, 32, 32)
    state = torch.get_rng_state()
    first = measure(model, model, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == measure(model, model, images)
    assert model.weight.grad is None


REAL = [
    # What the middle is, and the largest distance from it; None where nothing may be applied.
    ("swin_t", "features.0", 128, 64, None, 4),
    # Five strides of two by windows of three, padded by one: 112 - 15.5 by arithmetic.
    ("resnet18", "layer4", 224, 97, 1.5, 32),
    ("vgg11", "features.19", 112, 56, 1, 16),
    # Without padding: 15 cells span less of the 139 px than the image.
    ("inception_v3", "Mixed_5d", 139, 69.5, 0.5, 8),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL, ids=lambda case: case[0])
def test_real_networks_with_random_weights(case):
    name, layer_name, size, middle, most, pitch = case
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("inception_v3", "vgg11") else {}
    model = getattr(models, name)(weights=None, **options).eval().requires_grad_(False)
    layout = (lambda output: output.movedim(-1, 1)) if name == "swin_t" else lambda output: output
    images = torch.randn(4, 3, size, size)
    # The fewer, the more operations a network has; VGG11 has the most, and the least noise.
    pairs = {"vgg11": 8, "resnet18": 16}.get(name, 32)
    registration = measure(model, model.get_submodule(layer_name), images, layout, pairs=pairs)
    assert registration.moved == (name in ("resnet18", "inception_v3"))
    for axis in (0, 1):
        centres = registration.centres(axis)
        assert abs(centres.mean() - middle) <= (most or 0)
        # Of Inception v3 8 px, where stretching has 139 / 15 = 9.27.
        assert centres.diff().numpy() == pytest.approx(pitch, abs=0.1)
