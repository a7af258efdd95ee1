"""FullGrad: its sum is the score, and its map that of a plain loop."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import camlens

from ..nets import Small, flops, real


def biased():
    """Return a ReLU network whose every bias and BatchNorm matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
        )
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.bias, -0.5, 0.5)
            elif getattr(module, "bias", None) is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5)
        return model.eval()


@pytest.mark.slow
def test_the_sum_is_the_score():
    images = torch.rand(3, 3, 12, 12)
    found = camlens.FullGrad(biased())(images, targets="all")
    assert found.measures["completeness_gap"].shape == (3, 3)
    assert found.measures["completeness_gap"].max() < 1e-5
    model, images = real("alexnet", 64)
    found = camlens.FullGrad(model)(images, targets=[[3, 5]])
    assert found.measures["completeness_gap"].max() < 1e-4 * max(1, found.scores.abs().max())


def test_the_map_is_that_of_a_plain_loop():
    model, images = biased(), torch.rand(2, 3, 12, 12)
    kept = {}
    leaf = images.clone().requires_grad_()
    hooks = [
        module.register_forward_hook(lambda m, a, out: kept.setdefault(m, out).retain_grad())
        for module in model
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and module.bias is not None
    ]
    score = model(leaf)[:, 1]
    for hook in hooks:
        hook.remove()
    score.sum().backward()

    def drawn(part):
        part = part.abs()
        part = part / part.flatten(1).amax(1).view(-1, 1, 1, 1)
        return nn.functional.interpolate(part.sum(1, keepdim=True), (12, 12), mode="bilinear")[:, 0]

    expected = drawn(images * leaf.grad)
    for module, out in kept.items():
        bias = module.bias
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            bias = module.bias - module.running_mean * scale
        expected = expected + drawn(out.grad * bias.view(1, -1, 1, 1))
    found = camlens.FullGrad(model)(images, targets=1)
    assert_close(found.raw[:, 0], expected.detach(), rtol=1e-4, atol=1e-6)


def test_of_other_activations_the_gap_is_told():
    model = biased()
    model[2] = nn.GELU().eval()
    assert camlens.FullGrad(model)(torch.rand(1, 3, 12, 12)).measures["completeness_gap"] > 1e-3


def test_what_it_is_not_defined_for_is_an_error():
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3).eval()
    with pytest.raises(ValueError, match="is a LayerNorm with a bias: use IntegratedGradients"):
        camlens.FullGrad(vit)(torch.rand(1, 3, 224, 224))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, images):
            return self.head(self.conv(self.conv(images).relu()).mean((2, 3)))

    with pytest.raises(ValueError, match="'conv' has a bias and runs 2 times"):
        camlens.FullGrad(Twice().eval())(torch.rand(1, 3, 8, 8))


def test_a_batch_is_its_images_and_unused_layers_do_not_count():
    model, images = Small().eval(), torch.rand(3, 3, 8, 8)
    model.unused = nn.Conv2d(3, 3, 3).eval()
    whole = camlens.FullGrad(model)(images, targets="all")
    for n in range(3):
        alone = camlens.FullGrad(model)(images[n : n + 1], targets=[[4, 0]])
        assert_close(alone.raw[0], whole.raw[n, [4, 0]], rtol=1e-4, atol=1e-6)


class Mixed(nn.Module):
    """A network that mixes channels by 1x1 convolutions, or by a linear layer on the last axis."""

    def __init__(self, linear):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.Linear(8, 8) if linear else nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        maps = self.stem(x).relu()
        if isinstance(self.mix, nn.Linear):
            maps = self.mix(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            maps = self.mix(maps)
        return self.head(maps.relu().mean((2, 3)))


@pytest.mark.parametrize("size", [16, 32])  # a grid of fewer cells than channels, and of as many
def test_a_linear_layer_over_the_last_axis_is_a_convolution(size):
    linear, convolution = Mixed(True).eval(), Mixed(False).eval()
    for parameter in linear.parameters():
        nn.init.normal_(parameter)
    weights = linear.state_dict()
    weights["mix.weight"] = weights["mix.weight"].view(8, 8, 1, 1)
    convolution.load_state_dict(weights)
    images = torch.randn(2, 3, size, size)
    found, expected = (camlens.FullGrad(m)(images, targets=1) for m in (linear, convolution))
    assert_close(found.raw, expected.raw, rtol=1e-4, atol=1e-5)
    assert found.measures["completeness_gap"].max() < 1e-4 * found.scores.abs().max()


def test_a_layer_with_other_rows_than_images_is_refused():
    class Crops(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = biased()

        def forward(self, x):
            return self.net(torch.cat([x, x.flip(-1)])).view(2, len(x), -1).mean(dim=0)

    with pytest.raises(ValueError, match=r"'net\.0' has 4 rows for 2 images.*IntegratedGradients"):
        camlens.FullGrad(Crops().eval())(torch.rand(2, 3, 8, 8), targets=1)


class Activated(nn.BatchNorm2d):
    """A norm with its activation inside, as timm's."""

    def forward(self, images):
        return super().forward(images).relu()


class Scaled(nn.Conv2d):
    """A convolution whose outputs, bias and all, are scaled."""

    def forward(self, images):
        return 3 * super().forward(images)


class Standardized(nn.Conv2d):
    """A convolution with another weight, which is still one with a bias."""

    def forward(self, images):
        weight = self.weight / self.weight.norm()
        return self._conv_forward(images, weight, self.bias)


@pytest.mark.parametrize("kind", [Activated, Scaled])
def test_a_layer_that_does_more_than_add_its_bias_is_refused(kind):
    torch.manual_seed(0)
    layer = kind(3) if kind is Activated else kind(3, 3, 3)
    if kind is Activated:
        nn.init.normal_(layer.bias)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    with pytest.raises(ValueError, match=f"is a {kind.__name__}, which computes more"):
        camlens.FullGrad(model)(torch.randn(2, 3, 8, 8))


def test_a_layer_of_ones_own_that_adds_its_bias_is_complete():
    torch.manual_seed(0)
    layers = Standardized(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(4, 2)).eval()
    explanation = camlens.FullGrad(model)(torch.randn(2, 3, 8, 8))
    assert (explanation.measures["completeness_gap"] < 1e-6).all()


def test_biases_that_are_buffers_are_not_left_out():
    norm = torchvision.ops.FrozenBatchNorm2d(3)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    with pytest.raises(ValueError, match="is a FrozenBatchNorm2d with a bias"):
        camlens.FullGrad(model)(torch.randn(2, 3, 8, 8))


def test_it_takes_one_forward_and_one_backward_pass_for_each_target():
    model, images = biased(), torch.rand(1, 3, 24, 24)

    explain = camlens.FullGrad(model)
    explain(images)  # the first call finds the layers that run
    with torch.no_grad():
        bare = flops(lambda: model(images))
    assert flops(lambda: explain(images, targets=0)) == 2 * bare
    assert flops(lambda: explain(images, targets=[[0, 1]])) == 3 * bare
