"""Print constraints that pin each requirement of pyproject.toml to the lowest version it allows.

``python release/lower_bounds.py`` pins what camlens needs, ``python release/lower_bounds.py regions
test`` also what these extras and dependency groups need.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(requirement: str) -> str:
    """Return ``name==version`` of a requirement with exactly one lower bound.

    Example:
        >>> lowest("torch>=2.6")
        'torch==2.6'
    """
    parsed = Requirement(requirement)
    bounds = [bound.version for bound in parsed.specifier if bound.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"expected one lower bound (>=) of {parsed.name}, got {requirement!r}")
    return f"{parsed.name}=={bounds[0]}"


def main() -> None:
    """Print the constraints of the core and of the extras and groups that the arguments name."""
    content = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    parts = content["project"]["optional-dependencies"] | content["dependency-groups"]
    requirements = list(content["project"]["dependencies"])
    for name in sys.argv[1:]:
        requirements += [one for one in parts[name] if isinstance(one, str)]
    pins = {lowest(one) for one in requirements if not one.startswith("camlens[")}
    print(*sorted(pins), sep="\n")


if __name__ == "__main__":
    main()
