"""Networks that people use, with random weights: layer, grid, maps and evidence of each.

The networks and the checks are those of ``benchmarks/models.py``, which checks all of them and
writes the table (``make bench ARGS="--only models"``); some of them run here.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import architectures
import models

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

#: Each stands for a kind of its own.
KINDS = {
    "torchvision squeezenet1_1 64x64",
    "torchvision resnet18 96x160",
    "torchvision mobilenet_v3_small 224x224",
    "torchvision swin_t 128x96",
    "timm convnextv2_atto 96x160",
    "timm vit_tiny_patch16_224 96x160",
    "timm vit_tiny_patch16_224 64x128",
    "timm deit_tiny_distilled_patch16_224 96x96",
    "timm mobilevit_xxs 128x128",
    "transformers Dinov2WithRegistersForImageClassification 96x96",
    "transformers BeitForImageClassification 96x96",
    "transformers SegformerForSemanticSegmentation 96x128",
    "transformers CLIPVisionModelWithProjection 96x96",
    "transformers CLIPModel 96x96",
    "transformers YolosForObjectDetection 96x128",
    "transformers Wav2Vec2ForSequenceClassification 4000",
    "torch ResNet of signals 256",
}
ALL = list(architectures.architectures())
OTHERS = {str(a) for a in [a for a in ALL if str(a) not in KINDS][::10]}
OTHERS.add("torchvision fasterrcnn_mobilenet_v3_large_320_fpn 128x160")


def marked(architecture):
    name = str(architecture)
    return pytest.param(architecture, id=name, marks=[pytest.mark.exhaustive] * (name in OTHERS))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [marked(a) for a in ALL if str(a) in KINDS | OTHERS])
def test_a_network_is_right_or_its_error_was_expected(architecture):
    if architecture.missing:
        pytest.skip(f"{architecture.library} is not installed")
    with models.quiet():
        row = models.check(architecture, attention=False)
    assert not row.faults, row


def test_the_networks_that_run_here_are_in_the_table():
    assert {str(architecture) for architecture in ALL} >= KINDS


def test_no_network_is_listed_twice():
    assert len({str(architecture) for architecture in ALL}) == len(ALL) >= 60
