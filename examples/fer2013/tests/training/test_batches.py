"""Which face a process sees when, and how it is changed."""

import pytest
import torch

from fer2013.data.faces import load
from fer2013.training.batches import EpochSampler, FaceDataset


def test_items_are_floats_in_zero_to_one(csv_file):
    loaded = load(csv_file)
    items = FaceDataset(loaded, lambda image: 1 - image)
    image, label = items[0, 3]
    assert image.shape == (1, 48, 48)
    expected = 1 - torch.from_numpy(loaded.images[3]).float() / 255
    torch.testing.assert_close(image[0], expected)
    assert label == loaded.labels[3]


def keys(world, *, count=23, shuffle=True, epoch=4):
    samplers = [
        EpochSampler(count, shuffle=shuffle, seed=1, rank=rank, world=world)
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_out_what_one_takes(world):
    (alone,), shares = keys(1), keys(world)
    together = [key for step in zip(*shares, strict=True) for key in step]
    assert together == alone[: len(together)]
    assert len(alone) - len(together) == 23 % world
    (alone,), shares = keys(1, shuffle=False), keys(world, shuffle=False)
    assert sorted(key for share in shares for key in share) == alone
    assert alone == [(4, index) for index in range(23)]


def test_each_epoch_has_its_own_order():
    orders = [[index for _, index in keys(1, epoch=epoch)[0]] for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[2] == [index for _, index in keys(1, epoch=2)[0]]


def test_a_faces_change_depends_on_its_epoch_and_seed_alone(csv_file):
    loaded = load(csv_file)
    noise = FaceDataset(loaded, torch.rand_like, seed=1)
    state = torch.get_rng_state()
    first = noise[0, 3][0]
    torch.rand(5)
    assert torch.equal(noise[0, 3][0], first)
    assert not torch.equal(noise[1, 3][0], first)
    assert not torch.equal(noise[0, 4][0], first)
    assert not torch.equal(FaceDataset(loaded, torch.rand_like, seed=2)[0, 3][0], first)
    torch.set_rng_state(state)
    noise[0, 3]
    assert torch.equal(torch.get_rng_state(), state)
