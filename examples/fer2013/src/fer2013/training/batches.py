"""The faces of a run as batches, shared out among its processes."""

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
    """Return faces as torch items: ((1, h, w) float32 in [0, 1], () int64 class)."""
    return TensorDataset(to_batch(faces.images), torch.from_numpy(faces.labels))


class EpochSampler(Sampler[int]):
    """One process's share of the faces of an epoch.

    What all processes take in step k does not depend on how many they are, and no face is there
    twice: shuffled shares leave out what does not divide, the others may differ by one face.

    Args:
        count: how many faces there are.
        shuffle: whether their order is drawn anew each epoch.
        seed: of that draw.
        rank: this process.
        world: how many there are.
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
        """Take an epoch's order; Lightning says which it is."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the size of the share."""
        return len(self.share)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the faces' numbers."""
        order = np.arange(self.count)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for place in self.share:
            yield int(order[place])


class FaceDataModule(lightning.LightningDataModule):
    """The faces of a run, shared out among its processes.

    Args:
        config: its batch is that of all processes together.
        parts: the faces.
        seed: of the order.
        epoch: the first one to be trained. Lightning tells a sampler the epoch only after the
            loaders have begun to fetch, so a resumed run would see its first batches again.
    """

    def __init__(self, config: Config, parts: Parts, *, seed: int, epoch: int = 0) -> None:
        super().__init__()
        self.batch_size = config.batch_size
        self.train, self.validation = dataset(parts.train), dataset(parts.validation)
        self.seed = seed
        self.epoch = epoch

    def train_dataloader(self) -> DataLoader[Any]:
        """Return one process's part of each batch."""
        share = self._share()
        sampler = EpochSampler(len(self.train), shuffle=True, seed=self.seed, **share)
        sampler.set_epoch(self.epoch)
        return DataLoader(
            self.train,
            self.batch_size // share["world"],
            sampler=sampler,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return one process's share, in as many batches as every other process has."""
        share = self._share()
        sampler = EpochSampler(len(self.validation), shuffle=False, **share)
        # Shares differ by one face: batches of 256 would give one process one more of them, for
        # which it would wait for the others for ever.
        largest = math.ceil(len(self.validation) / share["world"])
        batches = math.ceil(largest / _VALIDATION_BATCH)
        return DataLoader(self.validation, math.ceil(largest / batches), sampler=sampler)

    def _share(self) -> dict[str, int]:
        trainer: Any = self.trainer
        return {"rank": trainer.global_rank, "world": trainer.world_size}
