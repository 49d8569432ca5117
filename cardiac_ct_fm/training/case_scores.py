"""All scores of one scan as rows of a table, and that table as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cardiac_ct_fm.errors import DataError, UnknownNameError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.training.metrics import Score, is_thin, landmark_scores, plane_scores, segmentation_scores
from cardiac_ct_fm.training.scans import LabelledScan

COLUMNS = (
    "case", "patient", "site", "head", "structure", "measure", "value", "unit", "status", "confidence", "swapped",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One score and whose it is."""

    case: str
    patient: str
    site: str
    score: Score


def score_case(scan: LabelledScan, prediction: Prediction | None, heads: Sequence[str]) -> list[Row]:
    """Score a prediction against the scan's references.

    Args:
        scan: with the references.
        prediction: on the same scan, or None when it failed: then everything that was asked counts as missed.
        heads: heads to score; those without a reference are left out, because nothing is known.

    Raises:
        UnknownNameError: none of the heads has a reference.
        DataError: reference and prediction differ in grid or classes.
    """
    known = [h for h in heads if h in scan.landmarks or h in scan.label_maps]
    if not known:
        raise UnknownNameError(f"reference in {scan.name}", ", ".join(heads), [*scan.landmarks, *scan.label_maps])
    scores: list[Score] = []
    for head in known:
        scores += _points(scan, prediction, head) if head in scan.landmarks else _masks(scan, prediction, head)
    return [Row(scan.name, scan.patient, scan.site, score) for score in scores]


def _points(scan: LabelledScan, prediction: Prediction | None, head: str) -> list[Score]:
    reference = scan.landmarks[head]
    predicted: dict[str, Landmark] = {} if prediction is None else prediction.landmarks
    scores = landmark_scores(head, tuple(reference), reference, predicted)
    return [*scores, *plane_scores(reference, predicted)] if head == "hps" else scores


def _masks(scan: LabelledScan, prediction: Prediction | None, head: str) -> list[Score]:
    names, reference = scan.classes[head], scan.label_maps[head]
    if prediction is not None and prediction.classes[head] != names:
        raise DataError(
            f"{scan.name}: head {head!r} of the model has the classes {', '.join(prediction.classes[head])}; "
            f"the reference has {', '.join(names)}. Give the same classes in the same order."
        )
    labels = None if prediction is None else prediction.label_maps[head]
    scores = []
    for value, name in enumerate(names, start=1):
        truth = reference == value
        found = truth & False if labels is None else labels == value
        scores += segmentation_scores(head, name, truth, found, scan.volume.grid.spacing, thin=is_thin(head))
    return scores


def predictable(heads: Iterable[str], scan: LabelledScan) -> tuple[str, ...]:
    """Those of the model's heads for which the scan has a reference."""
    return tuple(h for h in heads if h in scan.landmarks or h in scan.label_maps)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """The table as CSV: one line per score; a value that does not exist is an empty field.

    Raises:
        OutputError: the file system refuses.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            s = row.score
            writer.writerow(
                [
                    row.case,
                    row.patient,
                    row.site,
                    s.head,
                    s.structure,
                    s.measure,
                    "" if s.value is None else repr(float(s.value)),
                    s.unit,
                    s.status,
                    "" if s.confidence is None else repr(float(s.confidence)),
                    "" if s.swapped is None else int(s.swapped),
                ]
            )


def read_rows(path: Path) -> list[Row]:
    """The table that :func:`write_rows` wrote.

    Raises:
        DataError: not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Row(
                    r["case"],
                    r["patient"],
                    r["site"],
                    Score(
                        r["head"],
                        r["structure"],
                        r["measure"],
                        float(r["value"]) if r["value"] else None,
                        r["unit"],
                        r["status"],  # type: ignore[arg-type]  # one of the words that write_rows wrote
                        float(r["confidence"]) if r["confidence"] else None,
                        bool(int(r["swapped"])) if r["swapped"] else None,
                    ),
                )
                for r in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no table of scores ({error}); evaluate again.") from error
