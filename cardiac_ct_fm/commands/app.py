"""Which commands there are, in the order and under the headings of ``cardiac-ct-fm --help``."""

from __future__ import annotations

from typing import Annotated

import typer

from cardiac_ct_fm.commands import cohort, convert, doctor, measure, models, predict, train

PROGRAM = "cardiac-ct-fm"
USAGE = 2
"""Exit code of wrong usage."""

USE, MODELS, DATA = "Use", "Models", "Train and test"


def build_app() -> typer.Typer:
    """The typer application; commands import torch only when they run."""
    app = typer.Typer(
        name=PROGRAM,
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(start)
    app.command(rich_help_panel=USE)(predict.predict)
    app.command(rich_help_panel=USE)(measure.measure)
    app.command(rich_help_panel=USE)(doctor.doctor)
    app.command(rich_help_panel=MODELS)(models.models)
    app.command(rich_help_panel=MODELS)(models.info)
    app.command(rich_help_panel=MODELS)(convert.convert)
    app.command(rich_help_panel=MODELS)(convert.push)
    app.command(rich_help_panel=DATA)(train.finetune)
    app.command(rich_help_panel=DATA)(train.evaluate)
    app.command(rich_help_panel=DATA)(cohort.cohort)
    return app


def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all warnings.")] = False,
) -> None:
    """Cardiac CT in; chambers, valve landmarks, calcium and TAVI measurements out.

    Research use only. Not a medical device.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(0 if version or debug else USAGE)
