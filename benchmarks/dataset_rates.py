"""What one process gets through, step by step: for planning runs over very many images.

    python benchmarks/dataset_rates.py              # about three minutes
    python benchmarks/dataset_rates.py --images 32  # does the code run? the numbers mean nothing

Two kinds of files: PNG of 48x48, smooth noise about as large as FER2013's faces; and JPEG of
500x375, pieces of matplotlib's photograph of Grace Hopper at random places, resized to 224x224. Of
each: reading alone; all of ``explain_dataset`` with a network that costs next to nothing, so what
the library itself gets through; and with a real one. One target, eight regions. Printed are images
a second and the bytes an image takes in the run's folder. The files were just written, so they come
from the system's cache. Needs camlens[data,regions], torchvision and examples/fer2013; time needs
an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.cbook
import torch
import torchvision
from dataset_cost import base, write_pictures
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import camlens
from camlens import loading
from camlens.dataset import RunOptions, Sample, explain_dataset
from camlens.loading import Preprocessing


class Files(Dataset[Sample]):
    """Image files, resized once for the model and for the eye."""

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        self.files, self.preprocessing = loading.find_photographs(folder), preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        values, seen = self.preprocessing(loading.read_photograph(self.files[index]))
        return Sample(values, name=self.files[index].name, picture=seen)


def write_photographs(folder: Path, count: int) -> None:
    """Write pieces of one photograph, 500x375."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        whole = Image.open(file).convert("RGB")
    places = random.Random(0)
    for index in range(count):
        left, top = places.randrange(whole.width - 499), places.randrange(whole.height - 374)
        piece = whole.crop((left, top, left + 500, top + 375))
        piece.save(folder / f"{index:06d}.jpg", quality=90)


def tiny(channels: int, stride: int) -> nn.Module:
    """Return a network of one convolution."""
    layers = nn.Conv2d(channels, 4, stride, stride=stride), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 7)).eval()


def resnet50() -> nn.Module:
    """Return ResNet50 of random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet50(weights=None).eval()


def rows(
    name: str, data: Files, networks: dict[str, tuple[nn.Module, str]], args: argparse.Namespace
) -> list[str]:
    """Measure and return lines of the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a process that reads has
    start = time.perf_counter()
    for index in range(len(data)):
        data[index]
    took = time.perf_counter() - start
    torch.set_num_threads(threads)
    lines = [f"| {name} | reading alone, one core | {len(data) / took:.0f} | - |"]
    size = data[0].image.shape[-1]
    for network, (model, layer) in networks.items():
        explainer = camlens.GradCAM(model.to(args.device), layer)
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            explain_dataset(
                explainer,
                data,
                Path(out) / "run",
                RunOptions(regions=camlens.faces.face_template(size), num_workers=args.workers),
                progress=False,
            )
            took = time.perf_counter() - start
            kept = sum(p.stat().st_size for p in Path(out).rglob("*.parquet"))
        lines.append(f"| {name} | {network} | {len(data) / took:.0f} | {kept / len(data):,.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2048, help="small ones; a quarter is large")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print("| files | what | images/s | bytes an image |\n|---|---|---|---|")
    kinds: tuple[tuple[str, Callable[[Path, int], None], int, Preprocessing, dict], ...] = (
        (
            *("PNG 48x48", write_pictures, args.images, Preprocessing(size=(48, 48), channels=1)),
            {"without a network": (tiny(1, 4), "1"), "base network": (base(), "blocks.block4")},
        ),
        (
            *("JPEG 500x375", write_photographs, args.images // 4),
            Preprocessing(size=(224, 224)),
            {"without a network": (tiny(3, 32), "1"), "ResNet50": (resnet50(), "layer4")},
        ),
    )
    for name, write, count, preprocessing, networks in kinds:
        with tempfile.TemporaryDirectory() as path:
            write(Path(path), count)
            data = Files(Path(path), preprocessing)
            print("\n".join(rows(name, data, networks, args)), flush=True)


if __name__ == "__main__":
    main()
