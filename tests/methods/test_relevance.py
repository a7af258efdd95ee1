"""The rules of relevance, beside sums written out one weight at a time."""

import pytest
import torch
from torch.testing import assert_close

from camlens.methods.linear_layers import Dense, Forward, positive_part
from camlens.methods.relevance import (
    Epsilon,
    Gamma,
    ZBox,
    ZPlus,
    conservation_gap,
    shared,
    stabilized,
)


def drawn(signed=True, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    a = a if signed else a.abs()
    w = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(4, generator=generator, dtype=torch.float64) if bias else None
    relevance = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return Forward(Dense(), w, b, a, Dense()(a, w, b), signed), relevance


def one_by_one(forward, relevance, share):
    """Sum over outputs j the share of input i, given the products and the bias of j."""
    total = torch.zeros_like(forward.inputs)
    for n in range(len(relevance)):
        for j in range(relevance.shape[1]):
            products = forward.inputs[n] * forward.weight[j]
            b = 0.0 if forward.bias is None else forward.bias[j]
            total[n] += share(n, products, torch.as_tensor(b)) * relevance[n, j]
    return total


def by_epsilon(epsilon):
    def share(_, products, b):
        z = products.sum() + b
        return products / (z + (epsilon if z >= 0 else -epsilon))

    return share


def by_z_plus(_, products, b):
    return products.clamp(min=0) / (products.clamp(min=0).sum() + b.clamp(min=0) + 1e-6)


def by_gamma(gamma):
    def share(_, products, b):
        z = products.sum() + b
        one, of_bias = (products.clamp(min=0), b.clamp(min=0))
        if z < 0:
            one, of_bias = (products.clamp(max=0), b.clamp(max=0))
        denominator = z + gamma * (one.sum() + of_bias)
        return (products + gamma * one) / (denominator + (1e-6 if denominator >= 0 else -1e-6))

    return share


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rule", "share"),
    [
        (Epsilon(0.0), by_epsilon(0.0)),
        (Epsilon(0.3), by_epsilon(0.3)),
        (ZPlus(), by_z_plus),
        (Gamma(0.25), by_gamma(0.25)),
        (Gamma(3.0), by_gamma(3.0)),
        (Gamma(0.0), by_gamma(0.0)),
    ],
)
def test_a_rule_is_its_formula(rule, share, signed, bias):
    forward, relevance = drawn(signed, bias)
    assert_close(shared(rule, forward, relevance), one_by_one(forward, relevance, share))


def test_the_z_box_is_its_formula():
    forward, relevance = drawn()
    low = torch.full((1, 5), -4.0, dtype=torch.float64)
    high = torch.tensor([[3.0, 4.0, 5.0, 6.0, 7.0]], dtype=torch.float64)
    rule = ZBox(low, high)
    kept = rule.prepare(forward)
    gradient = relevance / forward.outputs
    actual = rule.propagate(forward.layer, forward.weight, gradient, kept)
    expected = torch.zeros_like(forward.inputs)
    for j in range(4):
        w = forward.weight[j]
        part = forward.inputs * w - low * w.clamp(min=0) - high * w.clamp(max=0)
        assert (part > 0).all()  # what the bounds are for
        expected += part / (part.sum(1, keepdim=True) + 1e-6) * relevance[:, j : j + 1]
    assert_close(actual, expected)
    assert_close(actual.sum(1), relevance.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", [Epsilon(0.0), ZPlus(), Gamma(0.5)])
def test_without_biases_relevance_is_conserved(rule):
    forward, relevance = drawn(bias=False)
    assert_close(shared(rule, forward, relevance).sum(1), relevance.sum(1), rtol=1e-4, atol=1e-4)


def test_a_large_gamma_is_z_plus_where_outputs_are_positive():
    forward, relevance = drawn(bias=False)
    positive = relevance * (forward.outputs > 0)
    assert_close(
        shared(Gamma(1e6), forward, positive),
        shared(ZPlus(), forward, positive),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_is_known_not_to_be_negative_makes_no_difference():
    plain, relevance = drawn(signed=False)
    told = Forward(Dense(), plain.weight, plain.bias, plain.inputs, plain.outputs, signed=True)
    for rule in (ZPlus(), Gamma()):
        assert_close(shared(rule, plain, relevance), shared(rule, told, relevance))
    assert_close(positive_part(plain), positive_part(told))


def test_an_output_of_zero_passes_nothing_and_is_no_number_over_zero():
    a, w = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    forward = Forward(Dense(), w, None, a, torch.zeros(1, 1))
    for rule in (Epsilon(), ZPlus(), Gamma()):
        kept = rule.prepare(forward)
        assert rule.propagate(Dense(), w, torch.ones(1, 1), kept).abs().max() == 0
    assert stabilized(torch.zeros(1), 1e-6).item() == pytest.approx(1e-6)


def test_the_gap():
    relevance = torch.tensor([[[[1.0, -3.0]], [[2.0, 2.0]]]])
    assert conservation_gap(relevance, torch.tensor([[0.5, 4.0]])).tolist() == [[2.5, 0.0]]
