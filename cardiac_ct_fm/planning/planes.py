"""Planes in the patient and values of a scan on them: the annulus plane, its checks, and sampling without torch.

All points are world RAS mm. A :class:`Plane` measures (its u and v are right-handed with the normal); how a plane is
shown on a screen is the business of :mod:`cardiac_ct_fm.render2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from cardiac_ct_fm.geometry import FloatArray, Grid

MIN_POINT_DISTANCE_MM = 5.0
"""Hinge points closer than this are taken for the same point: a fifth of the median hinge circle diameter (25.2 mm,
research code of Tölle et al. 2025) and 2.5 times the distance between two observers (Astudillo et al. 2020);
a house choice."""

MIN_TRIANGLE_ANGLE_DEG = 15.0
"""Three points whose smallest angle is below this count as collinear. Cusps lie 120° apart within 3–4°, which gives
angles of 60°; at 15° two observers' distance of 2 mm already turns the plane by more than 15°. A house
choice."""

HINGE_CIRCLE_MM = (14.0, 40.0)
"""Diameters of a plausible hinge circle: 25.7 ± 2.7 mm is the mean diameter of a man's annulus and 22.9 ± 2.2 mm that
of a woman's (Hamdan, n = 506); four standard deviations, and some room for disease, on either side (house choice)."""

HINGE_ARC_DEG = (75.0, 165.0)
"""Arcs between neighbouring hinge points that still look like three cusps; normal is 120° ± 4° (house choice: an eighth
of a turn more or less)."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane with its own axes.

    Attributes:
        origin: (3,) RAS mm.
        u: (3,) unit vector in the plane.
        v: (3,) unit vector in the plane, ``u × v = normal``.
        normal: (3,) unit vector; toward the aorta wherever this package makes the plane.
    """

    origin: FloatArray
    u: FloatArray
    v: FloatArray
    normal: FloatArray

    @classmethod
    def through(cls, origin: npt.ArrayLike, normal: npt.ArrayLike, hint: npt.ArrayLike | None = None) -> Plane:
        """The plane at a point with a normal.

        Args:
            origin: (3,) RAS mm.
            normal: (3,) any length but 0.
            hint: (3,) direction whose projection becomes u; default: the patient's left, or anterior where the normal
                runs along it.
        """
        n = unit(np.asarray(normal, dtype=np.float64))
        wanted = [] if hint is None else [np.asarray(hint, dtype=np.float64)]
        for candidate in (*wanted, np.array([-1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])):
            u = candidate - n * (candidate @ n)
            length = float(np.linalg.norm(u))
            if length > 1e-3 * float(np.linalg.norm(candidate)):
                break
        u = u / length
        return cls(np.asarray(origin, dtype=np.float64), u, np.cross(n, u), n)

    def world(self, xy: npt.ArrayLike, height: float = 0.0) -> FloatArray:
        """(…, 3) RAS mm of in-plane points (…, 2) mm, ``height`` mm along the normal."""
        p = np.asarray(xy, dtype=np.float64)
        result: FloatArray = p @ np.stack([self.u, self.v]) + (self.origin + height * self.normal)
        return result

    def project(self, ras: npt.ArrayLike) -> FloatArray:
        """(…, 2) in-plane mm of world points (…, 3)."""
        d = np.asarray(ras, dtype=np.float64) - self.origin
        return np.stack([d @ self.u, d @ self.v], axis=-1)

    def height(self, ras: npt.ArrayLike) -> FloatArray:
        """(…) signed distance in mm of world points (…, 3) along the normal."""
        result: FloatArray = (np.asarray(ras, dtype=np.float64) - self.origin) @ self.normal
        return result

    def azimuth(self, ras: npt.ArrayLike) -> FloatArray:
        """(…) angle in radians of world points (…, 3) around the origin, from u toward v, −π…π."""
        xy = self.project(ras)
        result: FloatArray = np.arctan2(xy[..., 1], xy[..., 0])
        return result

    def moved(self, origin: npt.ArrayLike) -> Plane:
        """The parallel plane with the same axes through another point."""
        return Plane(np.asarray(origin, dtype=np.float64), self.u, self.v, self.normal)


class Sampler:
    """Values of one image at world points; nothing is copied, so a whole scan costs no memory.

    Args:
        data: (X, Y, Z) image or label map.
        grid: where its voxels are.
    """

    def __init__(self, data: npt.NDArray[Any], grid: Grid) -> None:
        self.data = data
        self.grid = grid
        self._to_voxel = np.linalg.inv(grid.affine)
        self.voxel_mm = float(np.mean(grid.spacing))

    def __call__(self, ras: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(…) float32, linear interpolation at world points (…, 3); NaN beyond the outermost voxel centres."""
        return self._sample(ras, order=1, outside=np.nan)

    def nearest(self, ras: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """(…) uint8, the label of the voxel that holds each world point (…, 3); 0 outside."""
        result: npt.NDArray[np.uint8] = self._sample(ras, order=0, outside=0.0).astype(np.uint8)
        return result

    def on_plane(self, plane: Plane, xy: FloatArray, heights_mm: Sequence[float]) -> npt.NDArray[np.float32]:
        """(H, …) float32, what :meth:`__call__` says at in-plane points (…, 2) mm, so far along the normal."""
        return self._sample_plane(plane, xy, heights_mm, order=1, outside=np.nan)

    def nearest_on_plane(self, plane: Plane, xy: FloatArray, heights_mm: Sequence[float]) -> npt.NDArray[np.uint8]:
        """(H, …) uint8, what :meth:`nearest` says at in-plane points (…, 2) mm, so far along the normal."""
        return self._sample_plane(plane, xy, heights_mm, order=0, outside=0.0).astype(np.uint8)

    def voxels(self, ras: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(N,) float32, the values of the voxels that hold world points (…, 3), each voxel once; none from outside."""
        index = np.round(self.grid.voxel(ras)).astype(int).reshape(-1, 3)
        inside = ((index >= 0) & (index < self.grid.shape)).all(axis=1)
        chosen = np.unique(index[inside], axis=0)
        result: npt.NDArray[np.float32] = self.data[tuple(chosen.T)].astype(np.float32)
        return result

    def _sample(self, ras: npt.ArrayLike, order: int, outside: float) -> npt.NDArray[np.float32]:
        points = np.asarray(ras, dtype=np.float64)
        ijk = self._to_voxel[:3, :3] @ points.reshape(-1, 3).T + self._to_voxel[:3, 3:]
        return self._at(ijk, order, outside).reshape(points.shape[:-1])

    def _sample_plane(
        self, plane: Plane, xy: FloatArray, heights_mm: Sequence[float], order: int, outside: float
    ) -> npt.NDArray[np.float32]:
        # Two numbers per point until they are voxels: the world's three are never made.
        linear = self._to_voxel[:3, :3]
        flat = (linear @ np.stack([plane.u, plane.v], axis=1)) @ xy.reshape(-1, 2).T
        base = linear @ plane.origin + self._to_voxel[:3, 3]
        levels = base + np.multiply.outer(heights_mm, linear @ plane.normal)
        ijk = flat[:, None, :] + levels.T[:, :, None]
        return self._at(ijk.reshape(3, -1), order, outside).reshape(len(heights_mm), *xy.shape[:-1])

    def _at(self, ijk: FloatArray, order: int, outside: float) -> npt.NDArray[np.float32]:
        """(N,) values at voxel coordinates (3, N)."""
        values: npt.NDArray[np.float32] = map_coordinates(
            self.data, ijk, output=np.float32, order=order, cval=outside, prefilter=False
        )
        return values


@dataclass(frozen=True)
class Finding:
    """Something about the input that a reader has to know.

    Attributes:
        code: short stable name, for files (``collinear_hinge_points``).
        message: one sentence for people: the value, the reason and the way out.
    """

    code: str
    message: str


def unit(vector: FloatArray) -> FloatArray:
    """``vector`` (3,) with length 1."""
    result: FloatArray = vector / np.linalg.norm(vector)
    return result


def angle_deg(a: FloatArray, b: FloatArray) -> float:
    """Angle between two vectors in degrees, 0…180."""
    cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def triangle_problem(points: dict[str, FloatArray]) -> Finding | None:
    """Why three points span no plane, or None.

    Args:
        points: three names with (3,) RAS mm.
    """
    for (name_a, a), (name_b, b) in combinations(points.items(), 2):
        distance = float(np.linalg.norm(a - b))
        if distance < MIN_POINT_DISTANCE_MM:
            return Finding(
                "hinge_points_coincide",
                f"{name_a} and {name_b} are {distance:.1f} mm apart; hinge points closer than "
                f"{MIN_POINT_DISTANCE_MM:g} mm are one point. Place each at the lowest point of its own cusp.",
            )
    corners = list(points.values())
    angles = [angle_deg(corners[i - 2] - corners[i], corners[i - 1] - corners[i]) for i in range(3)]
    if min(angles) < MIN_TRIANGLE_ANGLE_DEG:
        return Finding(
            "hinge_points_collinear",
            f"The hinge points lie almost on one line (smallest angle {min(angles):.0f}°), so they span no plane. "
            "Place each at the lowest point of its own cusp.",
        )
    return None


def hinge_circle(points: FloatArray) -> tuple[FloatArray, float]:
    """Centre (3,) and diameter in mm of the circle through three points (3, 3) that are not collinear."""
    a, b, c = points
    ab, ac = b - a, c - a
    cross = np.cross(ab, ac)
    centre = a + (np.cross(cross, ab) * (ac @ ac) + np.cross(ac, cross) * (ab @ ab)) / (2.0 * (cross @ cross))
    return centre, float(2.0 * np.linalg.norm(centre - a))


def layout_findings(points: FloatArray) -> list[Finding]:
    """What is unusual about three hinge points (3, 3) that do span a plane: size of their circle, arcs between them."""
    centre, diameter = hinge_circle(points)
    found = []
    low, high = HINGE_CIRCLE_MM
    if not low <= diameter <= high:
        found.append(
            Finding(
                "implausible_annulus_size",
                f"The hinge points lie on a circle of {diameter:.1f} mm; {low:g}–{high:g} mm is plausible. Check the "
                "points and the unit of the file they came from (mm).",
            )
        )
    plane = Plane.through(centre, np.cross(points[1] - points[0], points[2] - points[0]))
    around = np.sort(np.degrees(plane.azimuth(points)))
    arcs = np.diff(np.append(around, around[0] + 360.0))
    low, high = HINGE_ARC_DEG
    if arcs.min() < low or arcs.max() > high:
        found.append(
            Finding(
                "uneven_hinge_points",
                f"The hinge points are {', '.join(f'{a:.0f}°' for a in arcs)} apart; three cusps are about 120° apart. "
                "A bicuspid valve or a misplaced point looks like this.",
            )
        )
    return found
