"""Small real folders of scans for the federation's tests, and settings that train on them in seconds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import save_label_map
from cardiac_ct_fm.landmark_io import Landmark, write_landmarks
from recipes.federated_distillation.settings import Settings

SPACING_MM, EDGE = 2.5, 40
SUBJECTS = {
    "site-a": ("Mustermann^Erika", "Doe^Jane", "Roe^Richard"),
    "site-b": ("Novak^Jan", "Rossi^Mario", "Dupont^Anne"),
}
"""Names that must never be seen outside of their site."""


@cache
def _case(seed: int) -> Case:
    return draw_case(seed)


def write_site(
    folder: Path, subjects: tuple[str, ...], labels: tuple[str, ...] = ("heart", "hps"), seed: int = 0
) -> Path:
    """Write scans around the root of two digital patients with their labels and a data list; return the list."""
    rows = []
    for number, subject in enumerate(subjects):
        case = _case(700 + (seed + number) % 2)
        root = torch.stack([case.heart.landmarks[k] for k in ("RCC", "LCC", "NCC")]).mean(0).double().numpy()
        grid = Grid.centred(root + np.array([2.0 * seed, 3.0 * number, 4.0]), SPACING_MM, (EDGE,) * 3)
        hu, look = case.look(torch.from_numpy(grid.centre_ras).float(), SPACING_MM, grid.shape, seed * 10 + number)
        name = subject.replace("^", "_")
        (folder / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(hu.round().numpy().astype(np.int16), grid.affine), folder / name / "ct.nii.gz")
        row = {"image": f"{name}/ct.nii.gz", "patient": subject}
        for head in labels:
            if HEADS[head].kind == "segmentation":
                names = dict(enumerate(HEADS[head].classes, start=1))
                save_label_map(folder / name / f"{head}.nii.gz", getattr(look, head).numpy(), grid, names)
                row[head] = f"{name}/{head}.nii.gz"
        points = [c for h in labels if HEADS[h].kind == "landmarks" for c in HEADS[h].classes]
        if points:
            places = {c: tuple(float(v) for v in case.heart.landmarks[c]) for c in points}
            write_landmarks(folder / name / "points.json", [Landmark(c, True, p, 1.0) for c, p in places.items()])  # type: ignore[arg-type]
            row["landmarks"] = f"{name}/points.json"
        rows.append(row)
    path = folder / "data.json"
    path.write_text(json.dumps({"training": rows}), encoding="utf-8")
    return path


def quick(**changes: Any) -> Settings:
    """Two sites, one task, a tiny U-Net: a round takes about a second."""
    base: dict[str, Any] = {
        "task": "hps",
        "method": "fedavg",
        "model_type": "unet",
        "size": "smoke",
        "output_seg": False,
        "locations": ("site-a", "site-b"),
        "holdings": ("site-a=heart,hps", "site-b=heart,hps"),
        "rounds": 2,
        "looks_per_scan": 1,
        "test_ratio": 0.34,
        "threads": 1,
        "exp_name": "quick",
    }
    return Settings(**(base | changes))
