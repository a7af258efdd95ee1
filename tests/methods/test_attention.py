"""Formulas of attention, beside products of whole matrices."""

import torch
from torch.testing import assert_close

from camlens.methods import attention


def test_rows_from_the_top_are_rows_of_the_product_from_below():
    torch.manual_seed(0)
    n, k, t, layers = 2, 3, 5, 4
    means = torch.rand(layers, n, k, t, t)
    rows = torch.rand(n, k, t)
    product = torch.eye(t).expand(n, k, t, t)
    for mean in means:  # as the paper writes it
        product = product + mean @ product
    expected = torch.einsum("nkt,nktu->nku", rows, product)
    found = rows
    for mean in means.flip(0):
        found = attention.generic_attention_step(found, mean)
    assert_close(found, expected)


def test_a_rollout_of_probabilities_is_a_distribution():
    torch.manual_seed(0)
    rows = torch.zeros(2, 1, 6)
    rows[:, :, 0] = 1
    for _ in range(5):
        rows = attention.rollout_step(rows, torch.rand(2, 6, 6).softmax(-1))
    assert_close(rows.sum(dim=2), torch.ones(2, 1))


def test_the_weights_of_a_mean_over_all_tokens_are_equal():
    patches = torch.tensor([False, True, True, True])
    found = attention.token_weights(torch.full((1, 1, 4), 0.3), patches)
    assert_close(found, torch.full((1, 1, 4), 0.25))
    assert not attention.token_weights(torch.zeros(1, 1, 4), patches).any()
