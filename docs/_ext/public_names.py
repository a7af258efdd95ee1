"""A public name without an entry in the API reference is a warning, and so fails the build."""

from __future__ import annotations

import importlib
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

#: The modules whose ``__all__`` says what is public.
MODULES = (
    "camlens",
    "camlens.regions",
    "camlens.faces",
    "camlens.faithfulness",
    "camlens.dataset",
    "camlens.report",
    "camlens.loading",
    "camlens.testing",
)

_log = logging.getLogger(__name__)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every public name that no page documents."""
    known = env.domains.python_domain.objects
    for name in MODULES:
        module = importlib.import_module(name)
        for member in module.__all__:
            thing = getattr(module, member)
            # A submodule is documented by its members, or as a page's subject.
            if isinstance(thing, ModuleType) or f"{name}.{member}" in known:
                continue
            _log.warning("%s.%s is public but in no page of the API reference", name, member)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check when everything has been read."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
