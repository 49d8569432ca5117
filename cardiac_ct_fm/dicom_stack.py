"""A stack of DICOM slices: their order, heart phases taken apart, and where they lie. Headers alone, no pixels."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.geometry import FloatArray, lps_affine, validated_affine

UNREADABLE = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError, struct.error)
"""What pydicom raises on files that were damaged at single bytes (tried on a thousand of them), beside its own."""

MAX_GAP_DEVIATION = 0.1
"""Distances between slices may differ from their median by this fraction; a lost slice doubles one of them.

Positions are written with at least 0.01 mm, so rounding alone stays below 0.1 of any cardiac slice distance (≥ 0.2 mm).
"""

MAX_SHIFT = 0.25
"""Pixels by which a slice may lie beside the line through the first and the last (a choice of this project).

A gantry tilt moves every slice by as much and stays on the line; a table that was moved or slices of two scans do not.
"""

_PHASE_TAGS = ("NominalPercentageOfCardiacPhase", "TriggerTime", "TemporalPositionIdentifier", "AcquisitionNumber")
"""What tells slices at the same place apart, most telling first: the heart phases of one gated acquisition."""


@dataclass(frozen=True)
class DicomSeries:
    """Slices of one stack, in order along its normal.

    Attributes:
        key: the series UID; with ``#`` and a phase where one series holds several heart phases.
        description: the scanner's name for it.
        modality: ``CT``, ``MR``, ….
        slices: (path, header) of each slice.
    """

    key: str
    description: str
    modality: str
    slices: tuple[tuple[Path, Any], ...]

    def __str__(self) -> str:
        return f"{self.key} ({self.description or 'no description'}, {self.modality}, {len(self.slices)} slices)"


def stack_affine(folder: Path, series: DicomSeries) -> FloatArray:
    """Voxel (column, row, slice) → RAS mm, from DICOM's LPS positions (PS3.3 C.7.6.2.1.1).

    Raises:
        ImageError: the slices do not follow each other evenly.
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
    line = np.linspace(positions[0], positions[-1], len(positions))
    beside = np.abs((positions - line) @ np.stack([along_row, along_column], axis=1)).max(axis=1)
    astray = int(np.argmax(beside))
    if beside[astray] > MAX_SHIFT * min(row_distance, column_distance):
        raise ImageError(
            f"{folder}: slice {series.slices[astray][0].name} of series {series.key} lies {beside[astray]:.2f} mm "
            "beside the line of the others, so they are not one stack. Export one complete reconstruction."
        )
    sizes = {tuple(round(float(v), 4) for v in h.PixelSpacing): path.name for path, h in series.slices}
    if len(sizes) > 1:
        told = ", ".join(f"{row:g}×{column:g} mm ({name})" for (row, column), name in sizes.items())
        raise ImageError(
            f"{folder}: slices of series {series.key} have pixels of several sizes: {told}. Export one reconstruction."
        )
    affine = np.eye(4)
    affine[:3, 0] = along_row * column_distance
    affine[:3, 1] = along_column * row_distance
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    return validated_affine(lps_affine(affine))


def phases(slices: list[tuple[Path, Any]]) -> list[tuple[str, list[tuple[Path, Any]]]]:
    """Slices in order along their normal; where places repeat, taken apart by the first tag that does so cleanly."""
    row, column = np.asarray(slices[0][1].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda s: float(np.dot(normal, np.asarray(s[1].ImagePositionPatient, dtype=float))))

    def places_repeat(part: Sequence[tuple[Path, Any]]) -> bool:
        places = [tuple(round(float(v), 2) for v in h.ImagePositionPatient) for _, h in part]
        return len(set(places)) < len(places)

    if places_repeat(ordered):
        for tag in _PHASE_TAGS:
            parts: dict[str, list[tuple[Path, Any]]] = {}
            for path, header in ordered:
                parts.setdefault(str(getattr(header, tag, "")), []).append((path, header))
            if len(parts) > 1 and "" not in parts and not any(map(places_repeat, parts.values())):
                return list(parts.items())
    return [("", ordered)]
