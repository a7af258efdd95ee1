"""The faces of a run as batches, shared out among its processes."""

from __future__ import annotations

import math
from typing import Any

import lightning
from torch.utils.data import DataLoader

from .augmentation import augment
from .config import Config
from .data import EpochSampler, FaceDataset
from .splits import Parts

_VALIDATION_BATCH = 256


class Feed(lightning.LightningDataModule):
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
