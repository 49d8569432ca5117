"""Digital patients measured: with their true landmarks, and with those that a model predicts. Rows, no statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.measurements import add_measurements
from cardiac_ct_fm.planning import Plan, PlanningOptions, measure
from cardiac_ct_fm.planning.annulus import perturbed_planes
from cardiac_ct_fm.planning.calcium_values import calcium_values
from cardiac_ct_fm.planning.planes import Finding
from cardiac_ct_fm.planning.sheet import DRAWS, Doubt, Sheet
from cardiac_ct_fm.result import Measurement
from cardiac_ct_fm.training.digital import digital_source
from cardiac_ct_fm.volume_io import Volume
from recipes.benchmarks.root_truth import RootTruth, root_truth

CROP_MM, CROP_VOXELS = 1.0, 112
"""A scan of the root alone: 112 mm around it, at the spacing of the held-out scans."""

AHEAD_MM = 22.0
"""The crop's middle lies this far above the annulus, so that outflow tract and ascending aorta are both inside."""

SAMPLES = 8
"""Fewer perturbed contours than the default: they make the doubt, not the value."""

NEEDS: dict[str, tuple[str, ...]] = {
    "rca_": ("RCA",),
    "lca_": ("LCA",),
    "membranous_": ("MS2",),
    "stj_": ("stj",),
    "sinus_": ("stj",),
    "calcium_": ("stj",),
}
"""What a scan has to show, beside the hinge points, before a value can be asked for."""

TRACT, SMOOTH_TRACT = "lvot_area_mm2", "lvot_area_mm2 smooth"
"""The outflow tract against the blood that is drawn, and against the tube before muscle bundles were drawn into it."""

Row = dict[str, Any]

UNKNOWN: Row = {"value": None, "sd": None, "scan_sd": None, "status": "not_found", "reason": "no_lumen_edge"}
"""A threshold's row where the blood, on which it rests, was not seen."""


def with_true_landmarks(seed: int) -> list[Row]:
    """One patient in a crop around the root: true points, the image, and the true label map of calcium."""
    case = draw_case(seed)
    truth = root_truth(case.heart)
    scan, calc = root_scan(case)
    marks = {n: _mark(n, p.double().numpy(), bool(case.shows(p))) for n, p in case.heart.landmarks.items()}
    options = PlanningOptions(samples=SAMPLES, calcium_threshold="label")
    plan = measure(scan, marks, None, calc, options=options)
    rows = compared(case, truth, plan.measurements, marks, -np.inf)
    rows += [{**row, "name": SMOOTH_TRACT, "truth": truth.smooth_tract_mm2} for row in rows if row["name"] == TRACT]
    facts = plan.measurements["calcium_valve_mm3"].details
    lumen = facts.get("lumen_hu")
    thresholds = {"fixed": options.calcium_hu}
    if lumen is not None:
        thresholds["lumen"] = lumen + options.calcium_above_lumen_hu
    for kind, threshold in thresholds.items():
        amounts = truth.calcium_mm3(threshold)
        for extent, title in (("half", kind), ("threshold", f"{kind} counted")):
            choice = replace(options, calcium_threshold=kind, calcium_extent=extent)
            found = {} if lumen is None else by_threshold(scan, plan, choice)
            for name, value in amounts.items():
                own = next((row for row in rows if row["name"] == name), None)
                if own is not None:
                    rows.append({**own, "name": f"{name} {title}", "truth": value, **found.get(name, UNKNOWN)})
    return rows


def by_threshold(scan: Volume, plan: Plan, options: PlanningOptions) -> dict[str, Row]:
    """Calcium per cusp of a measured root, measured again with other options and without a label map."""
    if plan.annulus is None:
        return {}
    sheet = Sheet(plan.points, options)
    sheet.doubts, sheet.names_doubt = plan.annulus.doubts, plan.annulus.names_doubt
    hinges, normals = perturbed_planes(plan.points, plan.annulus, options, DRAWS)
    # Calcium asks the doubt for hinge points and planes only.
    doubt = Doubt({}, hinges, normals, [], 0.0)
    calcium_values(sheet, plan.annulus, doubt, plan.centreline, plan.levels, scan, None)
    sheet.close(Finding("not_asked", "Only calcium is measured again."))
    found = sheet.finished()
    names = [f"calcium_{name.lower()}_mm3" for name in HINGE_POINTS]
    return {name: made(found[name]) for name in names}


def made(row: Measurement) -> Row:
    """What a row of the benchmark takes from a measurement."""
    return {
        "value": row.value,
        "sd": row.uncertainty,
        "scan_sd": row.details.get("scan_sd", row.uncertainty),
        "status": row.status,
        "reason": row.details.get("reason"),
    }


def with_predicted_landmarks(seed: int, predictor: Predictor, cache: Path | None) -> list[Row]:
    """The same patient in a whole scan, from the points and label maps that a model finds."""
    source = digital_source([(0, seed)], cache=cache)
    scan = source.load(source.keys[0])
    case = draw_case(seed)
    marks = {n: p for own in scan.landmarks.values() for n, p in own.items()}
    prediction = predictor(scan.volume, measure=False)
    add_measurements(prediction, PlanningOptions(samples=SAMPLES, calcium_threshold="label"))
    return compared(case, root_truth(case.heart), prediction.measurements, marks, -np.inf)


def root_scan(case: Case) -> tuple[Volume, NDArray[np.uint8]]:
    """The scan of a patient's root and the true label map of its calcium."""
    seed = case.heart.patient.seed
    points = case.heart.landmarks
    hinges = torch.stack([points[n] for n in HINGE_POINTS])
    normal = torch.linalg.cross(hinges[1] - hinges[0], hinges[2] - hinges[0])
    centre = hinges.mean(0) + AHEAD_MM * normal / normal.norm() * torch.sign(normal[2])
    shape = (CROP_VOXELS, CROP_VOXELS, CROP_VOXELS)
    image, look = case.look(centre, CROP_MM, shape, noise_seed=seed)
    grid = Grid.centred(centre.double().numpy(), CROP_MM, shape)
    facts = {"format": "digital", "patient_position": "HFS"}
    return Volume(image.round().to(torch.int16).numpy(), grid.affine, f"digital-{seed}", facts), look.calc.numpy()


def compared(
    case: Case, truth: RootTruth, found: Mapping[str, Measurement], marks: Mapping[str, Landmark], threshold_hu: float
) -> list[Row]:
    """One row per true value; ``asked`` says whether the scan shows what it rests on."""
    values = truth.values | truth.calcium_mm3(threshold_hu)
    top = bool(case.shows(torch.from_numpy(truth.tops["stj"]).float()))
    seen = {n for n, m in marks.items() if m.found} | ({"stj"} if top else set())
    rows = []
    for name, value in values.items():
        needs = next((n for prefix, n in NEEDS.items() if name.startswith(prefix)), ())
        row = found[name]
        rows.append(
            {
                "seed": case.heart.patient.seed,
                "name": name,
                "truth": value,
                **made(row),
                "asked": {*HINGE_POINTS, *needs} <= seen,
                "slice_mm": round(case.scanner.slice_mm, 2),
                "blood_hu": round(case.heart.patient.blood["Aorta"]),
            }
        )
    return rows


def _mark(name: str, ras: NDArray[np.float64], shown: bool) -> Landmark:
    x, y, z = (float(v) for v in ras)
    return Landmark(name, True, (x, y, z), 1.0) if shown else Landmark.missing(name)
