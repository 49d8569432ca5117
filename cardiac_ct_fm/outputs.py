"""From a prediction to its folder: measurements made, picture and report drawn, everything written together."""

from __future__ import annotations

from pathlib import Path

from cardiac_ct_fm.planning import Plan, PlanningOptions, measure
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volumes import structure_volumes


def add_measurements(prediction: Prediction, options: PlanningOptions | None = None) -> Plan:
    """Measure the aortic root and the structures' volumes; findings become warnings.

    Args:
        prediction: gets ``measurements``, and ``warnings`` it does not have yet.
        options: choices; the defaults are named in :class:`PlanningOptions`.

    Returns:
        The plan, which pictures and reports draw.
    """
    maps = prediction.label_maps
    plan = measure(prediction.volume, prediction.landmarks, maps.get("heart"), maps.get("calc"), options=options)
    prediction.measurements = {**plan.measurements, **structure_volumes(prediction)}
    prediction.warnings += [f.message for f in plan.findings if f.message not in prediction.warnings]
    return plan


def write_outputs(prediction: Prediction, folder: str | Path, options: PlanningOptions | None = None) -> Path:
    """Measure, draw and save a prediction: all files or none.

    Args:
        prediction: what was found; measurements are added to it.
        folder: made if it is not there.
        options: choices about the measurements.

    Returns:
        The folder.

    Raises:
        OutputError: the file system refuses.
    """
    plan = add_measurements(prediction, options)

    def draw(found: Prediction, target: Path) -> None:
        from cardiac_ct_fm.preview import write_preview

        write_preview(target / "preview.png", found.volume, found.landmarks, found.label_maps.get("heart"), plan)

    return prediction.save(folder, extras=[draw])
