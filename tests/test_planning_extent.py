"""How far a deposit reaches: half-way to its surroundings, whatever blur and threshold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cardiac_ct_fm.planning.extent import edge_level

BLOOD = 350.0
TRUE_MM3 = 4 / 3 * np.pi * 3.0**3


def nodule(radius: float, hu: float, blur_mm: float, spacing: float = 1.0, wall: bool = False):
    """A sphere in blood, or half in a wall of 50 HU, rendered finely, blurred and averaged into voxels."""
    fine = 4
    n = round(18 / spacing) * fine
    axis = (np.arange(n) - n / 2 + 0.5) * spacing / fine + 0.3
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    image = np.where(x > 0.0, 50.0, BLOOD) + np.zeros((n, n, n)) if wall else np.full((n, n, n), BLOOD)
    image[x**2 + y**2 + z**2 < radius**2] = hu
    image = ndimage.gaussian_filter(image, blur_mm / spacing * fine, mode="nearest")
    m = n // fine
    return image.reshape(m, fine, m, fine, m, fine).mean(axis=(1, 3, 5)).astype(np.float32)


def volume(image, threshold, spacing=1.0):
    cores = image >= threshold
    return float((image >= edge_level(image, (spacing,) * 3, cores, BLOOD)).sum()) * spacing**3


@pytest.mark.parametrize(("blur", "spacing", "share"), [(0.6, 1.0, 0.18), (0.9, 1.0, 0.28), (0.6, 0.5, 0.18)])
def test_volume_does_not_depend_on_the_threshold_and_little_on_the_blur(blur, spacing, share):
    image = nodule(3.0, 1200.0, blur, spacing)
    # A blurred ball loses more than a flat wall does: its half-way level lies inside of its surface by blur²/radius.
    assert volume(image, 850.0, spacing) == pytest.approx(TRUE_MM3, rel=share)
    assert volume(image, BLOOD + 100.0, spacing) == pytest.approx(volume(image, 850.0, spacing), rel=0.03)


def test_counting_voxels_does():
    image = nodule(3.0, 1200.0, 0.9)
    assert (image >= 850.0).sum() < 0.75 * TRUE_MM3
    assert (image >= BLOOD + 100.0).sum() > 1.3 * TRUE_MM3


def test_a_nodule_of_the_wall_is_held_against_the_wall_too():
    image = nodule(3.0, 1200.0, 0.6, wall=True)
    assert volume(image, 850.0) == pytest.approx(TRUE_MM3, rel=0.20)


def test_without_cores_nothing_belongs_to_a_deposit():
    image = nodule(3.0, 700.0, 0.6)
    assert np.isinf(edge_level(image, (1.0,) * 3, image >= 850.0, BLOOD)).all()
