"""Preprocessing options: read them, apply them to a model, and note when they are missing."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..loading import LoadedModel, Preprocessing, Transform

Size = Annotated[
    str | None,
    typer.Option(
        help="The model's input size, N or HxW pixels: pictures are resized to cover it, then "
        "cropped at the centre. Replaces --resize and --crop.",
        show_default="from the weights, otherwise the picture's size",
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        help="Like torchvision's Resize: N pixels for the shorter side, keeping the aspect ratio; "
        "HxW stretches. Applied before --crop.",
        show_default="from the weights",
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        help="Like torchvision's CenterCrop: the central N or HxW pixels, the model's input.",
        show_default="from the weights",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Subtracted from values in [0, 1]: one number, or three with commas."),
]
Std = Annotated[
    str | None,
    typer.Option(help="Divides the values after --mean: one number, or three with commas."),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """The values of the preprocessing options; None if an option is not given.

    Attributes:
        size: (H, W).
        resize: (H, W), or one number for the shorter side.
        crop: (H, W).
        mean: one number, or one for each channel.
        std: one number, or one for each channel.
    """

    size: tuple[int, int] | None = None
    resize: tuple[int, ...] | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def read(
        cls,
        *,
        size: str | None = None,
        resize: str | None = None,
        crop: str | None = None,
        mean: str | None = None,
        std: str | None = None,
    ) -> PreprocessingOptions:
        """Parse the options.

        Raises:
            typer.BadParameter: a value is invalid, or two options contradict each other.
        """
        if size is not None and (resize is not None or crop is not None):
            other = "--resize" if resize is not None else "--crop"
            raise typer.BadParameter(
                f"--size {size} sets both the resize and the crop, and {other} contradicts it: "
                "use only --size, or --resize and --crop"
            )
        sides = None if resize is None else pixels(resize, "--resize")
        return cls(
            size=None if size is None else pixels(size, "--size"),
            resize=sides[:1] if sides and "x" not in str(resize) else sides,
            crop=None if crop is None else pixels(crop, "--crop"),
            mean=None if mean is None else numbers(mean, "--mean"),
            std=None if std is None else numbers(std, "--std"),
        )

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [f"--{name}" for name, value in dataclasses.asdict(self).items() if value]

    def applied(self, loaded: LoadedModel, spec: str) -> LoadedModel:
        """Return the model with its preprocessing changed by the options.

        Raises:
            typer.BadParameter: a value does not match the model, or the steps of its transform are
                unknown, so that none can be changed.
        """
        if not self.given:
            return loaded
        preprocessing = loaded.preprocessing
        if isinstance(preprocessing, Transform):
            if preprocessing.steps is None:
                raise typer.BadParameter(
                    f"{', '.join(self.given)} would change the transform of {spec}, which has "
                    "steps other than a resize, a centre crop and a normalisation: leave the "
                    "options out, or change the transform itself"
                )
            preprocessing = preprocessing.steps
        try:
            changed = dataclasses.replace(preprocessing, **self._changes(preprocessing))
        except ValueError as error:
            raise typer.BadParameter(f"{', '.join(self.given)} of {spec}: {error}") from error
        self._check_crop(changed)
        normalised = self.mean is not None or self.std is not None
        return dataclasses.replace(
            loaded,
            preprocessing=changed,
            preprocessing_known=loaded.preprocessing_known or (normalised and _has_size(changed)),
        )

    def _changes(self, steps: Preprocessing) -> dict[str, Any]:
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in ("mean", "std") if getattr(self, name)
        }
        if self.size is not None:
            return changes | {"size": self.size, "resize": None, "fit": "cover"}
        if self.resize is not None:
            fit = "cover" if len(self.resize) == 1 else "stretch"
            changes |= {"resize": (self.resize[0], self.resize[-1]), "fit": fit}
        if self.crop is not None:
            changes["size"] = self.crop
            if self.resize is None:
                # Without a resize, pictures were resized to the size of the crop.
                resize = None if steps.fit == "keep" else steps.resize or steps.size
                changes |= {"resize": resize, "fit": steps.fit if resize else "keep"}
        return changes

    def _check_crop(self, steps: Preprocessing) -> None:
        if (self.resize or self.crop) and steps.resize is not None and steps.size is not None:
            if all(crop <= side for crop, side in zip(steps.size, steps.resize, strict=True)):
                return
            crop, side = ("x".join(map(str, sides)) for sides in (steps.size, steps.resize))
            raise typer.BadParameter(
                f"--crop {crop} is larger than --resize {side}, so the model would see a black "
                "border: use a larger --resize or a smaller --crop (an option that is not given "
                "comes from the weights)"
            )


def preprocessing_notes(loaded: LoadedModel) -> Iterator[str]:
    """Yield a note if a model's preprocessing or the steps of its transform are unknown."""
    preprocessing = loaded.preprocessing
    if isinstance(preprocessing, Transform):
        if preprocessing.steps is None:
            yield (
                f"the transform of {preprocessing.source} has steps other than a resize, a centre "
                "crop and a normalisation: pictures show its output, stretched to full contrast if "
                "it is not in [0, 1], and its position in the photograph is unknown"
            )
        return
    if loaded.preprocessing_known:
        return
    remedies = [] if _has_size(preprocessing) else ["--size, or --resize and --crop"]
    if _is_identity(preprocessing):
        remedies.append("--mean and --std (0 and 1 if this is right)")
    yield (
        "the model's preprocessing is unknown, so its input is each photograph's "
        f"{input_in_words(preprocessing)}. If it was trained with other preprocessing, its "
        f"predictions mean little: set {'; and '.join(remedies)}"
    )


def input_in_words(steps: Preprocessing) -> str:
    """Describe a model's input in words.

    Example:
        >>> input_in_words(Preprocessing())
        'pixels in [0, 1], at its own size, without normalisation'
        >>> input_in_words(Preprocessing(size=(48, 64), channels=1, mean=(0.5,), std=(0.5,)))
        'grey values in [0, 1], at 48 x 64 pixels, minus 0.5 and divided by 0.5'
    """
    kind = "grey values" if steps.channels == 1 else "pixels"
    if steps.size is not None:
        size = f"at {steps.size[0]} x {steps.size[1]} pixels"
    elif steps.resize is not None:
        side = "its shorter side at" if steps.fit == "cover" else "at"
        size = f"{side} {' x '.join(map(str, steps.resize[steps.fit == 'cover' :]))} pixels"
    else:
        size = "at its own size"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (steps.mean, steps.std))
    normalisation = "without normalisation"
    if not _is_identity(steps):
        normalisation = f"minus {mean} and divided by {std}"
    return f"{kind} in [0, 1], {size}, {normalisation}"


def pixels(text: str, option: str) -> tuple[int, int]:
    """Read N or HxW.

    Example:
        >>> pixels("224", "--size"), pixels("48x64", "--size")
        ((224, 224), (48, 64))
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise typer.BadParameter(f"expected {option} as N or HxW pixels, such as 224, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read one number, or several with commas.

    Example:
        >>> numbers("0.5", "--mean"), numbers("0.1, 0.2,0.3", "--mean")
        ((0.5,), (0.1, 0.2, 0.3))
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise typer.BadParameter(
            f"expected {option} as numbers with commas, such as 0.485,0.456,0.406, got {text!r}"
        )
    return values


def _has_size(preprocessing: Preprocessing) -> bool:
    return preprocessing.size is not None or preprocessing.resize is not None


def _is_identity(preprocessing: Preprocessing) -> bool:
    return set(preprocessing.mean) == {0.0} and set(preprocessing.std) == {1.0}
