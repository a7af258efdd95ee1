"""Images are divided among processes, in a new order each epoch."""

import pytest
import torch

from fer2013.data.faces import load
from fer2013.training.batches import EpochSampler, dataset


def test_images_are_floats_in_0_to_1(csv_file):
    loaded = load(csv_file)
    image, label = dataset(loaded)[3]
    assert image.shape == (1, 48, 48)
    torch.testing.assert_close(image[0], torch.from_numpy(loaded.images[3]).float() / 255)
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
def test_processes_divide_the_images_of_one_process(world):
    (alone,), shares = keys(1), keys(world)
    together = [key for step in zip(*shares, strict=True) for key in step]
    assert together == alone[: len(together)]
    assert len(alone) - len(together) == 23 % world
    (alone,), shares = keys(1, shuffle=False), keys(world, shuffle=False)
    assert sorted(key for share in shares for key in share) == alone
    assert alone == list(range(23))


def test_each_epoch_has_another_order():
    orders = [keys(1, epoch=epoch)[0] for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[2] == keys(1, epoch=2)[0]
