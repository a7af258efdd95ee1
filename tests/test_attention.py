"""Explainers of attention, beside the slow way, on the models of four libraries."""

import pytest
import torch
from torch.testing import assert_close

import camlens
from camlens.layers.attention import MeasuredBlocks
from camlens.layers.measured import MeasuredLayers
from camlens.probe import Probe

from .attention_models import MODELS, build
from .attention_reference import Reference

EXPLAINERS = [camlens.LeGrad, camlens.GenericAttention, camlens.AttentionRollout]


def scores_of(outputs):
    """Return the (N, K) scores that the targets below select."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    for name in ("logits", "image_embeds", "pooler_output"):
        if (found := getattr(outputs, name, None)) is not None:
            return found
    raise TypeError(type(outputs))


def two(outputs):
    return scores_of(outputs)[:, :2]


def blocks_of(model, images):
    return MeasuredBlocks(MeasuredLayers()).find(Probe(model, images))


@pytest.mark.parametrize("name", MODELS)
def test_models_unchanged_are_the_slow_way(name):
    model, images = build(name)
    _, _, prefix, grid = MODELS[name]
    blocks = blocks_of(model, images)
    assert len(blocks.names) == 3
    assert blocks.grid == grid
    assert blocks.places.tolist() == list(range(prefix, prefix + grid[0] * grid[1]))
    assert (blocks.pooling is None) == ("siglip" not in name)
    reference = Reference(model, images, list(blocks.names), scores_of, blocks.tokens.batch)
    weights = read_weights(name, reference, prefix)

    def on_grid(values):
        return torch.stack(values, dim=1)[:, :, prefix:].unflatten(2, grid).detach()

    found = [explainer(model)(images, targets=two) for explainer in EXPLAINERS]
    expected = [
        on_grid([reference.legrad(k) for k in range(2)]),
        on_grid([reference.generic(k, weights[k]) for k in range(2)]),
        on_grid([reference.rollout(weights[k]) for k in range(2)]),
    ]
    for explanation, maps in zip(found, expected, strict=True):
        assert maps.amax() > 0
        assert_close(explanation.raw, maps, rtol=1e-3, atol=2e-5 * maps.amax().item())
        assert_close(explanation.scores, reference.scores[:, :2].detach(), rtol=1e-4, atol=1e-5)
        assert explanation.layers == blocks.names


def read_weights(name, reference, prefix):
    """Return, for each of two targets, (N, T): with what weights the head reads the tokens."""
    count = reference.count
    plain = torch.zeros(len(reference.images), count)
    if "dinov2" in name and "transformers" in name:  # its head reads both
        weights = []
        for k in range(2):
            (g,) = torch.autograd.grad(
                reference.scores[:, k].sum(), reference.outputs[-1], retain_graph=True
            )
            sizes = g.norm(dim=-1)
            own = sizes[:, 0] / (sizes[:, 0] + sizes[:, prefix:].sum(dim=1))
            each = plain.clone()
            each[:, 0], each[:, prefix:] = own, ((1 - own) / (count - prefix))[:, None]
            weights.append(each)
        return weights
    if name in ("timm deit distilled", "transformers deit"):
        plain[:, : 2 if name.startswith("timm") else 1] = 0.5 if name.startswith("timm") else 1
    elif "mean" in name or name in ("timm beit", "timm eva02", "tokens before images"):
        plain[:, prefix:] = 1 / (count - prefix)
    else:
        plain[:, 0] = 1
    return [plain, plain]
