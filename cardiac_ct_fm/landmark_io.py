"""Named points and their files: ``landmarks.json``, 3D Slicer's ``.mrk.json`` and MITK's ``.mps``, both ways.

A point that was not found keeps its name and its place in the order in every format; nothing shifts.
"""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.errors import DataError, UnknownNameError
from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.geometry import Grid, ras_to_lps

Point = tuple[float, float, float]

SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
"""Schema named in 3D Slicer's own files (Slicer 5)."""

_DECIMALS = 3
"""Files give mm and voxels to 0.001, far below what any point is known to."""

SAME_PLACE_MM = 0.01
"""Two ways of writing one point agree within this: a few times the rounding."""


@dataclass(frozen=True)
class Landmark:
    """One expected point.

    Attributes:
        name: its name in :mod:`cardiac_ct_fm.anatomy`, or a user's own.
        found: whether it has a position.
        ras_mm: world position, RAS mm; ``None`` when it was not found.
        confidence: 0…1.
    """

    name: str
    found: bool
    ras_mm: Point | None
    confidence: float

    def __post_init__(self) -> None:
        if self.found != (self.ras_mm is not None):
            raise DataError(f"landmark {self.name}: found={self.found} does not fit position {self.ras_mm}.")
        if self.ras_mm is not None:
            x, y, z = (float(v) for v in self.ras_mm)
            if not all(map(math.isfinite, (x, y, z))):
                raise DataError(f"landmark {self.name} has position {self.ras_mm}; a missing point has none.")
            object.__setattr__(self, "ras_mm", (x, y, z))
        if not 0 <= self.confidence <= 1:
            raise DataError(f"landmark {self.name} has confidence {self.confidence}; it must lie in 0…1.")

    @classmethod
    def missing(cls, name: str, confidence: float = 0.0) -> Landmark:
        """The point that was expected and not found."""
        return cls(name, False, None, confidence)

    @property
    def lps_mm(self) -> Point | None:
        """World position, LPS mm (DICOM, ITK, MITK); ``None`` when it was not found."""
        return None if self.ras_mm is None else (-self.ras_mm[0], -self.ras_mm[1], self.ras_mm[2])


def write_landmarks(path: str | Path, landmarks: Iterable[Landmark], grid: Grid | None = None) -> None:
    """``landmarks.json``: every point in RAS, LPS and, where ``grid`` is given, in its voxels.

    Raises:
        OutputError: the file system refuses.
    """
    rows = [
        {
            "name": p.name,
            "found": p.found,
            "ras": _rounded(p.ras_mm),
            "lps": _rounded(p.lps_mm),
            "voxel": None if grid is None or p.ras_mm is None else _rounded(grid.voxel(p.ras_mm).tolist()),
            "confidence": round(p.confidence, 4),
        }
        for p in landmarks
    ]
    write_json(path, {"coordinate_system": "RAS", "unit": "mm", "landmarks": rows})


def write_slicer(path: str | Path, landmarks: Iterable[Landmark]) -> None:
    """``.mrk.json``: a point list for 3D Slicer, in LPS as Slicer itself writes; missing points are "undefined".

    Every point is described by its confidence and the place that this belongs to, which brings it back when the file
    is read again.

    Raises:
        OutputError: the file system refuses.
    """
    points = [
        {
            "id": str(number),
            "label": point.name,
            "description": _description(point),
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined" if point.found else "undefined",
            **({"position": _rounded(point.lps_mm)} if point.found else {}),
        }
        for number, point in enumerate(landmarks, start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "labelFormat": "%N-%d",
        "controlPoints": points,
    }
    write_json(path, {"@schema": SLICER_SCHEMA, "markups": [markup]})


def write_mitk(path: str | Path, landmarks: Iterable[Landmark]) -> None:
    """``.mps``: a point set for MITK, in LPS. Ids count all expected points, so a missing one leaves a gap.

    MITK keeps ids and drops the ``name`` elements when it saves; :func:`read_landmarks` then goes by id.

    Raises:
        OutputError: the file system refuses.
    """
    root = ET.Element("point_set_file")
    ET.SubElement(root, "file_version").text = "0.1"
    series = ET.SubElement(ET.SubElement(root, "point_set"), "time_series")
    ET.SubElement(series, "time_series_id").text = "0"
    found = [(i, p.name, p.lps_mm) for i, p in enumerate(landmarks) if p.lps_mm is not None]
    if found:
        _add_identity_geometry(series, np.array([lps for _, _, lps in found]))
    for number, name, lps in found:
        point = ET.SubElement(series, "point")
        ET.SubElement(point, "id").text = str(number)
        ET.SubElement(point, "specification").text = "0"
        for axis, value in zip("xyz", _rounded(lps) or (), strict=True):
            ET.SubElement(point, axis).text = repr(value)
        ET.SubElement(point, "name").text = name
    ET.indent(root)
    with atomic_write(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def read_landmarks(
    path: str | Path, names: Sequence[str] = anatomy.LANDMARKS, predicted: Mapping[str, Landmark] | None = None
) -> dict[str, Landmark]:
    """Read any of the three formats; aliases of the vocabulary are turned into its own names.

    Args:
        path: ``landmarks.json``, ``….mrk.json`` (LPS or RAS) or ``….mps``.
        names: the expected points, in the order of MITK's ids; those that the file lacks come back as missing.
        predicted: the points that an MITK file was made from; MITK drops their confidence.

    Returns:
        The expected points first, in order, then others that the file holds. A point that lies where it was predicted
        keeps its confidence, one that a person has placed or moved has confidence 1.

    Raises:
        DataError: no such file, another format, a repeated name.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"{file} does not exist.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a landmark file: {error}.") from error
    try:
        points = _parse_mitk(text, names, predicted or {}) if file.suffix.lower() == ".mps" else _parse_json(text)
    except (ET.ParseError, json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} is no landmark file ({type(error).__name__}: {error}). "
            "Give landmarks.json, a 3D Slicer .mrk.json or an MITK .mps."
        ) from error
    table = {name: Landmark.missing(name) for name in names}
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise DataError(f"{file} names {point.name} twice; keep one of the two points.")
        seen.add(point.name)
        table[point.name] = point
    return table


def _parse_json(text: str) -> list[Landmark]:
    """Points of our own JSON or of Slicer's."""
    raw: Mapping[str, Any] = json.loads(text)
    if "landmarks" in raw:
        if raw["coordinate_system"] != "RAS" or raw["unit"] != "mm":
            raise ValueError("coordinate_system must be RAS and unit mm")
        return [
            _landmark(row["name"], _position(row) if row["found"] else None, row["confidence"])
            for row in raw["landmarks"]
        ]
    points = []
    for markup in raw["markups"]:
        # Slicer before 2020 wrote numbers: 0 is RAS, 1 is LPS; a file that is silent is LPS.
        system = str(markup.get("coordinateSystem", "LPS"))
        if system not in ("LPS", "RAS", "0", "1"):
            raise ValueError(f"coordinateSystem {system!r}")
        units = markup.get("coordinateUnits", "mm")
        if set([units] if isinstance(units, str) else units) != {"mm"}:
            raise ValueError(f"coordinateUnits must be mm, not {units!r}")
        for row in markup["controlPoints"]:
            position = row.get("position") if row.get("positionStatus", "defined") == "defined" else None
            if position and system in ("LPS", "1"):
                position = ras_to_lps(position).tolist()
            point = _landmark(row["label"], position or None, 1.0 if position else 0.0)
            points.append(_as_described(point, str(row.get("description", ""))))
    return points


def _position(row: Mapping[str, Any]) -> Sequence[float]:
    """Where a found point of our own format lies, RAS mm; either of ``ras`` and ``lps`` will do.

    Raises:
        KeyError: it has neither.
        ValueError: they are two places (they differ by more than rounding): one was edited, and which is not known.
    """
    if row.get("lps") is None:
        return cast(Sequence[float], row["ras"])
    turned: list[float] = ras_to_lps(row["lps"]).tolist()
    if row.get("ras") is None:
        return turned
    away = math.dist(turned, row["ras"])
    if away > SAME_PLACE_MM:
        raise ValueError(
            f"{row['name']} has ras {row['ras']} and lps {row['lps']}, which are {away:.1f} mm apart; change both, or "
            "delete the one that you did not edit"
        )
    return cast(Sequence[float], row["ras"])


def _parse_mitk(text: str, names: Sequence[str], predicted: Mapping[str, Landmark]) -> list[Landmark]:
    """Points of an MITK point set, named by their ``name`` element or else by their id."""
    points = []
    for row in ET.fromstring(text).iter("point"):
        number = int(row.findtext("id") or "")
        name = row.findtext("name") or (names[number] if number < len(names) else f"point_{number}")
        lps = [float(row.findtext(axis) or "") for axis in "xyz"]
        point = _landmark(name, ras_to_lps(lps).tolist(), 1.0)
        before = predicted.get(point.name, point)
        unmoved = before.ras_mm and point.ras_mm and math.dist(before.ras_mm, point.ras_mm) <= SAME_PLACE_MM
        points.append(before if unmoved else point)
    return points


def _description(point: Landmark) -> str:
    """What a point's row in Slicer says. Slicer keeps it when the point is moved, so it names the place too."""
    place = " ".join(map(str, _rounded(point.lps_mm) or ()))
    return f"confidence {point.confidence:.4f} at LPS {place}" if place else f"not found, {point.confidence:.4f}"


def _as_described(point: Landmark, description: str) -> Landmark:
    """The point with the confidence that its description names, unless it was moved or described anew since."""
    said = re.search(r"[01]\.\d{4}", description)
    before = replace(point, confidence=float(said[0])) if said else point
    return before if _description(before) == description else point


def _landmark(name: str, ras: Sequence[float] | None, confidence: float) -> Landmark:
    """A landmark under the vocabulary's own name where it has one."""
    try:
        name = anatomy.canonical(name)
    except UnknownNameError:
        name = name.strip()
    if ras is None:
        return Landmark.missing(name, float(confidence))
    x, y, z = ras
    return Landmark(name, True, (float(x), float(y), float(z)), float(confidence))


def _add_identity_geometry(series: ET.Element, lps: np.ndarray[Any, Any]) -> None:
    """MITK's ``Geometry3D`` of points (N, 3) that are already in world mm."""
    geometry = ET.SubElement(series, "Geometry3D", ImageGeometry="false", FrameOfReferenceID="0")
    identity = {f"m_{r}_{c}": str(int(r == c)) for r in range(3) for c in range(3)}
    ET.SubElement(geometry, "IndexToWorld", {"type": "Matrix3x3", **identity})
    ET.SubElement(geometry, "Offset", {"type": "Vector3D", "x": "0", "y": "0", "z": "0"})
    bounds = ET.SubElement(geometry, "Bounds")
    for tag, corner in (("Min", lps.min(axis=0)), ("Max", lps.max(axis=0))):
        place = {axis: repr(float(v)) for axis, v in zip("xyz", corner, strict=True)}
        ET.SubElement(bounds, tag, {"type": "Vector3D", **place})


def _rounded(position: Sequence[float] | None) -> list[float] | None:
    """Coordinates for a file, without a negative zero."""
    return None if position is None else [round(float(v), _DECIMALS) + 0.0 for v in position]
