"""Read --target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from ..dataset.items import NO_LABEL
from ..loading.factories import near
from ..targets import Targets, several, top

#: Keywords of --target, which are not class names.
_KEYWORD = re.compile(r"predicted|label|all|top\d{1,4}")


def read(texts: Sequence[str], classes: Sequence[str] | None) -> tuple[Targets, list[str]]:
    """Read what to explain: predicted, label, topN, all, or classes by number or name.

    Returns:
        The targets for a run, and a name for each of the K targets, used in file names; no names
        for "all".

    Raises:
        typer.BadParameter: no class has a given name, or a target is given twice.
    """
    words = [word for text in texts for word in _words(text, classes)]
    if "all" in words:
        if len(words) > 1:
            raise typer.BadParameter(f"--target all excludes other targets, got {', '.join(words)}")
        return "all", []
    parts: list[Any] = []
    tags: list[str] = []
    for word in words:
        if match := re.fullmatch(r"top(\d{1,4})", word):
            count = int(match[1])
            if classes is not None and count > len(classes):
                raise typer.BadParameter(
                    f"expected --target topN of at most {len(classes)} classes, got {word!r}"
                )
            parts.append(top(count) if count else None)
            new = [f"top{place + 1}" for place in range(count)]
        elif word in ("predicted", "label"):
            parts.append(None if word == "predicted" else "label")
            new = [word]
        else:
            number = _class(word, classes)
            parts.append(number)
            new = [str(number)]
        if not new or set(new) & set(tags):
            raise typer.BadParameter(
                f"expected each --target once, got {word!r} again"
                if new
                else f"expected --target topN with N of at least 1, got {word!r}"
            )
        tags += new
    if "predicted" in tags and "top1" in tags:
        raise typer.BadParameter("--target topN includes the predicted class: leave predicted out")
    return (parts[0] if len(parts) == 1 else several(*parts)), tags


def check_labels(tags: Sequence[str], labels: Sequence[int]) -> None:
    """Check that photographs have labels if --target asks for them.

    Raises:
        typer.BadParameter: no photograph has a label.
    """
    if "label" in tags and all(label == NO_LABEL for label in labels):
        raise typer.BadParameter(
            "--target label explains the class that a photograph's folder is named after, but no "
            "folder has the name of a class: name the folders after classes of the model "
            "(--classes FILE), or use --target predicted"
        )


def _words(text: str, classes: Sequence[str] | None) -> list[str]:
    """Split text at commas, unless it is a class name, which may contain commas."""
    if classes is not None and text.casefold() in {name.casefold() for name in classes}:
        if _KEYWORD.fullmatch(text):
            raise typer.BadParameter(
                f"--target {text} is both a keyword of this option and the name of a class: use "
                "the class's number"
            )
        return [text]
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise typer.BadParameter(f"expected --target as words separated by commas, got {text!r}")
    return words


def _class(text: str, classes: Sequence[str] | None) -> int:
    if text.isdecimal():
        if classes is not None and text in classes and classes.index(text) != int(text):
            raise typer.BadParameter(
                f"--target {text} is the number of one class and the name of another, number "
                f"{classes.index(text)}: rename the classes with --classes FILE"
            )
        if classes is not None and int(text) >= len(classes):
            raise typer.BadParameter(
                f"expected --target as a class from 0 to {len(classes) - 1}, got {text}"
            )
        return int(text)
    if classes is None:
        raise typer.BadParameter(
            f"expected --target as a class number, got {text!r}: the class names are unknown; pass "
            "them with --classes FILE"
        )
    if list(classes).count(text) == 1:
        return list(classes).index(text)
    names = [name.casefold() for name in classes]
    if text.casefold() not in names:
        raise typer.BadParameter(f"--target: unknown class {text!r}{near(text, classes)}")
    ids = [index for index, name in enumerate(names) if name == text.casefold()]
    if len(ids) > 1:
        raise typer.BadParameter(
            f"--target: {len(ids)} classes are named {text!r}: use the number, "
            f"{', '.join(map(str, ids[:-1]))} or {ids[-1]}"
        )
    return ids[0]
