"""The measurements at the named levels of the root: outflow tract, sinuses, sinotubular junction, ascending aorta."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardiac_ct_fm.planning.annulus import FROM_LABELS, Annulus
from cardiac_ct_fm.planning.centreline import Centreline, Section
from cardiac_ct_fm.planning.levels import RootLevels, sinus_chord
from cardiac_ct_fm.planning.planes import Finding
from cardiac_ct_fm.planning.sheet import Doubt, Sheet, Status, edge_sd
from cardiac_ct_fm.planning.values import CUSPS, SCAN_ENDS

SINUS_LEVEL_SD_MM = 1.0
"""Doubt of the widest level along the line, where diameters hardly change (house choice: one section)."""


def level_values(
    sheet: Sheet, annulus: Annulus, line: Centreline, levels: RootLevels, sections: dict[str, Section], doubt: Doubt
) -> None:
    """Outflow tract, sinuses, junction and ascending aorta, from their sections."""
    level_sd = doubt.offset_sd_mm

    def enter(section: Section, names: Mapping[str, str], sd_mm: float) -> None:
        for name, quantity in names.items():
            contour = section.contour
            sd = float(np.hypot(edge_sd(contour, quantity), slope_at(line, section, quantity) * sd_mm))
            ends = (
                {"ends": contour.chord_ras("max" in quantity)}
                if quantity in ("min_diameter_mm", "max_diameter_mm")
                else None
            )
            sheet.put(
                name,
                getattr(contour, quantity),
                sd,
                plane=contour.plane,
                points=ends,
                doubts=[FROM_LABELS] if contour.method == "labels" else (),
                details={
                    "method": contour.method,
                    "level_mm": round(section.s_mm, 2),
                    "clear_fraction": round(contour.clear_fraction, 3),
                },
            )

    shape = ("area_mm2", "perimeter_mm", "min_diameter_mm", "max_diameter_mm")
    if "lvot" in sections:
        enter(sections["lvot"], {f"lvot_{q}": q for q in shape}, level_sd)
    else:
        sheet.miss_all("lvot_", *_ended(line.ended_below, "outflow tract"))
    if "sinus" in sections:
        sinus = sections["sinus"]
        names = {"sinus_mean_diameter_mm": "area_diameter_mm", "sinus_area_mm2": "area_mm2"}
        names |= {f"sinus_{q}": q for q in ("min_diameter_mm", "max_diameter_mm")}
        enter(sinus, names, SINUS_LEVEL_SD_MM)
        height = float(annulus.plane.height(sinus.contour.centroid))
        sheet.put("sinus_height_mm", height, float(np.hypot(level_sd, SINUS_LEVEL_SD_MM)), plane=sinus.contour.plane)
        centre = annulus.hinges.mean(axis=0)
        for cusp, hinge in zip(CUSPS, annulus.hinges, strict=True):
            chord = sinus_chord(sinus.contour, hinge - centre)
            sheet.put(
                f"sinus_{cusp}_diameter_mm",
                float(np.linalg.norm(chord[0] - chord[1])),
                2.0 * sinus.contour.edge_sd_mm,
                plane=sinus.contour.plane,
                points={"ends": chord},
                details={"level_mm": round(sinus.s_mm, 2)},
            )
    else:
        sheet.miss_all("sinus_", *_unseen(levels, line, "sinuses", "no_distinct_sinuses"))
    if "stj" in sections:
        stj = sections["stj"]
        names = {"stj_mean_diameter_mm": "area_diameter_mm", "stj_area_mm2": "area_mm2"}
        enter(stj, names | {f"stj_{q}": q for q in ("min_diameter_mm", "max_diameter_mm")}, levels.stj_sd_mm)
        heights = annulus.plane.height(np.stack([section.contour.centroid for section in line.sections]))
        height = float(np.interp(levels.stj_mm, line.levels, heights))
        sd = float(np.hypot(level_sd, levels.stj_sd_mm))
        sheet.put(
            "stj_height_mm",
            height,
            sd,
            plane=stj.contour.plane,
            details={"kind": levels.stj_kind, "lean_deg": round(levels.stj_lean_deg, 1)},
        )
    else:
        sheet.miss_all("stj_", *_unseen(levels, line, "sinotubular junction", "no_distinct_junction"))
    if "ascending" in sections:
        names = {
            "ascending_aorta_diameter_mm": "area_diameter_mm",
            "ascending_aorta_max_diameter_mm": "max_diameter_mm",
        }
        enter(sections["ascending"], names, level_sd)
    else:
        sheet.miss_all("ascending_", *_ended(line.ended_above, "ascending aorta"))


def slope_at(line: Centreline, section: Section, quantity: str) -> float:
    """How fast a quantity changes along the line at a section, per mm."""
    if len(line.sections) < 3:
        return 0.0
    slope = np.gradient(line.values(quantity), line.levels)
    return float(abs(slope[int(np.argmin(np.abs(line.levels - section.s_mm)))]))


def _ended(ended: str, what: str) -> tuple[Status, Finding]:
    """Status and reason of a level that the centreline does not reach."""
    if ended == "truncated":
        return "truncated", SCAN_ENDS
    return "not_found", Finding("lumen_lost", f"The lumen of the {what} could not be followed to this level.")


def _unseen(levels: RootLevels, line: Centreline, what: str, code: str) -> tuple[Status, Finding]:
    """Status and reason of a level that the diameters along the line do not show."""
    if levels.truncated:
        return "truncated", SCAN_ENDS
    if line.ended_above == "lost":
        return _ended("lost", what)
    return "not_found", Finding(code, f"The diameters along the root show no distinct {what}.")
