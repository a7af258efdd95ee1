"""The base network with an eighth of its channels, for tests that train it."""

import contextlib
from unittest import mock

import pytest
import torch
from matplotlib.figure import Figure

from fer2013.networks import architectures, weights
from fer2013.training import history

_block = architectures._block


class NarrowBaseCNN(architectures.BaseCNN):
    """A replacement for the base network, with the same layer names and grids."""

    def __init__(self, dropout=0.5):
        with mock.patch.object(
            architectures, "_block", lambda inputs, outputs: _block(-(-inputs // 8), outputs // 8)
        ):
            super().__init__(dropout)
        self.head[-1] = torch.nn.Linear(self.head[-1].in_features // 8, self.head[-1].out_features)


@contextlib.contextmanager
def narrow_base_network(*, curves=False):
    """Replace the base network by a narrow one, and the packaged one by an untrained narrow one.

    Args:
        curves: whether runs draw learning curves, which takes half the time of a short run.
    """
    load = weights.load
    with torch.random.fork_rng(devices=[]):
        shipped = NarrowBaseCNN().eval()

    def of(path=weights.SHIPPED):
        return shipped if path == weights.SHIPPED else load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "BaseCNN", NarrowBaseCNN)
        patch.setattr(weights, "load", of)
        if not curves:
            patch.setattr(history, "draw", lambda *_: Figure((1, 1)))
        yield
