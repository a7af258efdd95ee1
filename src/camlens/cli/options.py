"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from .. import loading
from ..loading import LoadedModel
from ..loading.factories import near
from ..targets import ACTIVATIONS
from .preprocessing import (
    Crop,
    Mean,
    PreprocessingOptions,
    Resize,
    Size,
    Std,
    note_missing_preprocessing,
)

# Commands take these from here too, as the options that are not of preprocessing.
__all__ = ["Crop", "Mean", "Resize", "Size", "Std", "note_missing_preprocessing"]

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="torchvision:NAME; timm:NAME; hf:NAME or hf:FOLDER, of transformers; "
        "open_clip:NAME/WEIGHTS, with --classes; package.module:function (called without "
        "arguments; returns a module, or with it a transform and the classes' names), which is "
        "code: use those you trust; or, with --unsafe-pickle, FILE.pt2, an exported program, or "
        "FILE.pt, a pickled module.",
    ),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="As --model of explain.")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="FILE.safetensors; FILE.pth, if it holds tensors only; of a library's models also "
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
        help="A layer's name, see camlens layers; several are fused.",
        show_default="the last with a spatial output",
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        help="A text file with a class's name on each line, in order; open_clip compares images "
        "with these names."
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--targets",
        help="predicted, label (the class that the photograph's folder is named after), topN, "
        "all, or a class by number or name; several with commas or an option for each.",
        show_default="predicted",
    ),
]
RegionsOption = Annotated[
    str,
    typer.Option(
        "--regions",
        help="face: the parts of the face that YuNet finds; mediapipe: those of MediaPipe's mesh; "
        "template: of a face that fills the picture as FER2013's do; FILE: boxes (.json), masks "
        "(.safetensors) or a label map (.png) for all photographs; FOLDER: a file for each; none.",
    ),
]
Infill = Annotated[
    str | None,
    typer.Option(
        help="Also remove each region and measure how far the score falls: blur, mean or inpaint.",
        show_default="not done",
    ),
]
Activation = Annotated[
    str,
    typer.Option(
        help="What turns outputs into probabilities: softmax; sigmoid, for multi-label models; "
        "none, if the outputs are probabilities."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at once.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
UnsafePickle = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        help="Load exported programs (.pt2), pickled models and weights too. RISK: torch's "
        "loaders of them can run any code of whoever made the file, with your rights. Only for "
        "files that you would run as a program.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document in place of tables.")]


def load_model(
    spec: str,
    weights: str | None,
    *,
    size: str | None = None,
    resize: str | None = None,
    crop: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    classes: Path | None = None,
    device: str = "cpu",
    trusted_pickle: bool = False,
) -> LoadedModel:
    """Load a model, with what the options say otherwise than its weights.

    Raises:
        typer.BadParameter: an option's text means nothing, or does not fit the model.
        ImportError, LookupError, OSError, TypeError, ValueError: as
            :func:`camlens.loading.load_model`.
    """
    changes = PreprocessingOptions.read(size=size, resize=resize, crop=crop, mean=mean, std=std)
    names = None if classes is None else class_names(classes)
    if spec.startswith("open_clip:"):
        _check_prompts(spec, classes)
    place = on_device(device)
    loaded = loading.load_model(spec, weights, classes=names, trusted_pickle=trusted_pickle)
    loaded = changes.applied(loaded, spec)
    return replace(loaded, model=loaded.model.to(place))


def class_names(path: Path) -> tuple[str, ...]:
    """Read a file of class names, line i for class i; the name behind an empty line is i.

    Raises:
        OSError: the file cannot be read.
        typer.BadParameter: it is no UTF-8 text, or names no class.
    """
    return tuple(line or str(index) for index, line in enumerate(_lines(path)))


def _lines(path: Path) -> list[str]:
    """Return a file's lines without the white space around them."""
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows write a byte-order mark
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    if not text.strip():
        raise typer.BadParameter(f"{path} names no class: expected a name on each line")
    return [line.strip() for line in text.rstrip().split("\n")]


def _check_prompts(spec: str, classes: Path | None) -> None:
    """Check that there is a name for each class to compare images with."""
    if classes is None:
        raise typer.BadParameter(
            f"{spec} compares images with names and has no classes of its own: give them with "
            "--classes FILE, a name a line"
        )
    lines = _lines(classes)
    if "" in lines:
        raise typer.BadParameter(
            f"line {lines.index('') + 1} of {classes} is empty: {spec} needs a name for each class"
        )
    for index, name in enumerate(lines):
        if lines.index(name) != index:
            raise typer.BadParameter(
                f"lines {lines.index(name) + 1} and {index + 1} of {classes} are both {name!r}: "
                f"{spec} would score them the same; leave one out, or say what differs"
            )


def check_activation(text: str) -> None:
    """Check --activation.

    Raises:
        typer.BadParameter: an unknown activation.
    """
    if text not in ACTIVATIONS:
        raise typer.BadParameter(
            f"expected --activation as {', '.join(ACTIVATIONS)}, got {text!r}"
            f"{near(text, ACTIVATIONS)}"
        )


def on_device(text: str) -> torch.device:
    """Return a device that is there."""
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(
            f"--device: there is no device {text!r} here ({reason})"
        ) from error
    return device
