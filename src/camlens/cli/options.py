"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import camlens

from .. import loading
from ..loading import LoadedModel
from ..loading.factories import near
from ..targets import ACTIVATIONS
from . import console

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="torchvision:NAME; timm:NAME; package.module:function (called without arguments; "
        "returns a module), which is code: use those you trust; or, with --unsafe-pickle, "
        "FILE.pt2, an exported program, or FILE.pt, a pickled module.",
    ),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="As --model of explain.")]
Weights = Annotated[
    str | None,
    typer.Option(
        help="FILE.safetensors; FILE.pth, if it holds tensors only; of torchvision's models also "
        "default (the default), none (random), or an entry such as IMAGENET1K_V1."
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
Size = Annotated[
    str | None,
    typer.Option(
        help="The model's input, N or HxW pixels: pictures are resized until they cover it, and "
        "the middle is cut out.",
        show_default="what the weights say, else the picture's own",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Subtracted from values in [0, 1]: one number, or three with commas."),
]
Std = Annotated[str | None, typer.Option(help="What is left is divided by it; as --mean.")]
Classes = Annotated[
    Path | None, typer.Option(help="A text file with a class's name on each line, in order.")
]
RegionsOption = Annotated[
    str,
    typer.Option(
        "--regions",
        help="face: the parts of the face that YuNet finds; template: of a face that fills the "
        "picture as FER2013's do; none.",
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
    size: str | None,
    mean: str | None,
    std: str | None,
    classes: Path | None = None,
    device: str = "cpu",
    trusted_pickle: bool = False,
) -> LoadedModel:
    """Load a model, with what the options say otherwise than its weights.

    Raises:
        typer.BadParameter: an option's text means nothing.
        ImportError, LookupError, OSError, TypeError, ValueError: as
            :func:`camlens.loading.load_model`.
    """
    changes: dict[str, object] = {}
    if size is not None:
        changes |= {"size": pixels(size), "resize": None}
    if mean is not None:
        changes["mean"] = numbers(mean, "--mean")
    if std is not None:
        changes["std"] = numbers(std, "--std")
    names = None if classes is None else class_names(classes)
    place = on_device(device)
    found = loading.load_model(spec, weights, trusted_pickle=trusted_pickle)
    try:
        preprocessing = replace(found.preprocessing, **changes)  # type: ignore[arg-type]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return replace(
        found,
        model=found.model.to(place),
        preprocessing=preprocessing,
        preprocessing_known=found.preprocessing_known or bool(changes),
        classes=found.classes if names is None else names,
    )


def note_missing_preprocessing(loaded: LoadedModel) -> None:
    """Say what a model is fed if nothing tells how it was trained."""
    if loaded.preprocessing_known:
        return
    own = loaded.preprocessing.size
    size = "at their own size" if own is None else f"at {own[0]} x {own[1]} pixels"
    console.note(
        f"how the model's pictures are prepared is unknown: they are fed {size}, with values from "
        "0 to 1. If it was trained on others, its answers mean little: say so with --size, --mean "
        "and --std"
    )


def class_names(path: Path) -> tuple[str, ...]:
    """Read a file of class names, line i for class i; the name behind an empty line is i.

    Raises:
        OSError: the file cannot be read.
        typer.BadParameter: it is no UTF-8 text, or names no class.
    """
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows write a byte-order mark
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error
    if not text.strip():
        raise typer.BadParameter(f"{path} names no class: expected a name on each line")
    lines = text.rstrip().split("\n")
    return tuple(line.strip() or str(index) for index, line in enumerate(lines))


def pixels(text: str) -> tuple[int, int]:
    """Read N or HxW.

    Example:
        >>> pixels("224"), pixels("48x64")
        ((224, 224), (48, 64))
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise typer.BadParameter(f"expected --size as N or HxW pixels, such as 224, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read one number, or several with commas.

    Example:
        >>> numbers("0.5", "--mean"), numbers("0.1, 0.2,0.3", "--mean")
        ((0.5,), (0.1, 0.2, 0.3))
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"expected {option} as numbers with commas, such as 0.485,0.456,0.406, got {text!r}"
        ) from error


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
        raise typer.BadParameter(f"there is no device {text!r} here ({reason})") from error
    return device


def all_methods() -> dict[str, type[camlens.Explainer]]:
    """Return the explainer classes by name."""
    found = (getattr(camlens, name) for name in camlens.__all__)
    return {
        cls.__name__: cls
        for cls in found
        # What is not final is what others share.
        if inspect.isclass(cls) and issubclass(cls, camlens.Explainer) and _is_final(cls)
    }


def explainers(
    names: Sequence[str], model: nn.Module, layers: Sequence[str] | None
) -> list[camlens.Explainer]:
    """Make explainers; of a method's name case and punctuation do not matter.

    Raises:
        typer.BadParameter: there is no such method, or layers were named for none that takes one.
        LookupError: there is no such layer.
    """
    classes = [_method(name) for name in names]
    if layers and not any(issubclass(cls, camlens.LayerExplainer) for cls in classes):
        raise typer.BadParameter(
            f"--layer means nothing to {', '.join(names)}: leave it out, or see camlens methods"
        )
    chosen = list(layers) if layers else None
    return [
        cls(model, chosen) if issubclass(cls, camlens.LayerExplainer) else cls(model)
        for cls in classes
    ]


def _method(name: str) -> type[camlens.Explainer]:
    methods = all_methods()
    known = {_bare(each): each for each in methods}
    if _bare(name) not in known:
        hint = near(_bare(name), list(known)).rstrip("?") or f"; there are {', '.join(methods)}"
        for bare, written in known.items():
            hint = re.sub(rf"\b{bare}\b", written, hint)
        raise typer.BadParameter(f"there is no method {name!r}{hint}")
    return methods[known[_bare(name)]]


def targets(texts: Sequence[str], classes: Sequence[str] | None) -> list[int] | str | None:
    """Read what to explain: predicted, all, or classes by number or name.

    Raises:
        typer.BadParameter: a class has no such name, or several answers were mixed.
    """
    for word, meaning in (("predicted", None), ("all", "all")):
        if word in texts:
            if len(texts) > 1:
                raise typer.BadParameter(f"expected {word} alone, got {', '.join(texts)}")
            return meaning
    return [_class(text, classes) for text in texts]


def for_images(wanted: list[int] | str | None, n: int) -> Tensor | str | None:
    """Return targets of N images: the same classes for each."""
    return torch.tensor([wanted] * n) if isinstance(wanted, list) else wanted


def _class(text: str, classes: Sequence[str] | None) -> int:
    if text.isdecimal():
        return int(text)
    if classes is None:
        raise typer.BadParameter(
            f"expected a class's number, got {text!r}: the classes' names are unknown, give them "
            "with --classes FILE"
        )
    names = [name.casefold() for name in classes]
    if text.casefold() not in names:
        raise typer.BadParameter(f"there is no class {text!r}{near(text, classes)}")
    ids = [index for index, name in enumerate(names) if name == text.casefold()]
    if len(ids) > 1:
        raise typer.BadParameter(
            f"{len(ids)} classes are named {text!r}: give the number, "
            f"{', '.join(map(str, ids[:-1]))} or {ids[-1]}"
        )
    return ids[0]


def _bare(name: str) -> str:
    """Return a name's letters: grad-cam++ and GradCAMPlusPlus are one."""
    return re.sub(r"[^a-z]", "", name.lower().replace("+", "plus"))


def _is_final(cls: type) -> bool:
    return bool(cls.__dict__.get("__final__", False))
