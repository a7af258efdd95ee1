"""Options that several commands share, and the functions that read them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from .. import loading
from ..loading import LoadedModel
from ..loading.factories import near
from ..loading.torchvision_models import IMAGENET
from ..targets import ACTIVATIONS
from .preprocessing import (
    Crop,
    Mean,
    PreprocessingOptions,
    Resize,
    Size,
    Std,
    preprocessing_notes,
)

# Re-exported, so that commands import all options from here.
__all__ = ["Crop", "Mean", "Resize", "Size", "Std"]

# Without weights these models are untrained; a user's function or file may bring its own weights.
_LIBRARIES = ("torchvision", "timm", "hf", "open_clip")

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="torchvision:NAME; timm:NAME; hf:NAME or hf:FOLDER (transformers); "
        "open_clip:NAME/WEIGHTS, with --classes; package.module:function, which is called without "
        "arguments and returns a module, optionally with a transform and the class names (it runs "
        "code: only use functions you trust); or, with --unsafe-pickle, FILE.pt2, an exported "
        "program, or FILE.pt, a pickled module.",
    ),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model, see --model in camlens explain --help.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="FILE.safetensors; FILE.pth, if it contains only tensors; for a library's model also "
        "default (the default), none (random), or a name such as torchvision's IMAGENET1K_V1."
    ),
]
Methods = Annotated[
    list[str], typer.Option("--method", help="See camlens methods.", show_default="GradCAM")
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        help="A layer's name, see camlens layers; the maps of several layers are fused.",
        show_default="the last layer that is a map and carries all evidence",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|imagenet",
        help="A text file with one class name per line, in order; or imagenet, ImageNet's 1000 "
        "classes in torchvision's words. open_clip compares images with these names.",
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--targets",
        help="predicted, label (the class that the photograph's folder is named after), topN, "
        "all, or a class by number or name; separate several by commas or repeat the option.",
        show_default="predicted",
    ),
]
RegionsOption = Annotated[
    str,
    typer.Option(
        "--regions",
        help="face: parts of the face that YuNet detects; mediapipe: parts from MediaPipe's mesh; "
        "template: parts of a face that fills the picture, as in FER2013; FILE: boxes (.json), "
        "masks (.safetensors) or a label map (.png) for all photographs; FOLDER: one file per "
        "photograph; or none.",
    ),
]
Infill = Annotated[
    str | None,
    typer.Option(
        help="Also remove each region and measure how far the score falls: blur, mean or inpaint.",
        show_default="no removal",
    ),
]
Placements = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --infill: at how many random positions the same shape is removed too, to tell "
        "the effect from chance.",
        show_default="16; in camlens dataset 4",
    ),
]
Activation = Annotated[
    str,
    typer.Option(
        help="Converts outputs to probabilities: softmax; sigmoid, for multi-label models; none, "
        "if the outputs are probabilities."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per batch.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        help="Also load exported programs (.pt2), pickled models and pickled weights. RISK: when "
        "torch loads such a file, the file can run any code with your permissions. Only use it for "
        "files that you would run as a program.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of tables.")]


def load_model(
    spec: str,
    weights: str | None,
    *,
    size: str | None = None,
    resize: str | None = None,
    crop: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    classes: str | None = None,
    device: str = "cpu",
    trusted_pickle: bool = False,
) -> LoadedModel:
    """Load a model, with its preprocessing changed by the options.

    Raises:
        typer.BadParameter: an option's value is invalid or does not match the model.
        ImportError, LookupError, OSError, TypeError, ValueError: see
            :func:`camlens.loading.load_model`.
    """
    changes = PreprocessingOptions.read(size=size, resize=resize, crop=crop, mean=mean, std=std)
    read = classes is not None and classes != IMAGENET
    names = class_names(Path(str(classes))) if read else classes
    if spec.startswith("open_clip:") and classes != IMAGENET:
        _check_prompts(spec, classes)
    place = on_device(device)
    loaded = loading.load_model(spec, weights, classes=names, trusted_pickle=trusted_pickle)
    loaded = changes.applied(loaded, spec)
    return replace(loaded, model=loaded.model.to(place))


def notes(model: str, weights: str | None, loaded: LoadedModel) -> Iterator[str]:
    """Yield what a reader of the results must know about a model."""
    if model.partition(":")[0] in _LIBRARIES:
        if weights == "none":
            yield "the weights are random, so scores and maps say nothing about a trained model"
        elif loaded.classes is None:
            yield (
                f"the class names are unknown: pass --classes {IMAGENET}, if the model has "
                "ImageNet's 1000 classes, or --classes FILE, one name per line"
            )
    yield from preprocessing_notes(loaded)


def class_names(path: Path) -> tuple[str, ...]:
    """Read a file of class names, line i for class i; an empty line names its class "i".

    Raises:
        OSError: the file cannot be read.
        typer.BadParameter: the file is not UTF-8 text, or contains no name.
    """
    return tuple(line or str(index) for index, line in enumerate(_lines(path)))


def _lines(path: Path) -> list[str]:
    """Return a file's lines, stripped of whitespace."""
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows write a byte-order mark
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    if not text.strip():
        raise typer.BadParameter(f"{path} contains no class names: expected one name per line")
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads(text), (list, dict)):
            raise typer.BadParameter(
                f"{path} is JSON, expected text with one class name per line, in the order of the "
                "model's outputs"
            )
    return [line.strip() for line in text.rstrip().split("\n")]


def _check_prompts(spec: str, classes: str | None) -> None:
    """Check that each class has a distinct name to compare images with."""
    if classes is None:
        raise typer.BadParameter(
            f"{spec} compares images with names and has no classes of its own: pass them with "
            "--classes FILE, one name per line"
        )
    lines = _lines(Path(classes))
    if "" in lines:
        raise typer.BadParameter(
            f"line {lines.index('') + 1} of {classes} is empty: {spec} needs a name for each class"
        )
    for index, name in enumerate(lines):
        if lines.index(name) != index:
            raise typer.BadParameter(
                f"lines {lines.index(name) + 1} and {index + 1} of {classes} are both {name!r}: "
                f"{spec} would give them the same score; remove one, or make the names differ"
            )


def check_activation(text: str) -> None:
    """Check --activation.

    Raises:
        typer.BadParameter: the activation is unknown.
    """
    if text not in ACTIVATIONS:
        raise typer.BadParameter(
            f"expected --activation as {', '.join(ACTIVATIONS)}, got {text!r}"
            f"{near(text, ACTIVATIONS)}"
        )


def on_device(text: str) -> torch.device:
    """Return a device after checking that it exists."""
    try:
        device = torch.device(text)
        torch.zeros((), device=device).item()  # fails on "meta", which has no memory
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(
            f"--device: {text!r} is not available on this machine ({reason})"
        ) from error
    return device
