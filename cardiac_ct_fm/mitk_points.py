"""MITK's point sets (``.mps``): points in LPS that keep their ids, but not their names, when MITK saves them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import ras_to_lps
from cardiac_ct_fm.landmark import SAME_PLACE_MM, Landmark, named_point, rounded


def write_mitk(path: str | Path, landmarks: Iterable[Landmark]) -> None:
    """``.mps``: a point set for MITK, in LPS.

    MITK keeps ids and drops the ``name`` elements when it saves, so an id tells which point it is, whatever else was
    predicted: the vocabulary's points have their place in :data:`cardiac_ct_fm.anatomy.LANDMARKS` as ids, others follow
    in their order. A missing point leaves a gap.

    Raises:
        OutputError: the file system refuses.
    """
    root = ET.Element("point_set_file")
    ET.SubElement(root, "file_version").text = "0.1"
    series = ET.SubElement(ET.SubElement(root, "point_set"), "time_series")
    ET.SubElement(series, "time_series_id").text = "0"
    points = list(landmarks)
    ids = {name: number for number, name in enumerate(_numbered(p.name for p in points))}
    found = [(ids[p.name], p.name, p.lps_mm) for p in points if p.lps_mm is not None]
    if found:
        _add_identity_geometry(series, np.array([lps for _, _, lps in found]))
    for number, name, lps in found:
        point = ET.SubElement(series, "point")
        ET.SubElement(point, "id").text = str(number)
        ET.SubElement(point, "specification").text = "0"
        for axis, value in zip("xyz", rounded(lps) or (), strict=True):
            ET.SubElement(point, axis).text = repr(value)
        ET.SubElement(point, "name").text = name
    ET.indent(root)
    with atomic_write(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def _numbered(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of their ids: all of the vocabulary's points, then the others."""
    return tuple(dict.fromkeys((*anatomy.LANDMARKS, *names)))


def parse_mitk(text: str, predicted: Mapping[str, Landmark]) -> list[Landmark]:
    """Points of an MITK point set, named by their ``name`` element or else by their id.

    Args:
        text: of the file.
        predicted: the points that it was made from, in their order, which tells the names of a user's own. One that
            lies where it was predicted is that point, confidence included; any other has confidence 1.

    Raises:
        ValueError: not such a file, or a point that neither a name nor its id tells.
    """
    names = _numbered(predicted)
    points = []
    for row in ET.fromstring(text).iter("point"):
        number = int(row.findtext("id") or "")
        name = row.findtext("name") or (names[number] if 0 <= number < len(names) else None)
        if name is None:
            raise ValueError(
                f"the point with id {number} has no name, which MITK drops, and ids from 0 on tell only "
                f"{', '.join(names)}; give it a <name>, or take it away"
            )
        lps = [float(row.findtext(axis) or "") for axis in "xyz"]
        point = named_point(name, ras_to_lps(lps).tolist(), 1.0)
        before = predicted.get(point.name, point)
        unmoved = before.ras_mm and point.ras_mm and math.dist(before.ras_mm, point.ras_mm) <= SAME_PLACE_MM
        points.append(before if unmoved else point)
    return points


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
