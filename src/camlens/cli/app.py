"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

import camlens

from . import console, errors
from .evaluate import evaluate
from .explain import explain
from .listings import list_layers, list_methods
from .runs import compare, dataset, report

app = typer.Typer(
    name="camlens",
    cls=errors.Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.line(camlens.__version__)
        raise typer.Exit


@app.callback()
def _everywhere(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show tracebacks, like {errors.DEBUG}=1.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Show where in an image a network found its evidence, and test whether the maps are faithful.

    Results go to standard output, everything else to standard error. Exit codes: 0 success; 1 an
    error, or some images failed (the others were processed); 2 usage error.
    """


app.command()(explain)
app.command("layers")(list_layers)
app.command("methods")(list_methods)
app.command()(dataset)
app.command()(evaluate)
app.command()(report)
app.command()(compare)
