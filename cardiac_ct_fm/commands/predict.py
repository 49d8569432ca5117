"""``cardiac-ct-fm predict``: scans in; landmarks, label maps, measurements, pictures and a report out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cardiac_ct_fm.commands import options
from cardiac_ct_fm.commands.options import INPUT_PANEL, MODEL_PANEL, OUTPUT_PANEL

if TYPE_CHECKING:
    from cardiac_ct_fm.inference import Predictor
    from cardiac_ct_fm.result import Prediction

ALL_FAILED, PART_FAILED = 1, 3
"""Exit codes when none, or only some, of several scans could be done."""

_log = logging.getLogger(__name__)


def predict(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN",
            help="NIfTI files, DICOM folders, or folders that hold any number of them.",
            show_default=False,
        ),
    ],
    out: options.Out,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Only these, separated by commas: heart, hps, ms, calc. All of the model's when left out.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    head_file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A head of your own (.safetensors, from finetune) to put on the model; may be repeated.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    quality: Annotated[
        Literal["fast", "standard", "full"],
        typer.Option(
            help="fast: 4 and 2 mm. standard: and 1 mm around the root. full: 1 mm over the whole heart.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = "standard",
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    threads: options.Threads = None,
    series: options.Series = None,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave scans alone whose folder holds complete results (run.json).",
            rich_help_panel=INPUT_PANEL,
        ),
    ] = False,
    supine: options.Supine = None,
    valve: options.Valve = "unknown",
    calcium: options.Calcium = "fixed",
    calcium_extent: options.CalciumExtent = "half",
    json_output: options.Json = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress and no log; errors only.", rich_help_panel=OUTPUT_PANEL),
    ] = False,
) -> int:
    """Find chambers, valve landmarks and calcium in cardiac CT, and measure the aortic root.

    Writes FOLDER/<scan>/ with a label map, landmarks (JSON, 3D Slicer, MITK), measurements, a picture and a report,
    and for several scans FOLDER/measurements.csv, one row per scan; a later run adds its scans to the table.

    Exit code 0: all done. 1: failed, or the table was not written. 2: wrong usage. 3: some of several scans failed,
    the others are done.

    [bold]Examples[/bold]

      cardiac-ct-fm predict ct.nii.gz -o out

      cardiac-ct-fm predict study/ --series 4711 --quality full -o out

      cardiac-ct-fm predict cohort/ -o out --skip-existing --json > results.jsonl
    """
    from cardiac_ct_fm.errors import CardiacCTError
    from cardiac_ct_fm.scan_list import list_cases

    cases = list_cases(scans, series)
    from cardiac_ct_fm.batch import BatchPredictor
    from cardiac_ct_fm.commands.results import outcome_row, print_json, print_outcome, print_summary
    from cardiac_ct_fm.commands.table import holds_table, update_above, write_table
    from cardiac_ct_fm.progress import ScanProgress

    def write(prediction: Prediction, folder: Path) -> None:
        from cardiac_ct_fm.outputs import write_outputs

        write_outputs(prediction, folder, options.planning_options(supine, valve, calcium, calcium_extent))

    names = options.split_names(heads)
    single = len(cases) == 1
    rows: list[dict[str, Any]] = []
    with ScanProgress(len(cases), quality, silent=quiet) as progress:

        def load() -> Predictor:
            predictor = _load(model, device, threads, head_file or [])
            progress.expect(predictor.model.config.looks, names)
            return predictor

        batch = BatchPredictor(
            load=load,
            write=write,
            heads=names,
            quality=quality,
            skip_existing=skip_existing,
            progress=progress.start,
        )
        for outcome in batch(cases, out):
            if single and outcome.error is not None:
                raise outcome.error
            progress.finish(outcome)
            rows.append(outcome_row(outcome))
            if json_output:
                print_json(rows[-1])
            elif single:
                progress.stop()
                print_outcome(outcome)
    failed = sum(row["status"] == "failed" for row in rows)
    refusal: CardiacCTError | None = None
    try:
        if holds_table(out) or (not single and failed < len(rows)):
            _log.info("All measurements in one table: %s", write_table(rows, out))
    except CardiacCTError as error:  # the scans are done; all else is finished before it is told
        refusal = error
    for table in update_above(rows, out):
        _log.info("The rows of these scans in %s were written anew.", table)
    if not single and not json_output:
        print_summary(rows)
    if failed:
        _log.error("%d of %d scans failed; the others are complete.", failed, len(rows))
    if refusal is not None:
        raise refusal
    return 0 if not failed else ALL_FAILED if failed == len(rows) else PART_FAILED


def _load(model: str, device: str, threads: int | None, head_files: list[Path]) -> Predictor:
    """The predictor, on as many threads as were asked for."""
    from cardiac_ct_fm.inference import Predictor
    from cardiac_ct_fm.process import set_threads

    set_threads(threads)
    predictor = Predictor(model, device)
    for path in head_files:
        predictor.model.load_head(path)
    predictor.model.eval()
    return predictor
