"""Calcium of the valve, per cusp, at the annulus and in the outflow tract; Agatston's score without contrast.

Voxels of deposits that reach a threshold count when they lie in the lumen of the root or in its wall. Each is placed by
the nearest point of the centreline (height) and by the angle around it (cusp).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cardiac_ct_fm.components import occupied_box
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.planning.centreline import Centreline
from cardiac_ct_fm.planning.contours import RAYS
from cardiac_ct_fm.planning.extent import AROUND_MM, REACH_MM, around_cores, edge_level

WALL_MM = 2.0
"""Calcium this far outside of the lumen still belongs to the root: about its wall's thickness (house choice)."""

LABEL_REACH_MM = 6.0
"""The same where a label map says that it is valve calcium: bulky nodules push the contour (house choice)."""

ROOM_MM = LABEL_REACH_MM + 2.0 + 2.0 * REACH_MM + 3.0 * AROUND_MM
"""Calcium is looked for this far around the root's contours: their reach, and the surroundings of what lies there."""

AGATSTON_SLICE_MM = 3.0
AGATSTON_MIN_AREA_MM2 = 1.0
"""Agatston et al., J Am Coll Cardiol 1990: 3 mm slices, lesions of at least 1 mm², weights 1–4 from 130, 200, 300 and
400 HU."""


@dataclass(frozen=True, eq=False)
class Deposits:
    """Calcium voxels of the root.

    Attributes:
        ras: (N, 3) centres of the voxels in RAS mm.
        hu: (N,) their values.
        level_hu: (N,) HU from which each one counts.
        s_mm: (N,) height along the centreline above the annulus plane.
        voxel_mm3: volume of each.
    """

    ras: FloatArray
    hu: FloatArray
    level_hu: FloatArray
    s_mm: FloatArray
    voxel_mm3: float

    def counted(self) -> Deposits:
        """Those that count."""
        chosen = self.hu >= self.level_hu
        return Deposits(self.ras[chosen], self.hu[chosen], self.level_hu[chosen], self.s_mm[chosen], self.voxel_mm3)

    def volume(self, shift_hu: float, low_mm: float, high_mm: float) -> float:
        """Volume in mm³ between two heights, with all levels moved by ``shift_hu``."""
        return float(self._in(shift_hu, low_mm, high_mm).sum()) * self.voxel_mm3

    def per_cusp(
        self,
        shift_hu: float,
        low_mm: float,
        high_mm: float,
        centre: FloatArray,
        hinges: FloatArray,
        normal: FloatArray,
    ) -> FloatArray:
        """(3,) :meth:`volume` nearest to each of three hinge points (3, 3), by the angle around the centre."""
        chosen = self._in(shift_hu, low_mm, high_mm)
        cusp = nearest_cusp(self.ras[chosen], centre, hinges, normal)
        return np.bincount(cusp, minlength=3)[:3].astype(np.float64) * self.voxel_mm3

    def clock(self, band_mm: float, centre: FloatArray, noon: FloatArray, normal: FloatArray) -> list[float]:
        """Volume in mm³ per 30° around the annulus, seen from the outflow tract, 12 o'clock at the RCC hinge point."""
        chosen = self._in(0.0, -band_mm, band_mm)
        up = noon - centre - normal * float((noon - centre) @ normal)
        up = up / np.linalg.norm(up)
        # A viewer below looks along the normal, so the right hand side of the picture is normal × up.
        right = np.cross(normal, up)
        d = self.ras[chosen] - centre
        hour = np.floor(np.degrees(np.arctan2(d @ right, d @ up)) % 360.0 / 30.0 + 0.5).astype(int) % 12
        return [float(v) for v in np.bincount(hour, minlength=12) * self.voxel_mm3]

    def _in(self, shift_hu: float, low_mm: float, high_mm: float) -> npt.NDArray[np.bool_]:
        chosen: npt.NDArray[np.bool_] = (
            (self.hu >= self.level_hu + shift_hu) & (self.s_mm >= low_mm) & (self.s_mm <= high_mm)
        )
        return chosen


def nearest_cusp(
    points: FloatArray, centre: FloatArray, hinges: FloatArray, normal: FloatArray
) -> npt.NDArray[np.intp]:
    """(N,) index of the hinge point (3, 3) whose direction around the axis is nearest to that of each point (N, 3)."""

    def flat(v: FloatArray) -> FloatArray:
        in_plane = v - (v @ normal)[:, None] * normal
        length = np.linalg.norm(in_plane, axis=1, keepdims=True)
        result: FloatArray = np.divide(in_plane, length, out=np.zeros_like(in_plane), where=length > 0)
        return result

    result: npt.NDArray[np.intp] = np.argmax(flat(points - centre) @ flat(hinges - centre).T, axis=1)
    return result


def root_box(line: Centreline, grid: Grid) -> tuple[tuple[slice, slice, slice], Grid] | None:
    """The voxels within :data:`ROOM_MM` of the root's contours and their grid, or None when there are none."""
    rims = [section.contour.plane.world(section.contour.xy) for section in line.sections]
    if not rims:
        return None
    lowest, highest = np.min(np.concatenate(rims), axis=0) - ROOM_MM, np.max(np.concatenate(rims), axis=0) + ROOM_MM
    corners = grid.voxel(np.stack(np.meshgrid(*zip(lowest, highest, strict=True), indexing="ij"), -1).reshape(8, 3))
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 1, grid.shape).astype(int)
    if (high <= low).any():
        return None
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    return box, grid.block((int(low[0]), int(low[1]), int(low[2])), tuple(int(n) for n in high - low))  # type: ignore[arg-type]


def find_deposits(
    image: npt.NDArray[np.float32],
    grid: Grid,
    marked: npt.NDArray[np.bool_] | None,
    threshold_hu: float,
    line: Centreline,
    *,
    blood_hu: float | None = None,
    margin_hu: float = 0.0,
) -> Deposits:
    """All voxels of a box that are, or could be, calcium of the root.

    Args:
        image: (X, Y, Z) HU.
        grid: its lattice.
        marked: (X, Y, Z) where a label map says calcium, or None for the whole image.
        threshold_hu: what is at or above it is calcium; −inf takes the label map as it is.
        line: the centreline with its contours.
        blood_hu: level of the blood; with it a deposit reaches to half-way between its own level and what lies around
            it (:mod:`cardiac_ct_fm.planning.extent`), without it only voxels that reach the threshold count.
        margin_hu: voxels that miss their level by up to this are kept too, for the doubt of the volumes.
    """
    if blood_hu is None or not np.isfinite(threshold_hu):
        candidate = image >= threshold_hu - margin_hu
        level = np.full(image.shape, threshold_hu, np.float32)
        if marked is not None:
            candidate &= marked
    else:
        found = _voxels(image >= threshold_hu)
        if marked is not None:
            found = found[_beside(marked, found)]
        found = found[_in_root(grid.world(found), line, marked is not None)[0]]
        if not len(found):
            nothing = np.zeros(0)
            return Deposits(np.zeros((0, 3)), nothing, nothing, nothing, grid.voxel_mm3)
        # Only what lies around the cores is looked at: of the whole box that is little.
        box = around_cores(found, grid.spacing, grid.shape)
        image, corner = image[box], (box[0].start, box[1].start, box[2].start)
        grid = grid.block(corner, image.shape)
        cores = np.zeros(grid.shape, bool)
        cores[tuple((found - corner).T)] = True
        level = edge_level(image, grid.spacing, cores, blood_hu)
        candidate = image >= level - margin_hu
    index = _voxels(candidate)
    points = grid.world(index)
    inside, s_mm = _in_root(points, line, marked is not None)
    at = tuple(index[inside].T)
    hu, own = image[at].astype(np.float64), level[at].astype(np.float64)
    return Deposits(points[inside], hu, own, s_mm[inside], grid.voxel_mm3)


def _voxels(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """(N, 3) indices of the chosen voxels, as :func:`numpy.argwhere` gives them, at the cost of the box they fill."""
    box = occupied_box(chosen.view(np.uint8))
    if box is None:
        return np.zeros((0, 3), np.intp)
    result: npt.NDArray[np.intp] = np.argwhere(chosen[box]) + [axis.start for axis in box]
    return result


def _beside(marked: npt.NDArray[np.bool_], voxels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """(N,) whether voxels (N, 3) or one of their six neighbours are marked."""
    near: npt.NDArray[np.bool_] = marked[tuple(voxels.T)]
    for step in np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
        near |= marked[tuple((voxels + step).clip(0, np.array(marked.shape) - 1).T)]
    return near


def _in_root(points: FloatArray, line: Centreline, labelled: bool) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Whether points (N, 3) lie in the root's lumen or wall, and their heights along the line in mm, both (N,)."""
    if not len(points) or not line.sections:
        return np.zeros(len(points), bool), np.zeros(len(points))
    centres = np.stack([section.contour.plane.origin for section in line.sections])
    normals = np.stack([section.contour.plane.normal for section in line.sections])
    from scipy.spatial import cKDTree

    nearest = cKDTree(centres).query(points)[1]
    offset = points - centres[nearest]
    along = np.einsum("ij,ij->i", offset, normals[nearest])
    us = np.stack([section.contour.plane.u for section in line.sections])[nearest]
    vs = np.stack([section.contour.plane.v for section in line.sections])[nearest]
    x, y = np.einsum("ij,ij->i", offset, us), np.einsum("ij,ij->i", offset, vs)
    radii = np.stack([section.contour.radii_mm for section in line.sections])
    ray = np.round(np.arctan2(y, x) / (2.0 * np.pi) * RAYS).astype(int) % RAYS
    inside = np.hypot(x, y) <= radii[nearest, ray] + (LABEL_REACH_MM if labelled else WALL_MM)
    # Beyond the ends of the line nothing is known about the lumen.
    inside &= np.abs(along) <= 2.0
    return inside, line.levels[nearest] + along


def agatston(mask: npt.NDArray[np.bool_], image: npt.NDArray[np.float32], grid: Grid) -> float:
    """Agatston's score of the marked voxels, slice by slice along the voxel axis closest to head–feet.

    Slices of another thickness than 3 mm are weighted by their share of it.
    """
    axis = int(np.argmax(np.abs(grid.affine[2, :3])))
    slices_mask, slices_image = np.moveaxis(mask, axis, 0), np.moveaxis(image, axis, 0)
    area = grid.voxel_mm3 / grid.spacing[axis]
    total = 0.0
    for plane, values in zip(slices_mask, slices_image, strict=True):
        labels, count = ndimage.label(plane, structure=np.ones((3, 3)))
        if not count:
            continue
        numbers = np.arange(1, count + 1)
        sizes = ndimage.sum_labels(plane, labels, numbers) * area
        peaks = ndimage.maximum(values, labels, numbers)
        weights = np.digitize(peaks, [130.0, 200.0, 300.0, 400.0])
        total += float((sizes * weights)[sizes >= AGATSTON_MIN_AREA_MM2].sum())
    return total * grid.spacing[axis] / AGATSTON_SLICE_MM
