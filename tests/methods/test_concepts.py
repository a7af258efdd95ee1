"""Factorizations: exact where there is an exact one, and no worse at any step."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from camlens.methods.concepts import concept_maps, factorize, presences_of, unexplained


def parts(seed, cells=20, channels=9, count=3):
    """Return (2, cells, channels) activations that are a sum of ``count`` separate parts.

    Each part has cells and a channel of its own, without which a factorization is not unique.
    """
    generator = torch.Generator().manual_seed(seed)
    presences = torch.zeros(2, cells, count)
    for f in range(count):
        presences[:, f::count, f] = torch.rand(2, len(range(f, cells, count)), generator=generator)
    directions = torch.rand(2, count, channels, generator=generator)
    directions[:, :, :count] = torch.eye(count)
    return presences @ directions, presences, directions


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_separate_parts_are_found_again(seed, signed):
    activations, presences, directions = parts(seed)
    found, along = factorize(activations, 3, signed=signed, steps=1000)
    assert_close(found @ along, activations, rtol=0, atol=2e-3)
    if signed:  # not unique, even so
        return
    unit = directions / directions.norm(dim=2, keepdim=True)
    expected = presences * directions.norm(dim=2).unsqueeze(1)
    order = expected.square().sum(dim=1).argsort(dim=1, descending=True)
    for n in range(2):
        cosine = (along[n] @ unit[n, order[n]].T).diagonal()
        assert (cosine > 0.99).all()
        assert_close(found[n], expected[n][:, order[n]], rtol=0, atol=0.1)


@pytest.mark.slow
@given(st.integers(0, 2**31), st.integers(1, 4), st.booleans())
@settings(max_examples=8, deadline=None)
def test_more_steps_are_never_worse_and_presences_never_negative(seed, count, signed):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.rand(2, 12, 6, generator=generator)
    if signed:
        activations = activations - 0.5
    gaps = []
    for steps in (1, 5, 50, 300):
        presences, directions = factorize(activations, count, signed=signed, steps=steps)
        assert (presences >= 0).all()
        assert signed or (directions >= 0).all()
        gaps.append(unexplained(activations, presences, directions))
    for before, after in itertools.pairwise(gaps):
        assert (after <= before + 1e-4).all()


def test_one_concept_of_non_negative_activations_is_the_first_singular_pair():
    activations = torch.rand(3, 10, 5)
    presences, directions = factorize(activations, 1)
    left, values, right = torch.linalg.svd(activations)
    assert_close(presences[..., 0], (left[..., 0] * values[:, :1]).abs(), rtol=1e-3, atol=1e-4)
    assert_close(directions[:, 0], right[:, 0].abs(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_it_is_no_worse_than_scikit_learns():
    """Its coordinate descent from the same kind of start, run until it changes nothing."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    activations = torch.rand(1, 49, 30) ** 3
    presences, directions = factorize(activations, 4, steps=1000)
    theirs = decomposition.NMF(4, init="nndsvda", max_iter=5000, tol=1e-8)
    matrix = activations[0].double().numpy()
    theirs.fit(matrix)
    gap = unexplained(activations, presences, directions).item()
    assert gap < 1.01 * theirs.reconstruction_err_ / activations.norm().item()


def test_given_directions_are_found_where_they_are():
    activations, presences, directions = parts(7)
    unit = directions / directions.norm(dim=2, keepdim=True)
    found = presences_of(activations, unit, steps=1000)
    expected = presences * directions.norm(dim=2).unsqueeze(1)
    assert_close(found, expected, rtol=0, atol=2e-2)


def test_activations_of_zero_have_no_concept():
    presences, directions = factorize(torch.zeros(1, 6, 4), 2)
    assert not presences.any()
    assert directions.isfinite().all()
    assert unexplained(torch.zeros(1, 6, 4), presences, directions).item() == 0


def test_a_map_holds_what_its_concepts_take_away():
    falls = torch.tensor([[[2.0, -3.0, 0.5], [0.0, 1.0, 0.0]]])
    maps = torch.rand(1, 3, 4, 5)
    raw = concept_maps(falls, maps)
    assert_close(raw.flatten(2).sum(dim=2), torch.tensor([[2.5, 1.0]]))
    assert_close(raw[0, 1], maps[0, 1] / maps[0, 1].sum())
