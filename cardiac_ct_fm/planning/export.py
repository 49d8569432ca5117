"""Measurements for tables and geometry for 3D Slicer.

A number that could not be made is an empty cell or ``null`` with its status beside it, never 0.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.geometry import FloatArray, ras_to_lps
from cardiac_ct_fm.landmark_io import SLICER_SCHEMA, Landmark, write_slicer
from cardiac_ct_fm.planning.centreline import Section
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.planning.planes import Plane
from cardiac_ct_fm.result import Measurement

SECTION_COLOURS = {"lvot": "#e8473f", "sinus": "#f06fa7", "stj": "#8a7be0", "ascending": "#5b8def"}
ANNULUS_COLOUR = "#7df0c8"
PLANE_MARGIN_MM = 4.0
"""How far a plane is drawn beyond its contour (house choice)."""


def measurements_to_json(path: str | Path, plan: Plan, measurements: Mapping[str, Measurement] | None = None) -> None:
    """``measurements.json`` of one scan: the numbers, what a reader has to know about them, and the choices made.

    Args:
        path: the file.
        plan: the measurements with their findings and options.
        measurements: all measurements, when there are more than the plan's own (volumes of chambers).

    Raises:
        OutputError: the file system refuses.
    """
    rows = plan.measurements if measurements is None else measurements
    content = {
        "measurements": [m.to_dict() for m in rows.values()],
        "findings": [{"code": f.code, "message": f.message} for f in plan.findings],
        "calcium_clock_mm3": plan.calcium_clock,
        "options": plan.options.recorded(),
    }
    write_json(path, content)


def measurements_to_csv(path: str | Path, cases: Mapping[str, Mapping[str, Measurement]]) -> None:
    """One table for a whole cohort: a row per scan, three columns per measurement.

    Columns are ``case``, then for every measurement its name (the value), ``<name>_sd`` and ``<name>_status``. A
    value that is missing leaves its cell empty; its status says why.

    Args:
        path: the file.
        cases: name of the scan → its measurements, in the order of the rows.

    Raises:
        OutputError: the file system refuses.
    """
    names = list(dict.fromkeys(name for rows in cases.values() for name in rows))
    header = ["case", *(column for name in names for column in (name, f"{name}_sd", f"{name}_status"))]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for case, rows in cases.items():
            cells: list[str] = [case]
            for name in names:
                row = rows.get(name)
                cells += ["", "", "not_measured"] if row is None else _cells(row)
            writer.writerow(cells)


def _cells(row: Measurement) -> list[str]:
    """Value, standard deviation and status of one measurement, for a table."""
    reason = row.details.get("reason")
    status = row.status if row.status == "ok" or reason is None else f"{row.status}: {reason}"
    return [*("" if v is None else f"{v:.6g}" for v in (row.value, row.uncertainty)), status]


def export_slicer(plan: Plan, folder: str | Path) -> list[Path]:
    """Points, planes, contours and centreline as 3D Slicer markups; drag the folder into Slicer.

    ``points.mrk.json`` can be edited there and measured again (``cardiac-ct-fm measure --landmarks``).

    Args:
        plan: the measurements.
        folder: made if it is not there; files of the same names are replaced.

    Returns:
        The files written; what was not found has none.

    Raises:
        OutputError: the file system refuses.
    """
    target = Path(folder)
    written = [target / "points.mrk.json"]
    points = {**{n: None for n in plan.points.problems}, **plan.points.ras}
    write_slicer(written[0], [_landmark(plan, name, ras) for name, ras in points.items()])
    for name, markup in _markups(plan).items():
        path = target / f"{name}.mrk.json"
        write_json(path, {"@schema": SLICER_SCHEMA, "markups": [markup]})
        written.append(path)
    return written


def write_scene(path: str | Path, plan: Plan) -> Path:
    """Planes, contours and centreline in one markups file, which 3D Slicer opens as one node each.

    Args:
        path: the file, named ``*.mrk.json``.
        plan: the measurements; what was not found is not in the file.

    Returns:
        ``path``.

    Raises:
        OutputError: the file system refuses.
    """
    target = Path(path)
    write_json(target, {"@schema": SLICER_SCHEMA, "markups": list(_markups(plan).values())})
    return target


def _markups(plan: Plan) -> dict[str, dict[str, Any]]:
    """Name → markup of everything but the points."""
    files: dict[str, dict[str, Any]] = {}
    if plan.annulus is not None:
        contour = plan.annulus.contour
        # Drawn around the contour's centre where there is one: the plane is the same.
        plane = plan.annulus.plane if contour is None else plan.annulus.plane.moved(contour.centroid)
        reach = plan.annulus.circle_mm / 2.0 + PLANE_MARGIN_MM
        files["annulus_plane"] = _plane(plane, reach, "Annulus plane", ANNULUS_COLOUR)
        if contour is not None:
            files["annulus_contour"] = _curve(contour.ras, "Annulus", ANNULUS_COLOUR, True)
    for name, section in plan.sections.items():
        files |= _section(name, section)
    if plan.centreline is not None:
        files["centreline"] = _curve(plan.centreline.ras[::2], "Aortic centreline", "#e8edf4", False)
    return files


def _landmark(plan: Plan, name: str, ras: FloatArray | None) -> Landmark:
    if ras is None:
        return Landmark.missing(name)
    x, y, z = (float(v) for v in ras)
    return Landmark(name, True, (x, y, z), plan.points.confidence[name])


def _section(name: str, section: Section) -> dict[str, dict[str, Any]]:
    """Plane and contour of a named level."""
    contour = section.contour
    colour, title = SECTION_COLOURS[name], name.upper() if len(name) <= 4 else name.capitalize()
    plane = contour.plane.moved(contour.centroid)
    return {
        f"{name}_plane": _plane(plane, contour.max_diameter_mm / 2.0 + PLANE_MARGIN_MM, f"{title} plane", colour),
        f"{name}_contour": _curve(contour.ras, title, colour, True),
    }


def _curve(ras: FloatArray, name: str, colour: str, is_closed: bool) -> dict[str, Any]:
    """A markup curve through points (N, 3)."""
    kind = "ClosedCurve" if is_closed else "Curve"
    return _markup(kind, name, colour, ras[::4] if is_closed else ras)


def _plane(plane: Plane, reach_mm: float, name: str, colour: str) -> dict[str, Any]:
    """A markup plane: one control point, and a matrix whose columns are its axes and normal."""
    base = np.eye(4)
    base[:3, :3] = ras_to_lps(np.stack([plane.u, plane.v, plane.normal])).T
    markup = _markup("Plane", name, colour, plane.origin[None])
    markup |= {
        "planeType": "pointNormal",
        "sizeMode": "absolute",
        "normal": _numbers(ras_to_lps(plane.normal)),
        "center": _numbers(ras_to_lps(plane.origin)),
        "size": [2.0 * reach_mm, 2.0 * reach_mm],
        "planeBounds": [-reach_mm, reach_mm, -reach_mm, reach_mm],
        "baseToNode": _numbers(base.ravel()),
    }
    return markup


def _markup(kind: str, name: str, colour: str, ras: FloatArray) -> dict[str, Any]:
    """What all markups share; positions in LPS, as Slicer itself writes."""
    rgb = [int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)]
    points = [
        {"id": str(i), "label": f"{name}-{i}", "position": _numbers(ras_to_lps(p)), "positionStatus": "defined"}
        for i, p in enumerate(ras, start=1)
    ]
    return {
        "type": kind,
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "labelFormat": "%N-%d",
        "controlPoints": points,
        "display": {
            "visibility": True,
            "color": rgb,
            "selectedColor": rgb,
            "opacity": 1.0,
            "pointLabelsVisibility": False,
        },
    }


def _numbers(values: Sequence[float] | FloatArray) -> list[float]:
    """Plain numbers to 0.000001, without a negative zero."""
    return [round(float(v), 6) + 0.0 for v in values]
