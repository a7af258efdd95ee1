"""What a traced pass records, and that it leaves the model as it was."""

import collections

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from camlens.layers.graph import Paths, successors
from camlens.layers.trace import trace
from camlens.probe import Probe

from ..nets import SPELLINGS, Small


def traced(model, images, targets=0):
    return trace(Probe(model.eval(), images, targets=targets))


@pytest.mark.parametrize("relu", SPELLINGS)
def test_calls_in_the_order_in_which_they_finish(relu):
    record = traced(Small(relu=relu), torch.rand(2, 3, 8, 8))
    names = ["conv1", "norm1", "act", "conv2", "norm2", "act", "head"]
    if relu not in ("module", "inplace"):
        names = [name if name != "act" else "act6" for name in names]
        names = [name for name in names if name != "act6" or relu == "relu6"]
    assert [call.name for call in record.calls] == names
    assert len(record.last_calls()) == len(set(names))
    assert record.last_calls()[-1].name == "head"
    assert record.size == (8, 8)
    assert record.calls[0].shape == (2, 6, 8, 8)
    assert record.calls[0].input_shape == (2, 3, 8, 8)
    # An in-place ReLU returns its input's tensor, but not untouched.
    assert not any(call.repeats for call in record.calls)


def test_containers_and_identities_repeat_what_was_handed_on():
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout())
    model = nn.Sequential(inner, nn.Identity(), nn.Flatten(), nn.Linear(144, 2))
    calls = {call.name: call for call in traced(model, torch.rand(2, 3, 8, 8)).calls}
    assert {n: c.repeats.name for n, c in calls.items() if c.repeats} == {
        "0.2": "0.1",
        "0": "0.2",
        "1": "0",
    }
    assert calls["1"].origin is calls["0.1"]
    assert len({id(call.node) for call in calls.values()}) == len(calls)


@pytest.mark.parametrize("kind", [tuple, list, collections.namedtuple("Pair", "maps rest")._make])
def test_the_first_tensor_of_a_tuple_counts(kind):
    class Pair(nn.Module):
        def forward(self, x):
            return kind([x.relu(), x.mean()])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pair = nn.Conv2d(3, 4, 3), Pair()

        def forward(self, x):
            maps, rest = self.pair(self.conv(x))
            return maps.mean((-2, -1)) + rest

    record = traced(Net(), torch.rand(2, 3, 8, 8))
    pair = record.calls[-1]
    assert (pair.name, pair.shape) == ("pair", (2, 4, 6, 6))
    paths = Paths([record.scores.grad_fn], record.images, successors)
    assert pair.node in paths
    assert pair.node not in paths.bottlenecks  # the rest goes beside it


@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("inside", [torch.enable_grad, torch.no_grad])
def test_gradients_lead_to_the_images_whatever_the_modes(around, inside):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()
            self.register_buffer("seen", torch.zeros(2, 3, 8, 8))

        def forward(self, x):
            with inside():
                self.seen.copy_(x)
                return self.net(x / 2)

    model, images = Net().eval(), torch.rand(2, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    before["seen"] = images.clone()
    with around():
        record = traced(model, images)
        assert torch.is_grad_enabled() is (around is torch.enable_grad)
    assert record.images in Paths([record.scores.grad_fn], record.images, successors)
    assert images.grad is None
    assert not images.requires_grad
    assert not model.seen.requires_grad
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(not module._forward_hooks for module in model.modules())


def test_a_model_that_writes_to_its_input_leaves_the_images_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return self.net(x.sub_(0.5).div_(2))

    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    record = traced(Net(), images)
    assert torch.equal(images, before)
    assert record.images in Paths([record.scores.grad_fn], record.images, successors)
