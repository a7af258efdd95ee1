"""Print constraints that pin each requirement of pyproject.toml to the lowest version it allows.

It pins what camlens itself needs, without its extras.
"""

from __future__ import annotations

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
    """Print the constraints, a line each."""
    content = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    print(*map(lowest, content["project"]["dependencies"]), sep="\n")


if __name__ == "__main__":
    main()
