"""What is checked of the arguments before the first image is read."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from ..explainers import Explainer
from ..faithfulness import INFILLS
from ..model import check_mode
from ..regions.masks import Regions
from ..targets import Targets, as_classes
from .descriptions import describe_explainer
from .questions import HEAT_TYPES


def check_installed() -> None:
    """Check that the libraries are there that read and write tables and pictures.

    Raises:
        ImportError: one is not; says how to install it.
    """
    lacking = [
        n for n in ("pandas", "pyarrow", "PIL", "tqdm") if importlib.util.find_spec(n) is None
    ]
    if lacking:
        raise ImportError(f'whole data sets need {", ".join(lacking)}: pip install "camlens[data]"')


def check_explainers(explainers: Sequence[Any]) -> None:
    """Check that there are explainers, of one model, each once.

    Raises:
        TypeError: something is no explainer.
        ValueError: there is none, they are of several models, or one is given twice.
    """
    if not explainers:
        raise ValueError("expected an explainer, such as camlens.GradCAM(model), got none")
    for one in explainers:
        if not isinstance(one, Explainer):
            raise TypeError(
                f"expected an explainer, such as camlens.GradCAM(model), got {type(one).__name__}"
            )
        if one.model is not explainers[0].model:
            raise ValueError(
                "expected explainers of one model: give each model a run and a folder of its own"
            )
    check_mode(explainers[0].model)
    found = [describe_explainer(one) for one in explainers]
    keys = [(one["method"], one["layers"]) for one in found]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"expected each method and layer once, got {twice[0]} again")


def check_dataset(dataset: Any) -> None:
    """Check that a data set can be read by position or from its start.

    Raises:
        TypeError: it cannot, or is a path.
    """
    if isinstance(dataset, (str, os.PathLike)):
        raise TypeError(
            f"expected a data set, got the path {os.fspath(dataset)!r}: say how its files become "
            "the model's input with camlens.dataset.Folder(path, transform)"
        )
    mapped = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not mapped and not isinstance(dataset, IterableDataset) and not hasattr(dataset, "__iter__"):
        raise TypeError(
            "expected a data set with __getitem__ and __len__, or an iterable one, got "
            f"{type(dataset).__name__}"
        )


def check_regions(regions: Any, infill: str | None) -> None:
    """Check regions and what they are replaced by.

    Raises:
        TypeError: no regions and no function.
        ValueError: regions of several images, an unknown infill, or one without regions.
    """
    if regions is not None and not isinstance(regions, Regions) and not callable(regions):
        raise TypeError(
            "expected regions as camlens.regions.Regions or as a function of pictures, got "
            f"{type(regions).__name__}"
        )
    if isinstance(regions, Regions) and len(regions.masks) != 1:
        raise ValueError(
            f"expected one set of masks for all images, got {len(regions.masks)}: for masks of "
            "each image give a function of the pictures"
        )
    if infill is not None and infill not in INFILLS:
        raise ValueError(f"expected an infill out of {INFILLS}, got {infill!r}")
    if infill is not None and regions is None:
        raise ValueError("infill= removes regions, but there are none: give regions= too")


def check_numbers(**numbers: int) -> None:
    """Check that arguments are whole numbers of at least 1, workers of at least 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in numbers.items():
        least = 0 if name == "num_workers" else 1
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"expected {name} as a whole number of at least {least}, got {value!r}"
            )


def check_heatmaps(heatmaps: str) -> None:
    """Check how heatmaps are to be kept.

    Raises:
        ValueError: it is no way that is known.
    """
    if heatmaps not in HEAT_TYPES:
        raise ValueError(f"expected heatmaps as one of {[*HEAT_TYPES]}, got {heatmaps!r}")


def as_targets(targets: Targets, length: int | None) -> Targets:
    """Return targets with those of each image as a tensor.

    Args:
        targets: as :func:`camlens.dataset.explain_dataset` takes them.
        length: of the data set, if it is known.

    Raises:
        TypeError: they are no integers.
        ValueError: an unknown word, or not one row an image.
    """
    if isinstance(targets, str):
        if targets not in ("all", "label"):
            raise ValueError(
                f'expected targets None, "all", "label", a class or classes, got {targets!r}'
            )
        return targets
    if isinstance(targets, (Tensor, Sequence)):
        if isinstance(targets, Tensor) and targets.ndim == 0:
            return int(targets)
        return as_classes(targets, len(targets) if length is None else length).cpu()
    return targets
