"""Data loaders of a run, with the images divided among its processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

from ..configurations.config import Config
from ..data.faces import Faces, to_batch
from ..data.splits import Parts

_VALIDATION_BATCH = 256


def dataset(faces: Faces) -> TensorDataset:
    """Return a dataset of (1, 48, 48) float32 images in [0, 1] and () int64 classes."""
    return TensorDataset(to_batch(faces.images), torch.from_numpy(faces.labels))


class EpochSampler(Sampler[int]):
    """Samples one process's share of the images of an epoch.

    The images of all processes in step k do not depend on the number of processes, and no image
    is repeated: shuffled shares drop a remainder, others may differ by one image.

    Args:
        count: number of images.
        shuffle: whether each epoch has a new random order.
        seed: seed of the order.
        rank: this process.
        world: number of processes.
    """

    def __init__(
        self, count: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.shuffle = shuffle
        self.seed = seed
        self.share = range(rank, count - count % world if shuffle else count, world)
        self.count = count
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the size of the share."""
        return len(self.share)

    def __iter__(self) -> Iterator[int]:
        """Yield the images' indices."""
        order = np.arange(self.count)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for place in self.share:
            yield int(order[place])


class FaceDataModule(lightning.LightningDataModule):
    """The training and validation loaders of a run.

    Args:
        config: its batch size is that of all processes together.
        parts: the images.
        seed: seed of the order.
        epoch: the first epoch. Lightning sets a sampler's epoch only after the loaders have begun
            to fetch, so a resumed run would repeat its first batches.
    """

    def __init__(self, config: Config, parts: Parts, *, seed: int, epoch: int) -> None:
        super().__init__()
        self.batch_size = config.batch_size
        self.train, self.validation = dataset(parts.train), dataset(parts.validation)
        self.seed = seed
        self.epoch = epoch

    def train_dataloader(self) -> DataLoader[Any]:
        """Return one process's share of each batch."""
        share = self._share()
        sampler = EpochSampler(len(self.train), shuffle=True, seed=self.seed, **share)
        sampler.set_epoch(self.epoch)
        size = self.batch_size // share["world"]
        return DataLoader(self.train, size, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return one process's share, in the same number of batches as in every process."""
        share = self._share()
        sampler = EpochSampler(len(self.validation), shuffle=False, **share)
        # Shares differ by one image: with batches of 256, one process might have one more batch
        # and wait for the others forever.
        largest = math.ceil(len(self.validation) / share["world"])
        batches = math.ceil(largest / _VALIDATION_BATCH)
        return DataLoader(self.validation, math.ceil(largest / batches), sampler=sampler)

    def _share(self) -> dict[str, int]:
        trainer: Any = self.trainer
        return {"rank": trainer.global_rank, "world": trainer.world_size}
