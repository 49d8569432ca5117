"""From a prediction to its folder: measurements made, picture and report drawn, everything written together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardiac_ct_fm.measurements import add_measurements
from cardiac_ct_fm.planning import Plan, PlanningOptions, measurements_to_json, write_scene
from cardiac_ct_fm.result import Prediction


def write_outputs(prediction: Prediction, folder: str | Path, options: PlanningOptions | None = None) -> Path:
    """Measure where that is not done yet, draw, report, and save a prediction: all files or none.

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

    def write(found: Prediction, target: Path) -> None:
        from cardiac_ct_fm.preview import write_preview
        from cardiac_ct_fm.report import write_report

        rows, notes = found.measurements, [w for w in found.warnings if w not in {f.message for f in plan.findings}]
        measurements_to_json(target / "measurements.json", plan, rows)
        write_scene(target / "planning.mrk.json", plan)
        picture = target / "preview.png"
        write_preview(picture, found.volume, found.landmarks, found.label_maps, plan, found.classes, found.run)
        facts = run_facts(found.run)
        write_report(target / "report.html", found.volume, plan, measurements=rows, facts=facts, warnings=notes)

    return prediction.write_files(folder, extras=[write])


def run_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says about how a prediction was made, in words, from what ``run.json`` will hold."""
    again = run.get("measured", {})
    weights = run.get("weights_sha256") or {}
    named = {
        "model": run.get("model"),
        "weights sha256": [f"{digest} ({file})" for file, digest in weights.items()] or None,
        "trunk checksum": run.get("trunk_sha256"),
        "quality": run.get("quality"),
        "heads": run.get("heads"),
        "corrected points": again.get("landmarks"),
        "label map": again.get("segmentation"),
    }
    package = {**run.get("package", {}), **again.get("package", {})}
    versions = {f"version of {name}": value for name, value in package.items()}
    return {name: value for name, value in {**named, **versions}.items() if value is not None}
