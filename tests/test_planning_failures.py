"""Where a measurement cannot be made there is a named status and no number; where it is doubtful, it says so."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS
from cardiac_ct_fm.errors import ConfigError, DataError
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.planning.catalogue import CATALOGUE
from cardiac_ct_fm.planning.flags import find_flags
from cardiac_ct_fm.volume_io import Volume

ROOT = RootPhantom(lobes=1.5)
POSE = Pose(np.eye(3), np.array([4.0, -7.0, 11.0]))
FEW = PlanningOptions(samples=8)
STATUSES = {"ok", "not_found", "truncated", "low_confidence"}


@pytest.fixture(scope="module")
def scan() -> Volume:
    return render(ROOT.inside(), POSE, 1.2, half_extent=48, middle=(0, 0, 30), noise=15)


@pytest.fixture(scope="module")
def points() -> dict[str, np.ndarray]:
    found = hinge_points(POSE, ROOT.annulus, ROOT.annulus, start_deg=80.0)
    at = {"RCA": (75.0, 15.0), "LCA": (200.0, 12.5)}
    for name, (azimuth, z) in at.items():
        r = float(ROOT.radius(np.array([z]))[0])
        found[name] = POSE.world([r * np.cos(np.radians(azimuth)), r * np.sin(np.radians(azimuth)), z])
    found["MS1"], found["MS2"] = POSE.world([9.0, 9.0, 0.0]), POSE.world([9.0, 8.0, -6.0])
    return found


def measured(scan, points, **options):
    plan = measure(scan, landmarks(points), options=replace(FEW, **options))
    check(plan)
    return plan


def check(plan):
    """What holds for every plan, whatever went wrong."""
    assert list(plan.measurements) == list(CATALOGUE)
    for m in plan.measurements.values():
        assert m.status in STATUSES
        assert (m.value is None) == (m.status in ("not_found", "truncated")), m
        if m.status != "ok":
            assert m.details["reason"] and len(m.details["message"]) > 20, m


def reasons(plan, prefix=""):
    return {m.details["reason"] for n, m in plan.measurements.items() if n.startswith(prefix) and m.status != "ok"}


def numbers(plan, prefix):
    return [m.value for n, m in plan.measurements.items() if n.startswith(prefix) and m.value is not None]


def test_a_whole_root_has_nothing_to_complain_about(scan, points):
    plan = measured(scan, points)
    assert plan.findings == []
    assert reasons(plan) == {"contrast_enhanced"}  # Agatston's score only


def test_in_thick_voxels_nothing_is_sure(points):
    fine, thick = (
        measured(render(ROOT.inside(), POSE, spacing, half_extent=48, middle=(0, 0, 30), noise=15), points)
        for spacing in (3.0, 3.6)
    )
    assert not any("coarse_voxels" in str(m.details) for m in fine.measurements.values())
    assert [f.code for f in thick.findings].count("coarse_voxels") == 1
    given = [m for m in thick.measurements.values() if m.value is not None]
    assert len(given) > 10 and {m.status for m in given} == {"low_confidence"}
    assert "Voxels are 3.6 mm apart; above 3 mm" in str([f.message for f in thick.findings])


def cropped(scan, top_mm):
    """The scan without what lies more than ``top_mm`` above the annulus."""
    slices = int(scan.grid.voxel(POSE.world([0.0, 0.0, top_mm]))[2])
    return replace(scan, data=scan.data[:, :, :slices])


def test_truncated_aorta(scan, points):
    plan = measured(cropped(scan, 17.0), points)
    assert plan.measurements["annulus_area_mm2"].status == "ok"
    for name in ("stj_height_mm", "stj_mean_diameter_mm", "ascending_aorta_diameter_mm", "calcium_valve_mm3"):
        assert plan.measurements[name].status == "truncated"
        assert plan.measurements[name].details["reason"] == "scan_ends"


def test_aorta_truncated_above_the_junction_keeps_the_junction(scan, points):
    plan = measured(cropped(scan, 31.0), points)
    assert plan.measurements["stj_height_mm"].value == pytest.approx(ROOT.stj_z, abs=0.3)
    assert plan.measurements["ascending_aorta_diameter_mm"].status == "truncated"


def test_annulus_cut_by_the_scan(points):
    scan = render(ROOT.inside(), POSE, 1.2, half_extent=24, middle=(19, 0, 10))
    plan = measured(
        scan, {k: v for k, v in points.items() if bool(scan.grid.contains(v))} | hinges_inside(scan, points)
    )
    assert numbers(plan, "annulus_area") == []
    assert plan.measurements["annulus_area_mm2"].status in ("truncated", "not_found")


def hinges_inside(scan, points):
    """Hinge points moved just inside of a scan that cuts the annulus."""
    low = scan.grid.world((1, 1, 1))
    return {k: np.maximum(points[k], low) for k in ("RCC", "LCC", "NCC")}


def test_an_ostium_far_above_the_junction_is_doubted(scan, points):
    low = measured(scan, points).measurements
    assert low["rca_height_mm"].status == "ok"
    junction = low["stj_height_mm"].value
    high = measured(scan, points | {"RCA": points["RCA"] + POSE.axes[:, 2] * (junction - 8.0)})
    row = high.measurements["rca_height_mm"]
    assert (row.status, row.details["reason"]) == ("low_confidence", "ostium_above_junction")
    assert f"lies {row.value - junction:.1f} mm above the sinotubular junction" in row.details["message"]


def test_an_annulus_that_is_hardly_found_again_is_doubted(scan, points):
    """Points that may lie 15 mm elsewhere give planes beside the root, in which there is no annulus."""
    row = measured(scan, points, landmark_sd_mm=(15.0, 15.0)).measurements["annulus_area_mm2"]
    assert (row.status, row.details["reason"], row.uncertainty) == ("low_confidence", "annulus_unsteady", None)
    assert re.search(r"found again in [0-7] of 8 planes", row.details["message"])


@pytest.mark.parametrize("name", ["LCA", "RCA", "MS2"])
def test_missing_landmark(scan, points, name):
    rest = landmarks({k: v for k, v in points.items() if k != name}) | {name: Landmark.missing(name)}
    plan = measure(scan, rest, options=FEW)
    check(plan)
    prefix = {"LCA": "lca_", "RCA": "rca_", "MS2": "membranous_"}[name]
    assert numbers(plan, prefix) == []
    assert reasons(plan, prefix) == {"landmark_not_found"}
    assert plan.measurements["annulus_area_mm2"].status == "ok"


def test_points_that_nobody_looked_for_are_not_said_to_be_missing(scan, points):
    plan = measure(scan, {}, options=FEW, not_run=["hps", "ms"])
    check(plan)
    assert reasons(plan) == {"head_not_run"}
    told = "Heads hps, ms were not run: RCC, LCC, NCC, RCA, LCA, MS1, MS2 were not looked for."
    assert [f.message for f in plan.findings] == [told]
    placed = landmarks({name: points[name] for name in HINGE_POINTS})
    plan = measure(scan, placed, options=FEW, not_run=["hps"])
    check(plan)
    assert plan.measurements["annulus_area_mm2"].status == "ok"
    assert reasons(plan, "lca_") == {"head_not_run"} and reasons(plan, "membranous_") == {"landmark_not_found"}
    assert [f.message for f in plan.findings] == ["Head hps was not run: RCA, LCA were not looked for."]


def test_collinear_hinge_points(scan, points):
    a, b = points["RCC"], points["LCC"]
    plan = measured(scan, points | {"NCC": a + 0.45 * (b - a) + [0.0, 0.0, 0.5]})
    assert plan.annulus is None
    assert numbers(plan, "annulus_") == []
    assert reasons(plan, "annulus_") == {"hinge_points_collinear"}
    assert plan.measurements["lca_hinge_distance_mm"].value == pytest.approx(  # needs no plane
        np.linalg.norm(points["LCA"] - b), abs=1e-6
    )


def test_identical_hinge_points(scan, points):
    plan = measured(scan, points | {"NCC": points["RCC"]})
    assert numbers(plan, "annulus_") == []
    assert reasons(plan, "annulus_") == {"hinge_points_coincide"}
    assert "RCC and NCC" in plan.findings[0].message


@pytest.mark.parametrize("order", [o for o in permutations(("RCC", "LCC", "NCC")) if o != ("RCC", "LCC", "NCC")])
def test_swapped_cusps(scan, points, order):
    named = dict(zip(("RCC", "LCC", "NCC"), (points[k] for k in order), strict=True))
    plan = measured(scan, points | named)
    true = measured(scan, points)
    assert [f.code for f in plan.findings] in (["cusps_swapped"], ["cusps_misnamed"])
    for prefix in ("carm_", "calcium_rcc", "sinus_lcc", "annulus_arc", "rca_hinge"):
        assert numbers(plan, prefix) == [] or prefix == "rca_hinge"
    # The plane does not depend on the names: its values are there, marked.
    area = plan.measurements["annulus_area_mm2"]
    assert area.status == "low_confidence"
    assert area.value == pytest.approx(true.measurements["annulus_area_mm2"].value, rel=0.01)
    assert plan.measurements["lca_height_mm"].value == pytest.approx(
        true.measurements["lca_height_mm"].value, abs=1e-6
    )  # never upside down


def test_swapped_cusps_are_seen_without_ostia_too(scan, points):
    only = {"RCC": points["LCC"], "LCC": points["RCC"], "NCC": points["NCC"]}
    assert [f.code for f in measured(scan, only).findings] == ["cusps_swapped"]


def test_points_outside_the_scan(scan, points):
    plan = measured(scan, points | {"LCC": points["LCC"] + [500.0, 0, 0], "LCA": points["LCA"] * 1000})
    assert reasons(plan, "annulus_") == {"hinge_point_outside_scan"}
    assert plan.measurements["lca_height_mm"].value is None
    assert {f.code for f in plan.findings} == {"landmark_outside_scan", "hinge_point_outside_scan"}
    assert "RAS or LPS" in plan.findings[0].message


def test_points_in_the_wrong_frame_or_unit_are_not_measured(scan, points):
    for wrong in (lambda p: p * [-1, -1, 1] - [60, 0, 0], lambda p: p / 10.0 + [300, 0, 0]):
        plan = measured(scan, {k: wrong(np.asarray(v)) for k, v in points.items()})
        assert numbers(plan, "annulus_area") == []


def test_hinge_points_beside_the_root_give_no_contour(scan, points):
    away = {k: v + np.array([38.0, 0.0, 10.0]) for k, v in points.items() if k in ("RCC", "LCC", "NCC")}
    plan = measured(scan, away)
    assert reasons(plan, "annulus_area") == {"no_lumen_edge"}


def test_bicuspid_valve_given(scan, points):
    plan = measured(scan, points, valve="bicuspid")
    assert numbers(plan, "carm_") == []
    assert numbers(plan, "sinus_rcc") == []
    assert plan.measurements["annulus_area_mm2"].status == "low_confidence"
    assert reasons(plan, "annulus_a") == {"bicuspid_valve"}


def test_two_hinge_points_ask_whether_the_valve_is_bicuspid(scan, points):
    plan = measured(scan, {k: v for k, v in points.items() if k != "NCC"})
    assert reasons(plan, "annulus_") == {"two_hinge_points"}
    assert "bicuspid" in plan.findings[0].message
    assert numbers(plan, "annulus_") == []


def test_uneven_hinge_points_are_doubted(scan, points):
    turned = hinge_points(POSE, ROOT.annulus, ROOT.annulus, start_deg=80.0 - 62.0)
    plan = measured(scan, points | {"LCC": turned["LCC"]})
    assert plan.measurements["annulus_area_mm2"].status == "low_confidence"
    assert "uneven_hinge_points" in {f.code for f in plan.findings}


def test_unsure_landmarks_make_unsure_values(scan, points):
    marks = landmarks(points) | landmarks({"RCA": points["RCA"]}, confidence=0.2)
    plan = measure(scan, marks, options=FEW)
    check(plan)
    assert plan.measurements["rca_height_mm"].status == "low_confidence"
    assert plan.measurements["lca_height_mm"].status == "ok"


def test_a_scan_without_contrast_uses_the_label_map(points):
    plain = render(ROOT.inside(), POSE, 1.2, half_extent=48, middle=(0, 0, 30), blood=45, tissue=55, noise=15)
    alone = measured(plain, points)
    assert reasons(alone, "annulus_area") == {"no_lumen_edge"}
    labels = np.where(inside(plain), HEART_LABELS["Aorta"], 0).astype(np.uint8)
    plan = measure(plain, landmarks(points), labels, options=FEW)
    check(plan)
    area = plan.measurements["annulus_area_mm2"]
    assert area.status == "low_confidence" and area.details["method"] == "labels"
    assert area.value == pytest.approx(np.pi * ROOT.annulus**2, rel=0.04)
    assert plan.measurements["stj_mean_diameter_mm"].value == pytest.approx(2 * ROOT.stj, abs=0.8)


def test_a_label_map_that_ends_inside_the_blood_does_not_cut_the_contour(scan, points):
    labels = np.where(inside(scan), HEART_LABELS["Aorta"], 0).astype(np.uint8)
    local = POSE.local(scan.grid.points().reshape(-1, 3)).reshape(*scan.data.shape, 3)
    labels[(local[..., 2] > 28.0) & (local[..., 0] > 2.0)] = 0
    plan = measure(scan, landmarks(points), labels, options=FEW)
    assert plan.measurements["ascending_aorta_diameter_mm"].value == pytest.approx(2 * ROOT.ascending, abs=0.4)


def test_leaflets_in_the_lumen_do_not_hide_the_sinuses_behind_them(scan, points):
    local = POSE.local(scan.grid.points().reshape(-1, 3)).reshape(*scan.data.shape, 3)
    away, z = np.hypot(local[..., 0], local[..., 1]), local[..., 2]
    data = scan.data.copy()
    data[(np.abs(away - ROOT.annulus + 0.5) < 0.9) & (z > 0.5) & (z < 11.0)] = 60
    closed = measured(replace(scan, data=data), points).measurements
    opened = measured(scan, points).measurements
    for name in ("sinus_mean_diameter_mm", "sinus_lcc_diameter_mm", "stj_mean_diameter_mm"):
        assert closed[name].value == pytest.approx(opened[name].value, abs=0.5)
    assert closed["stj_height_mm"].value == pytest.approx(ROOT.stj_z, abs=0.5)


def inside(scan):
    """Voxels of the phantom."""
    local = POSE.local(scan.grid.points().reshape(-1, 3))
    return (ROOT.inside()(local) > 0).reshape(scan.data.shape)


def test_label_map_of_another_grid_is_refused(scan, points):
    with pytest.raises(DataError, match="own grid"):
        measure(scan, landmarks(points), np.zeros((3, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "off", "title"),
    [
        ("MS2", [0.0, 0.0, 9.0], "Pacemaker after TAVI"),
        ("LCA", [0.0, 0.0, -15.0], "Coronary obstruction, left"),
        ("RCA", [0.0, 0.0, -18.0], "Coronary obstruction, right, traditional"),
    ],
)
def test_a_point_on_the_wrong_side_of_the_annulus_is_not_judged_by(scan, points, name, off, title):
    plan = measured(scan, points | {name: points[name] + off})
    (flag,) = (flag for flag in find_flags(plan.measurements) if flag.title == title)
    assert (flag.state, flag.doubtful) == ("not judged", True)
    assert re.search(rf"{name} lies [23]\.\d mm (below|above) the annulus plane; check the points", flag.values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"valve": "quadricuspid"},
        {"calcium_threshold": "x"},
        {"calcium_hu": 0.0},
        {"calcium_above_lumen_hu": -500.0},
        {"calcium_above_lumen_hu": float("inf")},
        {"landmark_sd_mm": (-1.0, -2.0)},
        {"landmark_sd_mm": (2.0, 1.0)},
        {"landmark_sd_mm": (1.0, float("nan"))},
        {"landmark_sd_mm": (1.0,)},
        {"samples": 2},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PlanningOptions(**wrong)
