"""Where evaluations are kept: beside the weights, and as records that come with the package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import write_json

#: The evaluations that come with the package, so that they can be compared without the weights.
MEASURED = Path(__file__).with_name("measured")


def default_folder(path: Path) -> Path:
    """Return where the evaluations of a weights file are kept, in a run where compare looks."""
    if (path.parent / "run.json").is_file():
        return path.parent / "evaluation"
    return Path("out/evaluate") / path.stem


def digest(path: Path) -> str:
    """Return the SHA-256 of a weights file: which weights an evaluation is of."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(values: dict[str, Any], path: Path) -> None:
    """Put an evaluation into a record, a JSON file of all evaluations of one network's weights.

    An earlier one of the same test set and averaging makes room, and so does all that is of other
    weights.

    Raises:
        ValueError: the file is there and is no record.
    """
    kept: list[dict[str, Any]] = []
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
            kept = [old for old in kept if _place(old) != _place(values)]
            kept = [old for old in kept if old["weights"] == values["weights"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no record of evaluations ({error!r}): move it away"
            ) from error
    write_json({"evaluations": sorted([*kept, values], key=_place)}, path)


def _place(values: dict[str, Any]) -> tuple[str, str]:
    return str(values["on"]), str(values["averaging"])
