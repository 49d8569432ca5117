"""What is expected of a contour before the image is looked at: its radii, their doubt, and how thin its wall may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAYS, Contour
from cardiac_ct_fm.planning.planes import Plane

MIN_RADIUS_MM = 3.0
EDGE_WIDTH_MM = 1.5
"""Length over which inside and outside are averaged for edge strength: about the thickness of the thinnest walls."""

OPEN_WALL = 0.15
"""Cost of 1 mm of dark tissue inside of the path, in units of a full edge, above the annulus: low, because the valve's
leaflets lie in the lumen there and the wall is behind them."""

RING_WALL = 0.35
"""The same at the annulus: between the two, since leaflets may be cut at their base there."""

THIN_WALL = 0.6
"""The same below the annulus: high, because the anterior mitral leaflet and the membranous septum are as thin
as a valve's leaflet there, and behind them is the next chamber."""

SINUS_HARMONICS = 12
"""Fourier terms of the other contours: enough for three sinuses with their commissures."""

RING_HARMONICS = 6
"""Fourier terms of the annulus: enough for an ellipse of 3:2 (within 0.05 mm) or a D-shape, too few for a leak."""


@dataclass(frozen=True)
class Prior:
    """What is expected of a contour before the image is looked at.

    Attributes:
        radius_mm: (RAYS,) expected radius.
        sd_mm: (RAYS,) how far it may be off (one standard deviation).
        harmonics: Fourier terms of the final curve; 8 follow an ellipse of 3:2 within 0.02 mm, 12 three sinuses.
        wall: cost of 1 mm of dark tissue inside: :data:`OPEN_WALL`, :data:`RING_WALL` or :data:`THIN_WALL`.
    """

    radius_mm: FloatArray
    sd_mm: FloatArray
    harmonics: int = 8
    wall: float = OPEN_WALL

    @classmethod
    def circle(cls, radius_mm: float, sd_mm: float, harmonics: int = 8, wall: float = OPEN_WALL) -> Prior:
        """The same radius all around."""
        return cls(np.full(RAYS, radius_mm), np.full(RAYS, sd_mm), harmonics, wall)

    @classmethod
    def ring(cls, plane: Plane, points: FloatArray, point_sd_mm: float, free_sd_mm: float) -> Prior:
        """The smoothest curve around the plane's origin through three points (3, 3) that lie on the wall.

        Args:
            plane: the rays' plane.
            points: RAS mm, around the origin.
            point_sd_mm: how far a point may be off.
            free_sd_mm: how far the curve may be off midway between the points.
        """
        xy = plane.project(points)
        angles, radii = np.arctan2(xy[:, 1], xy[:, 0]), np.hypot(xy[:, 0], xy[:, 1])
        terms = np.stack([np.ones(3), np.cos(angles), np.sin(angles)], axis=-1)
        a, b, c = np.linalg.solve(terms, radii)
        away = np.abs(np.angle(np.exp(1j * (RAY_ANGLES[:, None] - angles[None, :])))).min(axis=1)
        # Points are 120° apart, so 60° is midway.
        share = np.clip(np.degrees(away) / 60.0, 0.0, 1.0)
        radius = np.maximum(a + b * np.cos(RAY_ANGLES) + c * np.sin(RAY_ANGLES), MIN_RADIUS_MM)
        return cls(radius, point_sd_mm + (free_sd_mm - point_sd_mm) * share, RING_HARMONICS, RING_WALL)

    @classmethod
    def like(cls, last: Contour, plane: Plane, sd_mm: float, above: bool) -> Prior:
        """The neighbouring contour, seen from another plane's origin; ``above`` the annulus the wall is open."""
        xy = plane.project(last.ras)
        angle, radius = np.arctan2(xy[:, 1], xy[:, 0]), np.hypot(xy[:, 0], xy[:, 1])
        order = np.argsort(angle)
        radii = np.interp(RAY_ANGLES, angle[order], radius[order], period=2.0 * np.pi)
        return cls(radii, np.full(RAYS, sd_mm), SINUS_HARMONICS, OPEN_WALL if above else THIN_WALL)

    @property
    def reach_mm(self) -> float:
        """How far the rays have to go."""
        return float((self.radius_mm + 2.5 * self.sd_mm).max()) + EDGE_WIDTH_MM
