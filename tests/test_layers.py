"""Layouts, candidates and the automatic choice, on toy shapes and on torchvision's networks."""

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from camlens import layers

from .nets import Small


def real(name, size=64, **options):
    """A torchvision network with seeded weights; its classes may all be of equal score."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter in model.parameters():
        if not parameter.any():  # a ViT's head starts at zero, and nothing depends on anything
            nn.init.normal_(parameter, std=0.02)
    return model, torch.rand(1, 3, size, size)


def test_nhwc_and_tokens_move_values_to_their_places():
    maps = torch.rand(2, 4, 3, 5)
    assert_close(layers.nhwc(maps.permute(0, 2, 3, 1)), maps)
    sequence = torch.cat([torch.rand(2, 2, 4), maps.flatten(2).transpose(1, 2)], dim=1)
    assert_close(layers.tokens(2, (3, 5))(sequence), maps)


@pytest.mark.parametrize(
    ("shape", "module", "size", "expected"),
    [
        ((2, 7, 7, 768), nn.Sequential(), (224, 224), (2, 768, 7, 7)),
        ((2, 768, 7, 7), nn.Sequential(), (224, 224), (2, 768, 7, 7)),
        ((2, 7, 7, 8), nn.Sequential(), (224, 224), (2, 8, 7, 7)),
        ((2, 8, 7, 7), nn.Sequential(), (224, 224), (2, 8, 7, 7)),
        ((2, 5, 10, 20), nn.Sequential(), (64, 128), (2, 5, 10, 20)),
        ((2, 10, 20, 5), nn.Sequential(), (64, 128), (2, 5, 10, 20)),
        ((2, 16, 16, 16), nn.Conv2d(1, 1, 1), (64, 64), (2, 16, 16, 16)),
        ((2, 16, 4, 16), nn.LayerNorm(16), (64, 16), (2, 16, 16, 4)),
        ((2, 4, 16, 16), nn.Conv2d(1, 1, 1), (16, 64), (2, 4, 16, 16)),
        ((2, 197, 64), nn.Sequential(), (224, 224), (2, 64, 14, 14)),
        ((2, 196, 64), nn.Sequential(), (224, 224), (2, 64, 14, 14)),
        ((2, 201, 64), nn.Sequential(), (224, 224), (2, 64, 14, 14)),
        ((2, 8 * 16 + 1, 64), nn.Sequential(), (128, 256), (2, 64, 8, 16)),
    ],
)
def test_inferred_layouts(shape, module, size, expected):
    output = torch.rand(shape)
    assert layers.infer_layout(output, module, size)(output).shape == expected


@pytest.mark.parametrize("shape", [(2, 10), (2, 13, 64), (2, 3, 4, 5, 6)])
def test_no_spatial_map(shape):
    with pytest.raises(ValueError, match="Choose another layer, or say how to read"):
        layers.infer_layout(torch.rand(shape), nn.Linear(1, 1), (224, 224))


def test_a_layout_that_does_not_fit():
    with pytest.raises(
        ValueError, match=r"layout given for 'x' does not fit its output \(2, 5, 3\)"
    ):
        layers.as_maps(torch.rand(2, 5, 3), layers.tokens(1, (3, 3)), "x")
    with pytest.raises(ValueError, match=r"into \(2, 15\); expected \(N, C, h, w\) with N = 2"):
        layers.as_maps(torch.rand(2, 5, 3), lambda t: t.flatten(1), "x")


def test_find_layers_lists_what_ran_in_order():
    found = layers.find_layers(Small().eval(), torch.rand(1, 3, 8, 8))
    assert [(layer.name, layer.channels, layer.grid) for layer in found] == [
        ("conv1", 6, (8, 8)),
        ("norm1", 6, (8, 8)),
        ("conv2", 8, (4, 4)),
        ("norm2", 8, (4, 4)),
        ("act", 8, (4, 4)),
    ]


@pytest.mark.parametrize(
    ("name", "size", "layer", "grid"),
    [
        ("vgg19", 64, "features.35", (4, 4)),  # not the pooling behind it, which may copy one cell
        ("resnet50", 64, "layer4", (2, 2)),
        ("densenet121", 64, "features", (2, 2)),
        ("mobilenet_v3_large", 64, "features", (2, 2)),
        ("efficientnet_b0", 64, "features", (2, 2)),
        ("convnext_tiny", 64, "features", (2, 2)),
        ("swin_t", 64, "permute", (2, 2)),
        ("vit_b_32", 224, "encoder.layers.encoder_layer_11.ln_1", (7, 7)),
        ("squeezenet1_1", 64, "classifier.2", (3, 3)),
    ],
)
def test_the_last_layer_of_real_networks(name, size, layer, grid):
    model, images = real(name, size)
    assert layers.last_layer(model, images) == layer
    assert {found.name: found.grid for found in layers.find_layers(model, images)}[layer] == grid


def test_nhwc_inside_swin_and_convnext():
    model, images = real("swin_t")
    found = {layer.name: layer for layer in layers.find_layers(model, images)}
    assert (found["norm"].channels, found["norm"].grid) == (768, (2, 2))
    model, images = real("convnext_tiny", 96)
    found = {layer.name: layer for layer in layers.find_layers(model, images)}
    assert (found["features.7.0.block.2"].channels, found["features.7.0.block.2"].grid) == (
        768,
        (3, 3),
    )


def test_vgg_at_48_pixels_is_not_explained_at_a_copied_cell():
    model, images = real("vgg19", 48)
    assert layers.last_layer(model, images) == "features.35"  # 3x3; avgpool would say 7x7


def test_a_model_without_a_map():
    with pytest.raises(LookupError, match="Sequential has no layer with a spatial output"):
        layers.last_layer(
            nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval(), torch.rand(1, 3, 2, 2)
        )


def test_dictionaries_of_outputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return {"logits": [self.net(x)], "ids": torch.zeros(1).long(), "loss": None}

    assert layers.last_layer(Both().eval(), torch.rand(1, 3, 8, 8)) == "net.act"
