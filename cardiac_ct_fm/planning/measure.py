"""All measurements from one scan and its landmarks, each with unit, status, doubt, plane and human limit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS, LANDMARKS
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.image_checks import COARSE_SPACING_MM
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.planning.annulus import HEAD_NOT_RUN, Annulus, Lumen, Points, find_annulus
from cardiac_ct_fm.planning.calcium import Deposits
from cardiac_ct_fm.planning.calcium_values import calcium_values
from cardiac_ct_fm.planning.carm import View
from cardiac_ct_fm.planning.centreline import Centreline, Section, track
from cardiac_ct_fm.planning.level_values import level_values
from cardiac_ct_fm.planning.levels import RootLevels, find_levels
from cardiac_ct_fm.planning.options import PlanningOptions
from cardiac_ct_fm.planning.planes import Finding, Sampler
from cardiac_ct_fm.planning.sheet import DRAWS, Doubt, Sheet
from cardiac_ct_fm.planning.values import annulus_values, carm_values, distance_values, height_values
from cardiac_ct_fm.result import Measurement
from cardiac_ct_fm.volume_io import Volume

BELOW_MM = 10.0
ABOVE_MM = 20.0
"""The centreline is tracked this far below the annulus, and this far beyond the level of the ascending aorta
(house choice: room for the levels and for the spline's ends)."""


@dataclass(eq=False)
class Plan:
    """The measurements and the geometry that pictures and exports show.

    Attributes:
        measurements: name → measurement, all names of the catalogue, in its order.
        findings: what a reader has to know about the input.
        points: landmarks that were used.
        annulus: plane, contour and checks, or None.
        centreline: from the outflow tract to the ascending aorta, or None.
        levels: sinuses and sinotubular junction, or None.
        sections: ``lvot``, ``sinus``, ``stj``, ``ascending``: those that were found.
        s_curve: (LAO, CRAN) in degrees, (N,) each, or None when withheld.
        views: ``three_cusp`` and ``cusp_overlap``; empty when withheld.
        deposits: calcium of the root, or None when it was not measured.
        calcium_clock: calcium of the annulus in mm³ per 30°, clockwise from the RCC hinge point seen from the outflow
            tract; None when it was not measured.
        options: the choices made.
        seconds: how long it took.
    """

    measurements: dict[str, Measurement] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    points: Points = field(default_factory=Points)
    annulus: Annulus | None = None
    centreline: Centreline | None = None
    levels: RootLevels | None = None
    sections: dict[str, Section] = field(default_factory=dict)
    s_curve: tuple[FloatArray, FloatArray] | None = None
    views: dict[str, View] = field(default_factory=dict)
    deposits: Deposits | None = None
    calcium_clock: list[float] | None = None
    options: PlanningOptions = field(default_factory=PlanningOptions)
    seconds: float = 0.0


def measure(
    volume: Volume,
    landmarks: Mapping[str, Landmark],
    heart_labels: npt.NDArray[np.uint8] | None = None,
    calc_labels: npt.NDArray[np.uint8] | None = None,
    *,
    options: PlanningOptions | None = None,
    not_run: Sequence[str] = (),
) -> Plan:
    """Every measurement of :data:`cardiac_ct_fm.planning.catalogue.CATALOGUE`.

    Args:
        volume: the scan in HU.
        landmarks: name → point; names that are missing count as not found.
        heart_labels: (X, Y, Z) label map of the heart head on the scan's grid, or None.
        calc_labels: (X, Y, Z) label map of the calcium head on the scan's grid, or None.
        options: choices; the defaults are named in :class:`PlanningOptions`.
        not_run: built-in heads that were not run; those of their points that are not given were not looked for.

    Returns:
        The plan. What cannot be measured is there too, with a status, a reason and no number.

    Raises:
        DataError: a label map is not on the scan's grid.
    """
    began = time.perf_counter()
    options = options or PlanningOptions()
    for name, labels in (("heart_labels", heart_labels), ("calc_labels", calc_labels)):
        if labels is not None and labels.shape != volume.data.shape:
            raise DataError(
                f"{name} has shape {labels.shape}, the scan {volume.data.shape}; give one on the scan's own grid."
            )
    grid = volume.grid
    image = Sampler(volume.data, grid)
    lumen = Lumen(image, None if heart_labels is None else Sampler(heart_labels, grid))
    points = Points.usable(landmarks, LANDMARKS, grid, options)
    points.problems.update(_unsought(points, not_run))
    plan = Plan(options=options, points=points)
    sheet = Sheet(plan.points, options)
    told = [f for f in points.problems.values() if f.code in ("landmark_outside_scan", HEAD_NOT_RUN)]
    sheet.doubts = _coarse(max(grid.spacing))
    plan.findings = list(dict.fromkeys([*told, *sheet.doubts]))
    distance_values(sheet, plan.points.sampled(DRAWS, options.seed))
    found = find_annulus(plan.points, lumen, options)
    if isinstance(found, Finding):
        plan.findings = list(dict.fromkeys([*plan.findings, found]))
        sheet.close(found)
    else:
        plan.annulus = found
        _with_annulus(plan, sheet, found, lumen, volume, calc_labels)
    plan.measurements = sheet.finished()
    plan.seconds = time.perf_counter() - began
    return plan


def _coarse(spacing_mm: float) -> tuple[Finding, ...]:
    """Why nothing is sure in voxels of this size; nothing where they are fine enough."""
    if spacing_mm <= COARSE_SPACING_MM:
        return ()
    limit = f"above {COARSE_SPACING_MM:g} mm no value is sure, however sure its points are"
    return (Finding("coarse_voxels", f"Voxels are {spacing_mm:.1f} mm apart; {limit}."),)


def _unsought(points: Points, not_run: Sequence[str]) -> dict[str, Finding]:
    """Points that nobody looked for → why, in one sentence for all of them."""
    lost = [name for name, why in points.problems.items() if why.code == "landmark_not_found"]
    absent = {head: [name for name in HEADS[head].classes if name in lost] for head in not_run}
    heads = [head for head, names in absent.items() if names]
    names = [name for head in heads for name in absent[head]]
    who = f"Heads {', '.join(heads)} were" if len(heads) > 1 else f"Head {''.join(heads)} was"
    return dict.fromkeys(names, Finding(HEAD_NOT_RUN, f"{who} not run: {', '.join(names)} were not looked for."))


def _with_annulus(
    plan: Plan,
    sheet: Sheet,
    annulus: Annulus,
    lumen: Lumen,
    volume: Volume,
    calc_labels: npt.NDArray[np.uint8] | None,
) -> None:
    """Everything that hangs on the annulus plane."""
    options = plan.options
    sheet.doubts, sheet.names_doubt = (*sheet.doubts, *annulus.doubts), annulus.names_doubt
    plan.findings += [*annulus.doubts, *([annulus.names_doubt] if annulus.names_doubt else [])]
    # A valve that is given as bicuspid is told once, not as a doubt and as a reason.
    plan.findings = list({f.code: f for f in plan.findings}.values())
    doubt = Doubt.of(plan.points, annulus, lumen, options)
    if annulus_values(sheet, annulus, doubt) and annulus.contour is not None:
        above = options.ascending_mm + ABOVE_MM
        plan.centreline = track(annulus.contour, lumen.trace, volume.grid.contains, BELOW_MM, above)
    line = plan.centreline
    if line is None:
        lost = Finding("no_centreline", "Without a contour at the annulus the root cannot be followed.")
        for prefix in ("lvot_", "sinus_", "stj_", "ascending_"):
            sheet.miss_all(prefix, "not_found", lost)
    else:
        plan.levels = find_levels(line)
        found = {
            "lvot": line.nearest(-options.lvot_depth_mm),
            "sinus": plan.levels.sinus,
            "stj": plan.levels.stj,
            "ascending": line.nearest(options.ascending_mm),
        }
        plan.sections = {name: section for name, section in found.items() if section is not None}
        level_values(sheet, annulus, line, plan.levels, plan.sections, doubt)
    height_values(sheet, annulus, doubt)
    plan.s_curve, plan.views = carm_values(sheet, annulus, doubt, volume.facts)
    plan.deposits, plan.calcium_clock = calcium_values(sheet, annulus, doubt, line, plan.levels, volume, calc_labels)
