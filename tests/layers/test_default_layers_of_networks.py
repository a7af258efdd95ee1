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

QUICK = {
    "torchvision resnet18 96x160",
    "torchvision mobilenet_v3_small 224x224",
    "torchvision swin_t 128x96",
    "torchvision mc3_18 8x64x64",
    "torchvision fasterrcnn_mobilenet_v3_large_320_fpn 128x160",
    "timm convnextv2_atto 96x160",
    "timm vit_tiny_patch16_224 96x160",
    "timm vit_tiny_patch16_224 64x128",
    "timm deit_tiny_distilled_patch16_224 96x96",
    "timm mobilevit_xxs 128x128",
    "transformers Dinov2WithRegistersForImageClassification 96x96",
    "transformers BeitForImageClassification 96x96",
    "transformers SegformerForSemanticSegmentation 96x128",
    "transformers CLIPVisionModelWithProjection 96x96",
    "transformers YolosForObjectDetection 96x128",
    "transformers Wav2Vec2ForSequenceClassification 4000",
    "torch ResNet of signals 256",
}
ALL = list(architectures.architectures())
#: Every sixth of the others, slow.
SLOW = {str(a) for a in [a for a in ALL if str(a) not in QUICK][::6]}


def marked(architecture):
    slow = [] if str(architecture) in QUICK else [pytest.mark.slow]
    return pytest.param(architecture, id=str(architecture), marks=slow)


@pytest.mark.parametrize("architecture", [marked(a) for a in ALL if str(a) in QUICK | SLOW])
def test_a_network_is_right_or_its_error_was_expected(architecture):
    if architecture.missing:
        pytest.skip(f"{architecture.library} is not installed")
    with models.quiet():
        row = models.check(architecture)
    assert not row.faults, row


def test_the_quick_networks_are_in_the_table():
    assert {str(architecture) for architecture in ALL} >= QUICK


def test_no_network_is_listed_twice():
    assert len({str(architecture) for architecture in ALL}) == len(ALL) >= 60
