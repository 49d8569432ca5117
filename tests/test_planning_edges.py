"""The lumen's contour does not leak, and follows the wall where leaflets, calcium or noise are in the way."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_solids import Pose, beside_a_chamber, elliptic_cylinder, hinge_points, landmarks, render, with_spheres

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.volume_io import Volume

RADIUS = 12.5
POSE = Pose(np.eye(3), np.zeros(3))
FEW = PlanningOptions(samples=8)
TRUE_AREA = np.pi * RADIUS**2


def annulus_area(scan, off=0.0, labels=None):
    marks = landmarks(hinge_points(POSE, RADIUS + off, RADIUS + off))
    return measure(scan, marks, labels, options=FEW).measurements["annulus_area_mm2"]


@pytest.mark.parametrize(("spacing", "wall"), [(0.6, 0.7), (0.8, 1.0), (1.5, 1.5)])
@pytest.mark.parametrize("off", [0.0, 1.5])
def test_thin_wall_to_the_next_chamber_holds(spacing, wall, off):
    solid = beside_a_chamber(elliptic_cylinder(RADIUS, RADIUS), RADIUS, wall)
    area = annulus_area(render(solid, POSE, spacing, half_extent=27, noise=25), off)
    assert area.status == "ok"
    assert area.value == pytest.approx(TRUE_AREA, rel=0.03)


def test_open_wall_is_bridged():
    """A gap without any wall, 40° wide: the neighbours and the hinge points carry the contour over it."""
    solid = beside_a_chamber(elliptic_cylinder(RADIUS, RADIUS), RADIUS, -0.5, half_angle_deg=20.0)
    area = annulus_area(render(solid, POSE, 0.8, half_extent=27, noise=25))
    assert area.value == pytest.approx(TRUE_AREA, rel=0.03)


def test_wide_open_wall_is_kept_by_the_label_map():
    solid = beside_a_chamber(elliptic_cylinder(RADIUS, RADIUS), RADIUS, -0.5, half_angle_deg=50.0)
    scan = render(solid, POSE, 0.8, half_extent=27, noise=25)
    local = scan.grid.points().reshape(-1, 3)
    own = elliptic_cylinder(RADIUS, RADIUS)(local) > 0
    labels = np.where(own, HEART_LABELS["LV"], np.where(solid(local) > 0, HEART_LABELS["LA"], 0))
    area = annulus_area(scan, labels=labels.reshape(scan.data.shape).astype(np.uint8))
    assert area.value == pytest.approx(TRUE_AREA, rel=0.04)


def test_calcium_on_the_wall_counts_as_lumen():
    scan = render(elliptic_cylinder(RADIUS, RADIUS), POSE, 0.8, half_extent=27, noise=20)
    angles = np.radians([10.0, 150.0, 265.0])
    rim = np.stack([11.5 * np.cos(angles), 11.5 * np.sin(angles), np.zeros(3)], axis=-1)
    area = annulus_area(with_spheres(scan, rim, 1.5, 1200.0))
    assert area.value == pytest.approx(TRUE_AREA, rel=0.04)


def test_leaflets_cut_at_their_base_are_inside():
    scan = render(elliptic_cylinder(RADIUS, RADIUS), POSE, 0.8, half_extent=27)
    p = scan.grid.points()
    r, turn = np.hypot(p[..., 0], p[..., 1]), np.degrees(np.arctan2(p[..., 1], p[..., 0]))
    data = scan.data.copy()
    for hinge in (20.0, 140.0, -100.0):
        away = np.abs((turn - hinge + 180) % 360 - 180)
        arc = np.abs(r - (8.0 + 4.0 * (away / 45.0) ** 2)) < 0.6
        data[arc & (away < 45.0) & (r < RADIUS)] = 120
    area = annulus_area(Volume(data, scan.affine))
    assert area.value == pytest.approx(TRUE_AREA, rel=0.03)


def test_noise_widens_the_doubt_not_the_contour():
    solid = elliptic_cylinder(RADIUS, RADIUS)
    quiet = annulus_area(render(solid, POSE, 0.6, half_extent=24, noise=10))
    loud = annulus_area(render(solid, POSE, 0.6, half_extent=24, noise=90))
    for area in (quiet, loud):
        assert area.value == pytest.approx(TRUE_AREA, rel=0.02)
    assert loud.uncertainty > quiet.uncertainty
