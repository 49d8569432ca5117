"""The measurements of a prediction: the aortic root by :mod:`cardiac_ct_fm.planning`, and the structures' volumes."""

from __future__ import annotations

from cardiac_ct_fm.planning import Plan, PlanningOptions, measure
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volumes import structure_volumes


def add_measurements(prediction: Prediction, options: PlanningOptions | None = None) -> Plan:
    """Measure the aortic root and the structures' volumes; findings become warnings.

    Args:
        prediction: gets ``measurements``, ``plan``, and ``warnings`` it does not have yet.
        options: choices; the defaults are named in :class:`PlanningOptions`.

    Returns:
        The plan, which pictures and reports draw.
    """
    maps = prediction.label_maps
    plan = measure(prediction.volume, prediction.landmarks, maps.get("heart"), maps.get("calc"), options=options)
    prediction.plan = plan
    prediction.measurements = {**plan.measurements, **structure_volumes(prediction)}
    prediction.warnings += [f.message for f in plan.findings if f.message not in prediction.warnings]
    return plan
