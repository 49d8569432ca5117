"""The two real heart shapes that every digital patient is bent from, as distance fields.

Made by ``recipes/heart_templates.py`` from the whole-heart label maps of HeartDeformNets (Kong & Shadden,
IEEE TMI 2022, Apache-2.0); stored in ``assets/cohort/templates.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ASSET = Path(__file__).parent.parent / "assets" / "cohort" / "templates.npz"
STEP_MM = 0.2
"""Quantisation of the stored distances, as written by the recipe."""

TEMPLATE_NAMES: tuple[str, ...] = ("wh", "mmwhs")


@dataclass(frozen=True)
class Template:
    """One real heart in its own coordinates (RAS mm).

    Attributes:
        name: ``wh`` (with vein inlets) or ``mmwhs`` (without).
        fields: (7, X, Y, Z) signed distance of Myo, LA, LV, RA, RV, Aorta, PA in mm, positive inside.
        low: (3,) position of voxel (0, 0, 0); spacing_mm: isotropic.
        root_origin: (3,) centre of the annulus.
        root_axes: (3, 3) rows: to the patient's left, anterior, up the aorta.
        centreline: (16, 2) centre of the aortic lumen in the root frame at heights 0, 2, … 30 mm.
        coronaries: polylines (n, 3) by vessel name.
    """

    name: str
    fields: Tensor
    low: Tensor
    spacing_mm: float
    root_origin: Tensor
    root_axes: Tensor
    centreline: Tensor
    coronaries: dict[str, Tensor]

    def sample(self, points: Tensor) -> Tensor:
        """Signed distances at ``points`` (…, 3) in template mm → (7, …); beyond the box they go on falling."""
        size = torch.tensor(self.fields.shape[1:], dtype=points.dtype, device=points.device)
        voxel = (points - self.low) / self.spacing_mm
        unit = voxel / (size - 1) * 2 - 1
        grid = unit.flip(-1).reshape(1, -1, 1, 1, 3)
        values = F.grid_sample(self.fields[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
        beyond = (unit.abs() - 1).clamp_min(0) * (size - 1) / 2 * self.spacing_mm
        distance: Tensor = values.reshape(7, *points.shape[:-1]) - beyond.norm(dim=-1)
        return distance

    def to(self, device: torch.device | str) -> Template:
        """The same template on another device."""
        return Template(
            self.name,
            self.fields.to(device),
            self.low.to(device),
            self.spacing_mm,
            self.root_origin.to(device),
            self.root_axes.to(device),
            self.centreline.to(device),
            {name: line.to(device) for name, line in self.coronaries.items()},
        )


@lru_cache(maxsize=8)
def load_template(name: str, device: str = "cpu") -> Template:
    """The template called ``name`` (one of :data:`TEMPLATE_NAMES`), loaded once per device."""
    with np.load(ASSET, allow_pickle=False) as archive:

        def get(key: str) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(archive[f"{name}.{key}"])).float()

        affine = archive[f"{name}.affine"]
        prefix = f"{name}.coronary."
        template = Template(
            name=name,
            fields=get("fields") * STEP_MM,
            low=torch.from_numpy(affine[:3, 3]).float(),
            spacing_mm=float(affine[0, 0]),
            root_origin=get("root_origin"),
            root_axes=get("root_axes"),
            centreline=get("centreline"),
            coronaries={k[len(prefix) :]: get(k[len(name) + 1 :]) for k in archive.files if k.startswith(prefix)},
        )
    return template.to(device)
