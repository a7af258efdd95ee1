"""Errors as one paragraph, and what the command's exit code says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from . import console

#: Something could not be done; the rest was.
FAILED = 1

#: A usage error; Typer's own have this code too.
USAGE = 2

#: Tracebacks are shown where this is set.
DEBUG = "CAMLENS_DEBUG"


class Commands(TyperGroup):
    """The commands; what they raise becomes a paragraph on the error stream.

    With ``--json`` it becomes a JSON document on the standard output too.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run the command line."""
        words = sys.argv[1:] if args is None else args
        with console.answering(as_json="--json" in words):
            return super().main(args, *rest, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the options before the command's name."""
        try:
            return super().make_context(*args, **options)
        except typer.TyperException as error:
            console.document_error(_of_typer(error))
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise  # Typer's own, which it shows itself
        except typer.TyperException as error:
            console.document_error(_of_typer(error))
            raise
        except BrokenPipeError:
            raise  # whoever read has heard enough
        except Exception as error:
            if ctx.params.get("debug") or os.environ.get(DEBUG):
                raise
            console.error(described(error))
            console.document_error(described(error))
            raise typer.Exit(USAGE if type(error) is LookupError else FAILED) from error


def _of_typer(error: Any) -> str:
    return str(error.format_message())


def described(error: Exception) -> str:
    """Return what an error says, in a sentence, with what was noted of it on its way.

    Ours speak for themselves; others, such as those of a model, have their type before them.

    Example:
        >>> described(ValueError("expected a size")), described(KeyError("a"))
        ('expected a size', "KeyError: 'a'")
        >>> error = RuntimeError("too small")
        >>> error.add_note("while explaining cat.png")
        >>> described(error)
        'RuntimeError: too small (while explaining cat.png)'
    """
    notes = " ".join("; ".join(getattr(error, "__notes__", ())).split())
    return _words(error) + (f" ({notes})" if notes else "")


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}"
    if type(error) in (ValueError, TypeError, LookupError, ImportError) or isinstance(
        error, OSError
    ):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
