"""Calcium: volumes per zone and cusp, thresholds, Agatston's score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render, rotation, with_spheres
from scipy import ndimage

from cardiac_ct_fm.commands.options import planning_options
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.planning.calcium import agatston
from cardiac_ct_fm.volume_io import Volume

ROOT = RootPhantom(lobes=1.0)
AXES = rotation(5) @ np.diag([1.0, 1.0, 1.0])
AXES = AXES if AXES[2, 2] > 0 else AXES @ np.diag([1.0, -1.0, -1.0])
POSE = Pose(AXES, np.array([3.0, 5.0, -4.0]))
START = 80.0
RADIUS = {"rcc": 2.0, "lcc": 2.6, "ncc": 3.2}


def at(azimuth: float, distance: float, z: float) -> np.ndarray:
    """World point around the root's axis."""
    a = np.radians(azimuth)
    return POSE.world([distance * np.cos(a), distance * np.sin(a), z])


def sphere(r: float) -> float:
    return 4 / 3 * np.pi * r**3


@pytest.fixture(scope="module")
def points():
    found = hinge_points(POSE, ROOT.annulus, ROOT.annulus, start_deg=START)
    return found | {"RCA": at(START, 14.0, 15.0), "LCA": at(START + 120, 14.0, 13.0)}


@pytest.fixture(scope="module")
def scan() -> Volume:
    plain = render(ROOT.inside(), POSE, 0.7, half_extent=31, middle=(0, 0, 14), noise=15)
    for i, r in enumerate(RADIUS.values()):
        plain = with_spheres(plain, at(START + 120 * i + 15, 9.0, 7.0), r, 1350.0)
    plain = with_spheres(plain, at(START + 90, 12.0, -2.6), 2.2, 1350.0)  # outflow tract
    return with_spheres(plain, at(START + 200, 27.0, 8.0), 3.0, 1350.0)  # outside of the root: a rib's share


@pytest.fixture(scope="module")
def plan(scan, points):
    return measure(scan, landmarks(points), options=PlanningOptions(samples=8))


def test_volume_per_cusp(plan):
    for cusp, r in RADIUS.items():
        m = plan.measurements[f"calcium_{cusp}_mm3"]
        assert m.status == "ok"
        assert m.value == pytest.approx(sphere(r), rel=0.10)


def test_volume_by_zone(plan):
    values = {name: plan.measurements[f"calcium_{name}_mm3"].value for name in ("valve", "lvot", "annulus")}
    assert values["valve"] == pytest.approx(sum(map(sphere, RADIUS.values())), rel=0.10)
    assert values["lvot"] == pytest.approx(sphere(2.2), rel=0.15)
    cap = np.pi * 1.6**2 * (3 * 2.2 - 1.6) / 3  # the part of the sphere within 2 mm of the annulus plane
    assert values["annulus"] == pytest.approx(cap, rel=0.25)


def test_calcium_of_the_annulus_is_told_by_the_clock(plan):
    hours = plan.calcium_clock
    # 90° from the right cusp toward the left one: counter-clockwise from the aorta, clockwise from below.
    assert int(np.argmax(hours)) == 3
    assert sum(hours) == pytest.approx(plan.measurements["calcium_annulus_mm3"].value, abs=0.5)


def test_threshold_is_recorded_and_changes_the_volume(scan, points, plan):
    adaptive = measure(scan, landmarks(points), options=PlanningOptions(samples=8, calcium_threshold="lumen"))
    assert plan.measurements["calcium_threshold_hu"].value == 850.0
    threshold = adaptive.measurements["calcium_threshold_hu"]
    assert threshold.value == pytest.approx(450.0, abs=5.0)
    assert threshold.details["threshold_kind"] == "lumen"
    assert adaptive.measurements["calcium_valve_mm3"].value > plan.measurements["calcium_valve_mm3"].value
    details = adaptive.measurements["calcium_valve_mm3"].details
    assert details["lumen_hu"] == pytest.approx(350.0, abs=5.0)
    assert details["noise_hu"] == pytest.approx(15.0, abs=5.0)


def test_volumes_as_published_are_asked_for_by_name(scan, points):
    """A voxel counts where it reaches the threshold: blur lifts blood around the deposits above blood + 100 HU."""
    data = ndimage.gaussian_filter(scan.data.astype(np.float32), 0.6 / 0.7)
    blurred = Volume(data, scan.affine, scan.source, scan.facts)
    volumes = {}
    for extent in ("half", "threshold"):
        options = replace(planning_options(None, "unknown", "lumen", extent), samples=8)
        plan = measure(blurred, landmarks(points), options=options)
        row = plan.measurements["calcium_valve_mm3"]
        assert row.details["extent"] == extent
        assert extent == "half" or (plan.deposits.hu >= row.details["threshold_hu"] - 0.1).all()
        volumes[extent] = row.value
    assert volumes["threshold"] > 1.1 * volumes["half"]


def test_label_map_decides_what_is_valve_calcium(scan, points):
    labels = np.zeros(scan.data.shape, np.uint8)
    labels[np.linalg.norm(scan.grid.points() - at(START + 15, 9.0, 7.0), axis=-1) < 2.0] = 1
    marks = landmarks(points)
    as_is = measure(scan, marks, None, labels, options=PlanningOptions(samples=8, calcium_threshold="label"))
    assert as_is.measurements["calcium_rcc_mm3"].value == pytest.approx(sphere(2.0), rel=0.05)
    assert as_is.measurements["calcium_valve_mm3"].value == as_is.measurements["calcium_rcc_mm3"].value
    assert as_is.measurements["calcium_threshold_hu"].value is None
    without = measure(scan, marks, options=PlanningOptions(samples=8, calcium_threshold="label"))
    assert without.measurements["calcium_valve_mm3"].details["reason"] == "no_calcium_labels"


def test_threshold_inside_the_contrast_is_doubted(scan, points):
    low = measure(scan, landmarks(points), options=PlanningOptions(samples=8, calcium_hu=370.0))
    assert low.measurements["calcium_valve_mm3"].status == "low_confidence"
    assert low.measurements["calcium_valve_mm3"].details["reason"] == "threshold_in_contrast"


def test_no_calcium_is_zero_and_known(points):
    clean = render(ROOT.inside(), POSE, 1.0, half_extent=31, middle=(0, 0, 14))
    m = measure(clean, landmarks(points), options=PlanningOptions(samples=8)).measurements["calcium_valve_mm3"]
    assert (m.value, m.status) == (0.0, "ok")


def test_noise_makes_no_calcium(points):
    """Blood + 100 HU is three standard deviations of this noise: single voxels reach it, and must not grow."""
    noisy = render(ROOT.inside(), POSE, 1.0, half_extent=31, middle=(0, 0, 14), noise=33)
    options = PlanningOptions(samples=8, calcium_threshold="lumen")
    row = measure(noisy, landmarks(points), options=options).measurements["calcium_valve_mm3"]
    assert (row.value, row.status) == (pytest.approx(0.0, abs=5.0), "ok")
    details = row.details
    assert details["core_hu"] == pytest.approx(details["lumen_hu"] + 4.0 * details["noise_hu"], abs=0.2)
    assert details["core_hu"] > details["threshold_hu"] == pytest.approx(450.0, abs=5.0)


@pytest.mark.parametrize(("shift", "some"), [(-10.0, False), (10.0, True)])
def test_a_nodule_that_just_reaches_the_threshold_or_just_does_not_is_doubted(points, shift, some):
    """All of it counts, or nothing, and noise of 15 HU decides which."""
    plain = render(ROOT.inside(), POSE, 1.0, half_extent=31, middle=(0, 0, 14), noise=15)
    nodule = with_spheres(plain, at(START + 15, 9.0, 7.0), 2.6, 860.0)
    near = np.linalg.norm(nodule.grid.points() - at(START + 15, 9.0, 7.0), axis=-1) < 5.0
    options = PlanningOptions(samples=8, calcium_hu=float(nodule.data[near].max()) - shift)
    m = measure(nodule, landmarks(points), options=options).measurements
    for name in ("calcium_valve_mm3", "calcium_rcc_mm3"):
        assert (m[name].value > 0.5 * sphere(2.6)) == some
        assert m[name].uncertainty > 0.3 * sphere(2.6)


def test_agatston_weights_and_slices():
    """Four lesions of 2 × 2 mm in one 3 mm slice, peaks in each density class, one too small to count."""
    image = np.zeros((20, 20, 3), np.float32)
    for i, hu in enumerate((140.0, 250.0, 350.0, 900.0)):
        image[4 * i : 4 * i + 2, 2:4, 1] = hu
    grid = Grid.centred((0, 0, 0), (1.0, 1.0, 3.0), image.shape)
    assert agatston(image >= 130, image, grid) == pytest.approx(4 * (1 + 2 + 3 + 4))
    thin = Grid.centred((0, 0, 0), (1.0, 1.0, 1.5), image.shape)
    assert agatston(image >= 130, image, thin) == pytest.approx(4 * (1 + 2 + 3 + 4) / 2)
    dot = np.zeros_like(image)
    dot[5, 5, 1] = 900.0
    fine = Grid.centred((0, 0, 0), (0.5, 0.5, 3.0), image.shape)
    assert agatston(dot >= 130, dot, fine) == 0.0


def test_agatston_only_without_contrast(plan, points):
    assert plan.measurements["calcium_agatston"].details["reason"] == "contrast_enhanced"
    plain = render(ROOT.inside(), POSE, 1.0, half_extent=31, middle=(0, 0, 14), blood=45, tissue=50)
    plain = with_spheres(plain, at(START + 15, 9.0, 7.0), 3.0, 900.0)
    local = POSE.local(plain.grid.points().reshape(-1, 3))
    labels = np.where(ROOT.inside()(local) > 0, 6, 0).reshape(plain.data.shape).astype(np.uint8)
    m = measure(plain, landmarks(points), labels, options=PlanningOptions(samples=8)).measurements
    assert m["calcium_threshold_hu"].value == 130.0
    # All of the sphere has the top weight; at 130 HU it blooms by up to one voxel of 1 mm.
    assert 4 * sphere(3.0) / 3.0 < m["calcium_agatston"].value < 4 * sphere(3.7) / 3.0
    assert sphere(3.0) < m["calcium_rcc_mm3"].value < sphere(3.7)
