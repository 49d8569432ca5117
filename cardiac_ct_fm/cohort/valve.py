"""What lies inside the root: leaflets of the aortic valve and calcium, as thickness fields in the root frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.patient import CUSP_DEGREES
from cardiac_ct_fm.cohort.root import RootShape


def leaflet_surface(shape: RootShape, azimuth: Tensor, relative: Tensor) -> Tensor:
    """Height (template mm) of the closed leaflets at azimuths (degrees) and relative radii (0 axis … 1 wall)."""
    centre = shape.root.coaptation_mm * shape.scale
    weight = relative.clamp(0, 1) ** 2.0
    return centre * (1 - weight) + shape.along(shape.attachment, azimuth) * weight


def above_leaflets(shape: RootShape, local: Tensor) -> Tensor:
    """Which root-frame points (N, 3) within the lumen lie on the leaflets' aortic side, as in the sinuses; boolean."""
    azimuth, radius, height = shape.polar(local)
    relative = radius / shape.lumen_radius(azimuth, height).clamp_min(1.0)
    if shape.root.opening > 0:
        return (height > shape.along(shape.attachment, azimuth)) & (relative > _opened(shape, azimuth, height))
    return height > leaflet_surface(shape, azimuth, relative)


def _opened(shape: RootShape, azimuth: Tensor, height: Tensor) -> Tensor:
    """Relative radius at which open leaflets stand, 1 where they are attached."""
    top = max(shape.root.commissure_z_mm) * shape.scale
    rise = (height - shape.along(shape.attachment, azimuth)) / (0.35 * top)
    return 1 - (1 - shape.root.opening * 0.9) * rise.clamp(0, 1)


def leaflets(shape: RootShape, local: Tensor) -> Tensor:
    """Signed distance (template mm, positive inside) of root-frame points (N, 3) to the leaflets' tissue."""
    root, scale = shape.root, shape.scale
    half = root.leaflet_mm * scale / 2
    azimuth, radius, height = shape.polar(local)
    wall = shape.lumen_radius(azimuth, height).clamp_min(1.0)
    relative = radius / wall
    rim = shape.along(shape.rim, azimuth)
    top = max(root.commissure_z_mm) * scale
    if root.opening > 0:
        attachment = shape.along(shape.attachment, azimuth)
        sheet = half - (relative - _opened(shape, azimuth, height)).abs() * wall
        inside = torch.minimum(height - attachment, top - 1.0 - height)
        return torch.minimum(sheet, inside)
    surface = leaflet_surface(shape, azimuth, relative)
    slope = 0.75 + 0.25 * rim
    belly = half - (height - surface).abs() * slope
    edge = (1 - rim) * math.pi / 3 * radius
    free = surface + (0.22 * root.stj_height_mm * scale) * (1 - relative).clamp(0, 1) + 0.5
    coaptation = torch.minimum(half - edge, torch.minimum(free - height, height - surface + half))
    if root.fused:
        seam = (root.cusp_deg["RCC"] + root.cusp_deg["LCC"] + 360) / 2
        near_seam = ((azimuth - seam + 180) % 360 - 180).abs() < 30
        coaptation = torch.where(near_seam, torch.full_like(coaptation, -9.0), coaptation)
    return torch.minimum(torch.maximum(belly, coaptation), wall - radius + half)


def calcium(shape: RootShape, local: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance (template mm, positive inside) to calcium and the HU of the nearest nodule, both (N,)."""
    root, scale = shape.root, shape.scale
    best = torch.full((len(local),), -25.0, device=local.device)
    value = torch.zeros_like(best)
    names = list(CUSP_DEGREES)
    for cusp, place, outward, a, b, c, hu, turn in root.calcium.tolist():
        at = torch.tensor([root.cusp_deg[names[int(cusp)]] + 60 * place], device=local.device)
        relative = torch.tensor([outward], device=local.device)
        z = leaflet_surface(shape, at, relative)
        distance = shape.lumen_radius(at, z) * relative
        angle = torch.deg2rad(at)
        middle = torch.stack([distance * angle.cos(), distance * angle.sin(), z], -1)
        axes = torch.tensor([a, b, c], device=local.device) * scale
        near = ((local - middle).abs() < float(axes.max()) + 6.0).all(-1).nonzero()[:, 0]
        offset = local[near] - middle
        cos, sin = math.cos(turn), math.sin(turn)
        turned = torch.stack(
            [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], -1
        )
        signed = (1 - (turned / axes).norm(dim=-1)) * float(axes.min())
        value[near] = torch.where(signed > best[near], torch.full_like(signed, hu), value[near])
        best[near] = torch.maximum(best[near], signed)
    azimuth, radius, height = shape.polar(local)
    return torch.minimum(best, shape.lumen_radius(azimuth, height) + 1.5 * scale - radius), value
