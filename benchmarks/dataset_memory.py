"""Does memory grow with the data set? ``explain_dataset`` over 1,000, 10,000 and 100,000 images.

    python benchmarks/dataset_memory.py               # half a minute
    python benchmarks/dataset_memory.py --images 100  # does the code run?

Each run is a process of its own, over noise of 16x16 made when it is read, with a network of one
convolution, three targets and two regions: small images, since what is kept of each, not what is
computed of a batch, would grow. Printed is the kernel's high-water mark of the process. Needs
camlens[data]; runs on Linux.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

import camlens
from camlens import regions
from camlens.dataset import RunOptions, Sample, explain_dataset

SIDE = 16


class Noise(Dataset[Sample]):
    """Grey noise, each image of a seed of its own."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.images:
            raise IndexError(index)
        made = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
        return Sample(made, index % 3, f"noise/{index:09d}.png", (made * 255).byte())


def peak(images: int) -> float:
    """Explain so many images and return the process's peak in MiB."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(4, 3)).eval()
    half = SIDE // 2
    boxes = [[0, 0, half, SIDE], [half, 0, SIDE, SIDE]]
    with tempfile.TemporaryDirectory() as out:
        run = explain_dataset(
            camlens.GradCAM(model, "1"),
            Noise(images),
            Path(out) / "run",
            RunOptions(
                targets="all",
                regions=regions.Regions.from_boxes(["left", "right"], boxes, (SIDE, SIDE)),
            ),
            progress=False,
        )
        if run.manifest["images"] != images:
            raise RuntimeError(f"expected {images} images, the run has {run.manifest['images']}")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--one", type=int, help="run over so many images here, print the peak")
    args = parser.parse_args()
    if args.one:
        print(peak(args.one))
        return
    print("| images | peak memory of the process, MiB | seconds |\n|---|---|---|")
    for images in args.images:
        start = time.perf_counter()
        command = [sys.executable, __file__, "--one", str(images)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        took = time.perf_counter() - start
        print(f"| {images:,} | {float(done.stdout):.0f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
