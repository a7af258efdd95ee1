"""What a data set costs beyond its explanations: reading, region scoring, writing.

    python benchmarks/dataset_cost.py                  # 2,048 images of 48x48, all four cases
    python benchmarks/dataset_cost.py --limit 64       # does the code run? the numbers mean nothing

In each round, one after the other: the explainer alone on tensors in memory; ``explain_dataset``
from a folder of PNG files to a run with thumbnails, heatmaps, the face template's region rows; and,
where grad-cam is installed, the loop that people write with it on the same tensors in memory,
without reading, regions or writing. Ratios are medians over the rounds, of time on the clock and of
processor time (all processes, all threads). Needs camlens[data,regions], torchvision and
examples/fer2013; time needs an otherwise idle machine.

The pictures are smooth noise, since no face of FER2013 may be passed on; as PNG they are about as
large. The base network is the one that examples/fer2013 ships, VGG19 is torchvision's with random
weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens
from camlens import regions
from camlens.dataset import Folder, explain_dataset

SIZE = 48


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on a data set; ``targets`` as the explainers take them."""

    name: str
    build: Callable[[], nn.Module]
    layer: str
    channels: int
    targets: str | None = None

    def transform(self, picture: Tensor) -> Tensor:
        """Turn a picture, (3, H, W) uint8, into the model's input."""
        return picture[: self.channels].float() / 255

    def __str__(self) -> str:
        return f"{self.name}, {'1 target' if self.targets is None else '7 targets'}"


def base() -> nn.Module:
    """Return the base network of the case study."""
    from fer2013 import weights

    return weights.load()


def vgg19() -> nn.Module:
    """Return VGG19 for seven classes, of random weights."""
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.vgg19(weights=None, num_classes=7).eval()


CASES = tuple(
    Case(*network, targets)
    for network in (
        ("base network", base, "blocks.block4", 1),
        ("VGG19", vgg19, "features.34", 3),
    )
    for targets in (None, "all")
)


def write_pictures(folder: Path, count: int) -> None:
    """Write grey pictures of smooth noise, about as large as FER2013's faces are as PNG."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        coarse = torch.rand(1, 1, 12, 12, generator=generator)
        fine = torch.rand(1, 1, SIZE, SIZE, generator=generator) * 0.02
        smooth = interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1) * 0.98 + fine
        pixels = (smooth * 255).byte()[0, 0].numpy()
        Image.fromarray(pixels).save(folder / f"{index:06d}.png")


def alone(explainer: camlens.GradCAM, images: Tensor, case: Case, batch: int) -> None:
    """Explain tensors in memory, and nothing else."""
    for some in images.split(batch):
        explainer(some, targets=case.targets)


def whole(explainer: camlens.GradCAM, folder: Folder, case: Case, args: Any) -> None:
    """Go from a folder of files to a run."""
    with tempfile.TemporaryDirectory() as out:
        explain_dataset(
            explainer,
            folder,
            Path(out) / "run",
            targets=case.targets,
            regions=regions.face_template(SIZE),
            batch_size=args.batch,
            num_workers=args.workers,
            progress=False,
        )


def usual_loop(model: nn.Module, images: Tensor, case: Case, batch: int) -> None:
    """Do what grad-cam's documentation shows: a call for each batch and class."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    classes: Iterable[int | None] = [None] if case.targets is None else range(7)
    with GradCAM(model=model, target_layers=[model.get_submodule(case.layer)]) as cam:
        for some in images.split(batch):
            for one in classes:
                asked = None if one is None else [ClassifierOutputTarget(one)] * len(some)
                cam(input_tensor=some, targets=asked)


def clocks() -> tuple[float, float]:
    """Return the time on the clock, and the processor time of this process and ended children."""
    used = os.times()
    spent = used.user + used.system + used.children_user + used.children_system
    return time.perf_counter(), spent


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return each call's median seconds, on the clock and of processors; first a warm-up."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            before = clocks()
            call()
            after = clocks()
            if number:
                took[name].append((after[0] - before[0], after[1] - before[1]))
    return {
        name: (statistics.median(t[0] for t in times), statistics.median(t[1] for t in times))
        for name, times in took.items()
    }


def rows(case: Case, path: Path, args: Any) -> list[str]:
    """Measure a case and return its lines of the table."""
    model = case.build()
    explainer = camlens.GradCAM(model, case.layer)
    folder = Folder(path, case.transform)
    images = torch.stack([folder[index].image for index in range(len(folder))])
    calls: dict[str, Callable[[], None]] = {
        "explainer alone": lambda: alone(explainer, images, case, args.batch),
        "explain_dataset": lambda: whole(explainer, folder, case, args),
    }
    if importlib.util.find_spec("pytorch_grad_cam"):
        calls["grad-cam's loop"] = lambda: usual_loop(model, images, case, args.batch)
    found = measure(calls, args.rounds)
    clock, processor = found["explainer alone"]
    return [
        f"| {case} | {name} | {len(folder) / t:.0f} | {t / clock:.3f} | {p / processor:.3f} |"
        for name, (t, p) in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=2048, help="images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes that read images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    print(f"{args.limit} images of {SIZE}x{SIZE}, batch {args.batch}, {args.workers} workers, ")
    print(f"{args.rounds} rounds, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| case | what | images/s | time over the explainer's | processor time over its |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as path:
        write_pictures(Path(path), args.limit)
        for case in CASES:
            if args.only in str(case):
                print("\n".join(rows(case, Path(path), args)), flush=True)
    if not importlib.util.find_spec("pytorch_grad_cam"):
        print("grad-cam is not installed: its loop was left out", file=sys.stderr)


if __name__ == "__main__":
    main()
