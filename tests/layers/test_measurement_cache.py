"""What is measured holds for calls that run the same part of the model, and for no others."""

import pytest
import torch
from torch import nn

import camlens


class Crop(nn.Module):
    """A network of a part of the image, on request with a path beside its second layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x, left=0, beside=False):
        first = self.first(x[..., left : left + 32]).relu()
        second = self.second(first)
        return self.head((second + 5 * first if beside else second).mean((-2, -1)))


def test_the_default_layer_depends_on_keywords():
    model, images = Crop().eval(), torch.rand(2, 3, 64, 64)
    explain = camlens.GradCAM(model)
    assert [explain(images, beside=b).layers for b in (False, True, False)] == [
        ("second",),
        ("first",),
        ("second",),
    ]


def test_the_registration_depends_on_keywords():
    model, images = Crop().eval(), torch.rand(2, 3, 64, 64)
    explain = camlens.GradCAM(model, "first", registration="measured")
    offsets = [explain(images, left=left).registration.offset[1] for left in (0, 32)]
    assert offsets == pytest.approx([-16, 16], abs=0.5)


@pytest.mark.parametrize("layer", [None, "net.1"])
def test_a_flipped_image_is_not_proven(layer):
    class Flipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.net(x.flip(-1)).mean((-2, -1)))

    explanation = camlens.GradCAM(Flipped().eval(), layer)(torch.rand(2, 3, 64, 64), targets=0)
    assert not explanation.registration.proven


@pytest.mark.parametrize("length", [64, 256, 400])
@pytest.mark.parametrize("extra", [0, 1, 2, 4])
def test_tokens_of_a_signal_with_class_tokens(length, extra):
    class Tokens(nn.Module):
        def __init__(self, kernel=4):
            super().__init__()
            self.patches = nn.Conv1d(2, 8, kernel, 4, padding=(kernel - 3) // 2)
            self.extra = nn.Parameter(torch.randn(1, 4, 8))
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            tokens = self.patches(x).transpose(1, 2)
            extra_tokens = self.extra[:, :extra].expand(len(x), -1, -1)
            return self.head(self.block(torch.cat([extra_tokens, tokens], 1)).mean(1))

    signals = torch.rand(2, 2, length)
    model = Tokens().eval()
    explanation = camlens.GradCAM(model, "block")(signals, targets=0)
    assert explanation.grid == (length // 4,)
    layout = camlens.layouts.tokens(extra, (length // 4,))
    named = camlens.GradCAM(model, "block", layout=layout)(signals, targets=0)
    assert torch.equal(explanation.raw, named.raw)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("part", [slice(None, 16), slice(16, None)])
def test_a_crop_behind_the_first_layer_is_not_proven(d, part):
    conv = (nn.Conv1d, nn.Conv2d)[d - 1]

    class Cropped(nn.Module):
        def __init__(self, part):
            super().__init__()
            layers = conv(3, 8, 3, 2, 1), nn.ReLU(), conv(8, 8, 3, 2, 1), nn.ReLU()
            self.net, self.part = nn.Sequential(*layers), part

        def forward(self, images):
            return self.net[1:](self.net[0](images)[..., self.part]).flatten(2).mean(-1)

    images = torch.rand(2, 3, *[64] * d)
    for model, proven in ((Cropped(part), False), (Cropped(slice(None)), True)):
        explainer = camlens.HiResCAM(model.eval(), "net.3")
        assert explainer(images, targets=1).registration.proven is proven


def test_boxes_decoded_in_place_by_the_default_layer():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
            self.net, self.head = nn.Sequential(*layers), nn.Conv2d(8, 6, 1)

        def forward(self, images):
            boxes = self.head(self.net(images)).sigmoid()
            boxes[:, :2] = boxes[:, :2] * 2 - 0.5
            boxes[:, 2:4] = (boxes[:, 2:4] * 2) ** 2
            return boxes.flatten(2).transpose(1, 2)

    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match="overwrites a tensor that its gradient needs"):
        camlens.GradCAM(Boxes().eval())(images, targets=lambda out: out[..., 5].amax(1))
    with pytest.raises(ValueError, match="overwrites a tensor that its gradient needs"):
        camlens.find_layers(Boxes().eval(), images)


def test_images_that_are_not_finite_are_told():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"images \[0\] have values that are not finite"):
        camlens.GradCAM(model.eval(), "1")(torch.full((1, 3, 16, 16), torch.nan))


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        self.net, self.head = nn.Sequential(*layers), nn.Linear(8, 4)

    def forward(self, images, flag=None):
        return self.head(self.net(images).flatten(2).mean(-1))


class SortedInside(Backbone):
    def forward(self, images, flag=None):
        order = images.mean((1, 2, 3)).argsort()
        return super().forward(images[order])[order.argsort()]


class SortedOutside(Backbone):
    def forward(self, images, flag=None):
        scores = super().forward(images)
        return scores[scores[:, 0].argsort()]


class Standardised(Backbone):
    def forward(self, images, flag=None):
        scores = super().forward(images)
        return scores - scores.mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("flag", [{}, {"flag": 1}, {"flag": torch.ones(3, 2)}])
@pytest.mark.parametrize("kind", [SortedInside, SortedOutside, Standardised])
@pytest.mark.parametrize("size", [16, 80])
def test_a_model_that_mixes_the_images_of_a_batch_is_told(kind, flag, size):
    explainer = camlens.GradCAM(kind().eval(), "net.3")
    images = torch.rand(3, 3, size, size)
    images[1] += 0.5
    images[2] += 0.2
    with pytest.raises(ValueError, match=r"the images one by one|of the rows depends|other rows"):
        explainer(images, targets=1, **flag)
    assert camlens.GradCAM(Backbone().eval(), "net.3")(images, targets=1, **flag).raw.any()
    if kind is not SortedInside and "flag" not in flag:
        explainer(images[:1], targets=1)  # alone there is nothing to mix


def test_a_callable_that_mixes_the_images_of_a_batch_is_told():
    images, model = torch.rand(3, 3, 64, 64), Backbone().eval()
    reference = model(images.flip(-1)).detach()
    with pytest.raises(ValueError, match="change with the other images of the batch"):
        camlens.GradCAM(model, "net.3")(images, targets=lambda out: out[:, 0] - out[:, 1].mean())
    explainer = camlens.GradCAM(model, "net.3")
    with pytest.raises(ValueError, match="change with the other images of the batch"):
        explainer(images, targets=lambda out: out[:, 0] - out[:, 1].mean())
    explainer(images, targets=1)  # what one callable mixes is no fault of other scores
    for targets in (lambda out: out[:, 0] - reference[:, 0], lambda out: out.softmax(1)[:, 0]):
        camlens.GradCAM(model, "net.3")(images, targets=targets)
    two = reference[:2]
    camlens.GradCAM(model, "net.3")(images[:2], targets=lambda out: out[:, 0] - two[:, 0])
