"""Attention computed by its definition: outputs and gradients are torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from camlens.intercept import (
    AttentionCalls,
    AttentionProbabilities,
    Interception,
    MeanProbabilities,
)

N, HEADS, QUERIES, KEYS, WIDTH = 2, 4, 5, 7, 6


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(heads=HEADS):
    query = drawn(N, HEADS, QUERIES, WIDTH)
    return query, drawn(N, heads, KEYS, WIDTH, seed=1), drawn(N, heads, KEYS, WIDTH, seed=2)


SPELLINGS = {
    "F": functional.scaled_dot_product_attention,
    "_nn": torch._C._nn.scaled_dot_product_attention,
}
OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "boolean mask": {"attn_mask": drawn(QUERIES, KEYS, seed=3) > -0.5},
    "mask of each image": {"attn_mask": drawn(N, 1, QUERIES, KEYS, seed=3) > -0.5},
    "additive mask": {"attn_mask": drawn(N, HEADS, QUERIES, KEYS, seed=3)},
    "a query without keys": {"attn_mask": torch.arange(QUERIES)[:, None].expand(-1, KEYS) > 0},
    "grouped queries": {"enable_gqa": True},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("options", OPTIONS)
def test_fused_attention_is_torchs(spelling, options):
    query, key, value = inputs(2 if options == "grouped queries" else HEADS)
    call, given = SPELLINGS[spelling], OPTIONS[options]
    expected = call(query, key, value, **given)
    with AttentionProbabilities([0]) as mode:
        output = call(query, key, value, **given)
    mode.check_used()
    assert_close(output, expected, rtol=1e-5, atol=1e-6)
    probabilities = mode.seen[0]
    assert probabilities.requires_grad
    sums = probabilities.detach().sum(dim=-1)
    if options == "a query without keys":
        assert not sums[:, :, 0].any()
        sums = sums[:, :, 1:]
    assert_close(sums, torch.ones_like(sums))
    # The output is linear in the probabilities: their gradient is the values times its own.
    weights = drawn(*output.shape, seed=4)
    (gradient,) = torch.autograd.grad((output * weights).sum(), probabilities)
    full = value.repeat_interleave(HEADS // value.shape[1], dim=1)
    assert_close(gradient, weights @ full.mT, rtol=1e-5, atol=1e-5)


def test_the_gradient_through_it_is_torchs():
    query, key, value = (tensor.requires_grad_() for tensor in inputs())
    expected = torch.autograd.grad(
        functional.scaled_dot_product_attention(query, key, value).sin().sum(), [query, key, value]
    )
    with AttentionProbabilities([0]) as mode:
        output = functional.scaled_dot_product_attention(query, key, value)
    found = torch.autograd.grad(output.sin().sum(), [query, key, value, mode.seen[0]])
    assert_close(found[:3], expected, rtol=1e-4, atol=1e-6)
    assert found[3].abs().amax() > 0


@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("weights", [None, True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "other widths", "no bias", "one image"])
@pytest.mark.parametrize("mask", [None, "boolean", "additive", "of heads", "padding", "both"])
def test_the_attention_module_is_torchs(batch_first, weights, kind, mask):
    torch.manual_seed(0)
    widths = {"kdim": 10, "vdim": 12} if kind == "other widths" else {}
    module = nn.MultiheadAttention(
        24, HEADS, batch_first=batch_first, bias=kind != "no bias", **widths
    ).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    query = drawn(N, QUERIES, 24)
    key = value = query
    if kind == "cross":
        key = value = drawn(N, KEYS, 24, seed=1)
    if kind == "other widths":
        key, value = drawn(N, KEYS, 10, seed=1), drawn(N, KEYS, 12, seed=2)
    images, count = N, key.shape[1]
    if kind == "one image":  # unbatched
        query = key = value = query[0]
        images = 1
    elif not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    options = {"need_weights": weights is not None, "average_attn_weights": bool(weights)}
    boolean = drawn(QUERIES, count, seed=3) > 0.5
    boolean[:, 0] = False
    if mask in ("boolean", "both"):
        options["attn_mask"] = boolean
    if mask == "additive":
        options["attn_mask"] = drawn(QUERIES, count, seed=3)
    if mask == "of heads":
        options["attn_mask"] = drawn(images * HEADS, QUERIES, count, seed=3)
    if mask in ("padding", "both"):
        padding = torch.zeros(images, count, dtype=torch.bool)
        padding[-1, -2:] = True
        options["key_padding_mask"] = padding[0] if kind == "one image" else padding
    expected = module(query, key, value, **options)
    with AttentionProbabilities([0]) as mode, torch.no_grad():
        output, found = module(query, key, value, **options)
    assert_close(output.detach(), expected[0].detach(), rtol=1e-5, atol=1e-5)
    assert (found is None) == (expected[1] is None)
    if found is not None:
        assert_close(found.detach(), expected[1].detach(), rtol=1e-5, atol=1e-6)
    # They are what the output is made of, unlike those that torch returns.
    (gradient,) = torch.autograd.grad(output.sum(), mode.seen[0])
    assert gradient.shape == (images, HEADS, QUERIES, count)
    assert gradient.abs().amax() > 0


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_keys_that_are_no_tokens_are_an_error(options):
    module = nn.MultiheadAttention(8, 2, **options).eval()
    x = torch.rand(3, 1, 8)
    with (
        AttentionProbabilities([0]),
        pytest.raises(ValueError, match=r"keys that belong to no token.*GradCAM"),
    ):
        module(x, x, x)


def test_dropout_is_an_error():
    query, key, value = inputs()
    with AttentionProbabilities([0]), pytest.raises(ValueError, match=r"dropout of 0\.5"):
        functional.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    module = nn.MultiheadAttention(8, 2, dropout=0.5)
    x = torch.rand(3, 1, 8)
    with AttentionProbabilities([0]), pytest.raises(ValueError, match=r"call model\.eval"):
        module(x, x, x)


def test_attention_that_is_trained_through_drops_out():
    query, key, _ = inputs()
    mode, identity = Interception(), torch.eye(KEYS).expand(N, HEADS, KEYS, KEYS)
    mode.create_graph = True
    with mode:  # with these values the output is the probabilities
        output = functional.scaled_dot_product_attention(query, key, identity, dropout_p=0.5)
    whole, kept = (query @ key.mT / WIDTH**0.5).softmax(-1), output != 0
    assert 0.3 < kept.float().mean() < 0.7
    assert_close(output[kept], 2 * whole[kept])


SOFTMAX = {
    "torch": lambda x: torch.softmax(x, -1),
    "keyword": lambda x: torch.softmax(x, dim=3),
    "method": lambda x: x.softmax(dim=-1),
    "functional": lambda x: functional.softmax(x, dim=-1),
    "module": nn.Softmax(dim=-1),
    "cast": lambda x: functional.softmax(x, dim=-1, dtype=torch.float64).to(x.dtype),
    "dropout": lambda x: functional.dropout(x.softmax(-1), 0.0),
}
PRODUCTS = {
    "@": lambda p, v: p @ v,
    "matmul": torch.matmul,
    "bmm": lambda p, v: torch.bmm(p.flatten(0, 1), v.flatten(0, 1)).view(N, HEADS, QUERIES, WIDTH),
    "einsum": lambda p, v: torch.einsum("bhij,bhjd->bhid", p, v),
    "einsum, ellipsis": lambda p, v: torch.einsum("bhij,bhj...->bhi...", p, v),
    "einsum, ellipsis first": lambda p, v: torch.einsum("...ij,...jd->...id", p, v),
    "einsum, turned": lambda p, v: torch.einsum("bhjd, bhij -> bhid", v, p),
}


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("product", PRODUCTS)
def test_an_explicit_softmax_is_seen_and_kept(softmax, product):
    query, key, value = inputs()

    def attend():
        return PRODUCTS[product](SOFTMAX[softmax](query @ key.mT), value)

    expected, looked = attend(), []
    with AttentionCalls(lambda call, logits: looked.append((call, logits))) as watch:
        attend()
    assert watch.attention == {0}
    assert_close(looked[0][1], query @ key.mT)
    assert len(watch.values[0][0]) == KEYS
    with AttentionProbabilities([0]) as mode, torch.no_grad():
        output = attend()
    assert torch.equal(output.detach(), expected)
    weights = drawn(*output.shape, seed=4)
    (gradient,) = torch.autograd.grad((output * weights).sum(), mode.seen[0])
    assert_close(gradient.to(value.dtype), weights @ value.mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.softmax(-1).sum(),  # probabilities of classes
        lambda x: x.softmax(-1) * x,
        lambda x: x.softmax(-2) @ x.mT,  # over the queries
        lambda x: x.mT @ x.softmax(-1),  # values weighed over the queries
        lambda x: torch.einsum("bhij,bhid->bhjd", x.softmax(-1), x),
        lambda x: x[0, 0].softmax(-1) @ x[0, 0].mT,  # two axes: a gate
    ],
)
def test_a_softmax_that_is_no_attention_is_not_taken_for_one(other):
    with AttentionCalls(lambda call, logits: None) as watch:
        other(drawn(N, HEADS, QUERIES, KEYS))
    assert not watch.attention


def test_only_the_calls_asked_for_are_touched():
    query, key, value = inputs()
    attend = functional.scaled_dot_product_attention
    with AttentionProbabilities([1]) as mode, torch.no_grad():
        first = attend(query, key, value)
        assert not first.requires_grad
        assert attend(query, key, value).requires_grad
    assert list(mode.seen) == [1]
    assert mode.count == 2
    mode = AttentionProbabilities([5])
    with mode:
        attend(query, key, value)
    with pytest.raises(ValueError, match=r"does not run the same operations"):
        mode.check_used()


@pytest.mark.parametrize("switch", ["live", "suspended"])
def test_a_mode_that_is_switched_off_does_nothing(switch):
    query, key, value = inputs()
    for mode in (AttentionProbabilities([0]), AttentionCalls(lambda call, logits: None)):
        with mode:
            setattr(mode, switch, switch == "suspended")
            functional.scaled_dot_product_attention(query, key, value)
        assert mode.count == 0


def test_the_mean_is_kept_without_gradients():
    query, key, value = inputs()
    with MeanProbabilities([0], N) as mode:
        output = functional.scaled_dot_product_attention(query, key, value)
    assert not output.requires_grad
    expected = (query @ key.mT / WIDTH**0.5).softmax(-1).mean(dim=1)
    assert_close(mode.seen[0], expected)


def test_half_precision_stays_half():
    query, key, value = (x.bfloat16() for x in inputs())
    with AttentionProbabilities([0]) as mode:
        output = functional.scaled_dot_product_attention(query, key, value)
    assert output.dtype == torch.bfloat16
    assert mode.seen[0].dtype == torch.float32
    expected = functional.scaled_dot_product_attention(*inputs())
    assert_close(output.float().detach(), expected, rtol=3e-2, atol=3e-2)
