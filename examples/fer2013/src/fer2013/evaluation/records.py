"""Stored results: in the run's folder, and in records that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_json

#: Folder of the records that come with the package, for comparisons without the weights.
MEASURED = Path(__file__).with_name("measured")


def default_folder(path: Path) -> Path:
    """Return the output folder for a weights file: within its run, where compare looks, if any."""
    if (path.parent / "run.json").is_file():
        return path.parent / "evaluation"
    return Path("out/evaluate") / path.stem


def remember(values: dict[str, Any], path: Path) -> None:
    """Add an evaluation to a record, a JSON file of the evaluations of one network.

    It replaces an earlier one of the same test set and averaging, and all of other weights.

    Raises:
        ValueError: the existing file is not a record.
    """
    kept: list[dict[str, Any]] = []
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
            kept = [old for old in kept if _key(old) != _key(values)]
            kept = [old for old in kept if old["weights"] == values["weights"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a record of evaluations ({error!r}): move it away"
            ) from error
    write_json({"evaluations": sorted([*kept, values], key=_key)}, path)


def _key(values: dict[str, Any]) -> tuple[str, str]:
    return str(values["on"]), str(values["averaging"])
