"""Models that pad, crop or resize their images: their maps lie on the evidence all the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import camlens
from camlens import layouts
from camlens.dataset import explain_dataset

from ..geometry.axes import CONVS, Shown

SIDE = 40


def canvas(x, size):
    """Return images copied into a larger tensor of zeros, as detection models do."""
    larger = x.new_zeros(*x.shape[:2], *size)
    for number, image in enumerate(x):
        larger[number, :, : image.shape[1], : image.shape[2]].copy_(image)
    return larger


def patches(x, side=4):
    """Return (N, h, w, 3 * side * side), without a convolution."""
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // side, side, w // side, side)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // side, w // side, -1)


CHANGES = {
    "zeros behind": (lambda x: functional.pad(x, (0, 24, 0, 8)), ((0, 48), (0, 64))),
    "zeros before": (lambda x: functional.pad(x, (24, 0, 8, 0)), ((-8, 40), (-24, 40))),
    "zeros around": (lambda x: functional.pad(x, (12, 12, 2, 2)), ((-2, 42), (-12, 52))),
    "one pixel": (lambda x: functional.pad(x, (0, 1, 0, 1)), ((0, 41), (0, 41))),
    "reflected": (lambda x: functional.pad(x, (0, 16, 8, 8), mode="reflect"), ((-8, 48), (0, 56))),
    "replicated": (
        lambda x: functional.pad(x, (9, 7, 0, 0), mode="replicate"),
        ((0, 40), (-9, 47)),
    ),
    "wrapped": (lambda x: functional.pad(x, (8, 8, 4, 4), mode="circular"), ((-4, 44), (-8, 48))),
    "copied": (lambda x: canvas(x, (64, 48)), ((0, 64), (0, 48))),
    "joined": (lambda x: torch.cat([x, torch.ones_like(x[..., :8])], 3), ((0, 40), (0, 48))),
    "cropped": (lambda x: x[..., 8:-4, 4:-4], ((8, 36), (4, 36))),
    "resized and padded": (
        lambda x: functional.pad(
            functional.interpolate(x, (60, 60), mode="bilinear"), (0, 36, 0, 4)
        ),
        ((0, 64 / 1.5), (0, 64)),
    ),
    "normalised and padded": (
        lambda x: functional.pad((x - 0.45) / 0.22, (0, 24, 0, 8)),
        ((0, 48), (0, 64)),
    ),
    "flipped and padded": (lambda x: functional.pad(x.flip(3), (0, 24)), ((0, 40), (40, -24))),
}


def net(change, d=2):
    torch.manual_seed(0)
    layers = [CONVS[d](3, 8, 3, padding=1), nn.ReLU(), CONVS[d](8, 8, 2, 2), nn.ReLU()]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[d - 1](1)
    return nn.Sequential(Shown(change), *layers, pool, nn.Flatten(), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize("name", CHANGES)
def test_the_span_is_the_part_of_the_image_that_the_grid_covers(name):
    change, expected = CHANGES[name]
    explain = camlens.GradCAM(net(change), "3")
    for images in (torch.rand(2, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE) + 1):
        registration = explain(images, targets=0).registration
        for found, ends in zip(registration.span, expected, strict=True):
            assert found == pytest.approx(ends, abs=0.3)
        # Cells over mirrored parts look at the image, but not where they lie.
        assert registration.proven or name in ("reflected", "wrapped", "flipped and padded")


@pytest.mark.parametrize("d", [1, 3])
def test_signals_and_volumes_too(d):
    size = (12, 8, 10)[:d]
    explain = camlens.GradCAM(net(lambda x: functional.pad(x, (2, 6) * d), d), "3")
    registration = explain(torch.rand(2, 3, *size), targets=0).registration
    assert registration.span == tuple((-2.0, side + 6.0) for side in size)
    assert registration.proven


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: (x - 0.45) / 0.22,
        lambda x: functional.interpolate(x, (64, 56), mode="bilinear"),
        lambda x: functional.interpolate(x, scale_factor=0.5, mode="area"),
        lambda x: functional.avg_pool2d(x.clamp(0, 1).pow(0.45), 2),
    ],
)
def test_the_whole_image_has_no_span(change):
    explanation = camlens.GradCAM(net(change), "3")(torch.rand(2, 3, SIDE, SIDE), targets=0)
    assert explanation.registration.span is None
    assert explanation.registration.proven


@pytest.mark.parametrize("n", [2, 4, 6, 8])
def test_weights_of_as_many_kernels_as_images_are_not_the_input(n):
    model = nn.Sequential(nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(model, nn.Flatten()).eval()
    registration = camlens.GradCAM(model, "0.1")(torch.rand(n, 3, 8, 8), targets=0).registration
    assert registration.span is None
    assert registration.proven


def test_patches_without_a_convolution():
    def tokens(x):
        return patches(functional.pad(x, (0, 24, 0, 8)))

    layers = [nn.Linear(48, 8), nn.ReLU(), Shown(lambda x: x.mean((1, 2)))]
    model = nn.Sequential(Shown(tokens), *layers)
    registration = camlens.GradCAM(model.eval(), "2")(
        torch.rand(2, 3, 40, 40), targets=0
    ).registration
    assert registration.span == ((0, 48), (0, 64))


class Detector(nn.Module):
    """A network that pads its images, and whose evidence is a bright square."""

    def __init__(self, before=0, behind=24):
        super().__init__()
        self.pad = nn.ZeroPad2d((before, behind, before, behind))
        self.coarse = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
        self.fine = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)
        for weights in self.parameters():
            nn.init.constant_(weights, 0.1)

    def forward(self, images):
        return self.head(self.fine(self.coarse(self.pad(images))).mean((2, 3)))


@pytest.fixture
def images():
    """Images that are bright around row 32 and column 28."""
    images = 0.01 * torch.rand(2, 3, SIDE, SIDE)
    images[:, :, 28:36, 24:32] += 3
    return images


EXPLAINERS = {
    "stretched": lambda model: camlens.GradCAM(model, "fine"),
    "measured": lambda model: camlens.GradCAM(model, "fine", registration="measured"),
    "default layer": camlens.GradCAM,
    "own layout": lambda model: camlens.GradCAM(model, "fine", layout=layouts.nchw),
    "own layout, measured": lambda model: camlens.GradCAM(
        model, "fine", layout=layouts.nchw, registration="measured"
    ),
    "several layers": lambda model: camlens.GradCAM(model, ["coarse", "fine"]),
    "Score-CAM": lambda model: camlens.ScoreCAM(model, "fine"),
    "guided": lambda model: camlens.GuidedGradCAM(model, "fine"),
    "FullGrad": camlens.FullGrad,
}


@pytest.mark.parametrize("before", [0, 16])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_map_is_that_of_images_padded_before(name, before, images):
    model, behind = Detector(before, 24 - before).eval(), 24 - before
    explanation = EXPLAINERS[name](model)(images, targets=0)
    model.pad = nn.Identity().eval()
    padded = functional.pad(images, (before, behind, before, behind))
    part = slice(before, before + SIDE)
    expected = EXPLAINERS[name](model)(padded, targets=0).heatmaps[..., part, part]
    expected = expected / expected.amax((2, 3), keepdim=True)
    # Measured places have an error.
    within = 0.1 if "measured" in name else 1e-4
    assert explanation.evidence.all()
    assert (explanation.heatmaps - expected).abs().max() < within


class Prepared(nn.Module):
    """A network after some preparation of its images."""

    def __init__(self, prepare, channels=3):
        super().__init__()
        self.prepare, self.norm = prepare, nn.BatchNorm2d(channels)
        self.fine = nn.Sequential(nn.Conv2d(channels, 8, 4, 4), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, images, *inputs):
        return self.head(self.fine(self.norm(self.prepare(images, *inputs))).mean((2, 3)))


def pad(x, value=0.0):
    return functional.pad(x, (0, 24, 0, 24), value=value)


def coordinates(x):
    steps = torch.linspace(0, 1, SIDE).expand(len(x), 1, SIDE, SIDE)
    return torch.cat([x, steps], 1)


@pytest.mark.parametrize(
    ("prepare", "channels"),
    [
        (lambda x: pad(x.mean(1, keepdim=True)), 1),
        (lambda x: pad(x.mean(1, keepdim=True)).expand(-1, 3, -1, -1), 3),
        (lambda x: pad(coordinates(x)), 4),
        (lambda x: torch.cat([pad(x), pad(torch.ones_like(x[:, :1]))], 1), 4),
        (lambda x: functional.pixel_unshuffle(pad(x), 2), 12),
        (lambda x: pad((x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), keepdim=True)), 3),
        (lambda x: pad(x / x.amax((1, 2, 3), True), 0.5), 3),
        (lambda x: pad(x.to(memory_format=torch.channels_last)).contiguous(), 3),
        (lambda x: torch.stack([pad(image) for image in x]), 3),
        (lambda x: pad(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)), 3),
    ],
)
def test_the_images_are_followed_through_their_preparation(prepare, channels, images):
    model = Prepared(prepare, channels).eval()
    for layer in ("fine", "norm"):
        explanation = camlens.HiResCAM(model, layer)(images, targets=0)
        for ends in explanation.registration.span:
            assert ends == pytest.approx((0, 64), abs=0.2)
        assert explanation.registration.proven


def test_a_statistic_of_a_part_is_not_the_input(images):
    def exposed(x):
        return x / x[..., 10:30, 10:30].std((1, 2, 3), keepdim=True)

    registration = camlens.GradCAM(Prepared(exposed).eval(), "fine")(images, targets=0).registration
    assert registration.span is None
    assert registration.proven


@pytest.mark.parametrize("order", [1, -1])
def test_layers_after_branches_that_see_different_parts_are_not_proven(order, images):
    class Branches(Prepared):
        def __init__(self):
            super().__init__(lambda x: x)
            self.local = nn.Conv2d(3, 8, 4, 4)

        def forward(self, images):
            parts = [lambda: self.local(images[..., 8:28, 8:28]), lambda: self.fine(images)]
            local, whole = [part() for part in parts[::order]][::order]
            return self.head(local.mean((2, 3)) + whole.mean((2, 3)))

    model = Branches().eval()
    whole = camlens.GradCAM(model, "fine")(images, targets=0).registration
    local = camlens.GradCAM(model, "local")(images, targets=0).registration
    # What runs second follows both, as far as can be seen.
    first, second = (local, whole)[::order]
    assert (first.proven, second.proven) == (True, False)
    assert whole.span is second.span is None
    assert first.span == (((8, 28), (8, 28)) if first is local else None)


def test_a_part_that_further_inputs_decide_is_not_proven(images):
    model = Prepared(lambda x, box: x[..., box[0] : box[1], box[0] : box[1]]).eval()
    explain = camlens.GradCAM(model, "fine")
    for box in ((0, 28), (12, 40)):
        registration = explain(images, torch.tensor(box), targets=0).registration
        assert registration.span is None
        assert not registration.proven


@pytest.mark.parametrize(
    "first",
    [
        lambda x, w: functional.conv1d(x.permute(0, 2, 3, 1).flatten(1, 2).mT, w[:, :, 0]),
        lambda x, w: torch.einsum("nchw,kc->nkhw", torch.fft.fft2(x).real, w[:, :, 0, 0]),
    ],
)
def test_first_layers_of_other_kinds_fail_in_no_new_way(first, images):
    weights = torch.rand(4, 3, 1, 1)
    layers = [Shown(lambda x: first(x, weights)), nn.Flatten(2), Shown(lambda x: x.mean(2))]
    model, maps = nn.Sequential(*layers).eval(), lambda x: x.reshape(2, 4, -1, 20)
    registration = camlens.GradCAM(model, "0", layout=maps)(images, targets=0).registration
    assert registration.span is None


def test_a_layer_before_the_padding_covers_the_image(images):
    class Early(Detector):
        def __init__(self):
            super().__init__()
            self.scale = nn.BatchNorm2d(3)

        def forward(self, images):
            return super().forward(self.scale(images))

    model = Early().eval()
    registration = camlens.GradCAM(model, "scale")(images, targets=0).registration
    assert registration.span is None
    assert registration.proven
    with pytest.raises(ValueError, match="cover different parts of the images"):
        camlens.GradCAM(model, ["scale", "fine"])(images, targets=0)


def test_padding_where_gradients_are_switched_off(images):
    class Frozen(Detector):
        def forward(self, images):
            with torch.no_grad():
                images = self.pad(images)
            return self.head(self.fine(self.coarse(images)).mean((2, 3)))

    registration = camlens.GradCAM(Frozen().eval(), "fine")(images, targets=0).registration
    assert registration.span == ((0, 64), (0, 64))


def by_numpy(x):
    return torch.from_numpy(np.pad(x.detach().numpy(), ((0, 0), (0, 0), (0, 8), (0, 8))))


def into_views(x):
    """Write to views that torch lets nobody write to while it records gradients."""
    larger = x.new_zeros(*x.shape[:2], 64, 64)
    for image, place in zip(x, larger, strict=True):
        place[:, :40, :40].copy_(image)
    return larger


@pytest.mark.parametrize("change", [by_numpy, into_views])
def test_what_cannot_be_measured_is_not_proven(change):
    registration = camlens.GradCAM(net(change), "3")(
        torch.rand(2, 3, 40, 40), targets=0
    ).registration
    assert registration.span is None
    assert not registration.proven


def test_layers_are_listed_with_their_pitch_in_the_image(images):
    for measure in (False, True):
        layers = camlens.find_layers(Detector().eval(), images, measure=measure)
        pitches = {layer.name: layer.pitch for layer in layers}
        assert pitches["fine"] == pytest.approx((4, 4), abs=0.2)


def test_a_saved_explanation_keeps_its_span(tmp_path, images):
    explanation = camlens.GradCAM(Detector().eval(), "fine")(images, targets=0)
    explanation.save(tmp_path / "saved.safetensors")
    loaded = camlens.Explanation.load(tmp_path / "saved.safetensors")
    assert loaded.registration == explanation.registration
    assert_close(loaded.heatmaps, explanation.heatmaps)


def test_a_data_set_stores_maps_as_they_are_drawn(tmp_path, images):
    explain = camlens.GradCAM(Detector().eval(), "fine")
    run = explain_dataset(explain, [(image, 0) for image in images], tmp_path / "run", targets=0)
    expected = explain(images, targets=0).heatmaps[:, 0]
    assert_close(run.heatmaps(run.maps), expected, atol=1 / 255, rtol=0)
