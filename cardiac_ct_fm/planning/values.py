"""The measurements at the annulus, between landmarks and of the C-arm, from the geometry that was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cardiac_ct_fm.anatomy import HINGE_POINTS, OSTIA
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning import carm
from cardiac_ct_fm.planning.annulus import Annulus
from cardiac_ct_fm.planning.calcium import nearest_cusp
from cardiac_ct_fm.planning.clean import MAX_OUTSIDE
from cardiac_ct_fm.planning.planes import Finding
from cardiac_ct_fm.planning.sheet import FEWEST_CONTOURS, Doubt, Sheet, edge_sd

CUSPS = ("rcc", "lcc", "ncc")
HIGH_OSTIUM_MM = 5.0
"""An ostium further above the measured sinotubular junction is doubted: few coronaries leave there, and the junction's
own height is known to 2 mm (house choice)."""

SCAN_ENDS = Finding("scan_ends", "The scan ends before this level; nothing beyond it is guessed.")


def annulus_values(sheet: Sheet, annulus: Annulus, doubt: Doubt) -> bool:
    """Area, perimeter, diameters, arcs and angulation. Returns whether there is a usable contour."""
    n, hinges = annulus.plane.normal, dict(zip(HINGE_POINTS, annulus.hinges, strict=True))
    circles = [_circle(h) for h in doubt.hinges]
    sheet.put("hinge_circle_diameter_mm", annulus.circle_mm, float(np.std(circles)), points=hinges, plane=annulus.plane)
    tilts = [angulation(normal) for normal in doubt.normals]
    sheet.put(
        "aortic_angulation_deg",
        angulation(n),
        float(np.std(tilts)),
        plane=annulus.plane,
        details={"evidence": annulus.evidence},
    )
    contour = annulus.contour
    if contour is None:
        why = Finding(
            "no_lumen_edge",
            "No closed lumen edge is seen in the annulus plane and no label map shows one. Check the hinge points and "
            "that the scan is contrast-enhanced.",
        )
        sheet.miss_all("annulus_", "not_found", why)
        return False
    if contour.outside_scan > MAX_OUTSIDE:
        sheet.miss_all("annulus_", "truncated", SCAN_ENDS)
        return False
    facts: dict[str, Any] = {"method": contour.method, "clear_fraction": round(contour.clear_fraction, 3)}
    plane = contour.plane
    unsteady: list[Finding] = []
    if len(doubt.contours) < FEWEST_CONTOURS:
        again = f"its edge was found again in {len(doubt.contours)} of {sheet.options.samples} planes beside it"
        text = f"The annulus has no standard deviation: {again}. Check contour and hinge points."
        unsteady.append(Finding("annulus_unsteady", text))
    for quantity in ("area_mm2", "perimeter_mm", "mean_diameter_mm", "area_diameter_mm", "perimeter_diameter_mm"):
        sd = doubt.contour_sd(quantity, edge_sd(contour, quantity))
        value = getattr(contour, quantity)
        sheet.put(f"annulus_{quantity}", value, sd, plane=plane, details=facts, doubts=unsteady)
    for quantity in ("min_diameter_mm", "max_diameter_mm"):
        ends = contour.chord_ras(quantity.startswith("max"))
        sd = doubt.contour_sd(quantity, edge_sd(contour, quantity))
        value, at = getattr(contour, quantity), {"ends": ends}
        sheet.put(f"annulus_{quantity}", value, sd, plane=plane, points=at, details=facts, doubts=unsteady)
    ratios = np.array([c.min_diameter_mm / c.max_diameter_mm for c in doubt.contours])
    ratio = contour.min_diameter_mm / contour.max_diameter_mm
    enough = len(ratios) >= FEWEST_CONTOURS
    sheet.put(
        "annulus_eccentricity", 1.0 - ratio, float(np.std(ratios)) if enough else None, plane=plane, details=facts
    )
    sheet.put(
        "annulus_ellipticity", 1.0 / ratio, float(np.std(1.0 / ratios)) if enough else None, plane=plane, details=facts
    )
    arcs = cusp_arcs(annulus, annulus.hinges)
    drawn = np.array([cusp_arcs(annulus, h) for h in doubt.hinges])
    for i, cusp in enumerate(CUSPS):
        sheet.put(f"annulus_arc_{cusp}_mm", arcs[i], float(np.std(drawn[:, i])), plane=plane, details=facts)
    return True


def _circle(hinges: FloatArray) -> float:
    """Diameter of the circle through three points: product of the sides over twice the triangle's area."""
    a, b, c = hinges
    sides = np.linalg.norm(a - b) * np.linalg.norm(b - c) * np.linalg.norm(c - a)
    return float(sides / np.linalg.norm(np.cross(b - a, c - a)))


def angulation(normal_ras: FloatArray) -> float:
    """Angle in degrees between the annulus plane and the horizontal plane, in the coronal projection.

    Positive when the aorta leans to the patient's right, as it does: 49.4 ± 9.4° (n = 4022; paper not traced).
    """
    return float(np.degrees(np.arctan2(normal_ras[0], normal_ras[2])))


def cusp_arcs(annulus: Annulus, hinges: FloatArray) -> FloatArray:
    """(3,) length in mm of the annulus contour that is nearest to each hinge point (3, 3), by angle."""
    contour = annulus.contour
    assert contour is not None
    points = contour.ras
    length = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    middle = (points + np.roll(points, -1, axis=0)) / 2.0
    owner = nearest_cusp(middle, contour.centroid, hinges, annulus.plane.normal)
    return np.bincount(owner, weights=length, minlength=3).astype(np.float64)


def distance_values(sheet: Sheet, drawn: Mapping[str, FloatArray]) -> None:
    """Straight lines between landmarks, which need no plane; ``drawn`` is name → (N, 3)."""
    points = sheet.points
    lines = {
        "lca_hinge_distance_mm": ("LCA", "LCC"),
        "rca_hinge_distance_mm": ("RCA", "RCC"),
        "membranous_septum_line_mm": ("MS1", "MS2"),
    }
    for name, (a, b) in lines.items():
        missing = [p for p in (a, b) if p not in points.ras]
        if missing:
            sheet.miss(name, "not_found", points.problems[missing[0]])
            continue
        length = float(np.linalg.norm(points.ras[a] - points.ras[b]))
        sd = float(np.std(np.linalg.norm(drawn[a] - drawn[b], axis=1)))
        sheet.put(name, length, sd, uses=(a, b), points={a: points.ras[a], b: points.ras[b]})


def height_values(sheet: Sheet, annulus: Annulus, doubt: Doubt) -> None:
    """Heights of the ostia above the annulus plane, their way to the annulus, and the membranous septum below it."""
    points = sheet.points
    for ostium in OSTIA:
        key = ostium.lower()
        if ostium not in points.ras:
            sheet.miss_all(f"{key}_", "not_found", points.problems[ostium])
            continue
        at = points.ras[ostium]
        height = float(annulus.plane.height(at))
        doubts = []
        if height < 0:
            low = f"{ostium} lies {-height:.1f} mm below the annulus plane; check the points."
            doubts.append(Finding("ostium_below_annulus", low))
        junction = sheet.value("stj_height_mm")
        if junction is not None and height > junction + HIGH_OSTIUM_MM:
            high = (
                f"{ostium} lies {height - junction:.1f} mm above the sinotubular junction, where few coronaries leave"
            )
            doubts.append(Finding("ostium_above_junction", f"{high}; check the point."))
        sheet.put(
            f"{key}_height_mm",
            height,
            float(np.std(doubt.heights(ostium))),
            uses=(*HINGE_POINTS, ostium),
            plane=annulus.plane,
            points={ostium: at, "foot": at - height * annulus.plane.normal},
            doubts=doubts,
        )
        if annulus.contour is None or sheet.value("annulus_area_mm2") is None:
            why = Finding("no_annulus_contour", "There is no contour of the annulus to measure to.")
            sheet.miss(f"{key}_annulus_distance_mm", "not_found", why)
            continue
        ring = annulus.contour.ras
        gaps = np.linalg.norm(ring - at, axis=1)
        each = np.linalg.norm(doubt.points[ostium][:, None] - ring[None], axis=2).min(axis=1)
        sheet.put(
            f"{key}_annulus_distance_mm",
            float(gaps.min()),
            float(np.hypot(np.std(each), doubt.offset_sd_mm)),
            uses=(*HINGE_POINTS, ostium),
            points={ostium: at, "annulus": ring[int(np.argmin(gaps))]},
        )
    if "MS2" not in points.ras:
        sheet.miss("membranous_septum_length_mm", "not_found", points.problems["MS2"])
        return
    crest = points.ras["MS2"]
    length = -float(annulus.plane.height(crest))
    above = Finding("crest_above_annulus", f"MS2 lies {-length:.1f} mm above the annulus plane; check the points.")
    sheet.put(
        "membranous_septum_length_mm",
        length,
        float(np.std(doubt.heights("MS2"))),
        uses=(*HINGE_POINTS, "MS2"),
        plane=annulus.plane,
        points={"MS2": crest, "foot": crest + length * annulus.plane.normal},
        doubts=[above] if length < 0 else (),
        details={"method": "annulus plane to MS2 along the normal of the plane"},
    )


def carm_values(
    sheet: Sheet, annulus: Annulus, doubt: Doubt, facts: Mapping[str, Any]
) -> tuple[tuple[FloatArray, FloatArray] | None, dict[str, carm.View]]:
    """S-curve and views, or nothing unless the patient is known to lie supine."""
    lying = carm.supine(facts, sheet.options.supine)
    if not lying:
        position = facts.get("patient_position")
        code, text = (
            (
                "patient_position_unknown",
                "The scan does not say how the patient lay; if you know it, give --supine (in Python supine=True).",
            )
            if lying is None
            else (
                "patient_not_supine",
                f"C-arm angles hold for a supine patient; this one is {position or 'not supine'}.",
            )
        )
        sheet.miss_all("carm_", "not_found", Finding(code, text))
        return None, {}
    lao = np.linspace(*carm.LAO_RANGE_DEG, 181)
    curve = (lao, carm.s_curve(annulus.plane.normal, lao))
    rcc, lcc, ncc = annulus.hinges
    views = {"three_cusp": carm.three_cusp(rcc, lcc, ncc), "cusp_overlap": carm.cusp_overlap(rcc, lcc)}
    drawn = {
        "three_cusp": [carm.three_cusp(*h) for h in doubt.hinges],
        "cusp_overlap": [carm.cusp_overlap(h[0], h[1]) for h in doubt.hinges],
    }
    for name, view in views.items():
        for axis, value in (("lao", view.lao_deg), ("cran", view.cran_deg)):
            others = np.array([getattr(v, f"{axis}_deg") for v in drawn[name]])
            away = (others - value + 180.0) % 360.0 - 180.0
            sd = float(np.sqrt(np.mean(away**2)))
            sheet.put(f"carm_{name}_{axis}_deg", value, sd, plane=annulus.plane, details={"view": view.text})
    return curve, {} if sheet.names_doubt is not None else views
