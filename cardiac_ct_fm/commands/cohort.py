"""``cardiac-ct-fm cohort``: digital patients as files."""

from __future__ import annotations

from typing import Annotated

import typer

from cardiac_ct_fm.commands import options


def cohort(
    out: options.Out,
    site: Annotated[int, typer.Option(metavar="1...8", help="Digital hospital; each has its scanner and habits.")] = 1,
    n: Annotated[int, typer.Option("--n", "-n", metavar="N", help="Number of patients.")] = 1,
    test: Annotated[
        int, typer.Option(metavar="N", help="How many of them, the last, the data list has for evaluate.")
    ] = 0,
    first: Annotated[int, typer.Option(metavar="N", help="Index of the first patient at the site.")] = 0,
    spacing: Annotated[float, typer.Option(metavar="MM", help="Voxel size; 0.4 is a planning scan's.")] = 0.8,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pixels per row and column; 205 mm when left out.")
    ] = None,
) -> int:
    """Write digital TAVI patients: CT, label maps, landmarks, and a MONAI data list.

    They hold no image of anybody; their hearts are bent from the shapes of two real ones (NOTICE).

    The same site and index give the same patient everywhere. A folder may hold patients of several sites: its data list
    keeps those that are there.

    [bold]Example[/bold]

      cardiac-ct-fm cohort --site 3 --n 5 --test 2 -o cohort
    """
    from cardiac_ct_fm.cohort.export import write_cases
    from cardiac_ct_fm.commands.results import console
    from cardiac_ct_fm.process import set_threads
    from cardiac_ct_fm.progress import step_bar

    set_threads(None)
    names: list[str] = []
    with step_bar() as show:

        def step(name: str, done: int, slices: int) -> None:
            if name not in names:
                names.append(name)
            show(f"{len(names)}/{n} {name}", (len(names) - 1) * slices + min(done, slices), n * slices)

        listing = write_cases(site, n, out, spacing, first=first, test=test, size=size, progress=step)
    console().print(
        f"{n} digital patient{'s' * (n != 1)} of site {site} in {out}; data list {listing}",
        markup=False,
        soft_wrap=True,
    )
    return 0
