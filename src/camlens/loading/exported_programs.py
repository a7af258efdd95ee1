"""Load programs of ``torch.export`` (``.pt2``) as modules with named layers.

Loading a ``.pt2`` file can run arbitrary code: torch's loader unpickles objects, evaluates
expressions and loads compiled libraries from the file, in ways that no outside check can cover.
A file is therefore loaded only if the caller declares that it is trusted.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import nn


def load_program(
    path: str | os.PathLike[str], *, trusted_pickle: bool = False
) -> tuple[nn.Module, tuple[int, ...]]:
    """Load an exported program as a module.

    Args:
        path: a file from ``torch.export.save``.
        trusted_pickle: must be True, since loading the file can run any code in it.

    Returns:
        The module in evaluation mode, with the submodule names of the exported model; and the
        shape of its first input, (N, C, H, W), with 0 for dynamic sizes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not trusted, is damaged, or is not an exported program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected an exported program")
    if not trusted_pickle:
        raise ValueError(
            f"{path} is an exported program, and torch's loader can run any code in it: if you "
            "trust its author, pass trusted_pickle=True (--unsafe-pickle); otherwise pass your own "
            "code for the model, package.module:function, and its weights as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            module: nn.Module = torch.export.unflatten(program)
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(
            f"{path} is not a complete exported program that torch {torch.__version__} can load "
            f"({type(error).__name__}: {error}): write it again with torch.export.save"
        ) from error
    return module.eval(), _input_shape(program)


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    inputs = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            shape = getattr(node.meta.get("val"), "shape", ())
            return tuple(size if isinstance(size, int) else 0 for size in shape)
    return ()
