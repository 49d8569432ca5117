"""The way of the original system, written here from its description, to be timed beside ours.

For each of three tasks (hinge points and ostia, septum, calcium) it resamples the scan to 192³ voxels of 1 mm with a
cubic B-spline, runs a SwinUNETR of its own (feature size 48, 62 million weights) over 27 windows of 96³ that overlap
by a quarter, takes the largest component of each class one by one, and brings label maps back to the scan. Weights
are random: what it costs does not depend on them; points and calcium of known size stand in for its answers.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - everybody's name for it
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import SwinUNETR
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from recipes.benchmarks.meter import Cost, StageClock

TASKS = {"hps": 6, "ms": 3, "calc": 2}
"""Output channels per task, background first."""

EDGE, SPACING_MM, WINDOW, OVERLAP, FEATURES = 192, 1.0, 96, 0.25, 48
"""Voxels of the volume, their size, voxels of a window, its overlap, channels at full resolution."""

WINDOWS = 27
"""Windows of 96³ that cover 192³ with an overlap of a quarter: three along each axis."""

SPHERE_VOXELS = 4
"""Radius of a landmark's sphere: 4 mm (the paper's research code)."""

LOW_HU, HIGH_HU, MEAN_HU, SD_HU = -1024.0, 696.0, -440.0, 521.0
"""The cohort's clip, mean and SD (read from the research code)."""


def predict(path: Path, out: Path, windows: int = WINDOWS) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """Run it.

    Args:
        path: a scan.
        out: where the calcium's label map goes.
        windows: how many of the 27 windows per task are computed.

    Returns:
        What each stage cost, the network's stage scaled up to all windows, and the same as it was measured.
    """
    clock = StageClock()
    scan = sitk.ReadImage(str(path), sitk.sitkInt16)
    clock.lap("load")
    for name, channels in TASKS.items():
        volume = _resampled(scan)
        clock.lap("resample")
        network = SwinUNETR(in_channels=1, out_channels=channels, feature_size=FEATURES).eval()
        clock.lap("load weights")
        logits = _answer(network, volume, channels, windows)
        clock.lap("network")
        logits[0].argmax(0).numpy().astype(np.uint8)
        labels = _stand_in(channels)
        _points(labels, channels)
        clock.lap("decode")
        if name == "calc":
            _write(labels, scan, out)
            clock.lap("write")
        del logits, network
    costs = dict(clock.costs)
    costs["network"] = costs["network"].scaled(WINDOWS / windows)
    return costs, clock.costs


def _target(scan: sitk.Image) -> sitk.Image:
    """The lattice of 192³ voxels of 1 mm around the scan's middle."""
    middle = scan.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in scan.GetSize()])
    grid = sitk.Image([EDGE] * 3, sitk.sitkFloat32)
    grid.SetSpacing([SPACING_MM] * 3)
    grid.SetOrigin([m - (EDGE - 1) / 2 * SPACING_MM for m in middle])
    return grid


def _resampled(scan: sitk.Image) -> Tensor:
    """(1, 1, 192, 192, 192), normalised."""
    moved = sitk.Resample(scan, _target(scan), sitk.Transform(), sitk.sitkBSpline, LOW_HU, sitk.sitkFloat32)
    values = torch.from_numpy(sitk.GetArrayFromImage(moved))
    return ((values.clamp(LOW_HU, HIGH_HU) - MEAN_HU) / SD_HU)[None, None]


@torch.no_grad()
def _answer(network: SwinUNETR, volume: Tensor, channels: int, windows: int) -> Tensor:
    """Logits (1, channels, 192, 192, 192); of fewer windows where not all are wanted."""
    if windows == WINDOWS:
        result: Tensor = sliding_window_inference(volume, (WINDOW,) * 3, 1, network, overlap=OVERLAP)
        return result
    logits, count = torch.zeros(1, channels, EDGE, EDGE, EDGE), torch.zeros(1, 1, EDGE, EDGE, EDGE)
    starts = list(product((0, (EDGE - WINDOW) // 2, EDGE - WINDOW), repeat=3))
    for corner in starts[:windows]:
        place = (..., *(slice(c, c + WINDOW) for c in corner))
        logits[place] += network(volume[place])
        count[place] += 1
    return logits / count.clamp(min=1)


def _stand_in(channels: int) -> NDArray[np.uint8]:
    """A label map as the task's network would give it: one sphere per class, and a stray one."""
    labels = np.zeros((EDGE,) * 3, np.uint8)
    ball = np.argwhere(np.ones((2 * SPHERE_VOXELS + 1,) * 3)) - SPHERE_VOXELS
    ball = ball[np.linalg.norm(ball, axis=1) <= SPHERE_VOXELS]
    for value in range(1, channels):
        for centre in ((60 + 10 * value, 96, 96), (60 + 10 * value, 40, 150)):
            labels[tuple((ball + centre).T)] = value
    return labels


def _points(labels: NDArray[np.uint8], channels: int) -> list[NDArray[np.float64]]:
    """Centre of mass of the largest component of every class, one class after another."""
    points = []
    for value in range(1, channels):
        regions, count = ndimage.label(labels == value)
        sizes = ndimage.sum_labels(np.ones_like(labels), regions, np.arange(1, count + 1))
        points.append(np.asarray(ndimage.center_of_mass(regions == 1 + int(np.argmax(sizes)))))
    return points


def _write(labels: NDArray[np.uint8], scan: sitk.Image, out: Path) -> None:
    """The label map on the scan's own lattice."""
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(_target(scan))
    back = sitk.Resample(image, scan, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    sitk.WriteImage(back, str(out), useCompression=True)
