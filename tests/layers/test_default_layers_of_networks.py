"""The default layer of real networks with random weights: a table, and the proof by replaying.

``pytest -m slow -s tests/layers/test_default_layers_of_networks.py`` prints the table.
"""

import time

import pytest
import torch

from camlens.layers.measured import MeasuredLayers
from camlens.probe import Probe

from .networks import TIMM, TORCHVISION, from_timm, from_torchvision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # timm's and transformers' own
]


def check(model, size, layer, grid):
    """Search, print a line of the table, and replay the layer's output of other images."""
    images = torch.rand(2, 3, size, size)
    probe, measured = Probe(model, images), MeasuredLayers()
    probe.run(start=None)
    forward, _ = timed(lambda: probe.run(start=None))
    seconds, name = timed(lambda: measured.default(probe))
    (reading,) = measured.readings(probe, [name]).values()
    pitch = tuple(round(size / cells, 1) for cells in reading.grid)
    row = [
        type(model).__name__,
        size,
        name,
        reading.grid,
        pitch,
        f"{seconds:.1f} s",
        f"{seconds / forward:.0f} forwards",
    ]
    print(*row, "" if reading.proven else "not proven", sep=" | ")
    assert (name, reading.grid) == (layer, grid)
    assert replayed(model, name, images)


def timed(work):
    """Return the processor's seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


@torch.no_grad()
def replayed(model, name, images):
    """Whether other images get the scores of these with these images' output of the layer."""
    kept, replaying, count = [], False, 0

    def hook(_, __, output):
        nonlocal count
        if not replaying:
            kept.append(output)
            return None
        count += 1
        return kept[-1] if count == len(kept) else None

    handle = model.get_submodule(name).register_forward_hook(hook)
    expected = model(images)
    replaying = True
    scores = model(torch.rand_like(images))
    handle.remove()
    return torch.equal(scores, expected) and not torch.equal(model(torch.rand_like(images)), scores)


@pytest.mark.parametrize(("name", "size", "options", "layer", "grid"), TORCHVISION)
def test_torchvision(name, size, options, layer, grid):
    check(from_torchvision(name, options), size, layer, grid)


@pytest.mark.parametrize(("name", "size", "options", "layer", "grid"), TIMM)
def test_timm(name, size, options, layer, grid):
    pytest.importorskip("timm")
    check(from_timm(name, options), size, layer, grid)
