"""The lumen's contour does not leak, and follows the wall where leaflets, calcium or noise are in the way."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_solids import Pose, beside_a_chamber, elliptic_cylinder, hinge_points, landmarks, render, with_spheres

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.planning import PlanningOptions, edges, measure
from cardiac_ct_fm.planning.contours import RAYS
from cardiac_ct_fm.planning.planes import Plane, Sampler
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


def test_all_rays_at_once_find_the_edges_that_ray_by_ray_finds():
    radii = np.arange(1.5, 22.0, edges.RADIUS_STEP_MM)
    rng = np.random.default_rng(0)
    for noise in (0.0, 25.0):
        at = rng.uniform(4.0, 18.0, RAYS)
        profile = 400.0 - 300.0 / (1.0 + np.exp(-(radii - at[:, None]) / rng.uniform(0.1, 1.0, (RAYS, 1))))
        profile[:5] = 100.0 + rng.uniform(0.0, 1.0, (5, 1))  # no edge at all
        profile += rng.normal(0.0, 1.0, profile.shape) * noise
        steps = ((at - radii[0] + rng.uniform(-1.5, 1.5, RAYS)) / edges.RADIUS_STEP_MM).round().clip(6, len(radii) - 7)
        path = radii[steps.astype(int)] - edges.RADIUS_STEP_MM / 2.0
        found, expected = (way(radii, profile, path, 300.0) for way in (edges._refine, refined_ray_by_ray))
        for own, plain in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, plain, atol=1e-9)


def refined_ray_by_ray(radii, profile, path, contrast):
    step = edges.RADIUS_STEP_MM
    smooth = edges.gaussian_filter1d(profile, 0.4 / step, axis=1, mode="nearest")
    fall = -np.gradient(smooth, step, axis=1)
    edge, height, shifts = path.copy(), np.zeros(RAYS), []
    near, far = round(1.0 / step), round(2.5 / step)
    for k in range(RAYS):
        middle = int(np.argmin(np.abs(radii - path[k])))
        low, high = max(middle - near, 1), min(middle + near + 1, len(radii) - 1)
        peak = low + int(np.argmax(fall[k, low:high]))
        if fall[k, peak] <= 0.0:
            continue
        flat = fall[k] < 0.2 * fall[k, peak]
        inner, outer = peak, peak
        while inner > max(peak - far, 0) and not flat[inner]:
            inner -= 1
        while outer < min(peak + far, len(radii) - 1) and not flat[outer]:
            outer += 1
        top, foot = smooth[k, inner], smooth[k, outer]
        height[k] = (top - foot) / contrast
        run = smooth[k, inner : outer + 1][::-1]
        at = [np.interp(foot + q * (top - foot), run, radii[inner : outer + 1][::-1]) for q in (0.4, 0.5, 0.6)]
        edge[k] = at[1]
        if height[k] >= edges.CLEAR_EDGE:
            shifts.append(at[0] - at[2])
    return edge, np.clip(height, 0.0, 1.0), float(np.mean(shifts)) / 2.0


def test_no_closed_path_of_small_steps_is_cheaper():
    cost = np.random.default_rng(1).uniform(0.0, 1.0, (RAYS, 30))
    path = edges._closed_path(cost)
    moves = np.abs(np.diff(path))
    assert moves.max() <= edges.MAX_STEPS

    def price(way):
        return cost[np.arange(RAYS), way].sum() + edges.BENDING_WEIGHT * (np.diff(way) ** 2).sum()

    for k in range(1, RAYS - 1):
        for column in range(30):
            other = path.copy()
            other[k] = column
            if np.abs(np.diff(other)).max() <= edges.MAX_STEPS:
                assert price(other) >= price(path) - 1e-9


def test_a_plane_is_sampled_as_its_points_are():
    rng = np.random.default_rng(2)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    grid = Grid.centred((5.0, -3.0, 8.0), (0.5, 0.7, 1.1), (30, 25, 20), turned)
    image = Sampler(rng.normal(size=grid.shape).astype(np.float32), grid)
    labels = Sampler(rng.integers(0, 4, grid.shape).astype(np.uint8), grid)
    plane = Plane.through((5.0, -3.0, 8.0), rng.normal(size=3))
    xy, heights = rng.uniform(-12.0, 12.0, (40, 3, 2)), (-1.0, 0.0, 2.0)
    world = np.stack([plane.origin + xy @ [plane.u, plane.v] + h * plane.normal for h in heights])
    np.testing.assert_allclose(image.on_plane(plane, xy, heights), image(world), atol=1e-4)
    np.testing.assert_array_equal(labels.nearest_on_plane(plane, xy, heights), labels.nearest(world))
