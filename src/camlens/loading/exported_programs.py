"""Exported programs (``.pt2``) as modules whose layers have names.

A ``.pt2`` file is a program, and torch says of its loader never to give it a file from someone you
do not trust: it unpickles objects, evaluates expressions and loads compiled libraries out of the
file, by names that no check from outside keeps up with. So one is loaded only where it is trusted.
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
        path: a file that ``torch.export.save`` wrote.
        trusted_pickle: whether the file is trusted as one would a program, since loading it can
            run any code of whoever made it. It has to be; it is the same consent as to a pickle.

    Returns:
        The module in evaluation mode, its submodules named as those of the model that was
        exported; and the shape of its first input, (N, C, H, W), with 0 where it is free.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not trusted, damaged, or no exported program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected an exported program")
    if not trusted_pickle:
        raise ValueError(
            f"{path} is an exported program, and torch's loader of such can run any code of "
            "whoever made the file: if you trust them, say so with trusted_pickle=True "
            "(--unsafe-pickle); otherwise give package.module:function, your own code of the "
            "model, and its weights as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            module: nn.Module = torch.export.unflatten(program)
    except Exception as error:  # of a damaged file, almost anything
        raise ValueError(
            f"{path} is no whole exported program that torch {torch.__version__} can load "
            f"({type(error).__name__}: {error}): write it anew with torch.export.save"
        ) from error
    return module.eval(), _input_shape(program)


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    wanted = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            shape = getattr(node.meta.get("val"), "shape", ())
            return tuple(size if isinstance(size, int) else 0 for size in shape)
    return ()
