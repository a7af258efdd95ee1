"""Turn exceptions into one paragraph and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from . import console

#: An error, or some images failed.
FAILED = 1

#: A usage error; Typer uses the same code.
USAGE = 2

#: The environment variable that shows tracebacks.
DEBUG = "CAMLENS_DEBUG"


class Commands(TyperGroup):
    """The command group; an exception becomes a paragraph on standard error.

    With ``--json`` it also becomes a JSON document on standard output.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run the command line."""
        words = sys.argv[1:] if args is None else args
        with console.answering(as_json="--json" in words):
            return super().main(args, *rest, **options)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Read the options before the command's name."""
        try:
            if "" in args:  # an empty path would be the current folder
                raise typer.BadParameter(
                    "an argument is empty, perhaps an unset variable of the shell: give it a "
                    "value, or leave the option out"
                )
            return super().make_context(info_name, args, parent, **extra)
        except typer.TyperException as error:
            console.document_error(_of_typer(error))
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise  # Typer reports these itself
        except typer.TyperException as error:
            if isinstance(error, typer.BadParameter):  # it may quote a file
                error.message = console.plain(" ".join(error.message.split()))
            console.document_error(_of_typer(error))
            raise
        except BrokenPipeError:
            raise  # the reader closed the pipe
        except Exception as error:
            if ctx.params.get("debug") or os.environ.get(DEBUG):
                raise
            console.error(described(error))
            console.document_error(described(error))
            raise typer.Exit(USAGE if type(error) is LookupError else FAILED) from error


def _of_typer(error: Any) -> str:
    return str(error.format_message())


def described(error: Exception) -> str:
    """Return an error's message in one sentence, followed by its notes.

    camlens' own errors are shown without their type; others, such as a model's, start with it.
    The command that lists layers stands for the function that does so.

    Example:
        >>> described(ValueError("expected a size")), described(KeyError("a"))
        ('expected a size', "KeyError: 'a'")
        >>> error = RuntimeError("too small")
        >>> error.add_note("while explaining cat.png")
        >>> described(error)
        'RuntimeError: too small (while explaining cat.png)'
    """
    notes = " ".join("; ".join(getattr(error, "__notes__", ())).split())
    text = _words(error) + (f" ({notes})" if notes else "")
    return text.replace("camlens.find_layers(model, images)", "camlens layers MODEL")


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
