"""Named points and their files: ``landmarks.json``, 3D Slicer's ``.mrk.json`` and MITK's ``.mps``, both ways.

A point that was not found keeps its name and its place in the order in every format; nothing shifts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import write_json
from cardiac_ct_fm.geometry import Grid, ras_to_lps
from cardiac_ct_fm.landmark import SAME_PLACE_MM, named_point, rounded
from cardiac_ct_fm.landmark import Landmark as Landmark
from cardiac_ct_fm.mitk_points import parse_mitk
from cardiac_ct_fm.mitk_points import write_mitk as write_mitk

SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
"""Schema named in 3D Slicer's own files (Slicer 5)."""


def write_landmarks(path: str | Path, landmarks: Iterable[Landmark], grid: Grid | None = None) -> None:
    """``landmarks.json``: every point in RAS, LPS and, where ``grid`` is given, in its voxels.

    Raises:
        OutputError: the file system refuses.
    """
    rows = [
        {
            "name": p.name,
            "found": p.found,
            "ras": rounded(p.ras_mm),
            "lps": rounded(p.lps_mm),
            "voxel": None if grid is None or p.ras_mm is None else rounded(grid.voxel(p.ras_mm).tolist()),
            "confidence": _share(p),
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
            **({"position": rounded(point.lps_mm)} if point.found else {}),
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


def read_landmarks(
    path: str | Path, names: Sequence[str] = anatomy.LANDMARKS, predicted: Mapping[str, Landmark] | None = None
) -> dict[str, Landmark]:
    """Read any of the three formats; aliases of the vocabulary are turned into its own names.

    Args:
        path: ``landmarks.json``, ``….mrk.json`` (LPS or RAS) or ``….mps``.
        names: the expected points; those that the file lacks come back as missing.
        predicted: the points that the file was made from, before anybody moved one. Neither MITK nor ``landmarks.json``
            tells which were moved, and MITK drops the names and confidences.

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
        known = predicted or {}
        points = parse_mitk(text, known) if file.suffix.lower() == ".mps" else _parse_json(text, known)
    except (ParseError, json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} is no landmark file ({_problem(error)}). "
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


def _problem(error: Exception) -> str:
    """What is wrong with a file, in words rather than in Python's."""
    if isinstance(error, KeyError):
        return f"it has no entry {error}"
    if isinstance(error, TypeError | AttributeError):
        return "its entries have another form"
    return str(error)


def _parse_json(text: str, predicted: Mapping[str, Landmark]) -> list[Landmark]:
    """Points of our own JSON or of Slicer's."""
    raw: Mapping[str, Any] = json.loads(text)
    if "landmarks" in raw:
        if raw["coordinate_system"] != "RAS" or raw["unit"] != "mm":
            raise ValueError("coordinate_system must be RAS and unit mm")
        rows = [named_point(row["name"], _position(row), row["confidence"]) for row in raw["landmarks"]]
        return [_moved(point, predicted.get(point.name, point)) for point in rows]
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
            point = named_point(row["label"], position or None, 1.0 if position else 0.0)
            points.append(_as_described(point, str(row.get("description", ""))))
    return points


def _moved(point: Landmark, before: Landmark) -> Landmark:
    """The point; certain where a person placed or moved it and left the confidence of what was predicted."""
    if point.ras_mm is None or _share(point) != _share(before):
        return point
    there = before.ras_mm is not None and math.dist(before.ras_mm, point.ras_mm) <= SAME_PLACE_MM
    return point if there else replace(point, confidence=1.0)


def _position(row: Mapping[str, Any]) -> Sequence[float] | None:
    """Where a point of our own format lies, RAS mm, None where it was not found; either of ``ras`` and ``lps`` will do.

    Raises:
        KeyError: it has no ``found``.
        ValueError: ``found`` says something else than they do, or they are two places (they differ by more than
            rounding): one was edited, and which is not known.
    """
    ras: Sequence[float] | None = row.get("ras")
    lps: Sequence[float] | None = row.get("lps")
    if row["found"] != (ras is not None or lps is not None):
        given = json.dumps({key: row.get(key) for key in ("found", "ras", "lps")})
        raise ValueError(
            f"{row['name']} has {given[1:-1]}: make found true and give ras or lps, or make it false and both null"
        )
    if lps is None:
        return ras
    turned: list[float] = ras_to_lps(lps).tolist()
    if ras is None:
        return turned
    away = math.dist(turned, ras)
    if away > SAME_PLACE_MM:
        raise ValueError(
            f"{row['name']} has ras {ras} and lps {lps}, which are {away:.1f} mm apart; change both, or delete the one "
            "that you did not edit"
        )
    return ras


def _share(point: Landmark) -> float:
    """Confidence as files give it."""
    return round(point.confidence, 4)


def _description(point: Landmark) -> str:
    """What a point's row in Slicer says. Slicer keeps it when the point is moved, so it names the place too."""
    place = " ".join(map(str, rounded(point.lps_mm) or ()))
    return f"confidence {point.confidence:.4f} at LPS {place}" if place else f"not found, {point.confidence:.4f}"


def _as_described(point: Landmark, description: str) -> Landmark:
    """The point with the confidence that its description names, unless it was moved or described anew since."""
    said = re.search(r"[01]\.\d{4}", description)
    before = replace(point, confidence=float(said[0])) if said else point
    return before if _description(before) == description else point
