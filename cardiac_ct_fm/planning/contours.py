"""A closed curve in a plane, given by its radii, and what is measured on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.spatial import ConvexHull

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.planes import Plane

RAYS = 120
"""Rays of a contour: 3° apart, 0.7 mm on an annulus of 26 mm, near the voxel size of the scans."""

EdgeMethod = Literal["image", "labels"]
RAY_ANGLES: FloatArray = np.arange(RAYS, dtype=np.float64) * (2.0 * np.pi / RAYS)
RAY_DIRECTIONS: FloatArray = np.stack([np.cos(RAY_ANGLES), np.sin(RAY_ANGLES)], axis=-1)


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed curve in a plane.

    Attributes:
        plane: where it lies; its origin is the centre of the rays.
        radii_mm: (RAYS,) distance from the origin, ray k at angle 2πk/RAYS from u toward v.
        method: seen in the ``image``, or taken from the ``labels``.
        clear_fraction: share (0…1) of the rays on which an edge was seen.
        edge_sd_mm: one standard deviation of the contour's radius as a whole (noise and blur of the edge).
        lumen_hu: median HU inside.
        outside_scan: share (0…1) of the rays that leave the scan within the contour.
        tissue_fraction: share (0…1) of the area that is darker than half-way between blood and tissue: leaflets.
    """

    plane: Plane
    radii_mm: FloatArray
    method: EdgeMethod
    clear_fraction: float
    edge_sd_mm: float
    lumen_hu: float
    outside_scan: float
    tissue_fraction: float = 0.0

    @cached_property
    def xy(self) -> FloatArray:
        """(RAYS, 2) in-plane points, from u toward v."""
        result: FloatArray = self.radii_mm[:, None] * RAY_DIRECTIONS
        return result

    @cached_property
    def ras(self) -> FloatArray:
        """(RAYS, 3) points in RAS mm."""
        return self.plane.world(self.xy)

    @cached_property
    def area_mm2(self) -> float:
        """Enclosed area."""
        x, y = _dense(self.radii_mm).T
        return float(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))

    @cached_property
    def perimeter_mm(self) -> float:
        """Length of the curve."""
        p = _dense(self.radii_mm)
        return float(np.linalg.norm(np.roll(p, -1, axis=0) - p, axis=1).sum())

    @cached_property
    def centroid_xy(self) -> FloatArray:
        """(2,) centre of gravity of the enclosed area, in-plane mm."""
        x, y = _dense(self.radii_mm).T
        cross = x * np.roll(y, -1) - y * np.roll(x, -1)
        total = 3.0 * float(cross.sum())
        result: FloatArray = (
            np.array([np.sum((x + np.roll(x, -1)) * cross), np.sum((y + np.roll(y, -1)) * cross)]) / total
        )
        return result

    @cached_property
    def centroid(self) -> FloatArray:
        """(3,) centre of gravity in RAS mm."""
        return self.plane.world(self.centroid_xy)

    @cached_property
    def _chords(self) -> tuple[FloatArray, FloatArray]:
        """Angles (180,) of the half turn and the lengths of the chords through the centroid at these angles."""
        p = _dense(self.radii_mm) - self.centroid_xy
        angle = np.arctan2(p[:, 1], p[:, 0])
        order = np.argsort(angle)
        wanted = np.radians(np.arange(360.0)) - np.pi
        radius = np.interp(wanted, angle[order], np.hypot(p[:, 0], p[:, 1])[order], period=2.0 * np.pi)
        return wanted[:180], radius[:180] + radius[180:]

    @property
    def max_diameter_mm(self) -> float:
        """Longest chord through the centroid."""
        return float(self._chords[1].max())

    @property
    def min_diameter_mm(self) -> float:
        """Shortest chord through the centroid."""
        return float(self._chords[1].min())

    @property
    def mean_diameter_mm(self) -> float:
        """Mean of the longest and the shortest diameter, as in Hamdan's normal values."""
        return (self.max_diameter_mm + self.min_diameter_mm) / 2.0

    @property
    def area_diameter_mm(self) -> float:
        """Diameter of the circle of the same area, 2√(A/π)."""
        return float(2.0 * np.sqrt(self.area_mm2 / np.pi))

    @property
    def perimeter_diameter_mm(self) -> float:
        """Diameter of the circle of the same perimeter, P/π."""
        return self.perimeter_mm / float(np.pi)

    def convex(self, xy: FloatArray | None = None) -> Contour:
        """The convex hull: the ring as a reader draws it, bridged over leaflets that are cut at their base.

        Args:
            xy: (N, 2) in-plane points, mm, that the hull holds as well.
        """
        p = _dense(self.radii_mm) if xy is None else np.concatenate([_dense(self.radii_mm), xy])
        corners = p[ConvexHull(p).vertices]
        ahead = np.roll(corners, -1, axis=0) - corners
        # A ray t·d meets the line through corner c along a at t = (c × a) / (d × a); the hull is the nearest line.
        numerator = corners[:, 0] * ahead[:, 1] - corners[:, 1] * ahead[:, 0]
        denominator = RAY_DIRECTIONS[:, :1] * ahead[None, :, 1] - RAY_DIRECTIONS[:, 1:] * ahead[None, :, 0]
        t = np.divide(numerator[None, :], denominator, out=np.full(denominator.shape, np.inf), where=denominator > 1e-9)
        return replace(self, radii_mm=t.min(axis=1))

    def chord_ras(self, longest: bool) -> FloatArray:
        """(2, 3) ends in RAS mm of the longest or the shortest diameter."""
        angles, lengths = self._chords
        direction = angles[int(np.argmax(lengths) if longest else np.argmin(lengths))]
        return np.stack([self.at(direction), self.at(direction + np.pi)])

    def at_ray(self, angle: float) -> float:
        """Radius in mm from the plane's origin at an angle (radians, from u toward v)."""
        return float(np.interp(angle, RAY_ANGLES, self.radii_mm, period=2.0 * np.pi))

    def at(self, angle: float) -> FloatArray:
        """(3,) RAS mm of the contour seen from its centroid at an angle (radians, from u toward v)."""
        p = _dense(self.radii_mm)
        q = p - self.centroid_xy
        away = np.angle(np.exp(1j * (np.arctan2(q[:, 1], q[:, 0]) - angle)))
        return self.plane.world(p[int(np.argmin(np.abs(away)))])


def _dense(radii: FloatArray) -> FloatArray:
    """(4·RAYS, 2) in-plane points of the trigonometric interpolation of ``radii``: exact for its Fourier series."""
    spectrum = np.fft.rfft(radii)
    fine = np.fft.irfft(spectrum, 4 * RAYS) * 4.0
    angles = np.arange(4 * RAYS) * (2.0 * np.pi / (4 * RAYS))
    return np.stack([fine * np.cos(angles), fine * np.sin(angles)], axis=-1)
