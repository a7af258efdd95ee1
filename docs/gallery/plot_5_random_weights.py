"""
Does the map depend on the weights?
===================================

A picture that stays the same after the network has lost what it learned explains no decision
(Adebayo et al. 2018, arXiv:1810.03292).
"""

# %%
# Three methods explain the trained network, and copies whose layers get random weights from the top
# down: first the head, then also the last block, then everything.

import copy

import torch
from torch import nn

import camlens
from fer2013.data import photographs
from fer2013.networks import weights

model = weights.load()
faces = photographs.packaged()
images = photographs.to_images(faces)
picture = faces[1].picture[None]
happy = 3  # for every network, whatever it predicts


def forget(model, *parts):
    """Return a copy of which some parts have new random weights."""
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    for part in parts:
        for module in other.get_submodule(part).modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    return other.eval()


networks = {
    "trained": model,
    "head\nforgotten": forget(model, "head"),
    "and\nblock 4": forget(model, "head", "blocks.block4"),
    "everything\nforgotten": forget(model, "head", "blocks"),
}

# %%
# The photograph has the heat of Grad-CAM at the last block; the other two rows are signed
# gradients.


def row(method, draw):
    return torch.stack(
        [draw(method(network)(images[1:], targets=happy)) for network in networks.values()]
    )


def heat(explanation):
    large = camlens.heatmap.resize(explanation.raw, picture.shape[-2:])
    return camlens.overlay(picture, camlens.heatmap.scale(large))[0, 0]


def gradient(explanation):
    signed = camlens.render.signed(explanation.gradients)[0]
    return nn.functional.interpolate(signed, picture.shape[-2:], mode="nearest")[0]


figure = camlens.sheet(
    torch.stack(
        [
            row(lambda m: camlens.GradCAM(m, "blocks.block4"), heat),
            row(camlens.Saliency, gradient),
            row(camlens.GuidedBackprop, gradient),
        ]
    ),
    rows=["Grad-CAM", "saliency", "guided\nbackprop"],
    columns=list(networks),
    title="The same picture from a network that knows nothing?",
)

# %%
# As numbers: Spearman's rank correlation of a map's absolute values with the trained network's. 1
# is the same order of pixels, 0 none in common.

from scipy.stats import spearmanr  # noqa: E402

methods = {
    "Grad-CAM": lambda m: camlens.GradCAM(m, "blocks.block4"),
    "saliency": camlens.Saliency,
    "guided backprop": camlens.GuidedBackprop,
}
for name, method in methods.items():
    maps = [method(m)(images[1:], targets=happy).raw.flatten() for m in networks.values()]
    values = [spearmanr(maps[0], other).statistic for other in maps[1:]]
    print(f"{name:16}", "  ".join(f"{value:+.2f}" for value in values))

# %%
# This is one face, one network and one draw of random weights; the paper has the experiment at
# scale. :doc:`/theory/guided_backprop` says why guided backprop keeps so much of the picture.
