"""Check camlens on about a hundred networks: ``python benchmarks/models.py``.

Each row is compared with Grad-CAM made by plain autograd, from a layer's output that a hook of
this file's own captures and reads as the network's source says. ``--offsets`` also measures where
the cells lie. ``--out docs`` writes the tables that ``docs/networks.rst`` shows.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from architectures import Architecture, architectures
from torch import Tensor, nn

import camlens

#: Relative to the largest value of a map: how far rounding may carry it.
CLOSE = 1e-3
#: The same for single images, whose convolutions torch computes by other kernels.
CLOSE_SINGLE = 5e-3

#: How LeGrad's error begins for a network without attention.
NO_ATTENTION = "expected a model with attention"

ERRORS = (LookupError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found for a network.

    Attributes:
        architecture: the network.
        default: the default layer; "" where there is none.
        error: the error's text then.
        grid: of the explained layer.
        proven: whether each of its cells was shown to look at a place of its own.
        offset: measured middle of the cells minus the middle of the image, with standard errors.
        difference: from plain autograd's maps, relative to their largest value.
        singles: the same between the batch and single images.
        replayed: whether other images get these images' scores with the layer's output of these.
        legrad: the grid of LeGrad's map, or the first sentence of its error.
        seconds: of the processor, model and all.
    """

    architecture: Architecture
    default: str = ""
    error: str = ""
    grid: tuple[int, ...] = ()
    proven: bool = False
    offset: str = ""
    difference: float = float("nan")
    singles: float = float("nan")
    replayed: bool = False
    legrad: str = ""
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What is wrong; an error that was expected, and says so, is not."""
        known = self.architecture
        faults = []
        if known.refused:
            if self.default or known.refused not in self.error:
                faults.append(f"expected an error with {known.refused!r}")
        elif self.default != known.layer:
            faults.append(f"expected layer {known.layer!r}")
        if self.grid != known.grid:
            faults.append(f"expected grid {known.grid}")
        if not self.difference <= CLOSE:
            faults.append("differs from plain autograd")
        if not self.singles <= CLOSE_SINGLE:
            faults.append("the batch differs from single images")
        if self.default and not self.replayed:
            faults.append("some evidence bypasses the default layer")
        return faults


def check(architecture: Architecture, *, offsets: bool = False, attention: bool = True) -> Row:
    """Explain a network's images, and compare; LeGrad, which has no faults, is an option."""
    start = time.process_time()
    model = architecture.model()
    images = architecture.images().to(next(model.parameters()).device)
    targets = architecture.targets
    explainer, default, error = camlens.GradCAM(model), "", ""
    try:
        explanation = explainer(images, targets=targets)
        (default,) = explanation.layers
    except ERRORS as failure:
        error = str(failure)
        explainer = camlens.GradCAM(model, architecture.layer)
        explanation = explainer(images, targets=targets)
    maps = explanation.raw
    if explanation.grid == architecture.grid:
        plain = plain_grad_cam(model, images, architecture, explanation.layers[0])
        difference = relative(maps, plain)
    else:
        difference = float("nan")
    single = torch.cat([explainer(image[None], targets=targets).raw for image in images])
    return Row(
        architecture,
        default,
        error,
        explanation.grid,
        explanation.registration.proven,
        measured_offset(model, explanation.layers[0], images) if offsets else "",
        difference,
        relative(single, maps),
        replays(model, images, architecture, explanation.layers[0]),
        legrad(model, images, targets) if attention else "",
        time.process_time() - start,
    )


def plain_grad_cam(
    model: nn.Module, images: Tensor, architecture: Architecture, layer: str
) -> Tensor:
    """Return (N, K, *grid) Grad-CAM by plain autograd: no part of camlens is used."""
    captured: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        captured.append(output)
        return output.clone()  # what comes behind may write into it

    handle = model.get_submodule(layer).register_forward_hook(keep)
    output = model(images.clone().requires_grad_())
    handle.remove()
    activations, maps = architecture.cells.of(captured[-1]), []
    for scores in scores_of(output, architecture.targets).unbind(1):
        (gradient,) = torch.autograd.grad(scores.sum(), captured[-1], retain_graph=True)
        weights = architecture.cells.of(gradient).mean(dim=1, keepdim=True)
        maps.append((weights * activations).sum(dim=2).relu())
    return torch.stack(maps, dim=1).unflatten(2, architecture.grid).detach()


@torch.no_grad()
def replays(model: nn.Module, images: Tensor, architecture: Architecture, layer: str) -> bool:
    """Return whether other images get the scores of these with a layer's output of these."""
    kept: list[Any] = []
    runs, replaying = 0, False

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        if not replaying:
            kept.append(output.clone())
            return None
        return kept[-1].clone() if runs == len(kept) else None

    def scores(given: Tensor) -> Tensor:
        return scores_of(model(given), architecture.targets)

    others = images.flip(-1, 0)
    handle = model.get_submodule(layer).register_forward_hook(hook)
    expected = scores(images)
    runs, replaying = 0, True
    replayed = scores(others)
    handle.remove()
    return torch.equal(replayed, expected) and not torch.equal(scores(others), expected)


def scores_of(output: Any, targets: Any) -> Tensor:
    """Return (N, K) scores of a model's output."""
    if callable(targets):
        return targets(output)
    logits = output if isinstance(output, Tensor) else output.logits
    return logits if targets == "all" else logits[:, targets[0]]


def relative(maps: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value; NaN where there is no evidence."""
    return ((maps - expected).abs().amax() / expected.amax()).item()


def measured_offset(model: nn.Module, layer: str, images: Tensor) -> str:
    """Return how far from the image's middle that of a layer's cells was measured, in pixels."""
    explainer = camlens.EigenCAM(model, layer, registration="measured")
    place = explainer(images, targets=every_score).registration
    axes = zip(place.offset, place.offset_error, strict=True)
    return ", ".join(f"{offset:+.1f} ± {error:.1f}" for offset, error in axes)


def every_score(output: Any) -> Tensor:
    """Return one score of an output of any kind: EigenCAM asks for some."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output.flatten(1)[:, :1] if output.ndim > 1 else output[:1].expand(2)


def legrad(model: nn.Module, images: Tensor, targets: Any) -> str:
    """Return the grid of LeGrad's map, or the first sentence of the error; "" without LeGrad."""
    method = getattr(camlens, "LeGrad", None)
    if method is None:
        return ""
    try:
        explanation = method(model)(images, targets=targets)
    except ERRORS as failure:
        return first_sentence(str(failure))
    if not explanation.evidence.any():
        return "no evidence"
    return shown(explanation.grid)


def legrad_cell(told: str) -> str:
    """Return the grid; a dash where there is no attention; or that LeGrad refuses the network."""
    if told.startswith(NO_ATTENTION):
        return "-"
    return told if told.replace(" x ", "").isdigit() or not told else "refused"


def first_sentence(text: str) -> str:
    """Return an error's text up to its first full stop, or what follows a colon or semicolon."""
    sentence = text.partition(". ")[0].partition(": ")[0].partition("; ")[0]
    cut = sentence.count("(") > sentence.count(")")
    return sentence.partition(" (")[0] if cut else sentence


def shown(grid: Iterable[int]) -> str:
    """Write a grid or size."""
    return " x ".join(map(str, grid))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own messages and warnings back, and ultralytics' settings apart."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


HEAD = ("network", "images", "layer", "output", "grid", "place", "autograd", "singles", "LeGrad")


def cells_of(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    known = row.architecture
    layer = row.default or f"{known.layer} (named)"
    place = row.offset or ("proven" if row.proven else "not proven")
    if row.offset and not row.proven:
        place += " (not proven)"
    return (
        known.name,
        shown(known.size),
        layer,
        str(known.cells),
        shown(row.grid),
        place,
        f"{row.difference:.0e}",
        f"{row.singles:.0e}",
        legrad_cell(row.legrad),
    )


def checked(only: str = "", *, offsets: bool = False) -> Iterator[Row]:
    """Check the networks whose library and name contain ``only``, where they are installed."""
    with quiet():
        for architecture in architectures():
            if only not in str(architecture):
                continue
            if architecture.missing:
                print(f"{architecture}: not installed", file=sys.stderr, flush=True)
                continue
            try:
                row = check(architecture, offsets=offsets)
            except Exception as failure:
                row = Row(architecture, error=f"{type(failure).__name__}: {failure}")
            told = "; ".join(row.faults) or "right"
            line = (*cells_of(row), first_sentence(row.error), f"{row.seconds:.0f} s", told)
            print(architecture.library, *line, sep=" | ", file=sys.stderr, flush=True)
            yield row


def write(rows: Iterable[Row], folder: Path) -> None:
    """Write the tables of the documentation: a file for each library, and one of errors."""
    rows = list(rows)
    for library in dict.fromkeys(row.architecture.library for row in rows):
        table = [cells_of(row) for row in rows if row.architecture.library == library]
        _write(folder / f"{library}.csv", HEAD, table)
    refused = [row for row in rows if row.error]
    errors = [(r.architecture.name, first_sentence(r.error), r.architecture.layer) for r in refused]
    _write(folder / "without_default.csv", ("network", "the error begins", "named"), errors)
    told = [(r.architecture.name, r.legrad) for r in rows if legrad_cell(r.legrad) == "refused"]
    _write(folder / "without_legrad.csv", ("network", "the error begins"), told)


def _write(path: Path, head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *lines])


def main() -> None:
    """Check, write, and fail where a row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of library or name")
    parser.add_argument("--offsets", action="store_true", help="measure where cells lie")
    parser.add_argument("--out", type=Path, help="folder for the documentation's tables")
    args = parser.parse_args()
    rows = list(checked(args.only, offsets=args.offsets))
    wrong = [row for row in rows if row.faults]
    print(f"{len(rows)} networks, {len(wrong)} wrong")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        write(rows, args.out)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
