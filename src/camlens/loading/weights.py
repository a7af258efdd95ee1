"""Load weights from a file into a model, without running code from the file."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

#: Values of ``weights`` that are not files: random weights, and the library's default.
NONE, DEFAULT = "none", "default"

#: Suffixes of files written by torch.save, which are pickles.
PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt"})

#: If set, every call of ``torch.load`` rejects anything but tensors.
ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_SETTING = threading.Lock()

# Prefixes that wrappers add to every name.
_PREFIXES = ("module.", "_orig_mod.")


def read(path: str | os.PathLike[str], *, trusted_pickle: bool = False) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: a ``.safetensors`` file, or one from ``torch.save(model.state_dict(), path)``.
        trusted_pickle: whether to also load pickles of other objects, which can run code.

    Returns:
        Tensors by name, on the CPU, without the prefixes of compiled and parallel models. If a
        checkpoint contains ``state_dict`` or ``model``, only that part is returned.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, of an unknown type, or a pickle that could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected weights")
    if path.suffix == ".safetensors":
        state = _safetensors(path)
    elif path.suffix in PICKLES:
        state = _state(unpickle(path, trusted_pickle=trusted_pickle), path)
    else:
        raise ValueError(
            f"expected weights as .safetensors or {', '.join(sorted(PICKLES))}, got {path}"
        )
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def is_file_name(weights: str) -> bool:
    """Return whether a name of weights is a file and not a library's name.

    Example:
        >>> [is_file_name(text) for text in ("best.safetensors", "out/best", "a1_in1k")]
        [True, True, False]
    """
    return bool(Path(weights).suffix) or len(Path(weights).parts) > 1


def unpickle(path: Path, *, trusted_pickle: bool) -> Any:
    """Load a file of ``torch.save``; only tensors and plain containers unless it is trusted.

    Raises:
        ValueError: the file is damaged, or contains other objects and is not trusted.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted_pickle)
    except pickle.UnpicklingError as error:
        if trusted_pickle:
            raise ValueError(f"{path} is not a complete file of torch.save: {error}") from error
        raise ValueError(
            f"{path} is damaged, or a pickle that contains more than tensors; loading such a "
            "pickle can run any code in it. Save the weights with safetensors.torch.save_file, or, "
            "if you trust the author of the file, pass trusted_pickle=True (--unsafe-pickle)"
        ) from error
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(
            f"{path} is not a complete file of torch.save ({type(error).__name__}: {error})"
        ) from error


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """Make every ``torch.load`` reject anything but tensors, including torch's own calls."""
    with _SETTING:
        before = os.environ.get(ONLY_WEIGHTS)
        os.environ[ONLY_WEIGHTS] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[ONLY_WEIGHTS]
            else:
                os.environ[ONLY_WEIGHTS] = before


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a complete state dict into a model.

    Raises:
        ValueError: names or shapes differ; the message lists the first few.
    """
    expected = model.state_dict()
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    # Batch counts do not affect outputs, and old files lack them.
    lacking = [n for n in expected if n not in state and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in expected]
    parts = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"
        for what, names in (("lacks", lacking), ("also has", unknown), ("other shapes", shapes))
        if names
    ]
    if parts:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}; the file {'; '.join(parts)}. Build the "
            "model exactly as it was trained"
        )
    model.load_state_dict(state, strict=False)


def classes_of(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], count: int) -> int:
    """Return a state dict's number of classes, if only that number differs from a model's.

    Args:
        state: the file's state dict.
        expected: the model's state dict.
        count: the model's number of classes.

    Example:
        >>> head = {"fc.weight": torch.zeros(1000, 8)}
        >>> classes_of({"fc.weight": torch.zeros(7, 8)}, head, 1000)
        7
    """
    differing = {
        len(state[name])
        for name, value in expected.items()
        if name in state
        and state[name].ndim == value.ndim > 0
        and state[name].shape != value.shape
        and len(value) == count
        and state[name].shape[1:] == value.shape[1:]
    }
    return differing.pop() if len(differing) == 1 else count


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): get a complete copy"
        ) from error


def _state(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, nn.Module):
        content = content.state_dict()
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"expected {path} to contain a state dict (tensors by name), got "
            f"{type(content).__name__}: save it with safetensors.torch.save_file"
        )
    return dict(content)
