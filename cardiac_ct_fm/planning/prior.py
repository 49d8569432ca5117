"""What is expected of a contour before the image is looked at: its radii, their doubt, and how thin its wall may be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAYS, Contour
from cardiac_ct_fm.planning.planes import Plane

MIN_RADIUS_MM = 3.0
"""No lumen of an adult's root is narrower (house choice)."""

EDGE_WIDTH_MM = 1.5
"""Length over which inside and outside are averaged for edge strength: about the thickness of the thinnest walls (house
choice)."""

OPEN_WALL = 0.15
"""Cost of 1 mm of dark tissue inside of the path, in units of a full edge, above the annulus: low, because the valve's
leaflets lie in the lumen there and the wall is behind them (house choice, as are the two below)."""

RING_WALL = 0.35
"""The same at the annulus: between the two, since leaflets may be cut at their base there."""

THIN_WALL = 0.6
"""The same below the annulus: high, because the anterior mitral leaflet and the membranous septum are as thin
as a valve's leaflet there, and behind them is the next chamber."""

SINUS_HARMONICS = 12
"""Fourier terms of contours above the annulus: enough for three sinuses with their commissures (house choice)."""

RING_HARMONICS = 6
"""Fourier terms of annulus and outflow tract: enough for an ellipse of 3:2 (within 0.05 mm) or a D-shape, too few for
a leak."""


OVAL_HARMONICS = 2
"""An oval is a circle, moved and stretched: two Fourier terms."""

OVAL_SD_MM = 1.2
"""How far an annulus departs from an oval: contour-to-ellipse distances of D-shaped annuli (house choice)."""

POINT_RAYS = 8
"""Weight of a hinge point against rays of 3°: its doubt of 1 mm is small beside the 24° that it stands for (house
choice)."""

OUTWARD = 2.5
"""Above the annulus a contour may lie this much farther outward than inward of one that followed a leaflet
(house choice)."""

LABEL_SD_MM = 1.0
"""How far a label map's border may be off: half a voxel of the 2 mm look, and the tolerance that surface distances of
heart segmentations are scored with."""


@dataclass(frozen=True)
class Prior:
    """What is expected of a contour before the image is looked at.

    Attributes:
        radius_mm: (RAYS,) expected radius.
        sd_mm: (RAYS,) how far it may be off inward (one standard deviation).
        sd_out_mm: (RAYS,) the same outward; larger above the annulus, where a leaflet that was taken for the wall lets
            the true wall lie farther out.
        harmonics: Fourier terms of the final curve; 8 follow an ellipse of 3:2 within 0.02 mm, 12 three sinuses.
        wall: cost of 1 mm of dark tissue inside: :data:`OPEN_WALL`, :data:`RING_WALL` or :data:`THIN_WALL`.
    """

    radius_mm: FloatArray
    sd_mm: FloatArray
    sd_out_mm: FloatArray
    harmonics: int = 8
    wall: float = OPEN_WALL

    @classmethod
    def circle(cls, radius_mm: float, sd_mm: float, harmonics: int = 8, wall: float = OPEN_WALL) -> Prior:
        """The same radius all around."""
        return cls(np.full(RAYS, radius_mm), np.full(RAYS, sd_mm), np.full(RAYS, sd_mm), harmonics, wall)

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
        sd = point_sd_mm + (free_sd_mm - point_sd_mm) * share
        return cls(radius, sd, sd, RING_HARMONICS, RING_WALL)

    @classmethod
    def oval(cls, traced: Contour, plane: Plane, points: FloatArray) -> Prior:
        """The oval nearest to a first contour and to the three hinge points (3, 3), seen from another plane's origin.

        An annulus is an ellipse to within a millimetre or so; leaflet tissue at its base and leaks are not. Rays far
        from the oval lose their say (Tukey's weights); the points keep theirs, each as much as :data:`POINT_RAYS` rays.
        """
        along = np.concatenate([traced.ras, np.repeat(points, POINT_RAYS, axis=0)])
        xy = plane.project(along)
        angle, radius = np.arctan2(xy[:, 1], xy[:, 0]), np.hypot(xy[:, 0], xy[:, 1])

        def terms(at: FloatArray) -> FloatArray:
            k = np.arange(1, OVAL_HARMONICS + 1)
            return np.concatenate([np.ones((len(at), 1)), np.cos(at[:, None] * k), np.sin(at[:, None] * k)], axis=1)

        basis, weight = terms(angle), np.ones(len(angle))
        solution: FloatArray = np.zeros(basis.shape[1])
        for _ in range(5):
            fit = np.linalg.lstsq(basis * weight[:, None], radius * weight, rcond=None)[0]
            solution = np.asarray(fit, dtype=np.float64)
            away = radius - basis @ solution
            limit = max(4.0 * 1.4826 * float(np.median(np.abs(away))), 1.0)
            weight = np.sqrt(np.clip(1.0 - (away / limit) ** 2, 0.0, 1.0) ** 2 + 1e-4)
            weight[len(traced.ras) :] = 1.0
        oval = np.maximum(terms(RAY_ANGLES) @ solution, MIN_RADIUS_MM)
        sd = np.full(RAYS, OVAL_SD_MM)
        return cls(oval, sd, sd, RING_HARMONICS, RING_WALL)

    @classmethod
    def like(cls, last: Contour, plane: Plane, sd_mm: float, above: bool, outward: float = 1.0) -> Prior:
        """The neighbouring contour, seen from another plane's origin.

        Args:
            last: the neighbour.
            plane: the rays' plane.
            sd_mm: how much a radius may change.
            above: of the annulus, where leaflets lie in the lumen and the wall is behind them.
            outward: how much farther the contour may lie outward; :data:`OUTWARD` where the neighbour's own edge may be
                a leaflet's.
        """
        xy = plane.project(last.ras)
        angle, radius = np.arctan2(xy[:, 1], xy[:, 0]), np.hypot(xy[:, 0], xy[:, 1])
        order = np.argsort(angle)
        radii = np.interp(RAY_ANGLES, angle[order], radius[order], period=2.0 * np.pi)
        inward, outer = np.full(RAYS, sd_mm), np.full(RAYS, sd_mm * outward)
        if above:
            return cls(radii, inward, outer, SINUS_HARMONICS, OPEN_WALL)
        return cls(radii, inward, outer, RING_HARMONICS, THIN_WALL)

    def with_labels(self, border_mm: FloatArray, known: npt.NDArray[np.bool_]) -> Prior:
        """The same, with the border of a label map taken into account where it is ``known`` (RAYS,).

        Both are weighted by their precision; the label map's own is :data:`LABEL_SD_MM`.
        """
        own = 1.0 / self.sd_mm**2
        other = np.where(known, 1.0 / LABEL_SD_MM**2, 0.0)
        radius = (own * self.radius_mm + other * np.where(known, border_mm, 0.0)) / (own + other)
        sd = 1.0 / np.sqrt(own + other)
        outward = np.where(known, np.minimum(self.sd_out_mm, LABEL_SD_MM), self.sd_out_mm)
        return replace(self, radius_mm=radius, sd_mm=sd, sd_out_mm=np.maximum(outward, sd))

    @property
    def reach_mm(self) -> float:
        """How far the rays have to go."""
        return float((self.radius_mm + 2.5 * self.sd_out_mm).max()) + EDGE_WIDTH_MM
