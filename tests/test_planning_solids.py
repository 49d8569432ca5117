"""Measurements of solids whose true values are known: the tolerances of the issue, in any orientation."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from analytic_solids import (
    Pose,
    RootPhantom,
    cone,
    elliptic_cylinder,
    hinge_points,
    landmarks,
    render,
    rotation,
    torus,
)
from conftest import ROOT
from scipy.special import ellipe

from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.planning.planes import angle_deg

AREA, PERIMETER, DIAMETER, HEIGHT, ANGLE = 0.02, 0.02, 0.4, 0.3, 1.0
FEW = PlanningOptions(samples=8, ascending_mm=30.0)


def upright(seed: int) -> Pose:
    """A random pose whose aorta leaves toward the head, as in a patient."""
    pose = Pose.random(seed)
    return pose if pose.axes[2, 2] > 0 else Pose(pose.axes @ np.diag([1.0, -1.0, -1.0]), pose.centre)


def value(plan, name):
    return plan.measurements[name].value


@pytest.mark.parametrize(("spacing", "seed"), [(0.5, 0), (0.8, 1), (1.0, 2), (1.5, 3), (1.5, 4)])
def test_annulus_of_an_elliptic_cylinder(spacing, seed):
    a, b = 14.5, 11.0
    pose = upright(seed)
    scan = render(
        elliptic_cylinder(a, b), pose, spacing, half_extent=24, scan_axes=rotation(seed + 50), noise=20, seed=seed
    )
    plan = measure(scan, landmarks(hinge_points(pose, a, b, start_deg=40.0 * seed)), options=FEW)
    perimeter = 4 * a * ellipe(1 - (b / a) ** 2)
    assert value(plan, "annulus_area_mm2") == pytest.approx(np.pi * a * b, rel=AREA)
    assert value(plan, "annulus_perimeter_mm") == pytest.approx(perimeter, rel=PERIMETER)
    assert value(plan, "annulus_max_diameter_mm") == pytest.approx(2 * a, abs=DIAMETER)
    assert value(plan, "annulus_min_diameter_mm") == pytest.approx(2 * b, abs=DIAMETER)
    assert value(plan, "annulus_area_diameter_mm") == pytest.approx(2 * np.sqrt(a * b), abs=DIAMETER)
    assert value(plan, "annulus_perimeter_diameter_mm") == pytest.approx(perimeter / np.pi, abs=DIAMETER)
    assert value(plan, "annulus_ellipticity") == pytest.approx(a / b, abs=0.05)
    assert angle_deg(plan.annulus.plane.normal, pose.axes[:, 2]) < ANGLE


def test_very_oval_annulus_is_followed():
    a, b = 16.0, 10.0
    pose = upright(11)
    plan = measure(
        render(elliptic_cylinder(a, b), pose, 0.8, half_extent=24),
        landmarks(hinge_points(pose, a, b)),
        options=FEW,
    )
    assert value(plan, "annulus_area_mm2") == pytest.approx(np.pi * a * b, rel=AREA)
    assert value(plan, "annulus_max_diameter_mm") == pytest.approx(2 * a, abs=DIAMETER)
    assert value(plan, "annulus_min_diameter_mm") == pytest.approx(2 * b, abs=DIAMETER)


@pytest.mark.parametrize(("spacing", "seed"), [(1.0, 1), (1.5, 3)])
def test_centreline_of_a_torus(spacing, seed):
    ring, tube = 45.0, 13.0
    pose = upright(seed)
    scan = render(torus(ring, tube), pose, spacing, half_extent=52, middle=(15, 0, 18), scan_axes=rotation(seed + 9))
    points = hinge_points(pose, tube, tube)
    points |= {"RCA": pose.world([12, 5, 12]), "LCA": pose.world([-6, -11, 12])}
    plan = measure(scan, landmarks(points), options=FEW)
    line = plan.centreline
    local = pose.local(line.ras)
    turn = np.arctan2(local[:, 2], ring - local[:, 0])
    tangents = np.stack([np.sin(turn), np.zeros_like(turn), np.cos(turn)], axis=-1) @ pose.axes.T
    assert max(angle_deg(t, u) for t, u in zip(line.tangents, tangents, strict=True)) < ANGLE
    assert np.abs(np.hypot(local[:, 0] - ring, local[:, 2]) - ring).max() < HEIGHT
    assert np.abs(line.s_mm - ring * turn).max() < HEIGHT
    assert line.levels.min() <= -8 and line.levels.max() >= 40
    assert line.values("area_mm2") == pytest.approx(np.pi * tube**2, rel=AREA)
    assert line.values("perimeter_mm") == pytest.approx(2 * np.pi * tube, rel=PERIMETER)
    assert value(plan, "ascending_aorta_diameter_mm") == pytest.approx(2 * tube, abs=DIAMETER)
    assert value(plan, "sinus_mean_diameter_mm") is None  # a tube has no sinuses, so none are invented
    assert value(plan, "stj_height_mm") is None


@pytest.mark.parametrize(("spacing", "seed"), [(0.8, 2), (1.5, 6)])
def test_sections_of_a_cone_are_at_their_heights(spacing, seed):
    radius, slope = 12.0, 0.12
    pose = upright(seed)
    scan = render(cone(radius, slope), pose, spacing, half_extent=38, middle=(0, 0, 18), scan_axes=rotation(seed + 9))
    plan = measure(scan, landmarks(hinge_points(pose, radius, radius)), options=FEW)
    start = plan.centreline.ras[plan.centreline.s_mm == 0.0]
    assert plan.annulus.plane.height(start) == pytest.approx([0.0], abs=0.005), "the line is counted from the annulus"
    for section in plan.centreline.sections:
        true_height = pose.local(section.contour.centroid)[2]
        assert section.s_mm == pytest.approx(true_height, abs=HEIGHT)
        assert section.contour.area_diameter_mm == pytest.approx(2 * (radius + slope * true_height), abs=DIAMETER)
        assert angle_deg(section.contour.plane.normal, pose.axes[:, 2]) < ANGLE
    assert value(plan, "annulus_area_mm2") == pytest.approx(np.pi * radius**2, rel=AREA)
    assert value(plan, "lvot_area_mm2") == pytest.approx(np.pi * (radius - 4 * slope) ** 2, rel=AREA)
    assert value(plan, "ascending_aorta_diameter_mm") == pytest.approx(2 * (radius + 30 * slope), abs=DIAMETER)


@pytest.mark.parametrize(("spacing", "lobes", "seed"), [(0.8, 2.0, 2), (1.5, 0.0, 4)])
def test_levels_of_a_root(spacing, lobes, seed):
    root = RootPhantom(lobes=lobes)
    pose = upright(seed)
    points = hinge_points(pose, root.annulus, root.annulus)
    points |= {"RCA": pose.world([16.5, 6.0, 15.0]), "LCA": pose.world([-13.0, 11.0, 12.5])}
    points |= {"MS1": pose.world([6.0, -10.0, 0.5]), "MS2": pose.world([6.0, -9.0, -5.5])}
    scan = render(
        root.inside(), pose, spacing, half_extent=40, middle=(0, 0, 20), scan_axes=rotation(seed + 9), noise=20
    )
    plan = measure(scan, landmarks(points), options=PlanningOptions(samples=8, ascending_mm=38.0))
    assert all(m.status == "ok" for n, m in plan.measurements.items() if n[:5] in ("annul", "lvot_", "sinus", "stj_m"))
    assert value(plan, "lca_height_mm") == pytest.approx(12.5, abs=HEIGHT)
    assert value(plan, "rca_height_mm") == pytest.approx(15.0, abs=HEIGHT)
    assert value(plan, "membranous_septum_length_mm") == pytest.approx(5.5, abs=HEIGHT)
    assert value(plan, "membranous_septum_line_mm") == pytest.approx(np.hypot(1.0, 6.0), abs=HEIGHT)
    assert value(plan, "stj_height_mm") == pytest.approx(root.stj_z, abs=HEIGHT)
    assert value(plan, "stj_mean_diameter_mm") == pytest.approx(2 * root.stj, abs=DIAMETER)
    assert value(plan, "sinus_height_mm") == pytest.approx(
        root.sinus_z, abs=1.0
    )  # flat top: any level near it is as wide
    assert value(plan, "sinus_max_diameter_mm") == pytest.approx(2 * root.sinus, abs=DIAMETER)
    for cusp in ("rcc", "lcc", "ncc"):  # bay on one side, ridge on the other: their sum is twice the radius
        assert value(plan, f"sinus_{cusp}_diameter_mm") == pytest.approx(2 * root.sinus, abs=DIAMETER)
    assert value(plan, "lvot_area_mm2") == pytest.approx(np.pi * root.radius(np.array([-4.0]))[0] ** 2, rel=AREA)
    outflow = plan.measurements["lvot_area_mm2"]  # its doubt covers what 92 digital patients showed
    assert outflow.uncertainty >= 0.25 * outflow.value
    assert value(plan, "ascending_aorta_diameter_mm") == pytest.approx(2 * root.ascending, abs=DIAMETER)


def test_doubt_of_the_points_is_seen_in_the_numbers():
    pose = upright(2)
    scan = render(elliptic_cylinder(13.0, 12.0), pose, 1.0, half_extent=24)
    points = hinge_points(pose, 13.0, 12.0) | {"LCA": pose.world([0.0, 12.0, 12.0])}
    sure = measure(scan, landmarks(points, 1.0)).measurements
    unsure = measure(scan, landmarks(points, 0.6)).measurements
    for name in ("annulus_area_mm2", "lca_height_mm", "aortic_angulation_deg"):
        assert 0 < sure[name].uncertainty < unsure[name].uncertainty
    # A plane through three points of 1 mm doubt on a 25 mm circle: 1 mm at its centre, about 4° of tilt.
    assert sure["lca_height_mm"].uncertainty == pytest.approx(1.5, abs=0.5)


def test_the_versions_of_scipy_that_are_allowed_smooth_a_line_in_space():
    """1.16 is the first whose make_smoothing_spline takes points (N, 3); 1.15 refuses them."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (lowest,) = (need.removeprefix("scipy>=") for need in needs if need.startswith("scipy"))
    assert tuple(map(int, lowest.split("."))) >= (1, 16)
