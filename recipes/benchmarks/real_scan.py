"""Agreement with TotalSegmentator, and with points read by eye, on the one real scan that is shipped (n = 1).

    python -m recipes.benchmarks.real_scan --model cardiac_swin_tiny

Neither is the truth: the masks are automatic, and their disc of the annulus lies 2–3 mm above where the leaflets leave
the wall; the points were read once (``examples/data/README.md`` says how).

The figures say which weights and looks they were measured with, in the words of ``recipes.benchmarks.heldout``.

Region of the ascending aorta: within 30 mm of, and 0–60 mm along, the line from the centre of ``annulus_proper`` to
that of ``sinotubular_junction``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cc3d
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, OSTIA
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.training.evaluate import weights_sha256
from recipes.benchmarks.heldout import load

SCAN = Path(__file__).parents[2] / "examples" / "data" / "ts-aorta-cta"
REGION_RADIUS_MM, REGION_LENGTH_MM = 30.0, 60.0


def agreement(pred: Prediction, folder: Path = SCAN) -> dict[str, Any]:
    """Figures of a prediction on the demonstration scan; a figure that cannot be made is None."""
    grid = pred.grid
    world = grid.points().astype(np.float64)

    def mask(name: str) -> NDArray[np.bool_]:
        return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) > 0

    disc, junction = world[mask("annulus_proper")], world[mask("sinotubular_junction")]
    centre = disc.mean(0)
    axis = junction.mean(0) - centre
    axis /= np.linalg.norm(axis)
    normal = np.linalg.svd(disc - centre, full_matrices=False)[2][2]
    along = (world - centre) @ axis
    away = np.linalg.norm(world - centre - along[..., None] * axis, axis=-1)
    region = (along >= 0) & (along <= REGION_LENGTH_MM) & (away <= REGION_RADIUS_MM)
    heart = pred.segmentation("heart")
    ours, theirs = (heart == HEART_LABELS["Aorta"]) & region, mask("aorta") & region
    result: dict[str, Any] = {
        "ascending_aorta_dice": 2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum()),
        "volumes_ml": {n: round(float((heart == v).sum()) * grid.voxel_mm3 / 1000, 1) for n, v in HEART_LABELS.items()},
        "components": {
            n: int(cc3d.connected_components(heart == v, return_N=True)[1]) for n, v in HEART_LABELS.items()
        },
        "landmarks": {n: (round(p.confidence, 2) if p.found else None) for n, p in pred.landmarks.items()},
        "circle_centre_mm": None,
        "plane_deg": None,
        "hinge_read_mm": dict.fromkeys(HINGE_POINTS),
        "circle_read_mm": None,
        "plane_read_deg": None,
        "ostia_read_mm": dict.fromkeys(OSTIA),
        "annulus_mm2": None if (area := pred.measurements.get("annulus_area_mm2")) is None else area.value,
        "annulus_reference_mm2": reference_area(folder),
    }
    read = read_landmarks(folder / "points_read.json")
    for name in OSTIA:
        found, there = pred.landmarks.get(name), read[name].ras_mm
        if found is not None and found.ras_mm is not None and there is not None:
            result["ostia_read_mm"][name] = round(float(np.linalg.norm(np.subtract(found.ras_mm, there))), 2)
    hinge = [pred.landmarks[n].ras_mm if n in pred.landmarks else None for n in HINGE_POINTS]
    if all(p is not None for p in hinge):
        points = np.array(hinge, dtype=np.float64)
        middle, turned = circle(points)
        result["circle_centre_mm"] = float(np.linalg.norm(middle - centre))
        result["plane_deg"] = _angle(turned, normal)
        eye = np.array([read[n].ras_mm for n in HINGE_POINTS], dtype=np.float64)
        away = np.linalg.norm(points - eye, axis=1)
        result["hinge_read_mm"] = {n: round(float(mm), 2) for n, mm in zip(HINGE_POINTS, away, strict=True)}
        result["circle_read_mm"] = float(np.linalg.norm(middle - circle(eye)[0]))
        result["plane_read_deg"] = _angle(turned, circle(eye)[1])
    return result


def _angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Degrees between two planes with these unit normals (3,)."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(a @ b))))))


def reference_area(folder: Path) -> float:
    """Area of the annulus, mm², in the report of the program that made the masks (it gives cm²)."""
    marks = json.loads((folder / "aorta_report.json").read_text(encoding="utf-8"))["landmarks"].values()
    return 100.0 * float(next(mark["area"] for mark in marks if mark["name"] == "annulus"))


def circle(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre (3,) and unit normal (3,) of the circle through three points (3, 3)."""
    a, b = points[1] - points[0], points[2] - points[0]
    normal = np.cross(a, b)
    centre = points[0] + np.cross((a @ a) * b - (b @ b) * a, normal) / (2 * normal @ normal)
    return centre, normal / np.linalg.norm(normal)


def measured_with(model: CardiacCTModel, quality: str) -> dict[str, Any]:
    """Whose figures they are."""
    return {
        "model": model.config.name,
        "weights_sha256": weights_sha256(model),
        "config": {"looks": model.config.to_dict()["looks"]},
        "quality": quality,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cardiac_swin_tiny", help="as in ``heldout``")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--out", type=Path, help="save the prediction here")
    args = parser.parse_args(arguments)
    predictor = Predictor(load(args.model), device="cpu")
    about = measured_with(predictor.model, args.quality)
    pred = predictor(SCAN / "ct_cropped.nii.gz", quality=args.quality)
    if args.out:
        pred.save(args.out)
    print(json.dumps({**about, **agreement(pred)}, indent=1))


if __name__ == "__main__":
    main()
