"""Relevance where a layer's output is used beside the BatchNorm that follows, as in pre-activation.

The same network with the layer called once for each use is the reference.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import camlens

IMAGES = torch.randn(3, 3, 9, 8, generator=torch.Generator().manual_seed(2)).clip(-4, 4)


class PreActivation(nn.Module):
    """A block whose shortcut is the output of the convolution before its BatchNorm."""

    def __init__(self, change, uses):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(2))
        self.head, self.change, self.uses = nn.Linear(6, 4), change, uses
        for norm in self.norms:
            for values in (norm.running_mean, norm.weight.data, norm.bias.data):
                nn.init.normal_(values)

    def forward(self, images):
        maps = [self.stem(images)] * 3 if self.uses else [self.stem(images) for _ in range(3)]
        return self.head(self.change(self, *maps).relu().mean((2, 3)))


def shortcut(net, normed, kept, _):
    return net.norms[1](kept + net.conv(net.norms[0](normed).relu()))


def overwritten(net, normed, kept, _):
    out = net.conv(functional.relu(net.norms[0](normed)))
    kept += out
    return kept


def rectified(net, normed, kept, _):
    out = net.norms[0](normed)
    return out + kept.relu_()


def twice(net, normed, kept, again):
    return torch.stack([net.norms[0](normed), kept, net.norms[1](again)]).sum(dim=0)


@pytest.mark.parametrize("change", [shortcut, overwritten, rectified, twice])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (camlens.LRP, {}),
        (camlens.LRP, {"composite": "epsilon_gamma_box", "low": -4.0, "high": 4.0}),
        (camlens.AttnLRP, {}),
        (camlens.AttnLRP, {"gamma": 0.3}),
    ],
)
def test_a_layer_is_used_beside_its_batch_norm(change, kind, options):
    one, several = (PreActivation(change, uses).eval() for uses in (True, False))
    found = kind(one, **options)(IMAGES, targets="all")
    expected = kind(several, **options)(IMAGES, targets="all")
    assert_close(found.scores, one(IMAGES))
    assert_close(found.gradients, expected.gradients, rtol=1e-4, atol=1e-7)
    assert found.evidence.all()
