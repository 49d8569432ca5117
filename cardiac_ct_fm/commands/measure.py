"""``cardiac-ct-fm measure``: the measurements again, from points that a person has corrected."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cardiac_ct_fm.commands import options
from cardiac_ct_fm.commands.options import INPUT_PANEL

if TYPE_CHECKING:
    from cardiac_ct_fm.result import Prediction

SEGMENTATION = "segmentation.nii.gz"

_log = logging.getLogger(__name__)


def measure(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE|DICOM_FOLDER", help="The scan that the points belong to.", show_default=False),
    ],
    landmarks: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Corrected points: 3D Slicer .mrk.json, MITK .mps, or landmarks.json.",
            rich_help_panel=INPUT_PANEL,
        ),
    ],
    out: options.Out,
    segmentation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Label map to measure with; segmentation.nii.gz beside the points when left out, if it is there.",
            rich_help_panel=INPUT_PANEL,
        ),
    ] = None,
    series: options.Series = None,
    supine: options.Supine = None,
    valve: options.Valve = "unknown",
    calcium: options.Calcium = "fixed",
    calcium_extent: options.CalciumExtent = "half",
    json_output: options.Json = False,
) -> int:
    """Measure again with points that were corrected, for example in 3D Slicer. No network runs.

    Writes measurements, picture and report as predict does, into FOLDER/<scan>/.

    [bold]Example[/bold]

      cardiac-ct-fm measure ct.nii.gz --landmarks edited.mrk.json -o out
    """
    from cardiac_ct_fm import __version__
    from cardiac_ct_fm.commands.results import prediction_row, print_json, print_prediction
    from cardiac_ct_fm.image_checks import image_warnings
    from cardiac_ct_fm.landmark_io import read_landmarks
    from cardiac_ct_fm.outputs import write_outputs
    from cardiac_ct_fm.result import Prediction
    from cardiac_ct_fm.volume_io import case_name, load_volume

    points = read_landmarks(landmarks)
    volume = load_volume(image, series)
    prediction = Prediction(volume, points, warnings=image_warnings(volume))
    prediction.run = {"package": {"cardiac_ct_fm": __version__}, "landmarks": str(landmarks)}
    labels = segmentation or _beside(landmarks)
    if labels is not None:
        _add_labels(prediction, labels)
        prediction.run["segmentation"] = str(labels)
    choices = options.planning_options(supine, valve, calcium, calcium_extent)
    folder = write_outputs(prediction, out / case_name(image.resolve()), choices)
    if json_output:
        row = {"name": volume.name, "source": str(image), "folder": str(folder), "status": "done"}
        print_json({**row, **prediction_row(prediction)})
    else:
        print_prediction(prediction, folder)
    return 0


def _beside(landmarks: Path) -> Path | None:
    """The label map of the same prediction, where it lies beside the points."""
    candidate = landmarks.parent / SEGMENTATION
    if not candidate.is_file():
        return None
    _log.info("Measuring with %s; another one can be given with --segmentation.", candidate)
    return candidate


def _add_labels(prediction: Prediction, path: Path) -> None:
    """Take the label maps of the heads apart again, by the names in the file.

    Raises:
        DataError: the file is no label map, has no names or lies on another grid.
    """
    import numpy as np

    from cardiac_ct_fm.anatomy import HEADS
    from cardiac_ct_fm.errors import DataError
    from cardiac_ct_fm.label_io import load_label_map
    from cardiac_ct_fm.result import label_values

    labels, grid, names = load_label_map(path)
    if labels.shape != prediction.grid.shape or not np.allclose(grid.affine, prediction.grid.affine, atol=1e-3):
        raise DataError(
            f"{path} is not on the grid of {prediction.volume.source} ({labels.shape} and {prediction.grid.shape} "
            "voxels, or another affine); give the label map that predict wrote for this scan."
        )
    heads = {name: spec.classes for name, spec in HEADS.items() if spec.kind == "segmentation"}
    # An editor that saves the map again may drop the names; the values are then those of this package.
    values = {n: v for v, n in names.items()} or {n: v for (_, n), v in label_values(heads).items()}
    for head, classes in heads.items():
        table = np.zeros(256, np.uint8)
        for number, name in enumerate(classes, start=1):
            if name in values:
                table[values[name]] = number
        if any(name in values for name in classes):
            prediction.label_maps[head] = table[labels]
            prediction.classes[head] = classes
    if not prediction.label_maps:
        raise DataError(f"{path} names no structure of the vocabulary; it has {', '.join(values)}.")
