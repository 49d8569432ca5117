"""``cardiac-ct-fm finetune`` and ``evaluate``: a head of your own, and how good a model is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cardiac_ct_fm.commands import options

if TYPE_CHECKING:
    from cardiac_ct_fm.training.scans import ScanSource

TRAIN_PANEL = "Training"

DataArgument = Annotated[
    Path,
    typer.Argument(metavar="DATALIST", help="Scans and labels: MONAI's Decathlon JSON.", show_default=False),
]


def finetune(
    data: DataArgument,
    head: Annotated[str, typer.Option(metavar="NAME", help="Name of the new head, for example coronaries.")],
    out: options.Out,
    model: options.Model = options.DEFAULT_MODEL,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Its classes without background; by default the vocabulary's or the list's."
        ),
    ] = None,
    kind: Annotated[Literal["segmentation", "landmarks"] | None, typer.Option(help="What the head predicts.")] = None,
    train: Annotated[
        Literal["head", "decoder", "all"],
        typer.Option(
            help="The head alone; also a decoder of its own; or the whole network.",
            rich_help_panel=TRAIN_PANEL,
        ),
    ] = "head",
    hidden: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Channels of two hidden layers of the head, 0 for the last convolution alone. By default 0; for "
            "coronaries 16.",
            rich_help_panel=TRAIN_PANEL,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="At most.", rich_help_panel=TRAIN_PANEL)] = 40,
    lr: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Learning rate; by default one for --train.", rich_help_panel=TRAIN_PANEL),
    ] = None,
    layer_decay: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Learning rate per stage towards the input, with --train all.",
            rich_help_panel=TRAIN_PANEL,
        ),
    ] = 0.75,
    patch: Annotated[int, typer.Option(metavar="N", help="Voxels per side.", rich_help_panel=TRAIN_PANEL)] = 64,
    looks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Where prediction reads the head: heart (2 mm), root (1 mm there), detail (1 mm over all chambers). "
            "By default heart,root; for coronaries detail.",
            rich_help_panel=TRAIN_PANEL,
        ),
    ] = None,
    windows: Annotated[int, typer.Option(metavar="N", help="Per scan and epoch.", rich_help_panel=TRAIN_PANEL)] = 4,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Windows per step.", rich_help_panel=TRAIN_PANEL)] = 2,
    validation: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of patients set aside, where the list has no validation scans.",
            rich_help_panel=TRAIN_PANEL,
        ),
    ] = 0.2,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.", rich_help_panel=TRAIN_PANEL)] = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json_output: options.Json = False,
) -> int:
    """Train a new head on a trained model with scans of your own. An interrupted run goes on where it stopped.

    Writes the head's file, the history, its curve and a montage. predict --head-file uses the head.

    [bold]Example[/bold]

      cardiac-ct-fm finetune datalist.json --head coronaries -o coronaries
    """
    from cardiac_ct_fm.commands.results import console, print_json
    from cardiac_ct_fm.process import set_threads
    from cardiac_ct_fm.progress import step_bar
    from cardiac_ct_fm.training.denormals import denormals_as_zero
    from cardiac_ct_fm.training.finetune import finetune as train_head
    from cardiac_ct_fm.training.finetune import seconds_left
    from cardiac_ct_fm.training.settings import FinetuneSettings

    set_threads(threads)
    named = options.split_names(looks)
    settings = FinetuneSettings(
        train=train,
        hidden=hidden,
        epochs=epochs,
        lr=lr,
        layer_decay=layer_decay,
        patch=patch,
        looks=None if named is None else tuple(named),  # type: ignore[arg-type]  # the settings check the names
        windows=windows,
        batch_size=batch_size,
        validation=validation,
        seed=seed,
        device=device,
    )
    names = options.split_names(classes)
    # Denormals before torch starts its threads, which take it over. In trainings alone: scipy's k-d trees, by which
    # evaluate and measure find neighbours, crash with it on points in a plane at 0.
    with denormals_as_zero(), step_bar() as show:

        def step(what: str, done: int, steps: int, left: float | None) -> None:
            remaining = seconds_left(left)
            show(f"{what}, {remaining} left" if remaining else what, done, steps)

        result = train_head(model, data, head, classes=names, kind=kind, out=out, settings=settings, progress=step)
    if json_output:
        figures = {"best_validation_dice": result.best_dice, "epochs": result.standing.epoch}
        print_json({"head": head, "path": str(result.path), **figures, "warning": result.standing.warning})
        return 0
    dice = "no validation scans" if result.best_dice is None else f"best validation Dice {result.best_dice:.3f}"
    where = f"{head}: {result.path} ({dice})"
    console().print(where, markup=False, soft_wrap=True)
    if result.standing.warning is not None:
        console().print(result.standing.warning, markup=False, soft_wrap=True, style="yellow")
    if train != "all":
        console().print(
            f"Use it: cardiac-ct-fm predict SCAN -o OUT --model {model} --head-file {result.path}",
            markup=False,
            soft_wrap=True,
        )
    return 0


def evaluate(
    out: options.Out,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATALIST", help="Scans and references: MONAI's Decathlon JSON.", show_default=False),
    ] = None,
    digital: Annotated[
        str | None,
        typer.Option(metavar="PATIENTS", help="Held-out digital patients instead: 0-19, 3/0-19 (site 3), 1-8/0-4."),
    ] = None,
    section: Annotated[
        Literal["test", "validation", "training"], typer.Option(help="Which scans of the list.")
    ] = "test",
    model: options.Model = options.DEFAULT_MODEL,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A second model on the same scans, compared by paired tests."),
    ] = None,
    head_file: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A head of your own to put on the model; may be repeated.")
    ] = None,
    heads: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Only these heads, separated by commas.")
    ] = None,
    quality: Annotated[Literal["fast", "standard", "full"], typer.Option(help="As in predict.")] = "standard",
    device: options.Device = "auto",
    threads: options.Threads = None,
    json_output: options.Json = False,
) -> int:
    """Measure a model against references: errors in mm, Dice, detection, per site, with intervals.

    A point that is not found counts as a failure. An interrupted evaluation goes on where it stopped.

    [bold]Examples[/bold]

      cardiac-ct-fm evaluate datalist.json -o figures

      cardiac-ct-fm evaluate --digital 1-8/0-4 -o figures

      cardiac-ct-fm evaluate datalist.json --model mine --against cardiac_swin_tiny -o figures
    """
    from cardiac_ct_fm.commands.results import console, print_json
    from cardiac_ct_fm.commands.score_tables import comparison_table, score_tables
    from cardiac_ct_fm.errors import UsageError

    if (data is None) == (digital is None):
        raise UsageError("Give either a data list or --digital PATIENTS.")
    from cardiac_ct_fm.model import from_pretrained
    from cardiac_ct_fm.process import set_threads
    from cardiac_ct_fm.progress import step_bar
    from cardiac_ct_fm.training.evaluate import evaluate as measure
    from cardiac_ct_fm.training.evaluate import heads_of_both, write_comparison

    set_threads(threads)
    network = from_pretrained(model)
    for file in head_file or ():
        network.load_head(file)
    rival = None if against is None else from_pretrained(against)
    names = options.split_names(heads)
    if rival is not None:
        names = heads_of_both(network, rival, names)
    source = _scans(network.config.heads, data, section, digital)
    chosen: dict[str, Any] = {"heads": names, "quality": quality, "device": device}
    with step_bar() as show:
        found = measure(network, source, out, **chosen, progress=show)
        comparison = None
        if rival is not None and against is not None:
            second = measure(rival, source, out / "against", **chosen, progress=show)
            comparison = write_comparison(out, (found, second), (model, against))
    if json_output:
        print_json(found.summary if comparison is None else {**found.summary, "comparison": comparison})
        return 0
    for listing in [*score_tables(found.summary), *([] if comparison is None else [comparison_table(comparison)])]:
        console().print(listing)
        console().print()
    console().print(f"  All figures: {out / 'summary.json'}, {out / 'scores.csv'}", markup=False, soft_wrap=True)
    return 0


def _scans(heads: Any, data: Path | None, section: str, digital: str | None) -> ScanSource:
    """The scans that are meant.

    Raises:
        DataError: the list has no such section.
    """
    from cardiac_ct_fm.errors import DataError

    if data is None:
        from cardiac_ct_fm.training.digital import digital_source

        return digital_source(digital or "")
    from cardiac_ct_fm.training.data_list import read_data_list
    from cardiac_ct_fm.training.scans import list_source

    listed = read_data_list(data)
    entries = listed.section(section)
    if not entries:
        filled = [name for name in ("training", "validation", "test") if listed.section(name)]
        raise DataError(f"{data} has no scans under {section!r}; it has {', '.join(filled)}: choose with --section.")
    return list_source(entries, heads, f"{listed.name}, {section}")
