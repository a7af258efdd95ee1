"""The default layer of real networks with random weights: a table, and the proof by replaying.

``pytest -m slow -s tests/layers/test_default_layers_of_networks.py`` prints the table.
"""

import time

import pytest
import torch
import torchvision
from torch import nn

from camlens.layers.measured import MeasuredLayers
from camlens.probe import Probe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # timm's and transformers' own
]

#: Network, size of the images, options, layer, grid.
TORCHVISION = [
    ("resnet18", 128, {}, "layer4", (4, 4)),
    ("vgg19", 128, {}, "features.35", (8, 8)),
    ("densenet121", 128, {}, "features", (4, 4)),
    ("googlenet", 128, {"init_weights": False}, "inception5b", (4, 4)),
    ("inception_v3", 192, {"init_weights": False}, "Mixed_7c", (4, 4)),
    ("squeezenet1_1", 64, {}, "classifier.2", (3, 3)),
    ("mobilenet_v3_small", 224, {}, "features", (7, 7)),
    ("convnext_tiny", 128, {}, "features", (4, 4)),
    ("swin_t", 128, {}, "permute", (4, 4)),
    ("vit_b_32", 224, {}, "encoder.layers.encoder_layer_10", (7, 7)),
]
TIMM = [
    ("convnext_atto", 128, {}, "stages", (4, 4)),
    ("resnetv2_50", 128, {}, "norm", (4, 4)),
    ("eva02_tiny_patch14_224", 112, {"img_size": 112}, "blocks.11", (8, 8)),
    ("beit_base_patch16_224", 96, {"img_size": 96}, "blocks.11", (6, 6)),
    ("vit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    (
        "vit_small_patch14_reg4_dinov2",
        112,
        {"img_size": 112, "num_classes": 9},
        "blocks.10",
        (8, 8),
    ),
    ("deit_tiny_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    ("deit_tiny_distilled_patch16_224", 96, {"img_size": 96}, "blocks.10", (6, 6)),
    ("swin_tiny_patch4_window7_224", 224, {}, "norm", (7, 7)),
    ("maxvit_rmlp_pico_rw_256", 256, {}, "norm", (8, 8)),
    ("tiny_vit_5m_224", 224, {}, "stages", (7, 7)),
    ("volo_d1_224", 224, {}, "post_network.0", (14, 14)),
    ("coat_lite_tiny", 224, {}, "cpe4", (7, 7)),
    ("hiera_tiny_224", 224, {}, "blocks.11", (7, 7)),
    ("nest_tiny", 224, {}, "norm", (14, 14)),
    ("cait_xxs24_224", 224, {}, "blocks", (14, 14)),
    ("mixer_s32_224", 224, {}, "norm", (7, 7)),
    ("poolformer_s12", 128, {}, "stages", (4, 4)),
    ("pvt_v2_b0", 128, {}, "stages", (4, 4)),
    ("mobilevit_xxs", 128, {}, "final_conv", (4, 4)),
    ("hrnet_w18_small", 128, {}, "final_layer", (4, 4)),
    ("davit_tiny", 224, {}, "stages", (7, 7)),
    ("mvitv2_tiny", 224, {}, "norm", (7, 7)),
    ("gcvit_xxtiny", 224, {}, "stages", (7, 7)),
]


def check(model, size, layer, grid):
    """Search, print a line of the table, and replay the layer's output of other images."""
    for parameter in model.parameters():
        if not parameter.any():  # an untrained head, of which every score is zero
            nn.init.normal_(parameter, std=0.02)
    images = torch.rand(2, 3, size, size)
    probe, measured = Probe(model, images), MeasuredLayers()
    probe.run(start=None)
    forward, _ = timed(lambda: probe.run(start=None))
    seconds, name = timed(lambda: measured.default(probe))
    (reading,) = measured.readings(probe, [name]).values()
    pitch = tuple(round(size / cells, 1) for cells in reading.grid)
    row = [
        type(model).__name__,
        size,
        name,
        reading.grid,
        pitch,
        f"{seconds:.1f} s",
        f"{seconds / forward:.0f} forwards",
    ]
    print(*row, "" if reading.proven else "not proven", sep=" | ")
    assert (name, reading.grid) == (layer, grid)
    assert replayed(model, name, images)


def timed(work):
    """Return the processor's seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


@torch.no_grad()
def replayed(model, name, images):
    """Whether other images get the scores of these with these images' output of the layer."""
    kept, replaying, count = [], False, 0

    def hook(_, __, output):
        nonlocal count
        if not replaying:
            kept.append(output)
            return None
        count += 1
        return kept[-1] if count == len(kept) else None

    handle = model.get_submodule(name).register_forward_hook(hook)
    expected = model(images)
    replaying = True
    scores = model(torch.rand_like(images))
    handle.remove()
    return torch.equal(scores, expected) and not torch.equal(model(torch.rand_like(images)), scores)


@pytest.mark.parametrize(("name", "size", "options", "layer", "grid"), TORCHVISION)
def test_torchvision(name, size, options, layer, grid):
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    check(model, size, layer, grid)


@pytest.mark.parametrize(("name", "size", "options", "layer", "grid"), TIMM)
def test_timm(name, size, options, layer, grid):
    timm = pytest.importorskip("timm")
    check(timm.create_model(name, pretrained=False, **options).eval(), size, layer, grid)
