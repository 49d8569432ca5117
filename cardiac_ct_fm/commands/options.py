"""Arguments that several commands share, so that one thing has one name and one explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cardiac_ct_fm.errors import UsageError

if TYPE_CHECKING:
    from cardiac_ct_fm.planning import PlanningOptions

DEFAULT_MODEL = "cardiac_swin_tiny"
"""Bundled in the package, so that it works without a network."""

MODEL_PANEL, INPUT_PANEL, OUTPUT_PANEL, MEASURE_PANEL = "Model", "Input", "Output", "Measurements"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name ([bold]cardiac-ct-fm models[/bold]), a model folder, or org/name\\[@revision] on the Hub.",
        rich_help_panel=MODEL_PANEL,
    ),
]

Device = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.", rich_help_panel=MODEL_PANEL),
]

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPU threads; all cores that this process may use unless OMP_NUM_THREADS is set.",
        rich_help_panel=MODEL_PANEL,
    ),
]

Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.", rich_help_panel=OUTPUT_PANEL),
]

Json = Annotated[
    bool,
    typer.Option("--json", help="Machine-readable results on stdout instead of a table.", rich_help_panel=OUTPUT_PANEL),
]

Series = Annotated[
    str | None,
    typer.Option(
        metavar="UID",
        help="Which series, where a DICOM folder holds several: its UID, the last digits, or its description.",
        rich_help_panel=INPUT_PANEL,
    ),
]

Supine = Annotated[
    bool | None,
    typer.Option(
        "--supine/--not-supine",
        help="Whether the patient lies on the back. DICOM says so; a NIfTI does not, and C-arm angles are withheld.",
        rich_help_panel=MEASURE_PANEL,
        show_default=False,
    ),
]

Valve = Annotated[
    Literal["unknown", "tricuspid", "bicuspid"],
    typer.Option(help="bicuspid withholds what three cusps define.", rich_help_panel=MEASURE_PANEL),
]

Calcium = Annotated[
    Literal["fixed", "lumen", "label"],
    typer.Option(
        "--calcium",
        help="What counts as calcium: from 850 HU on, from the blood's median + 100 HU on, or all that the head marks.",
        rich_help_panel=MEASURE_PANEL,
    ),
]


CalciumExtent = Annotated[
    Literal["half", "threshold"],
    typer.Option(
        "--calcium-extent",
        help="How far calcium goes: half-way to what lies around it (nearer to how much there is, but larger at 850 HU "
        "than published volumes and not comparable with them), or voxels at the threshold, as published.",
        rich_help_panel=MEASURE_PANEL,
    ),
]


def planning_options(supine: bool | None, valve: str, calcium: str, extent: str) -> PlanningOptions:
    """The choices about measurements as the library takes them."""
    from cardiac_ct_fm.planning import PlanningOptions

    return PlanningOptions(
        supine=supine,
        valve=valve,  # type: ignore[arg-type]
        calcium_threshold=calcium,  # type: ignore[arg-type]
        calcium_extent=extent,  # type: ignore[arg-type]
    )


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """``["heart,hps", "ms"]`` → ``["heart", "hps", "ms"]``; None when nothing was given.

    Raises:
        UsageError: a name is empty.
    """
    names = [name.strip() for value in values or () for name in value.split(",")]
    if "" in names:
        raise UsageError(
            f"{','.join(values or ())!r} has an empty name; give names with commas between, like heart,hps."
        )
    return names or None
