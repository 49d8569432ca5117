"""The digital cohort with roots turned beyond what is published, so that a network has to look at the leaflets.

In published anatomy the cusps turn little against the chambers (SD 13–15°) and the ostia little against the cusps, so a
network may read the hinge points off the chambers and the ostia. Here every other patient breaks both ties.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from cardiac_ct_fm.cohort.case import Case, case_of
from cardiac_ct_fm.cohort.patient import draw_patient

TURN_DEG = 45.0
"""The cusps, the septum and the ostia of every other patient turn together by up to this much more, either way."""

OSTIUM_DEG = 15.0
"""SD by which the ostia of the same patients lie off their sinus' middle, beside what the cohort draws."""


def turned_roots(seed: int) -> Case:
    """The patient of ``seed`` at strength 1; with an even chance his root is turned, evenly within the range above."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < 0.5:
        return turned(seed, 0.0, {})
    turn = float(rng.uniform(-TURN_DEG, TURN_DEG))
    return turned(seed, turn, {name: float(np.clip(rng.normal(0, OSTIUM_DEG), -30, 30)) for name in ("RCA", "LCA")})


def turned(seed: int, degrees: float, ostia: dict[str, float]) -> Case:
    """The patient of ``seed`` at strength 1, his cusps, septum and ostia turned, and ``ostia`` by that much more."""
    patient = draw_patient(seed)
    root = dataclasses.replace(
        patient.root,
        cusp_deg={name: angle + degrees for name, angle in patient.root.cusp_deg.items()},
        septum_deg=patient.root.septum_deg + degrees,
        ostium_deg={name: angle + degrees + ostia.get(name, 0.0) for name, angle in patient.root.ostium_deg.items()},
    )
    return case_of(dataclasses.replace(patient, root=root), seed)
