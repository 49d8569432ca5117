"""Scans with references: what fine-tuning learns from and evaluation measures against, read from a data list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import load_label_map
from cardiac_ct_fm.landmark_io import Landmark, read_landmarks
from cardiac_ct_fm.result import LabelMap
from cardiac_ct_fm.training.data_list import Entry
from cardiac_ct_fm.volume_io import Volume, load_volume

SAME_GRID = 0.1
"""A label map lies on its image's grid when no corner is further off than this share of a voxel: a quarter turn of the
last digits in a header does not matter, half a voxel (another corner convention) does."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan and what is known of it.

    Attributes:
        volume: the scan.
        name: unique in its data set.
        patient: whose it is; scans of one patient are never in training and validation.
        site: where it was made, empty when unknown.
        landmarks: head → name → point; points that the scan does not show are there as not found.
        label_maps: head → (X, Y, Z) uint8 on the scan's grid.
        classes: head → names of the label map's values from 1 on.
        facts: anything else worth a column (sex, template, contrast, …).
    """

    volume: Volume
    name: str
    patient: str
    site: str = ""
    landmarks: Mapping[str, Mapping[str, Landmark]] = field(default_factory=dict)
    label_maps: Mapping[str, LabelMap] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanSource:
    """Scans that are made or read one at a time.

    Attributes:
        name: what they are, for the summary.
        keys: one per scan, unique; also its file name.
        load: key → scan with references.
        facts: whatever has to be the same for two evaluations to be comparable, plain JSON types.
        stamps: key → what changes when the scan's files do, or what a list says of it: a stopped training does not go
            on then, and the scan is evaluated anew. Scans that follow from their key and the facts need none.
    """

    name: str
    keys: tuple[str, ...]
    load: Callable[[str], LabelledScan]
    facts: Mapping[str, Any] = field(default_factory=dict)
    stamps: Mapping[str, str] = field(default_factory=dict)


def list_source(entries: Sequence[Entry], heads: Sequence[HeadConfig], name: str = "data list") -> ScanSource:
    """The scans of a data list.

    Args:
        entries: scans with labels.
        heads: the heads whose references are read; a scan without any of them is left out.
        name: what they are.

    Raises:
        DataError: no scan has a label of these heads, or a plain ``label`` could be of several heads.
    """
    alone = len(heads) == 1
    wanted = [e for e in entries if any(_file(e, head, alone) for head in heads)]
    if not wanted:
        given = sorted({key for e in entries for key in (*e.labels, *(["landmarks"] if e.landmarks else []))})
        limits = any(e.labelled is not None for e in entries)
        raise DataError(
            f"{name} has no label of {', '.join(h.name for h in heads)}; its entries have {', '.join(given) or 'none'}"
            + (", and an entry's 'labels' says of which heads 'landmarks' and 'label' are." if limits else ".")
            + ("" if alone else " Name the head that a plain 'label' is of.")
        )
    by_key: dict[str, Entry] = {}
    for entry in wanted:
        stem = entry.patient.replace("/", "-").replace("\\", "-").strip(".-") or "scan"
        key, number = stem, 1
        while key in by_key:
            number += 1
            key = f"{stem}-{number}"
        by_key[key] = entry
    stamps = {key: _stamp(e, [e.image, *(_file(e, head, alone) for head in heads)]) for key, e in by_key.items()}
    return ScanSource(
        name, tuple(by_key), lambda key: load_scan(by_key[key], heads, key), {"images": _images(by_key)}, stamps
    )


def _stamp(entry: Entry, files: Iterable[Path | None]) -> str:
    """Patient, site, and names, sizes and times of change of those files that there are."""
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file is not None]
    return hashlib.sha256(repr((entry.patient, entry.site, seen)).encode()).hexdigest()


def _images(by_key: Mapping[str, Entry]) -> dict[str, str]:
    """Key → image, to recognise the same list again."""
    return {key: entry.image.name for key, entry in by_key.items()}


def load_scan(entry: Entry, heads: Sequence[HeadConfig], name: str | None = None) -> LabelledScan:
    """Read a scan and its references.

    Args:
        entry: of a data list.
        heads: those whose references are read where there are any.
        name: of the scan; the patient's when None.

    Raises:
        ImageError: the image cannot be read or is no CT.
        DataError: a reference lies on another grid, holds values or points that the head does not know, or lies
            outside of the scan.
    """
    volume = load_volume(entry.image)
    landmarks: dict[str, Mapping[str, Landmark]] = {}
    maps: dict[str, LabelMap] = {}
    for head in heads:
        file = _file(entry, head, len(heads) == 1)
        if file is None:
            continue
        if head.kind == "landmarks":
            points = _points(file, head, volume.grid)
            if points:
                landmarks[head.name] = points
            elif file != entry.landmarks or len(heads) == 1:
                raise DataError(
                    f"{file} has none of {', '.join(head.classes)}; rename its points or give the others. (MITK saves "
                    "no names of points; .mrk.json and landmarks.json have them.)"
                )
        else:
            maps[head.name] = _labels(file, head, volume.grid, entry.image)
    classes = {head.name: head.classes for head in heads if head.name in maps}
    return LabelledScan(volume, name or entry.patient, entry.patient, entry.site, landmarks, maps, classes)


def _file(entry: Entry, head: HeadConfig, alone: bool) -> Path | None:
    """The file that labels a head; a plain ``label`` counts where there is one head alone."""
    return entry.label_of(head.name, points=head.kind == "landmarks", plain=alone)


def _labels(file: Path, head: HeadConfig, grid: Grid, image: Path) -> LabelMap:
    """A checked label map on the scan's grid."""
    labels, own, names = load_label_map(file)
    if not own.same_as(grid, SAME_GRID * min(grid.spacing)):
        raise DataError(
            f"{file} lies on another grid than {image}: {_describe(own)} against {_describe(grid)}. Resample the label "
            "map onto the scan (nearest neighbour)."
        )
    highest = int(labels.max())
    if highest > len(head.classes):
        raise DataError(
            f"{file} holds the value {highest}; head {head.name!r} has {len(head.classes)} "
            f"class{'es' if len(head.classes) > 1 else ''} ({', '.join(head.classes)}). Name all classes or remap it."
        )
    for value, name in names.items():
        if value <= len(head.classes) and name.lower() != head.classes[value - 1].lower():
            raise DataError(
                f"{file} calls the value {value} {name!r}; class {value} of head {head.name!r} is "
                f"{head.classes[value - 1]!r}. Give the classes in the file's order."
            )
    return labels


def _describe(grid: Grid) -> str:
    size = "×".join(map(str, grid.shape))
    spacing = "×".join(f"{s:g}" for s in np.round(grid.spacing, 3))
    return f"{size} voxels of {spacing} mm at {np.round(grid.affine[:3, 3], 1).tolist()}"


def _points(file: Path, head: HeadConfig, grid: Grid) -> dict[str, Landmark]:
    """The head's points, each inside the scan or not found; none at all where the file has none of them."""
    read = read_landmarks(file, head.classes)
    points = {name: read[name] for name in head.classes}
    if not any(p.found for p in points.values()):
        return {}
    for name, point in points.items():
        if point.ras_mm is not None and not bool(grid.contains(np.array(point.ras_mm))):
            where = ", ".join(f"{v:.1f}" for v in point.ras_mm)
            raise DataError(
                f"{file}: {name} at ({where}) RAS mm lies outside of the scan. Check the unit (mm) and the frame (RAS "
                "or LPS), or mark the point as not found."
            )
    return points
