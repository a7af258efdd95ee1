"""lxt's patches for torchvision's vision transformer, without its language models.

``lxt.efficient`` imports the language models of transformers 4, which version 5 has moved; the rows
of models.py need version 5.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

_MODELS = "lxt.efficient.models"

if _MODELS not in sys.modules:
    spec = importlib.util.find_spec("lxt")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("lxt is missing: make bench installs it")
    package = types.ModuleType(_MODELS)
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "efficient" / "models")]
    package.get_default_map = None  # type: ignore[attr-defined]  # of language models
    sys.modules[_MODELS] = package

from lxt.efficient import monkey_patch  # noqa: E402
from lxt.efficient.models.vit_torch import cp_LRP  # noqa: E402

__all__ = ["cp_LRP", "monkey_patch"]
