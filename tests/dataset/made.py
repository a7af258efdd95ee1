"""Tiny data sets and networks of a fixed content; as a program, one run over them.

python made.py OUT [items] [shard_size] [pause in seconds before each item]
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from camlens import GradCAM, regions
from camlens.dataset import RunOptions, Sample, explain_dataset

CORRUPT = 5
HALVES = regions.Regions.from_boxes(["left", "right"], [[0, 0, 8, 16], [8, 0, 16, 16]], (16, 16))


def net(seed: int = 0) -> nn.Sequential:
    """Return a network of three classes, any size of grey image, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


class Noise(Dataset[Sample]):
    """Grey noise, each image of a seed of its own; one cannot be read.

    The side of image i is ``sides[i % len(sides)]``. ``die`` is a file; while it is there, reading
    its number's item takes it away and ends the process.
    """

    def __init__(
        self,
        items: int,
        *,
        sides: tuple[int, ...] = (16,),
        corrupt: int | None = CORRUPT,
        die: Path | None = None,
    ) -> None:
        self.items, self.sides, self.corrupt = items, sides, corrupt
        self.die = die

    def __len__(self) -> int:
        return self.items

    def fingerprint(self) -> str:
        return repr((self.items, self.sides, self.corrupt))

    def __getitem__(self, index: int) -> Sample:
        if self.die is not None and self.die.is_file() and index == int(self.die.read_text()):
            self.die.unlink()
            os._exit(1)
        if index == self.corrupt:
            raise OSError(f"cannot read {object()}: it is cut off")
        if not 0 <= index < self.items:
            raise IndexError(index)
        side = self.sides[index % len(self.sides)]
        image = torch.rand(1, side, side, generator=torch.Generator().manual_seed(index))
        return Sample(image * 2 - 1, index % 3, f"noise/{index}.png", (image * 255).byte())


def left_is_brighter(outputs: Tensor) -> Tensor:
    return outputs[:, 0] - outputs[:, 1]


def files(run: Path) -> dict[str, str]:
    """Return the hash of each file of a run, hidden ones included."""
    found = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def run(out: Path, items: int = 40, shard_size: int = 8, **options: object):
    """Explain noise by two methods' worth of everything that a run can hold."""
    dataset = options.pop("dataset") if "dataset" in options else Noise(items)
    explainer = options.pop("explainer") if "explainer" in options else GradCAM(net(), "1")
    call = {"progress": False} | {n: options.pop(n) for n in ("part", "progress") if n in options}
    return explain_dataset(explainer, dataset, out, asked(shard_size=shard_size, **options), **call)


def asked(**options: object) -> RunOptions:
    """Return the options of :func:`run`."""
    plain = {"regions": HALVES, "targets": "all", "batch_size": 3, "shard_size": 8}
    return RunOptions(**{**plain, **options})


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *die = map(Path, sys.argv[1:])
    run(folder, dataset=Noise(40, die=die[0] if die else None))
