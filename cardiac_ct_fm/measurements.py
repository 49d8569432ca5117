"""The measurements of a prediction: the aortic root by :mod:`cardiac_ct_fm.planning`, and the structures' volumes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.planning import Plan, PlanningOptions, measure
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volumes import structure_volumes


def add_measurements(prediction: Prediction, options: PlanningOptions | None = None) -> Plan:
    """Measure the aortic root and the structures' volumes; findings become warnings.

    Args:
        prediction: gets ``measurements``, ``plan``, ``warnings`` it does not have yet, and in ``run`` the seconds this
            took. Where ``run`` says which ``heads`` ran, points of the others count as not looked for.
        options: choices; the defaults are named in :class:`PlanningOptions`.

    Returns:
        The plan, which pictures and reports draw.
    """
    began = time.perf_counter()
    maps = prediction.label_maps
    plan = measure(
        prediction.volume,
        prediction.landmarks,
        maps.get("heart"),
        maps.get("calc"),
        options=options,
        not_run=not_run(prediction.run),
    )
    prediction.plan = plan
    prediction.measurements = {**plan.measurements, **structure_volumes(prediction)}
    prediction.warnings += [f.message for f in plan.findings if f.message not in prediction.warnings]
    booked = prediction.run.get("measured", prediction.run).setdefault("seconds", {})
    booked["measure"] = round(time.perf_counter() - began, 3)
    return plan


def not_run(run: Mapping[str, Any]) -> list[str]:
    """Built-in landmark heads that were not run, as ``run`` tells; none where it does not."""
    ran = run.get("heads")
    return [name for name, head in HEADS.items() if ran is not None and head.kind == "landmarks" and name not in ran]
