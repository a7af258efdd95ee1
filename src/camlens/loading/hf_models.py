"""Load image classifiers of transformers from Hugging Face's hub or a folder."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from . import weights as weight_files
from .faults import is_machine_fault
from .loaded_model import LoadedModel
from .preprocessing import Preprocessing
from .transforms import Transform

#: Supported interpolations by Pillow's numbers.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}

#: ConvNeXt's processors crop for input sizes below this one and stretch for others.
_CONVNEXT_SMALL = 384


def load_hf(name: str, weights: str | None = None, *, trusted_pickle: bool = False) -> LoadedModel:
    """Load an image classifier of transformers. Code in its folder is never run.

    Args:
        name: a folder that ``save_pretrained`` wrote, or a name on Hugging Face's hub, such as
            ``"google/vit-base-patch16-224"``.
        weights: None or ``"default"`` for the weights in the folder or on the hub; ``"none"`` for
            random weights with the same configuration; or a file.
        trusted_pickle: applies to ``weights``; see :func:`camlens.loading.load_model`.

    Returns:
        The model; its preprocessing is its image processor.

    Raises:
        ImportError: transformers is not installed.
        LookupError: there are no weights of that name.
        OSError: the folder or a file is missing, or the download failed.
        ValueError: the model is not an image classifier, lacks weights, or a file does not fit.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f'hf:{name} needs transformers: pip install "camlens[hf]" ({error})'
        ) from error
    source = _source(name)
    model = _model(transformers, source, weights, trusted_pickle).eval()
    random = weights == weight_files.NONE
    classes = None if random else _classes(model.config)
    loaded = LoadedModel(model=model, preprocessing=Preprocessing(), classes=classes)
    if Path(source).is_dir() and not _has_processor(Path(source)):
        guess = Preprocessing(size=_size(model.config))
        return dataclasses.replace(loaded, preprocessing=guess, preprocessing_known=False)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except OSError as error:
        raise OSError(_no_processor(name, error)) from error
    except Exception as error:
        if is_machine_fault(error):
            raise
        raise ValueError(_no_processor(name, error)) from error
    how = Transform.of(_Processor(processor), f"hf:{name}", _steps(processor.to_dict()))
    return dataclasses.replace(loaded, preprocessing=how)


def _source(name: str) -> str:
    """Check the name of a folder or of a model on the hub, and return it."""
    folder = Path(name).expanduser()
    if folder.is_file():
        raise NotADirectoryError(
            f"expected a folder of transformers as hf:{name}, but {folder} is a file: name the "
            "folder, and pass weights with --weights FILE"
        )
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"expected a folder that save_pretrained wrote, but {folder} has no config.json"
            )
        return str(folder)
    if not name or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {folder}: expected hf:FOLDER or hf:NAME")
    return name


def _model(transformers: Any, source: str, weights: str | None, trusted_pickle: bool) -> Any:
    auto = transformers.AutoModelForImageClassification
    weights = weights or weight_files.DEFAULT
    random = weights == weight_files.NONE
    if weights != weight_files.DEFAULT and not random and not weight_files.is_file_name(weights):
        raise LookupError(
            f"hf:{source} has no weights {weights!r}: expected default, none or a file, such as "
            "weights.safetensors"
        )
    try:
        if weights == weight_files.DEFAULT:
            with weight_files.tensors_only():
                model, facts = auto.from_pretrained(
                    source, trust_remote_code=False, output_loading_info=True
                )
            _check_complete(source, facts)
            return model
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        model = auto.from_config(config, trust_remote_code=False)
    except _IncompleteError:
        raise
    except OSError as error:
        raise OSError(_unreachable(source, error)) from error
    except Exception as error:  # a damaged file can raise almost anything
        if is_machine_fault(error):
            raise
        raise ValueError(
            f"hf:{source} is not an image classifier that transformers {transformers.__version__} "
            f"can load ({type(error).__name__}: {_first(error)})"
        ) from error
    if random:
        return model
    state = weight_files.read(weights, trusted_pickle=trusted_pickle)
    count = weight_files.classes_of(state, model.state_dict(), config.num_labels)
    if count != config.num_labels:
        config.num_labels = count  # also resets the names
        model = auto.from_config(config, trust_remote_code=False)
    weight_files.fill(model, state, weights)
    return model


class _IncompleteError(ValueError):
    """Some weights are missing; the message needs no further context."""


def _check_complete(source: str, facts: Mapping[str, Any]) -> None:
    """Reject missing weights, which transformers would initialise at random with a log message."""
    for kind in ("missing_keys", "mismatched_keys"):
        names = sorted(str(name) for name in facts.get(kind, ()))
        if names:
            raise _IncompleteError(
                f"hf:{source} lacks weights of the image classifier, {', '.join(names[:3])}"
                f"{', ...' * (len(names) > 3)}: it was trained for another task; expected a "
                "model with a trained classifier"
            )


def _unreachable(source: str, error: OSError) -> str:
    if Path(source).is_dir():
        return f"could not load the model in {source} ({_first(error)})"
    return (
        f"could not load hf:{source}: there is no folder {source}, and Hugging Face's hub returned "
        f"no such model ({_first(error)}); offline, pass the folder of a local copy, hf:FOLDER"
    )


def _first(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")


def _no_processor(name: str, error: Exception) -> str:
    return (
        f"could not load the image processor of hf:{name} ({_first(error)}): expected its "
        "preprocessor_config.json; for a folder without that file set the preprocessing with "
        "--size, --mean and --std"
    )


def _has_processor(folder: Path) -> bool:
    return any(
        (folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    )


def _size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else None


def _classes(config: Any) -> tuple[str, ...] | None:
    """Return the names of the outputs; None if the configuration only numbers them."""
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    if sorted(names) != list(range(len(names))):
        return None
    if not names or all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return tuple(names[index] for index in range(len(names)))


@dataclasses.dataclass(frozen=True)
class _Processor:
    """An image processor as a transform."""

    processor: Any

    def __call__(self, image: Any) -> Tensor:
        values: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return values

    def fingerprint(self) -> str:
        """Return the version and the configuration that determine the processor's output."""
        version = importlib.import_module("transformers").__version__
        return f"{version} {json.dumps(self.processor.to_dict(), sort_keys=True, default=str)}"


def _steps(facts: Mapping[str, Any]) -> Preprocessing | None:
    """Return an image processor's steps as a preprocessing; None if it has other steps."""
    crop = facts.get("crop_size") if facts.get("do_center_crop") else None
    size = dict(facts.get("size") or {}) if facts.get("do_resize") else {}
    normalized = facts.get("do_normalize")
    try:
        fit, resize = "keep", None
        if "shortest_edge" in size:
            fit, side = "cover", int(size["shortest_edge"])
            if facts.get("crop_pct") is not None:  # ConvNeXt
                crop = {"height": side, "width": side}
                fit = "cover" if side < _CONVNEXT_SMALL else "stretch"
                side = int(side / facts["crop_pct"]) if fit == "cover" else side
            resize = (side, side)
        elif size:
            fit, resize = "stretch", (int(size["height"]), int(size["width"]))
        return Preprocessing(
            size=resize if crop is None and fit == "stretch" else _sides(crop),
            resize=resize,
            fit=fit,
            mean=tuple(facts["image_mean"]) if normalized else (0.0,),
            std=tuple(facts["image_std"]) if normalized else (1.0,),
            interpolation=_RESAMPLE[int(facts["resample"])] if size else "bilinear",
        )
    except (KeyError, TypeError, ValueError):
        return None


def _sides(size: Any) -> tuple[int, int] | None:
    return None if size is None else (int(size["height"]), int(size["width"]))
