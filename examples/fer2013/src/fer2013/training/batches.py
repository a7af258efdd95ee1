"""The faces of a run as batches, shared out among its processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..configurations.config import Config
from ..data.faces import Faces, to_batch
from ..data.splits import Parts
from .augmentation import augment

_VALIDATION_BATCH = 256


class FaceDataset(Dataset[tuple[Tensor, int]]):
    """Faces as torch items: ((1, h, w) float32 in [0, 1], class index).

    Args:
        faces: the faces.
        transform: what is done to a face each time, by torch's random numbers.
        seed: of those. What is done to a face depends on this, the epoch and the face alone: not
            on the workers, nor on what came before, so that a resumed run goes on as it would
            have.
    """

    def __init__(
        self, faces: Faces, transform: Callable[[Tensor], Tensor] | None = None, *, seed: int = 0
    ) -> None:
        self.images = to_batch(faces.images)
        self.labels = faces.labels
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        """Return a face as it is in an epoch, and its class index, by (epoch, index)."""
        epoch, index = key
        image = self.images[index]
        if self.transform is not None:
            state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1, np.uint64)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(state[0] >> 1))
                image = self.transform(image)
        return image, int(self.labels[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """One process's share of a :class:`FaceDataset`'s keys, (epoch, index).

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

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the keys."""
        order = np.arange(self.count)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for place in self.share:
            yield self.epoch, int(order[place])


class FaceDataModule(lightning.LightningDataModule):
    """The faces of a run, shared out among its processes.

    Args:
        config: its batch is that of all processes together.
        parts: the faces.
        seed: of the order and the augmentation.
        workers: processes that load and augment the faces, for each of the processes.
        epoch: the first one to be trained. Lightning tells a sampler the epoch only after the
            loaders have begun to fetch, so a resumed run would see its first batches again.
    """

    def __init__(
        self, config: Config, parts: Parts, *, seed: int, workers: int, epoch: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = config.batch_size
        self.train = FaceDataset(parts.train, augment(config.augmentation), seed=seed)
        self.validation = FaceDataset(parts.validation)
        self.seed = seed
        self.workers = workers
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
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
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
