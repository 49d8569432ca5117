"""The digital cohort with roots unlike any that is published, so that a network has to look at the leaflets.

In published anatomy the cusps turn little against the chambers (SD 13–15°), the ostia little against the cusps, and the
three hinge points lie within a millimetre of one height, so a network may read them off the chambers and the outflow
tract. Here every other patient breaks these ties.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case, case_of
from cardiac_ct_fm.cohort.patient import draw_patient

SINUS_OF = {"RCA": "RCC", "LCA": "LCC"}
"""The cusp in whose sinus an ostium lies."""

TURN_DEG = 45.0
"""The cusps, the septum and the ostia of every other patient turn together by up to this much more, either way."""

OSTIUM_DEG = 15.0
"""SD by which the ostia of the same patients lie off their sinus' middle, beside what the cohort draws."""

CUSP_DEG, CUSP_LIMIT_DEG = 7.0, 15.0
"""SD, and the most, by which each cusp of theirs turns on its own; the cohort draws 4° (``cohort/patient.py``)."""

HINGE_MM, HINGE_LIMIT_MM = 2.5, 5.0
"""SD, and the most, by which each of their hinge points lies higher or lower; the cohort draws 1 mm. Weights that were
trained without this placed the annulus, and hardly the single hinge point (docs/weights.md)."""


def turned_roots(seed: int) -> Case:
    """The patient of ``seed`` at strength 1; with an even chance his root is made unusual within the ranges above."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < 0.5:
        return turned(seed, 0.0, {})
    turn = float(rng.uniform(-TURN_DEG, TURN_DEG))
    ostia = {name: float(np.clip(rng.normal(0, OSTIUM_DEG), -30, 30)) for name in ("RCA", "LCA")}
    cusps = _spread(rng, CUSP_DEG, CUSP_LIMIT_DEG)
    return turned(seed, turn, ostia, cusps, _spread(rng, HINGE_MM, HINGE_LIMIT_MM))


def _spread(rng: np.random.Generator, sd: float, limit: float) -> dict[str, float]:
    return {name: float(np.clip(rng.normal(0, sd), -limit, limit)) for name in HINGE_POINTS}


def turned(
    seed: int,
    degrees: float,
    ostia: dict[str, float],
    cusps: dict[str, float] | None = None,
    hinges: dict[str, float] | None = None,
) -> Case:
    """The patient of ``seed`` at strength 1 with another root.

    Args:
        seed: of the patient.
        degrees: by which cusps, septum and ostia turn together.
        ostia: by which each ostium turns more, degrees.
        cusps: by which each cusp turns more, degrees; its ostium goes with it, the septum with the commissure.
        hinges: by which each hinge point lies higher, mm; its ostium rises with it, and never comes below the leaflet.
    """
    patient = draw_patient(seed)
    own = {name: (cusps or {}).get(name, 0.0) for name in HINGE_POINTS}
    lift = {name: (hinges or {}).get(name, 0.0) for name in HINGE_POINTS}
    turn = {name: degrees + own[cusp] + ostia.get(name, 0.0) for name, cusp in SINUS_OF.items()}
    up = {name: max(0.0, lift[cusp]) for name, cusp in SINUS_OF.items()}
    drawn = patient.root
    root = dataclasses.replace(
        drawn,
        cusp_deg={name: angle + degrees + own[name] for name, angle in drawn.cusp_deg.items()},
        hinge_z_mm={name: height + lift[name] for name, height in drawn.hinge_z_mm.items()},
        septum_deg=drawn.septum_deg + degrees + (own["RCC"] + own["NCC"]) / 2,
        ostium_deg={name: angle + turn[name] for name, angle in drawn.ostium_deg.items()},
        ostium_height_mm={name: height + up[name] for name, height in drawn.ostium_height_mm.items()},
    )
    return case_of(dataclasses.replace(patient, root=root), seed)
