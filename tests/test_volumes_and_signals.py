"""Volumes and signals through the same code as images: video networks, and a 1-D network."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens
from camlens import regions


def plain_grad_cam(model, layer, images, target, layout=lambda output: output):
    """Grad-CAM by torch's own hooks on one image at a time."""
    maps = []
    for image in images:
        kept = []
        handle = layer.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out))
        score = model(image[None])[0, target]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept)
        activations, gradient = layout(kept[0]).detach(), layout(gradient)
        weights = gradient.flatten(2).mean(2)
        maps.append(torch.einsum("nc,nc...->n...", weights, activations).relu())
    return torch.stack(maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "grid", "last"),
    [("r3d_10", "layer4", (2, 2, 3), False), ("swin3d_t", "norm", (4, 1, 2), True)],
)
def test_video_networks(name, layer, grid, last):
    video = pytest.importorskip("torchvision").models.video
    torch.manual_seed(0)
    if name == "r3d_10":  # R3D-18 with one block for two
        convolutions = [video.resnet.Conv3DSimple] * 4
        model = video.resnet.VideoResNet(
            video.resnet.BasicBlock, convolutions, [1, 1, 1, 1], video.resnet.BasicStem
        ).eval()
    else:
        model = video.swin3d_t(weights=None).eval()
    clips = torch.randn(2, 3, 16 if name == "r3d_10" else 8, 32, 48)
    explanation = camlens.GradCAM(model)(clips, targets=[[3, 7]])
    assert explanation.layers == (layer,)
    assert explanation.grid == grid
    layout = (lambda output: output.movedim(-1, 1)) if last else (lambda output: output)
    expected = plain_grad_cam(model, model.get_submodule(layer), clips, 7, layout)
    assert_close(explanation.raw[:, 1:], expected, rtol=1e-3, atol=expected.amax().item() * 1e-4)
    assert explanation.heatmaps.shape == (2, 2, *clips.shape[2:])
    assert_close(explanation.heatmaps.flatten(2).amax(2), explanation.evidence.float())
    pictures = camlens.overlay(torch.rand_like(clips), explanation.heatmaps)
    assert pictures.shape == (2, 2, 3, 32, 48)


def test_a_signal_network_finds_its_peak():
    """Class 1 is evidence by a bump; its place is where the heat is, and in its region."""
    model = nn.Sequential(
        nn.Conv1d(1, 2, 5, stride=4, padding=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    ).eval()
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[4].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    signals = torch.zeros(3, 1, 64)
    for row, place in enumerate((8, 32, 52)):
        signals[row, 0, place - 2 : place + 3] = 1
    explanation = camlens.GradCAM(model)(signals, targets=1)
    assert (explanation.layers, explanation.grid) == (("1",), (16,))
    assert explanation.heatmaps.shape == (3, 1, 64)
    # Cell j looks at sample 4 j; stretched it is drawn half a cell, 1.5 samples, further right.
    places = explanation.heatmaps[:, 0].argmax(1)
    assert (places - torch.tensor([8, 32, 52])).abs().max() <= 3
    thirds = regions.Regions.from_boxes(
        ["left", "middle", "right"], [[0, 22], [22, 43], [43, 64]], (64,)
    )
    density = regions.score(explanation, thirds).density[:, 0]
    assert density.argmax(1).tolist() == [0, 1, 2]
