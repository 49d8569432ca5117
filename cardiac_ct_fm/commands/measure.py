"""``cardiac-ct-fm measure``: the measurements again, from points that a person has corrected."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardiac_ct_fm.commands import options
from cardiac_ct_fm.commands.options import INPUT_PANEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cardiac_ct_fm.landmark_io import Landmark
    from cardiac_ct_fm.result import Prediction

NO_LABELS = (
    "No label map was found: no structure has a volume, and edges and calcium come from the image alone, which gives "
    "other numbers. For those of the prediction give --segmentation, or with -o the folder that predict wrote into."
)

UNTOLD = (
    "Which points of %s were moved cannot be told, because %s, which says where they were predicted, is not there. All "
    "keep the confidence that stands beside them; set it to 1 in those that you moved, and measure again."
)

NAMESAKES = (
    "%s is a new row of %s, which has %s already (and %d more of that name). If this is the same scan, that row is "
    "old: measure with -o %s instead, and take the new row and folder away."
)

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
            help="Label map to measure with; when left out, that of the prediction beside the points or in FOLDER.",
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

    Writes measurements, picture and report as predict does, into FOLDER/<scan>/, or into the prediction beside the
    points, where that lies deeper in FOLDER. Every measurements.csv that lists the scan gets its new row. A point that
    was not moved keeps its confidence, the others count as certain. The label map that predict wrote beside the points
    or in FOLDER is used.

    [bold]Example[/bold]

      cardiac-ct-fm measure ct.nii.gz --landmarks edited.mrk.json -o out
    """
    from cardiac_ct_fm.anatomy import HEADS
    from cardiac_ct_fm.commands.results import prediction_row, print_json, print_prediction
    from cardiac_ct_fm.commands.table import TABLE, holds_table, namesakes, update_above, write_table
    from cardiac_ct_fm.errors import CardiacCTError
    from cardiac_ct_fm.files import check_folder
    from cardiac_ct_fm.image_checks import image_warnings
    from cardiac_ct_fm.landmark_io import read_landmarks
    from cardiac_ct_fm.measurements import not_run
    from cardiac_ct_fm.outputs import write_outputs
    from cardiac_ct_fm.result import Prediction
    from cardiac_ct_fm.volume_io import load_volume
    from cardiac_ct_fm.volumes import cut_off

    name = _name(image, landmarks.parent, out)
    check_folder(out / name)
    earlier = _earlier(landmarks.parent, out / name)
    predicted = _predicted(earlier, landmarks)
    points, facts = read_landmarks(landmarks, predicted=_points_of(predicted, landmarks)), _facts(earlier)
    _check_names(landmarks, points, read_landmarks(predicted) if predicted.is_file() else {})
    unsought = {name for head in not_run(facts) for name in HEADS[head].classes}
    points = {name: point for name, point in points.items() if point.found or name not in unsought}
    volume = load_volume(image, series)
    prediction = Prediction(volume, points, run=facts, warnings=image_warnings(volume))
    labels = segmentation or earlier / "segmentation.nii.gz"
    if segmentation is not None or labels.is_file():
        _log.info("Measuring with %s; another one can be given with --segmentation.", labels)
        _add_labels(prediction, labels)
        prediction.run["measured"]["segmentation"] = str(labels)
    else:
        prediction.warnings.append(NO_LABELS)
    prediction.run["measured"]["landmarks"] = str(landmarks)
    prediction.warnings += cut_off(prediction)
    # 3D Slicer's files tell by themselves which points were moved, and all of MITK's count as certain then.
    ours = not landmarks.name.lower().endswith((".mrk.json", ".mps"))
    if ours and not predicted.is_file() and any(p.found and p.confidence < 1 for p in points.values()):
        prediction.warnings.append(UNTOLD % (landmarks, predicted))
    certain = [point.name for point in points.values() if point.confidence == 1]
    if certain:
        prediction.warnings.append(f"Placed by a person and taken as certain: {', '.join(certain)}.")
    choices = options.planning_options(supine, valve, calcium, calcium_extent)
    folder = write_outputs(prediction, out / name, choices)
    row = {"name": name, "source": str(image), "folder": str(folder), "status": "done", "error": None}
    if others := namesakes(name, out):
        _log.warning(NAMESAKES, name, out / TABLE, others[0], len(others) - 1, (out / others[0]).parent)
    tables: list[Path] = []
    refusal: CardiacCTError | None = None
    try:
        tables += [write_table([row], out)] if holds_table(out) else []
    except CardiacCTError as error:  # the scan is measured; all else is finished before it is told
        refusal = error
    for table in [*tables, *update_above([row], out)]:
        _log.info("The row of this scan in %s was written anew.", table)
    if json_output:
        print_json({**row, **prediction_row(prediction)})
    else:
        print_prediction(prediction, folder)
    if refusal is not None:
        raise refusal
    return 0


def _name(image: Path, beside: Path, out: Path) -> str:
    """Where below ``out`` the results go: to the prediction of this scan beside the points, or else the scan's name."""
    from cardiac_ct_fm.result import COMPLETE_MARKER
    from cardiac_ct_fm.volume_io import case_name

    name, place, above = case_name(image.resolve()), beside.resolve(), out.resolve()
    if place.name == name and above in place.parents and (place / COMPLETE_MARKER).is_file():
        return place.relative_to(above).as_posix()
    return name


def _earlier(*folders: Path) -> Path:
    """The first folder that holds a prediction, or else the first one."""
    return next((f for f in folders if (f / "run.json").is_file() or (f / "segmentation.nii.gz").is_file()), folders[0])


def _predicted(earlier: Path, landmarks: Path) -> Path:
    """The file that tells where points were predicted: a sister of the one that was corrected in its place."""
    own = earlier / "landmarks.json"
    return earlier / "landmarks.mrk.json" if own.exists() and own.samefile(landmarks) else own


def _points_of(predicted: Path, landmarks: Path) -> dict[str, Landmark] | None:
    """The predicted points, None where their file is not there.

    Raises:
        DataError: the file is damaged.
    """
    from cardiac_ct_fm.errors import DataError
    from cardiac_ct_fm.landmark_io import read_landmarks

    try:
        return read_landmarks(predicted) if predicted.is_file() else None
    except DataError as error:
        raise DataError(
            f"Which points of {landmarks} were moved is told by {predicted}, which is damaged "
            f"({error.__cause__ or error}). Restore it, or take it away."
        ) from error


def _check_names(file: Path, points: Mapping[str, Landmark], predicted: Mapping[str, Landmark]) -> None:
    """See that no point is lost by a slip of the pen; names that no measurement knows are told.

    Raises:
        DataError: a name is none of the vocabulary's and of the prediction's, and like one that has no place.
    """
    from difflib import get_close_matches

    from cardiac_ct_fm.anatomy import LANDMARKS
    from cardiac_ct_fm.errors import DataError

    lacking = [name for name in LANDMARKS if not points[name].found]
    strange = [name for name in points if name not in LANDMARKS and name not in predicted]
    for name in strange:
        if near := get_close_matches(name.upper(), lacking, n=1):
            raise DataError(
                f"{file} has a point {name!r} and none called {near[0]}. If that is meant, name it so; a point of your "
                "own needs a name that is less alike."
            )
    if strange:
        _log.warning("%s: no measurement knows %s; points are %s.", file, ", ".join(strange), ", ".join(LANDMARKS))


def _facts(earlier: Path) -> dict[str, Any]:
    """What ``run.json`` will say: how the prediction was made, where that is known, and that it was measured again.

    Raises:
        DataError: the earlier ``run.json`` is damaged.
    """
    from cardiac_ct_fm import __version__
    from cardiac_ct_fm.errors import DataError

    package, path = {"cardiac_ct_fm": __version__}, earlier / "run.json"
    try:
        predicted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {"package": package, **predicted, "measured": {"package": package}}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Predict again, or take it away.") from error


def _add_labels(prediction: Prediction, path: Path) -> None:
    """Take the label maps of the heads apart again, and say what of them cannot be known.

    Raises:
        DataError: the file is no label map or lies on another grid.
    """
    import numpy as np

    from cardiac_ct_fm.errors import DataError
    from cardiac_ct_fm.label_io import load_covered, load_label_map, take_apart

    labels, grid, names = load_label_map(path)
    if labels.shape != prediction.grid.shape or not np.allclose(grid.affine, prediction.grid.affine, atol=1e-3):
        raise DataError(
            f"{path} is not on the grid of {prediction.volume.source} ({labels.shape} and {prediction.grid.shape} "
            "voxels, or another affine); give the label map that predict wrote for this scan."
        )
    recorded, covered = prediction.run.get("classes", {}), load_covered(path.with_name("covered.npz"))
    prediction.label_maps, prediction.classes, unknown = take_apart(labels, names, recorded, covered)
    for head, voxels in unknown.items():
        if voxels:
            millilitres = voxels * prediction.grid.voxel_mm3 / 1000
            prediction.warnings.append(
                f"Other labels of {path.name} lie over those of {head}, and what they cover is not known: its volumes "
                f"may be up to {millilitres:.1f} mL too small."
            )
