"""The aortic root as an analytic shape: lumen, sinuses, leaflets, wall, membranous septum, landmarks, calcium.

Works in the root frame (origin: annulus centre; x to the patient's left, y anterior, z up the aorta) in
template mm. The lumen is star-shaped around its axis, so one table ``radius[azimuth, height]`` per patient
describes it and every voxel costs one look-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.cohort.patient import CUSP_DEGREES, Root

AZIMUTHS = 180
LOW_MM, HIGH_MM, HEIGHTS = -16.0, 48.0, 161
LVOT_DEPTH_MM = 6.0
"""Depth below the annulus at which the outflow tract has its own area and ellipticity."""


FLARE = 0.55
"""The wall bulges from this fraction of the attachment's height on: the interleaflet triangles flare a little too."""


@dataclass(frozen=True)
class RootShape:
    """Look-up tables of one patient's root, in template mm.

    Attributes:
        radius: (AZIMUTHS + 1, HEIGHTS) lumen radius.
        attachment: (AZIMUTHS + 1,) height of the leaflets' attachment line.
        rim: (AZIMUTHS + 1,) relative distance to the commissure, 0 at mid-cusp … 1 at a commissure.
        centre: (HEIGHTS, 2) axis of the lumen.
        scale: template mm per patient mm at the root.
        root: the drawn parameters (patient mm).
    """

    radius: Tensor
    attachment: Tensor
    rim: Tensor
    centre: Tensor
    scale: float
    root: Root

    def polar(self, local: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Azimuth (degrees 0…360), distance from the axis and height of root-frame points (N, 3)."""
        height = local[:, 2]
        axis = _lookup1d(self.centre.T, (height - LOW_MM) / (HIGH_MM - LOW_MM))
        x, y = local[:, 0] - axis[0], local[:, 1] - axis[1]
        return torch.rad2deg(torch.atan2(y, x)) % 360, torch.hypot(x, y), height

    def lumen_radius(self, azimuth: Tensor, height: Tensor) -> Tensor:
        """Lumen radius at azimuths (degrees) and heights (template mm)."""
        u = (azimuth % 360) / 180 - 1
        v = (height - LOW_MM) / (HIGH_MM - LOW_MM) * 2 - 1
        grid = torch.stack([v, u], -1).reshape(1, -1, 1, 2)
        return F.grid_sample(self.radius[None, None], grid, padding_mode="border", align_corners=True).reshape(-1)

    def along(self, table: Tensor, azimuth: Tensor) -> Tensor:
        """Values of an azimuth table at azimuths (degrees)."""
        return _lookup1d(table[None], (azimuth % 360) / 360)[0]

    def wall_point(self, azimuth: float, height: float) -> Tensor:
        """Root-frame point (3,) on the lumen wall at an azimuth (degrees) and height (template mm)."""
        turn, z = torch.tensor([float(azimuth)]), torch.tensor([float(height)])
        radius = self.lumen_radius(turn.to(self.radius.device), z.to(self.radius.device)).cpu()
        axis = _lookup1d(self.centre.T.cpu(), (z - LOW_MM) / (HIGH_MM - LOW_MM))
        angle = torch.deg2rad(turn)
        return torch.stack([axis[0] + radius * angle.cos(), axis[1] + radius * angle.sin(), z], -1)[0]

    def landmarks(self) -> dict[str, Tensor]:
        """Root-frame positions (3,) of hinge points, ostia, MS1 and MS2 in template mm."""
        root, s = self.root, self.scale
        points = {k: self.wall_point(root.cusp_deg[k], root.hinge_z_mm[k] * s) for k in CUSP_DEGREES}
        for name, height in root.ostium_height_mm.items():
            points[name] = self.wall_point(root.ostium_deg[name], height * s)
        top = root.septum_top_mm
        points["MS1"] = self.wall_point(root.septum_deg, top * s)
        points["MS2"] = self.wall_point(root.septum_deg, root.septum_crest_mm * s)
        return points

    def to(self, device: torch.device | str) -> RootShape:
        """The same shape on another device."""
        radius, attachment, rim, centre = (t.to(device) for t in (self.radius, self.attachment, self.rim, self.centre))
        return RootShape(radius, attachment, rim, centre, self.scale, self.root)


def _lookup1d(table: Tensor, unit: Tensor) -> Tensor:
    """Linear interpolation in rows of ``table`` (C, n) at positions 0…1 (N,) → (C, N); clamped at the ends."""
    position = unit.clamp(0, 1) * (table.shape[1] - 1)
    below = position.floor().long().clamp_max(table.shape[1] - 2)
    weight = position - below
    return table[:, below] * (1 - weight) + table[:, below + 1] * weight


def _ellipse(azimuth: Tensor, area_radius: Tensor | float, ratio: Tensor | float, turn: float) -> Tensor:
    """Radius of an ellipse of equal area to a circle of ``area_radius`` and axis ratio ``ratio``."""
    angle = torch.deg2rad(azimuth - turn)
    long = area_radius * torch.as_tensor(ratio) ** 0.5
    short = area_radius / torch.as_tensor(ratio) ** 0.5
    return long * short / torch.sqrt((short * angle.cos()) ** 2 + (long * angle.sin()) ** 2)


def smooth(x: Tensor) -> Tensor:
    """Smooth step from 0 at 0 to 1 at 1."""
    t = x.clamp(0, 1)
    return t * t * (3 - 2 * t)


def build_root(root: Root, centreline: Tensor, scale: float) -> RootShape:
    """Tables of a patient's root.

    Args:
        root: drawn parameters in patient mm.
        centreline: (16, 2) lumen centre of the template at heights 0, 2, … 30 mm.
        scale: template mm per patient mm.
    """
    azimuth = torch.linspace(0, 360, AZIMUTHS + 1)
    height = torch.linspace(LOW_MM, HIGH_MM, HEIGHTS) / scale
    attachment, rim, size = _crown(root, azimuth)
    radius = root.annulus_mm / 2 / 1.008
    up = smooth(height / root.stj_height_mm)
    down = smooth(-height / LVOT_DEPTH_MM)
    mean = radius + (root.stj_mm / 2 - radius) * up
    beyond = smooth((height - root.stj_height_mm) / 14)
    mean = mean + (root.ascending_mm / 2 - root.stj_mm / 2) * beyond
    lvot = math.sqrt(root.lvot_area_mm2 / math.pi)
    mean = mean + (lvot - radius) * down
    ratio = 1.05 + (root.ellipticity - 1.05) * (1 - up) + (root.lvot_ellipticity - root.ellipticity) * down
    base = _ellipse(azimuth[:, None], mean[None], ratio[None], root.ellipse_deg)
    top = root.stj_height_mm * 1.02
    foot = FLARE * attachment
    rise = (height[None] - foot[:, None]) / (top - foot[:, None]).clamp_min(1.0)
    shape = torch.sin(math.pi * rise.clamp(0, 1) ** 0.85).clamp_min(0) ** 1.2 * size[:, None]
    bulge = _bulge(base, shape, height, root)
    knots = torch.arange(0, 31, 2.0)
    centre = torch.stack([_interp(height * scale, knots, centreline[:, k]) for k in range(2)], -1)
    return RootShape((base + bulge * shape) * scale, attachment * scale, rim, centre, scale, root)


def _bulge(base: Tensor, shape: Tensor, height: Tensor, root: Root) -> float:
    """Depth of the sinuses (mm) that gives the wanted mean diameter at the widest level, by bisection."""
    inside = (height > 3) & (height < root.stj_height_mm)
    half = AZIMUTHS // 2
    low, high = 0.3, 12.0
    for _ in range(20):
        middle = (low + high) / 2
        radius = (base + middle * shape)[:-1, inside]
        across = radius[:half] + radius[half:]
        widest = float(((across.max(0).values + across.min(0).values) / 2).max())
        low, high = (middle, high) if widest < root.sinus_mm else (low, middle)
    return (low + high) / 2


def _interp(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation, constant beyond the knots."""
    return _lookup1d(values[None], (at - knots[0]) / (knots[-1] - knots[0]))[0]


def _crown(root: Root, azimuth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Height of the crown-shaped attachment (mm), relative place in the cusp, and bulge factor, per azimuth."""
    order = ("RCC", "NCC", "LCC")
    centre = [root.cusp_deg[k] for k in order]
    attachment = torch.zeros_like(azimuth)
    rim = torch.full_like(azimuth, 2.0)
    size = torch.ones_like(azimuth)
    for i, name in enumerate(order):
        following = ((centre[(i + 1) % 3] - centre[i]) % 360) / 2
        before = ((centre[i] - centre[i - 1]) % 360) / 2
        offset = (azimuth - centre[i] + 180) % 360 - 180
        place = torch.where(offset >= 0, offset / following, -offset / before)
        z_next, z_before = root.commissure_z_mm[i], root.commissure_z_mm[i - 1]
        if root.fused:
            z_next = z_next * (0.5 if name == "LCC" else 1.0)
            z_before = z_before * (0.5 if name == "RCC" else 1.0)
        peak = torch.where(offset >= 0, torch.tensor(z_next), torch.tensor(z_before))
        hinge = root.hinge_z_mm[name]
        own = place < rim
        rising = hinge + (peak - hinge) * place.clamp(0, 1) ** root.attachment_power
        attachment = torch.where(own, rising, attachment)
        size = torch.where(own, torch.full_like(size, root.cusp_size[name]), size)
        rim = torch.where(own, place, rim)
    return attachment, rim.clamp(0, 1), size
