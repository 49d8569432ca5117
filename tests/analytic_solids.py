"""Solids whose measurements are known, rendered as CT with partial volume, blur and noise, in any orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.volume_io import Volume

BLOOD_HU = 350.0
TISSUE_HU = 60.0

Inside = Callable[[np.ndarray], np.ndarray]
"""(N, 3) points in mm of the solid's own frame → (N,) depth below the surface, positive inside, about in mm."""


def rotation(seed: int) -> np.ndarray:
    """A random (3, 3) rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


@dataclass(frozen=True)
class Pose:
    """Where a solid lies in the patient: column i of ``axes`` is the solid's axis i in RAS."""

    axes: np.ndarray
    centre: np.ndarray

    @classmethod
    def random(cls, seed: int) -> Pose:
        rng = np.random.default_rng(seed + 1000)
        return cls(rotation(seed), rng.uniform(-30, 30, 3))

    def world(self, local) -> np.ndarray:
        return np.asarray(local, dtype=float) @ self.axes.T + self.centre

    def local(self, ras) -> np.ndarray:
        return (np.asarray(ras, dtype=float) - self.centre) @ self.axes


def render(
    inside: Inside,
    pose: Pose,
    spacing: float,
    *,
    half_extent: float = 55.0,
    middle=(0.0, 0.0, 0.0),
    scan_axes: np.ndarray | None = None,
    blood: float = BLOOD_HU,
    tissue: float = TISSUE_HU,
    noise: float = 0.0,
    seed: int = 0,
) -> Volume:
    """A scan of a solid; every border voxel holds its true share of blood (6³ samples)."""
    n = int(np.ceil(2 * half_extent / spacing))
    grid = Grid.centred(pose.world(middle), spacing, (n, n, n), np.eye(3) if scan_axes is None else scan_axes)
    points = grid.points().reshape(-1, 3)
    share = np.empty(len(points), dtype=np.float32)
    offsets = (np.arange(6) + 0.5) / 6 - 0.5
    sub = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(-1, 3) @ grid.affine[:3, :3].T
    for begin in range(0, len(points), 400_000):
        block = points[begin : begin + 400_000].astype(np.float64)
        depth = inside(pose.local(block))
        part = (depth > 0).astype(np.float32)
        border = np.flatnonzero(np.abs(depth) < 1.2 * spacing)
        for start in range(0, len(border), 4000):
            rows = border[start : start + 4000]
            samples = (block[rows][:, None, :] + sub[None]).reshape(-1, 3)
            part[rows] = (inside(pose.local(samples)) > 0).reshape(len(rows), -1).mean(axis=1)
        share[begin : begin + 400_000] = part
    hu = tissue + (blood - tissue) * share.reshape(grid.shape)
    if noise:
        hu = hu + np.random.default_rng(seed).normal(0, noise, grid.shape)
    return Volume(np.round(hu).astype(np.int16), grid.affine, "analytic solid", {"patient_position": "HFS"})


def elliptic_cylinder(a: float, b: float) -> Inside:
    """Semi-axes a and b, along z."""

    def depth(p: np.ndarray) -> np.ndarray:
        q = np.hypot(p[:, 0] / a, p[:, 1] / b)
        slope = np.hypot(p[:, 0] / a**2, p[:, 1] / b**2) / np.maximum(q, 1e-6)
        return (1 - q) / np.maximum(slope, 1e-3)

    return depth


def torus(ring: float, tube: float) -> Inside:
    """A tube of radius ``tube`` around a circle of radius ``ring`` in the x-z plane that passes the origin along z.

    The circle's centre is (ring, 0, 0).
    """

    def depth(p: np.ndarray) -> np.ndarray:
        return tube - np.hypot(np.hypot(p[:, 0] - ring, p[:, 2]) - ring, p[:, 1])

    return depth


def tube_of_revolution(radius_at: Callable[[np.ndarray], np.ndarray]) -> Inside:
    """Around z with a radius that depends on z."""

    def depth(p: np.ndarray) -> np.ndarray:
        return radius_at(p[:, 2]) - np.hypot(p[:, 0], p[:, 1])

    return depth


def cone(radius: float, slope: float) -> Inside:
    """Radius at z = 0, growing by ``slope`` per mm."""
    return tube_of_revolution(lambda z: radius + slope * z)


def hinge_points(pose: Pose, a: float, b: float, start_deg: float = 20.0) -> dict[str, np.ndarray]:
    """RCC, LCC and NCC on the ellipse in the plane z = 0, in the order seen from the aorta (z > 0)."""
    angles = np.radians(start_deg + np.array([0.0, 120.0, 240.0]))
    local = np.stack([a * np.cos(angles), b * np.sin(angles), np.zeros(3)], axis=-1)
    return dict(zip(("RCC", "LCC", "NCC"), pose.world(local), strict=True))


@dataclass(frozen=True)
class RootPhantom:
    """A straight aortic root with sinuses: radii in mm by height z above the annulus."""

    annulus: float = 12.5
    lvot: float = 11.5
    sinus: float = 16.5
    stj: float = 13.5
    ascending: float = 16.0
    sinus_z: float = 11.0
    stj_z: float = 21.0
    lobes: float = 0.0

    def radius(self, z: np.ndarray) -> np.ndarray:
        """Smooth steps between the named levels; flat at each of them."""
        knots = np.array([-12.0, -6.0, 0.0, self.sinus_z, self.stj_z, self.stj_z + 14.0, 90.0])
        values = np.array([self.lvot, self.lvot, self.annulus, self.sinus, self.stj, self.ascending, self.ascending])
        i = np.clip(np.searchsorted(knots, z) - 1, 0, len(knots) - 2)
        t = np.clip((z - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
        return values[i] + (values[i + 1] - values[i]) * t * t * (3 - 2 * t)

    def inside(self) -> Inside:
        """With ``lobes`` > 0 the sinuses are three bays of that amplitude, over the hinge points at 20°, 140°, 260°."""

        def depth(p: np.ndarray) -> np.ndarray:
            z = p[:, 2]
            share = np.clip(1 - np.abs(z - self.sinus_z) / (self.stj_z - self.sinus_z), 0, 1)
            wave = self.lobes * share * np.cos(3 * (np.arctan2(p[:, 1], p[:, 0]) - np.radians(20)))
            return 0.8 * (self.radius(z) + wave - np.hypot(p[:, 0], p[:, 1]))

        return depth


def landmarks(points: dict[str, np.ndarray], confidence: float = 1.0) -> dict[str, Landmark]:
    """Found landmarks at world points."""
    return {name: Landmark(name, True, tuple(float(v) for v in p), confidence) for name, p in points.items()}


def beside_a_chamber(lumen: Inside, radius: float, wall: float, half_angle_deg: float = 50.0) -> Inside:
    """The lumen and, behind a thin wall over part of its circumference (around −x), another chamber."""

    def depth(p: np.ndarray) -> np.ndarray:
        r = np.hypot(p[:, 0], p[:, 1])
        turn = np.degrees(np.abs(np.arctan2(p[:, 1], -p[:, 0])))
        chamber = np.minimum(r - radius - wall, np.radians(half_angle_deg - turn) * r)
        return np.maximum(lumen(p), np.minimum(chamber, 26.0 - np.abs(p[:, 2])))

    return depth


def with_spheres(scan: Volume, centres: np.ndarray, radius: float, hu: float) -> Volume:
    """The scan with spheres of another density at world points (N, 3); border voxels hold their true share."""
    data = scan.data.astype(np.float32)
    points = scan.grid.points().astype(np.float64)
    offsets = (np.arange(6) + 0.5) / 6 - 0.5
    sub = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(-1, 3) @ scan.affine[:3, :3].T
    for centre in np.atleast_2d(centres):
        near = np.linalg.norm(points - centre, axis=-1) < radius + max(scan.grid.spacing)
        samples = points[near][:, None, :] + sub[None]
        share = (np.linalg.norm(samples - centre, axis=-1) < radius).mean(axis=1)
        data[near] = data[near] * (1 - share) + hu * share
    return Volume(np.round(data).astype(np.int16), scan.affine, scan.source, scan.facts)
