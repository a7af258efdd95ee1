"""Exported programs (``.pt2``) as modules whose layers have names.

A ``.pt2`` file is a program, and torch says of its loader never to give it a file from someone you
do not trust. Here at least what is known to run code is kept out: pickles, compiled libraries, and
expressions (of sizes; torch hands them to ``sympy.sympify``, which evaluates them) that are more
than arithmetic.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .weights import tensors_only

# Parts of an archive that hold machine code, or objects that only a pickle can hold.
_CODE = re.compile(r"(^|/)data/(aotinductor|executorch|mtia)/|/(custom|opaque)_obj_")

_ARITHMETIC = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.Tuple),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop),
)


def load(
    path: str | os.PathLike[str], *, trusted_pickle: bool = False
) -> tuple[nn.Module, tuple[int, ...]]:
    """Load an exported program as a module.

    Args:
        path: a file that ``torch.export.save`` wrote.
        trusted_pickle: whether to load what can run code as well. Only for files that you trust
            as you would a program.

    Returns:
        The module in evaluation mode, its submodules named as those of the model that was
        exported; and the shape of its first input, (N, C, H, W), with 0 where it is free.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no exported program, or holds what can run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: expected an exported program")
    try:
        if not trusted_pickle:
            _check(path)
        with tensors_only(not trusted_pickle), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            module: nn.Module = torch.export.unflatten(program)
    except pickle.UnpicklingError as error:
        raise _hazard(path, "a pickle that holds more than tensors") from error
    except _HazardError:
        raise
    except Exception as error:  # of a damaged file, almost anything
        raise ValueError(
            f"{path} is no whole exported program that torch {torch.__version__} can load "
            f"({type(error).__name__}: {error}): write it anew with torch.export.save"
        ) from error
    return module.eval(), _input_shape(program)


class _HazardError(ValueError):
    """A file that could run code."""


def _hazard(path: Path, what: str) -> _HazardError:
    return _HazardError(
        f"{path} holds {what}, and loading it can run any code of whoever made it: if you trust "
        "them, say so with trusted_pickle=True (--unsafe-pickle); otherwise use a safetensors "
        "file of the weights and your own code of the model"
    )


def _check(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _CODE.search(name):
                raise _hazard(path, f"compiled code or a pickled object ({name})")
            if name.endswith(".json"):
                for expression in _expressions(json.loads(archive.read(name))):
                    if not _is_arithmetic(expression):
                        raise _hazard(path, f"an expression that is no size ({expression[:60]!r})")


def _expressions(value: Any) -> Iterator[str]:
    """Yield all texts that stand under ``expr_str``, however deep."""
    if isinstance(value, dict):
        if isinstance(text := value.get("expr_str"), str):
            yield text
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _expressions(part)


def _is_arithmetic(text: str) -> bool:
    """Say whether an expression is made of numbers, symbols and sympy's classes only.

    Example:
        >>> _is_arithmetic("Mul(Integer(2), Symbol('s0', integer=True))")
        True
        >>> _is_arithmetic("__import__('os').system('true')"), _is_arithmetic("eval('s0')")
        (False, False)
    """
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in nodes:
        if not isinstance(node, _ARITHMETIC):
            return False
        if isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Name) and re.fullmatch(r"[A-Z]\w*", node.func.id)
        ):
            return False
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and not re.fullmatch(r"[\w.+-]*", value):
            return False
    return True


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    wanted = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            shape = getattr(node.meta.get("val"), "shape", ())
            return tuple(size if isinstance(size, int) else 0 for size in shape)
    return ()
