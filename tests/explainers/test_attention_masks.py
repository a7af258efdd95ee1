"""Attention that hides some tokens, or that is written over before it weighs values."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import camlens

from .attention_models import build

EXPLAINERS = pytest.mark.parametrize(
    "explainer", [camlens.LeGrad, camlens.GenericAttention, camlens.AttentionRollout]
)


class Padded(nn.Module):
    """Torch's encoder, whose mask hides some patches of each image."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(3)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=first, norm_first=first)
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 4)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.places, self.first = nn.Parameter(torch.randn(16, 16)), first

    def forward(self, images, mask):
        tokens = self.patches(images).flatten(2).mT + self.places
        tokens = tokens if self.first else tokens.transpose(0, 1)
        tokens = self.encoder(tokens, src_key_padding_mask=mask)
        tokens = tokens if self.first else tokens.transpose(0, 1)
        return self.head(tokens.masked_fill(mask.unsqueeze(2), 0).sum(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
@EXPLAINERS
def test_what_a_padding_mask_hides_has_no_heat(explainer, first):
    model, images = Padded(first).eval(), torch.rand(3, 3, 32, 32)
    mask = torch.arange(16).expand(3, -1) >= torch.tensor([[16], [11], [7]])
    explanation = explainer(model)(images, mask=mask, targets=[[1, 2]])
    heat = explanation.raw.flatten(2)
    assert (heat[mask.unsqueeze(1).expand_as(heat)] == 0).all()
    assert explanation.evidence.all()
    for row in range(3):
        one = slice(row, row + 1)
        alone = explainer(model)(images[one], mask=mask[one], targets=[[1, 2]])
        assert_close(alone.raw, explanation.raw[one], rtol=1e-4, atol=1e-7)
    if explainer is camlens.LeGrad:  # whose scores are those of the mean over all tokens
        return
    changed = images.clone()
    changed[2, :, 16:, :] = 9  # patches 8 and on, which are hidden
    again = explainer(model)(changed, mask=mask, targets=[[1, 2]])
    assert_close(again.raw[2], explanation.raw[2], rtol=1e-4, atol=1e-7)


class Renormalized(nn.Module):
    """A block that divides its probabilities by their sum over the queries, in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(48, 48)

    def forward(self, tokens):
        weights = (tokens @ self.inner(tokens).mT).softmax(dim=-1)
        weights /= weights.sum(dim=-2, keepdim=True)
        return tokens + weights @ tokens


def test_probabilities_that_are_written_over_are_not_taken_for_attention():
    model, images = build("timm vit")
    model.blocks = nn.Sequential(Renormalized(), Renormalized()).eval()
    with pytest.raises(ValueError, match="no attention was seen"):
        camlens.AttentionRollout(model)(images)
