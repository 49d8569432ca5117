"""Windows of labelled scans: where they are drawn, how they are varied, and their labels on the same lattice.

Image and labels are resampled once, straight from the scan onto the window's (turned, scaled) lattice, by the very
function that prediction uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cardiac_ct_fm.config import HeadConfig, IntensityConfig, LookConfig
from cardiac_ct_fm.decode import SPHERE_RADIUS_MM
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.heads import EVERYTHING, Block, joined
from cardiac_ct_fm.label_resampling import resample_label_map
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.training.scans import LabelledScan

FOREGROUND_SHARE = 0.75
"""Share of windows that are centred near something labelled; nnU-Net guarantees a third, thin trees need more."""

NEARBY_MM = 40.0
"""Other windows lie within this distance of the labelled region: where prediction looks too."""

CENTRE_JITTER = 0.25
"""Windows lie up to this share of their edge off the labelled voxel they were drawn for."""

MAX_SEEDS = 4000
"""Voxels per class kept to draw window centres from."""

TURN_DEG = 8.0
"""SD of random turns about each axis; poses of the heart vary by 5–10° and more between patients (domain facts)."""

SCALE_SD = 0.07
"""SD of the logarithm of random sizes; hearts of adults vary by about as much in length."""

CONTRAST_SD, SHIFT_HU, NOISE_HU = 0.08, 15.0, 25.0
"""Random contrast (SD of the log), brightness (SD) and largest added noise: 20–25 HU is a scan's own noise."""


BLOCK = 32
"""Edge in voxels of the blocks of a thin tree: of a window of 64 voxels 0.2 % are tree, and an update on all of it
costs as much as on eight blocks."""

ON_TREE = 10
"""Voxels by which the middle of such a block lies off the tree at most, along each axis."""


@dataclass(frozen=True, eq=False)
class Window:
    """One training example.

    Attributes:
        image: (1, X, Y, Z) float32, normalised; in half precision the finest of what a head reads, (C, X, Y, Z), where
            the head is trained alone.
        target: (X, Y, Z) uint8, 0 is background.
        wider: the coarser maps that such a head reads too, each at its own resolution.
    """

    image: Tensor
    target: Tensor
    wider: tuple[Tensor, ...] = ()

    def read(self, block: Block = EVERYTHING) -> Tensor:
        """What the network is given, (C, X, Y, Z) float32, of all of the window or a block of it."""
        return joined([part[None].float() for part in (*self.wider, self.image)], block)[0]


class Targets:
    """Where a head's labels are in one scan, found once for all of its windows.

    Args:
        scan: the scan, with a reference for the head.
        head: the head.
        seed: of the subset of voxels that windows are centred on.
    """

    def __init__(self, scan: LabelledScan, head: HeadConfig, seed: int = 0) -> None:
        self.scan, self.head = scan, head
        rng = np.random.default_rng([seed, 23])
        self.by_class: list[FloatArray] = []
        if head.kind == "landmarks":
            found = [p.ras_mm for p in scan.landmarks[head.name].values() if p.ras_mm is not None]
            self.by_class = [np.array([p], dtype=np.float64) for p in found]
        else:
            labels = scan.label_maps[head.name]
            for value in range(1, len(head.classes) + 1):
                voxels = np.argwhere(labels == value)
                if len(voxels):
                    chosen = rng.choice(len(voxels), min(MAX_SEEDS, len(voxels)), replace=False)
                    self.by_class.append(scan.volume.grid.world(voxels[np.sort(chosen)]))

    def centre(self, rng: np.random.Generator, extent_mm: float) -> FloatArray:
        """Where the next window lies, RAS mm (3,): near a labelled voxel, or anywhere around the labelled region."""
        grid = self.scan.volume.grid
        corners = grid.corners()
        if not self.by_class:
            return np.asarray(rng.uniform(corners.min(0), corners.max(0)))
        if rng.random() < FOREGROUND_SHARE:
            places = self.by_class[int(rng.integers(len(self.by_class)))]
            near = places[int(rng.integers(len(places)))]
            return np.asarray(near + rng.uniform(-1, 1, 3) * CENTRE_JITTER * extent_mm)
        places = np.concatenate(self.by_class)
        low = np.maximum(places.min(0) - NEARBY_MM, corners.min(0))
        high = np.minimum(places.max(0) + NEARBY_MM, corners.max(0))
        return np.asarray(rng.uniform(np.minimum(low, high), np.maximum(low, high)))

    def labels(self, grid: Grid) -> Tensor:
        """The target (X, Y, Z) uint8 on a window's lattice."""
        if self.head.kind == "landmarks":
            return spheres(self.scan.landmarks[self.head.name], self.head.classes, grid)
        own = self.scan.label_maps[self.head.name]
        return torch.from_numpy(np.ascontiguousarray(resample_label_map(own, self.scan.volume.grid, grid)))


def spheres(points: Mapping[str, Landmark], names: Sequence[str], grid: Grid) -> Tensor:
    """Points as a landmark head learns them: spheres of 4 mm, the nearer point where two overlap; missing ones none.

    Returns:
        (X, Y, Z) uint8, value ``i + 1`` for ``names[i]``.
    """
    where = grid.points_tensor()
    nearest = torch.full(grid.shape, float("inf"))
    target = torch.zeros(grid.shape, dtype=torch.uint8)
    for value, name in enumerate(names, start=1):
        at = points[name].ras_mm
        if at is None:
            continue
        distance = (where - torch.tensor(at, dtype=torch.float32)).norm(dim=-1)
        closer = (distance < nearest) & (distance <= SPHERE_RADIUS_MM)
        target[closer] = value
        nearest = torch.minimum(nearest, distance)
    return target


def draw_window(
    targets: Targets,
    look: LookConfig,
    patch: int,
    intensity: IntensityConfig,
    rng: np.random.Generator,
    *,
    vary: bool,
) -> Window:
    """One window of a scan.

    Args:
        targets: the scan and its labels.
        look: gives the spacing.
        patch: edge length in voxels.
        intensity: the model's normalisation.
        rng: everything random comes from here.
        vary: turn, scale, and change contrast, brightness and noise; else the window is as prediction sees it.
    """
    spacing, axes = look.spacing_mm, np.eye(3)
    if vary:
        spacing *= float(np.exp(rng.normal(0, SCALE_SD)))
        axes = _rotation(np.radians(rng.normal(0, TURN_DEG, 3)))
    grid = Grid.centred(targets.centre(rng, spacing * patch), spacing, (patch, patch, patch), axes)
    image = look_tensor(targets.scan.volume, grid, intensity)[0]
    if vary:
        image = _varied(image, intensity, rng)
    return Window(image, targets.labels(grid))


def blocks_of(window: Window, rng: np.random.Generator) -> list[Block]:
    """Where two blocks of a window lie: one on the tree (anywhere where there is none), one anywhere.

    Args:
        window: the window.
        rng: everything random comes from here.
    """
    shape = np.array(window.target.shape)
    edge = np.minimum(shape, BLOCK)
    labelled = window.target.nonzero().numpy()
    found = []
    for on_tree in (True, False):
        start = rng.integers(0, shape - edge + 1)
        if on_tree and len(labelled):
            near = labelled[int(rng.integers(len(labelled)))] + rng.integers(-ON_TREE, ON_TREE + 1, 3)
            start = np.clip(near - edge // 2, 0, shape - edge)
        x, y, z = (slice(int(a), int(a + n)) for a, n in zip(start, edge, strict=True))
        found.append((x, y, z))
    return found


def _varied(image: Tensor, intensity: IntensityConfig, rng: np.random.Generator) -> Tensor:
    """Another contrast, brightness and noise; air stays air."""
    low, high = ((v - intensity.mean_hu) / intensity.std_hu for v in (intensity.low_hu, intensity.high_hu))
    zero = -intensity.mean_hu / intensity.std_hu  # 0 HU, water: what contrast turns about
    contrast, shift = float(np.exp(rng.normal(0, CONTRAST_SD))), float(rng.normal(0, SHIFT_HU)) / intensity.std_hu
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(image.shape, generator=generator) * float(rng.uniform(0, NOISE_HU)) / intensity.std_hu
    return ((image - zero) * contrast + zero + shift + noise).clamp(low, high)


def _rotation(angles: npt.NDArray[np.float64]) -> FloatArray:
    """(3, 3) turn about x, then y, then z, radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)
