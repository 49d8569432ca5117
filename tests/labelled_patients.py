"""A few coarse digital patients as files, with one label map and their points in three formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.landmark_io import write_landmarks, write_mitk, write_slicer
from cardiac_ct_fm.training.digital import digital_scan

SPACING_MM, SIZE = 4.0, 40
PATIENTS = 3
CLASSES = ["background", "Ventricle"]


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def write_patients(folder: Path) -> Path:
    """Scans, ``ventricle.nii.gz`` (the left ventricle as 1) and points; the path of the data list."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in range(PATIENTS):
        scan = digital_scan(seed, strength=0.5, spacing_mm=SPACING_MM, shape=(SIZE,) * 3)
        home = folder / f"p{seed}"
        home.mkdir()
        affine = scan.volume.affine
        save(home / "ct.nii.gz", np.asarray(scan.volume.data), affine)
        ventricle = (scan.label_maps["heart"] == HEART_LABELS["LV"]).astype(np.uint8)
        save(home / "ventricle.nii.gz", ventricle, affine)
        points = list(scan.landmarks["hps"].values())
        write_landmarks(home / "points.json", points, scan.volume.grid)
        write_slicer(home / "points.mrk.json", points)
        write_mitk(home / "points.mps", points)
        rows.append({"image": f"p{seed}/ct.nii.gz", "label": f"p{seed}/ventricle.nii.gz", "patient": f"p{seed}"})
    return listing(folder, rows[:-1], validation=rows[-1:])


def listing(folder: Path, training: list[dict[str, Any]], name: str = "datalist.json", **more: Any) -> Path:
    """A data list beside the patients."""
    path = folder / name
    path.write_text(json.dumps({"labels": CLASSES, "training": training, **more}), encoding="utf-8")
    return path


def rows(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The list's training entries; ``changes`` are put into the first, None takes a key away."""
    entries: list[dict[str, Any]] = json.loads((folder / "datalist.json").read_text())["training"]
    entries[0] = {key: value for key, value in {**entries[0], **changes}.items() if value is not None}
    return entries
