"""The how-to's lines on YOLO: one box of an ultralytics network, by gradients and by occlusion."""

import pytest

pytest.importorskip("ultralytics", reason="make bench installs the libraries of models.py")

import torch
from architectures import settle
from dense_models import yolo
from models import quiet
from torchvision.ops import box_convert

import camlens


def candidates(output):
    """Return boxes and classes' probabilities as docs/howto/segmentation_and_detection.rst does."""
    rows = output[0].transpose(1, 2)
    return box_convert(rows[..., :4], "cxcywh", "xyxy"), rows[..., 4:]


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_a_box_is_explained_from_the_last_layer_before_the_branches(name):
    torch.manual_seed(0)
    with quiet():
        model = yolo(name, "DetectionModel").eval().requires_grad_(False)
    settle(model, torch.rand(8, 3, 96, 128))
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        boxes, scores = candidates(model(image))
    best = scores[0].amax(dim=1).argmax()
    target = camlens.targets.box(boxes[0, best], scores[0, best].argmax(), read=candidates)
    explanation = camlens.GradCAM(model)(image, targets=target)
    assert explanation.layers == ("model.4",)
    assert explanation.evidence.all()
    torch.testing.assert_close(explanation.scores[0, 0], scores.max())
    occluded = camlens.Occlusion(model)(image, targets=target)
    torch.testing.assert_close(occluded.scores[0, 0], scores.max())
