"""From a prediction to its folder: measurements made, picture and report drawn, everything written together."""

from __future__ import annotations

from pathlib import Path

from cardiac_ct_fm.measurements import add_measurements
from cardiac_ct_fm.planning import Plan, PlanningOptions
from cardiac_ct_fm.result import Prediction


def write_outputs(prediction: Prediction, folder: str | Path, options: PlanningOptions | None = None) -> Path:
    """Measure where that is not done yet, draw, and save a prediction: all files or none.

    Args:
        prediction: what was found; measurements are added to it.
        folder: made if it is not there.
        options: choices about the measurements; they are made again when given.

    Returns:
        The folder.

    Raises:
        OutputError: the file system refuses.
    """
    plan = prediction.plan
    if options is not None or not isinstance(plan, Plan):
        plan = add_measurements(prediction, options)

    def draw(found: Prediction, target: Path) -> None:
        from cardiac_ct_fm.preview import write_preview

        write_preview(target / "preview.png", found.volume, found.landmarks, found.label_maps.get("heart"), plan)

    return prediction.save(folder, extras=[draw])
