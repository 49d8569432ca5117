"""Where voxels are in the patient: regular grids, affines, orientations, RAS and LPS.

One convention everywhere: an affine maps the index of a voxel's *centre* to world millimetres in **RAS** (right,
anterior, superior are positive), as NIfTI and nibabel do. LPS (DICOM, ITK, MITK) appears only at the edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import ImageError

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

RAS_TO_LPS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns world RAS into world LPS and back (it is its own inverse)."""

MIN_AXES_DETERMINANT = 0.01
"""Smallest |determinant| of the unit voxel axes that still spans a volume: 1 is orthogonal, 0 is flat.

0.01 is far below any real scan (a gantry tilt of 30°, the largest of clinical scanners, gives cos 30° = 0.87).
"""

AXIS_ALIGNED_TOLERANCE = 1e-3
"""Largest drift, in voxels over a whole grid, at which two grids count as parallel."""

_COVERAGE_SAMPLES = 32
"""Samples per axis when the overlap of two grids is counted; 32³ resolve 0.01 % of the volume."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the patient.

    Attributes:
        shape: number of voxels along each voxel axis.
        affine: (4, 4) float64, voxel index (centre) → world RAS mm.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ImageError(f"A grid needs three sizes of at least 1 voxel, got {self.shape}.")
        affine = validated_affine(self.affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def centred(
        cls,
        centre_ras: npt.ArrayLike,
        spacing_mm: float | npt.ArrayLike,
        shape: tuple[int, int, int],
        axes: npt.ArrayLike | None = None,
    ) -> Grid:
        """The grid whose middle lies at a world point.

        Args:
            centre_ras: world point, RAS mm, of the middle of the grid (between voxels where a size is even).
            spacing_mm: one voxel size, or one per axis.
            shape: voxels per axis.
            axes: (3, 3), column i is the direction of voxel axis i in RAS; unit length. Default: RAS itself.
        """
        directions = np.eye(3) if axes is None else np.asarray(axes, dtype=np.float64)
        affine = np.eye(4)
        affine[:3, :3] = directions * np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
        middle = (np.asarray(shape, dtype=np.float64) - 1) / 2
        affine[:3, 3] = np.asarray(centre_ras, dtype=np.float64) - affine[:3, :3] @ middle
        return cls(shape, affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxel centres along each voxel axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Edge lengths of the whole grid, voxel borders included."""
        x, y, z = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return x, y, z

    @property
    def centre_ras(self) -> FloatArray:
        """(3,) world point in the middle of the grid, RAS mm."""
        return self.world((np.asarray(self.shape) - 1) / 2)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm³ (right for sheared grids too)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """Three letters: the patient direction that each voxel axis points to most, for example ``LPS``."""
        order, flips = closest_axes(self.affine)
        letters = [""] * 3
        for world_axis, (voxel_axis, flip) in enumerate(zip(order, flips, strict=True)):
            letters[voxel_axis] = ("LPI" if flip else "RAS")[world_axis]
        return "".join(letters)

    def world(self, ijk: npt.ArrayLike) -> FloatArray:
        """World RAS mm, (…, 3), of voxel coordinates (…, 3); fractions are allowed."""
        return apply_affine(self.affine, ijk)

    def voxel(self, ras: npt.ArrayLike) -> FloatArray:
        """Voxel coordinates, (…, 3) with fractions, of world points (…, 3) in RAS mm."""
        return apply_affine(np.linalg.inv(self.affine), ras)

    def contains(self, ras: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether world points (…, 3) lie inside, voxel borders included; boolean (…)."""
        ijk = self.voxel(ras)
        return np.asarray(((ijk >= -0.5) & (ijk <= np.asarray(self.shape) - 0.5)).all(axis=-1))

    def coverage_of(self, other: Grid) -> float:
        """Fraction (0…1) of the volume of ``other`` that lies inside this grid, counted on a lattice of samples."""
        axes = [(np.arange(m) + 0.5) * n / m - 0.5 for n, m in ((n, min(n, _COVERAGE_SAMPLES)) for n in other.shape)]
        samples = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return float(self.contains(other.world(samples)).mean())

    def points(self) -> npt.NDArray[np.float32]:
        """World RAS mm of every voxel centre, (X, Y, Z, 3) float32."""
        linear = self.affine[:3, :3]
        x, y, z = (np.arange(n)[:, None] * linear[:, i] for i, n in enumerate(self.shape))
        total = x[:, None, None, :] + y[None, :, None, :] + (z + self.affine[:3, 3])[None, None, :, :]
        result: npt.NDArray[np.float32] = total.astype(np.float32)
        return result

    def points_tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """World RAS mm of every voxel centre, (X, Y, Z, 3) torch float32 on ``device``."""
        import torch

        linear = torch.from_numpy(self.affine[:3, :3].astype(np.float32)).to(device)
        origin = torch.from_numpy(self.affine[:3, 3].astype(np.float32)).to(device)
        x, y, z = (
            torch.arange(n, device=device, dtype=torch.float32)[:, None] * linear[:, i]
            for i, n in enumerate(self.shape)
        )
        return x[:, None, None, :] + y[None, :, None, :] + (z + origin)[None, None, :, :]

    def block(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The part of this grid that begins at voxel ``start``; ``start`` may be negative (it lies outside then)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.world(start)
        return Grid(shape, affine)

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no corner differs by more than ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners() - other.corners()).max() <= tolerance_mm)

    def corners(self) -> FloatArray:
        """World RAS mm, (8, 3), of the centres of the eight corner voxels."""
        ends = np.asarray(self.shape) - 1
        return self.world(np.stack(np.meshgrid(*[(0, e) for e in ends], indexing="ij"), axis=-1).reshape(8, 3))

    def canonical(self) -> Grid:
        """The same lattice with its voxel axes reordered and flipped to be as close to RAS as possible."""
        order, flips = closest_axes(self.affine)
        affine = self.affine @ reorientation(self.shape, order, flips)
        return Grid((self.shape[order[0]], self.shape[order[1]], self.shape[order[2]]), affine)


def validated_affine(affine: npt.ArrayLike) -> FloatArray:
    """A float64 copy of a usable affine.

    Raises:
        ImageError: not (4, 4), not finite, or its axes do not span a volume; the text says how to repair it.
    """
    matrix = np.array(affine, dtype=np.float64)
    way_out = "Repair the header (sform/qform) or export the scan again from the original DICOM series."
    if matrix.shape != (4, 4):
        raise ImageError(f"The affine has shape {matrix.shape}; voxel → world needs a 4×4 matrix. {way_out}")
    if not np.isfinite(matrix).all():
        raise ImageError(f"The affine holds values that are not finite numbers, so voxels have no place. {way_out}")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ImageError(f"The affine's last row is {matrix[3].tolist()}; it must be 0 0 0 1. {way_out}")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < MIN_AXES_DETERMINANT:
        raise ImageError(
            f"The affine is singular: its voxel axes (lengths {', '.join(f'{v:.3g}' for v in lengths)} mm) "
            f"do not span a volume. {way_out}"
        )
    return matrix


def apply_affine(affine: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """``affine`` (4, 4) applied to points (…, 3)."""
    matrix = np.asarray(affine, dtype=np.float64)
    result: FloatArray = np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    return result


def ras_to_lps(points: npt.ArrayLike) -> FloatArray:
    """Points or vectors (…, 3) from RAS to LPS; the same function leads back."""
    result: FloatArray = np.asarray(points, dtype=np.float64) * (-1.0, -1.0, 1.0)
    return result


def lps_affine(affine: npt.ArrayLike) -> FloatArray:
    """A voxel → RAS affine turned into voxel → LPS, or back."""
    result: FloatArray = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)
    return result


def closest_axes(affine: npt.ArrayLike) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which voxel axis runs along R, A and S, and whether it runs against it.

    Args:
        affine: (4, 4) voxel → RAS.

    Returns:
        ``order[w]`` is the voxel axis closest to world axis w, ``flips[w]`` whether it points to L, P or I. Each
        voxel axis is used once (the assignment of the largest total cosine).
    """
    from itertools import permutations

    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    cosines = linear / np.linalg.norm(linear, axis=0)
    order = max(permutations(range(3)), key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3)))
    i, j, k = order
    return (i, j, k), (bool(cosines[0, i] < 0), bool(cosines[1, j] < 0), bool(cosines[2, k] < 0))


def reorientation(
    shape: tuple[int, int, int], order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> FloatArray:
    """(4, 4) map from voxel indices of the reordered and flipped array to those of the original array."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        matrix[old, new] = -1 if flip else 1
        matrix[old, 3] = shape[old] - 1 if flip else 0
    return matrix


def to_canonical(data: Array, affine: npt.ArrayLike) -> tuple[Array, FloatArray]:
    """An array (X, Y, Z, …) and its affine, turned to the closest RAS orientation; the array is a view."""
    matrix = np.asarray(affine, dtype=np.float64)
    order, flips = closest_axes(matrix)
    shape = (data.shape[0], data.shape[1], data.shape[2])
    view = data.transpose(*order, *range(3, data.ndim))
    view = view[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    return view, matrix @ reorientation(shape, order, flips)


def parallel_axes(to_other: npt.ArrayLike, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """How two grids' axes pair up when they are parallel.

    Args:
        to_other: (4, 4), voxel of a grid of ``shape`` → voxel of the other grid.
        shape: of the first grid.

    Returns:
        For each axis of the other grid the axis of the first that runs along it, or None if they are oblique.
    """
    linear = np.abs(np.asarray(to_other, dtype=np.float64)[:3, :3])
    i, j, k = (int(np.argmax(row)) for row in linear)
    if {i, j, k} != {0, 1, 2}:
        return None
    drift = linear * np.asarray(shape)
    drift[[0, 1, 2], [i, j, k]] = 0
    return (i, j, k) if drift.max() <= AXIS_ALIGNED_TOLERANCE else None
