"""What a data set costs beyond its explanations: reading, region scoring, writing.

    python benchmarks/dataset_cost.py                  # all four cases, a few minutes
    python benchmarks/dataset_cost.py --images 64      # does the code run? the numbers mean nothing

In each round, one after the other: the explainer alone on tensors in memory; ``explain_dataset``
from a folder of PNG files to a run with thumbnails, heatmaps and the face template's region rows;
and, where grad-cam is installed, the loop that people write with it, on a quarter of the tensors in
memory, without reading, regions or writing. Ratios are medians of the rounds' own. The files were
just written, so they come from the system's cache. Needs camlens[data,regions], torchvision and
examples/fer2013; time needs an otherwise idle machine.

The pictures are smooth noise, since no face of FER2013 may be passed on; as PNG they are about as
large. The base network is the one that examples/fer2013 ships, VGG19 is torchvision's with random
weights.

``make bench`` runs it with glibc's allocator told to keep memory that is free (``KEEP``). By
default it gives the network's activations back to the system after each batch and gets them anew,
or does not, as chance would have it, and in one process the explainer alone takes 1.7 times what it
takes in another.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import camlens
from camlens.dataset import Folder, RunOptions, explain_dataset

SIZE = 48

#: What has glibc's allocator keep memory that is free.
KEEP = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "20000000000"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on a data set; ``targets`` as the explainers take them."""

    name: str
    build: Callable[[], nn.Module]
    layer: str
    channels: int
    images: int
    bar: float
    targets: str | None = None

    def transform(self, picture: Tensor) -> Tensor:
        """Turn a picture, (3, H, W) uint8, into the model's input."""
        return picture[: self.channels].float() / 255

    def __str__(self) -> str:
        return f"{self.name}, {'1 target' if self.targets is None else '7 targets'}"


def base() -> nn.Module:
    """Return the base network of the case study."""
    from fer2013.networks import weights

    return weights.load()


def vgg19() -> nn.Module:
    """Return VGG19 for seven classes, of random weights."""
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.vgg19(weights=None, num_classes=7).eval()


CASES = tuple(
    Case(*network, targets)
    for network in (
        ("base network", base, "blocks.block4", 1, 1024, 1.15),
        ("VGG19", vgg19, "features.34", 3, 256, 1.10),
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
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def whole(explainer: camlens.GradCAM, folder: Folder, case: Case, batch: int, workers: int) -> None:
    """Go from a folder of files to a run."""
    with tempfile.TemporaryDirectory() as out:
        explain_dataset(
            explainer,
            folder,
            Path(out) / "run",
            RunOptions(
                targets=case.targets,
                regions=camlens.faces.face_template(SIZE),
                batch_size=batch,
                num_workers=workers,
            ),
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


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return each call's seconds in each round; first a round to warm up."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                took[name].append(time.perf_counter() - start)
    return took


def row(case: Case, path: Path, args: argparse.Namespace) -> str:
    """Measure a case and return its line of the table."""
    model = case.build().to(args.device)
    explainer = camlens.GradCAM(model, case.layer)
    folder = Folder(path, case.transform)
    images = len(folder)
    tensors = torch.stack([folder[index].image for index in range(images)]).to(args.device)
    calls: dict[str, Callable[[], None]] = {
        "alone": lambda: alone(explainer, tensors, case, args.batch),
        "whole": lambda: whole(explainer, folder, case, args.batch, args.workers),
    }
    part = max(1, images // 4)
    if importlib.util.find_spec("pytorch_grad_cam"):
        calls["grad-cam"] = lambda: usual_loop(model, tensors[:part], case, args.batch)
    took = measure(calls, args.rounds)
    took["grad-cam"] = [t * images / part for t in took.get("grad-cam", [])]
    ratios = {
        name: statistics.median(t / a for t, a in zip(times, took["alone"], strict=True))
        for name, times in took.items()
        if times
    }
    rate = images / statistics.median(took["alone"])
    run = images / statistics.median(took["whole"])
    met = "met" if ratios["whole"] <= case.bar else "MISSED"
    peer = f"{ratios['grad-cam']:.2f}" if "grad-cam" in ratios else "-"
    return (
        f"| {case} | {rate:.0f} | {ratios['whole']:.2f} | {case.bar:.2f} | {met} | {run:.0f} | "
        f"{peer} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="default: as many as take a second or two")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    names = ("images of 48x48", "explainer alone, images/s", "explain_dataset over it")
    names += ("bar", "bar is", "explain_dataset, images/s", "grad-cam's loop")
    print("|", " | ".join(names), "|")
    print("|---" * len(names) + "|")
    for case in CASES:
        if args.only in str(case):
            with tempfile.TemporaryDirectory() as path:
                write_pictures(Path(path), args.images or case.images)
                print(row(case, Path(path), args), flush=True)


if __name__ == "__main__":
    main()
