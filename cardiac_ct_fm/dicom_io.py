"""DICOM folders: which series are in there, and one of them as a :class:`~cardiac_ct_fm.volume_io.Volume`.

Positions come from each slice's own header, so gaps are seen and a gantry tilt stays in the affine. What is in a single
file is read by :mod:`~cardiac_ct_fm.dicom_files`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm.dicom_files import is_multi_frame, is_slice, read_header, slice_hu
from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.geometry import FloatArray, lps_affine, validated_affine
from cardiac_ct_fm.volume_io import Volume

MAX_GAP_DEVIATION = 0.1
"""Distances between slices may differ from their median by this fraction; a lost slice doubles one of them.

Positions are written with at least 0.01 mm, so rounding alone stays below 0.1 of any cardiac slice distance (≥ 0.2 mm).
"""

MAX_SHIFT = 0.25
"""So many voxels may a slice lie off the even line of the others, or its edge be off by another pixel spacing.

Positions are written with at least 0.1 mm, so rounding alone stays below 0.25 of any pixel of a cardiac CT (≥ 0.2 mm).
"""

MAX_TURN = 1e-3
"""Direction cosines of one stack may differ by this: ¼ mm over 250 mm (a choice of this project)."""

_PHASE_TAGS = ("NominalPercentageOfCardiacPhase", "TriggerTime", "TemporalPositionIdentifier", "AcquisitionNumber")
"""What tells slices at the same place apart, most telling first: the heart phases of one gated acquisition."""

_MAX_LISTED = 20
"""Series that an error names: all phases of a gated acquisition in steps of 5 %."""

_FACTS = {
    "PatientPosition": "patient_position",
    "SeriesInstanceUID": "series_uid",
    "SeriesDescription": "series_description",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner",
    "SliceThickness": "slice_thickness_mm",
    "ConvolutionKernel": "kernel",
    "KVP": "kvp",
}
"""Header elements that go into :attr:`Volume.facts`; none of them names a patient or a date."""

Slice = tuple[Path, Any]
"""A file and its header."""


@dataclass(frozen=True)
class DicomSeries:
    """Slices of one stack, in order along its normal.

    Attributes:
        key: the series UID; with ``#``, a number and the matrix where one series holds stacks of several sizes or
            orientations; with ``#`` and a phase where it holds several heart phases.
        description: the scanner's name for it.
        modality: ``CT``, ``MR``, ….
        slices: (path, header) of each slice.
    """

    key: str
    description: str
    modality: str
    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        return f"{self.key} ({self.description or 'no description'}, {self.modality}, {len(self.slices)} slices)"


def find_series(folder: str | Path) -> list[DicomSeries]:
    """All image stacks of a folder and its subfolders, the longest first; localizers and reports are left out.

    Raises:
        ImageError: a DICOM file is damaged; no stack is returned without the slice that it may be.
        MissingExtraError: pydicom is not installed.
    """
    stacks: dict[str, list[dict[str, Slice]]] = {}
    for path in _files(Path(folder)):
        header = read_header(path)
        if header is None or not is_slice(header):
            continue
        same_uid = stacks.setdefault(str(header.SeriesInstanceUID), [])
        stack = next((s for s in same_uid if _parallel(header, next(iter(s.values()))[1])), None)
        if stack is None:
            same_uid.append(stack := {})
        stack[str(header.SOPInstanceUID)] = (path, header)  # the same instance copied twice into a folder is one slice
    found = []
    for uid, same_uid in stacks.items():
        for number, stack in enumerate(same_uid, start=1):
            for phase, part in _phases(list(stack.values())):
                first = part[0][1]
                size = f"{number}-{first.Columns}x{first.Rows}" if len(same_uid) > 1 else ""
                key = "#".join(filter(None, (uid, size, phase)))
                description = str(getattr(first, "SeriesDescription", "") or "").strip()
                found.append(DicomSeries(key, description, str(getattr(first, "Modality", "?")), tuple(part)))
    return sorted(found, key=lambda s: -len(s.slices))


def _parallel(one: Any, other: Any) -> bool:
    """Whether two slices can be of one stack: of equal size and orientation."""
    turns = np.array([h.ImageOrientationPatient for h in (one, other)], dtype=np.float64)
    return bool((one.Rows, one.Columns) == (other.Rows, other.Columns) and np.ptp(turns, axis=0).max() <= MAX_TURN)


def load_dicom_folder(folder: str | Path, series: str | None = None) -> Volume:
    """One CT series as a volume.

    Args:
        folder: its files may lie in subfolders, beside other files.
        series: series UID (with ``#…``, as the error lists them), its beginning or ending, or the description.

    Raises:
        ImageError: no DICOM, no CT, several series and none chosen, a lost slice, a damaged file.
        MissingExtraError: the extra ``dicom`` is not installed.
    """
    chosen = _choose(Path(folder), find_series(folder), series)
    return _assemble(Path(folder), chosen)


def _choose(folder: Path, found: Sequence[DicomSeries], wanted: str | None) -> DicomSeries:
    """The series that is meant.

    Raises:
        ImageError: it is not clear, or it is no CT.
    """
    if not found:
        headers = [header for path in _files(folder) if (header := read_header(path)) is not None]
        if any(map(is_multi_frame, headers)):
            raise ImageError(
                f"{folder} holds multi-frame (enhanced) DICOM, which is not read here. Convert it to NIfTI (dcm2niix)."
            )
        others = Counter("".join(p.suffixes[-2:]) or "no ending" for p in _files(folder))
        seen = ", ".join(f"{n} × {ending}" for ending, n in others.most_common(3)) or "it is empty"
        raise ImageError(
            f"{folder} holds no DICOM image series ({seen}). "
            "Give the folder of one CT series, or a .nii or .nii.gz file."
        )
    scans = [s for s in found if s.modality == "CT"]
    if not scans:
        raise ImageError(f"{folder} holds no CT but {_listed(found)}. Give a folder with a contrast CT of the heart.")
    if wanted is not None:
        matches = [s for s in scans if s.key == wanted or s.description == wanted]
        matches = matches or [s for s in scans if s.key.startswith(wanted) or s.key.endswith(wanted)]
        if len(matches) == 1:
            return matches[0]
        how_many = "no" if not matches else f"{len(matches)}"
        raise ImageError(
            f"{folder} holds {how_many} CT series that fit {wanted!r}. It holds: {_listed(matches or scans)}."
        )
    if len(scans) > 1:
        raise ImageError(
            f"{folder} holds {len(scans)} CT series: {_listed(scans)}. Choose one with --series UID (in Python: "
            "series='UID'); the last digits, or the description, are enough."
        )
    return scans[0]


def _listed(series: Sequence[DicomSeries]) -> str:
    """The series in one line, the longest first."""
    more = f"; and {len(series) - _MAX_LISTED} more" if len(series) > _MAX_LISTED else ""
    return "; ".join(map(str, series[:_MAX_LISTED])) + more


def _assemble(folder: Path, series: DicomSeries) -> Volume:
    """Pixels and geometry of one stack.

    Raises:
        ImageError: one slice only, a lost slice, a slice that cannot be unpacked.
    """
    if len(series.slices) < 2:
        raise ImageError(
            f"{folder}: series {series} is a 2-D image; a stack of slices is needed. Give the whole series."
        )
    affine = _affine(folder, series)
    first = series.slices[0][1]
    stack = np.empty((len(series.slices), int(first.Rows), int(first.Columns)), np.int16)
    for index, (path, _) in enumerate(series.slices):
        values = slice_hu(path)
        if values.dtype != stack.dtype and stack.dtype == np.int16:
            stack = stack.astype(np.float32)
        stack[index] = values
    facts: dict[str, Any] = {"format": "DICOM"}
    for element, fact in _FACTS.items():
        value = getattr(first, element, None)
        if element not in ("SliceThickness", "KVP"):
            facts |= {fact: str(value)} if value else {}
        elif isinstance(value, float):
            facts[fact] = float(value)
    return Volume(stack.T, affine, str(folder), facts)


def _affine(folder: Path, series: DicomSeries) -> FloatArray:
    """Voxel (column, row, slice) → RAS mm, from DICOM's LPS positions (PS3.3 C.7.6.2.1.1).

    Raises:
        ImageError: the slices do not follow each other evenly, on one line and with one pixel spacing.
    """
    first = series.slices[0][1]
    along_row, along_column = np.asarray(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    row_distance, column_distance = (float(v) for v in first.PixelSpacing)
    positions = np.array([h.ImagePositionPatient for _, h in series.slices], dtype=np.float64)
    gaps = np.diff(positions @ np.cross(along_row, along_column))
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > MAX_GAP_DEVIATION * usual:
        raise ImageError(
            f"{folder}: slices of series {series.key} lie {usual:.2f} mm apart, but {gaps[worst]:.2f} mm between "
            f"{series.slices[worst][0].name} and {series.slices[worst + 1][0].name}, so slices are "
            "lost or of different phases. Export the complete series again."
        )
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_distance
    affine[:3, 1] = along_column * row_distance
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    in_the_patient = validated_affine(lps_affine(affine))
    shifts = (positions - positions[0]) @ np.linalg.inv(affine[:3, :3]).T
    shifts[:, 2] -= np.arange(len(positions))
    spacings = np.array([h.PixelSpacing for _, h in series.slices], dtype=np.float64)
    stretches = np.abs(spacings / spacings[0] - 1) * (int(first.Rows), int(first.Columns))
    for what, voxels in (("lies off the even line of the others", shifts), ("has another pixel spacing", stretches)):
        most = np.abs(voxels).max(axis=1)
        if most.max() > MAX_SHIFT:
            raise ImageError(
                f"{folder}: slice {series.slices[int(most.argmax())][0].name} of series {series.key} {what} "
                f"(off by {most.max():.1f} voxels), so one affine cannot place them all. Export the series again, "
                "or choose one that was reconstructed in one piece."
            )
    return in_the_patient


def _phases(slices: list[Slice]) -> list[tuple[str, list[Slice]]]:
    """Slices in order along their normal; where places repeat, taken apart by the first tag that does so cleanly."""
    row, column = np.asarray(slices[0][1].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda s: float(np.dot(normal, np.asarray(s[1].ImagePositionPatient, dtype=float))))

    def places_repeat(part: Sequence[Slice]) -> bool:
        places = [tuple(round(float(v), 2) for v in h.ImagePositionPatient) for _, h in part]
        return len(set(places)) < len(places)

    if places_repeat(ordered):
        for tag in _PHASE_TAGS:
            parts: dict[str, list[Slice]] = {}
            for path, header in ordered:
                parts.setdefault(str(getattr(header, tag, "")), []).append((path, header))
            if len(parts) > 1 and "" not in parts and not any(map(places_repeat, parts.values())):
                return list(parts.items())
    return [("", ordered)]


def _files(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file())
