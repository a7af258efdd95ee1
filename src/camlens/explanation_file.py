"""The file format of explanations: safetensors, with the other fields as JSON in its header."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .concept_maps import Concepts
from .files import write_whole
from .registration import Registration

FORMAT = "camlens.explanation.2"

#: A file that declares more pixels than this in one image (256 GiB of float32) counts as damaged.
MAX_PIXELS = 2**36

_TENSORS = {"raw", "scores", "targets"}
_OPTIONAL_TENSORS = {"gradients", "outputs"}
#: Prefix of the name of a measure.
_MEASURE = "measures."
#: Prefix of the name of a tensor of :class:`camlens.concept_maps.Concepts`.
_CONCEPT = "concepts."
_CONCEPTS = {"maps", "directions", "falls"}
_FACTS = {"size", "grid", "layers", "method", "registration"}


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    measures: Mapping[str, Tensor],
    concepts: Mapping[str, Tensor],
) -> None:
    """Write tensors and JSON-compatible facts to one file, completely or not at all.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full. An existing file then
            stays unchanged.
    """
    from safetensors.torch import save

    # Cloned, as safetensors refuses tensors that share memory, such as scores and outputs.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in (
            *tensors.items(),
            *((_MEASURE + name, measure) for name, measure in measures.items()),
            *((_CONCEPT + name, tensor) for name, tensor in concepts.items()),
        )
    }
    header = json.dumps({**facts, "format": FORMAT})
    write_whole(path, save(plain, metadata={"camlens": header}))


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return an explanation's fields by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an explanation, is damaged, or has another format. The shapes
            of the tensors are not checked.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("camlens", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    try:
        return {**_facts(_parsed(header)), **_checked(tensors)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an explanation that can be read: {error}") from error


def _parsed(header: str) -> dict[str, Any]:
    try:
        facts = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({type(error).__name__})") from error
    if not isinstance(facts, dict):
        raise TypeError(f"expected its header as a JSON object, got {type(facts).__name__}")
    version = facts.pop("format", None)
    if version != FORMAT:
        raise ValueError(
            f"it is of format {version!r:.60}, expected {FORMAT!r}: it was not written by "
            "Explanation.save, or was written by another version of camlens: run pip install -U "
            "camlens, or save it again"
        )
    return facts


def _checked(tensors: dict[str, Tensor]) -> dict[str, Any]:
    measures, concepts = _taken(tensors, _MEASURE), _taken(tensors, _CONCEPT)
    if concepts and set(concepts) != _CONCEPTS:
        raise ValueError(f"expected concepts {sorted(_CONCEPTS)}, got {sorted(concepts)!s:.200}")
    names = set(tensors)
    if missing := sorted(_TENSORS - names):
        raise ValueError(
            f"the tensors {missing} are missing: the file was not written by Explanation.save"
        )
    if unknown := sorted(names - _TENSORS - _OPTIONAL_TENSORS):
        raise ValueError(f"the file has unknown tensors {unknown}")
    raw = tensors["raw"]
    if raw.is_floating_point() and not raw.float().isfinite().all():
        raise ValueError("raw has values that are NaN or infinite, which no explainer returns")
    held = Concepts(**concepts) if concepts else None
    return {**tensors, "measures": measures, "concepts": held}


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names start with a prefix, and return them without the prefix."""
    named = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in named}


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    if set(facts) != _FACTS:
        raise ValueError(f"expected the fields {sorted(_FACTS)}, got {sorted(facts)!s:.200}")
    for name in ("size", "grid"):
        if not _is_shape(facts[name]):
            raise ValueError(
                f"expected {name} as 1 to 3 positive integers, got {facts[name]!r:.60}"
            )
        if math.prod(facts[name]) > MAX_PIXELS:
            raise ValueError(f"expected {name} of at most {MAX_PIXELS} pixels, got {facts[name]}")
    if not isinstance(facts["layers"], list) or not all(
        isinstance(name, str) for name in facts["layers"]
    ):
        raise ValueError(f"expected layers as a list of names, got {facts['layers']!r:.60}")
    if not isinstance(facts["method"], str):
        raise TypeError(f"expected method as a name, got {facts['method']!r:.60}")
    return {
        "size": tuple(facts["size"]),
        "grid": tuple(facts["grid"]),
        "layers": tuple(facts["layers"]),
        "method": facts["method"],
        "registration": _registration(facts["registration"]),
    }


def _registration(fields: Any) -> Registration | None:
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise TypeError(f"expected a registration as a JSON object, got {fields!r:.60}")
    for name, value in fields.items():
        if name in ("size", "grid") and not _is_shape(value):
            raise ValueError(
                f"expected the registration's {name} as 1 to 3 positive integers, got {value!r:.60}"
            )
        plain = name in ("kind", "proven") or (value is None and name != "pitch")
        # Along an axis without a measured pitch the error is null.
        parts = value if name == "span" and isinstance(value, list) else [value]
        if not plain and not all(_are_numbers(p, or_null=name == "pitch_error") for p in parts):
            raise ValueError(f"expected the registration's {name} as numbers, got {value!r:.60}")
    try:
        return Registration.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a registration, got {fields!r:.200} ({error})") from error


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= 3
        and all(type(number) is int and number > 0 for number in value)
    )


def _are_numbers(value: Any, *, or_null: bool) -> bool:
    return isinstance(value, list) and all(
        (or_null and v is None) or (type(v) in (int, float) and math.isfinite(v)) for v in value
    )
