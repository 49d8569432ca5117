"""Tables and Slicer files: nothing missing becomes 0, and what is edited in Slicer comes back."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render

from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.planning import (
    PlanningOptions,
    export_slicer,
    measure,
    measurements_to_csv,
    measurements_to_json,
)
from cardiac_ct_fm.planning.catalogue import CATALOGUE

ROOT = RootPhantom()
POSE = Pose(np.eye(3), np.array([4.0, -7.0, 11.0]))


@pytest.fixture(scope="module")
def plan():
    scan = render(ROOT.inside(), POSE, 1.5, half_extent=45, middle=(0, 0, 28))
    points = hinge_points(POSE, ROOT.annulus, ROOT.annulus, start_deg=80.0) | {"LCA": POSE.world([-13.0, 8.0, 12.0])}
    return measure(scan, landmarks(points, 0.8), options=PlanningOptions(samples=8))


def test_json_holds_every_measurement_and_the_choices(plan, tmp_path):
    measurements_to_json(tmp_path / "m.json", plan)
    content = json.loads((tmp_path / "m.json").read_text())
    rows = {row["name"]: row for row in content["measurements"]}
    assert list(rows) == list(CATALOGUE)
    assert rows["rca_height_mm"]["value"] is None and rows["rca_height_mm"]["details"]["reason"] == "landmark_not_found"
    area = rows["annulus_area_mm2"]
    assert area["value"] == pytest.approx(np.pi * ROOT.annulus**2, rel=0.02)
    assert area["uncertainty"] > 0
    assert area["details"]["plane"]["normal_ras"][2] == pytest.approx(1.0, abs=1e-3)
    assert "Tzikas" in area["details"]["human_limit"]["source"]
    assert content["options"]["calcium_hu"] == 850.0


def test_table_of_a_cohort_keeps_missing_values_empty(plan, tmp_path):
    fewer = {k: v for k, v in plan.measurements.items() if k != "stj_height_mm"}
    measurements_to_csv(tmp_path / "cohort.csv", {"one": plan.measurements, "two, with comma": fewer})
    with (tmp_path / "cohort.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["case"], second["case"]) == ("one", "two, with comma")
    assert float(first["annulus_area_mm2"]) == pytest.approx(plan.measurements["annulus_area_mm2"].value, rel=1e-5)
    assert first["rca_height_mm"] == "" and first["rca_height_mm_sd"] == ""
    assert first["rca_height_mm_status"] == "not_found: landmark_not_found"
    assert second["stj_height_mm_status"] == "not_measured"


def test_slicer_files_hold_the_geometry_in_lps(plan, tmp_path):
    names = {p.name.removesuffix(".mrk.json") for p in export_slicer(plan, tmp_path / "slicer")}
    assert {"points", "annulus_plane", "annulus_contour", "centreline", "stj_plane", "sinus_contour"} <= names

    def markup(name):
        return json.loads((tmp_path / "slicer" / f"{name}.mrk.json").read_text())["markups"][0]

    plane = markup("annulus_plane")
    assert plane["type"] == "Plane" and plane["planeType"] == "pointNormal" and len(plane["controlPoints"]) == 1
    base = np.array(plane["baseToNode"]).reshape(4, 4)
    assert np.allclose(base[:3, :3].T @ base[:3, :3], np.eye(3), atol=1e-5)
    assert np.allclose(base[:3, 2], plane["normal"])
    assert np.linalg.det(base[:3, :3]) == pytest.approx(1.0, abs=1e-5)
    assert np.allclose(np.array(plane["controlPoints"][0]["position"]), POSE.centre * [-1, -1, 1], atol=0.3)
    ring = np.array([p["position"] for p in markup("annulus_contour")["controlPoints"]])
    assert markup("annulus_contour")["type"] == "ClosedCurve"
    assert np.allclose(np.linalg.norm(ring - POSE.centre * [-1, -1, 1], axis=1), ROOT.annulus, atol=0.4)
    line = np.array([p["position"] for p in markup("centreline")["controlPoints"]])
    assert np.all(np.diff(line[:, 2]) > 0)


def test_points_edited_in_slicer_can_be_measured_again(plan, tmp_path):
    export_slicer(plan, tmp_path)
    edited = json.loads((tmp_path / "points.mrk.json").read_text())
    for point in edited["markups"][0]["controlPoints"]:
        if point["label"] == "LCA":
            point["position"][2] += 3.0
    (tmp_path / "points.mrk.json").write_text(json.dumps(edited))
    points = read_landmarks(tmp_path / "points.mrk.json")
    assert not points["RCA"].found
    scan = render(ROOT.inside(), POSE, 1.5, half_extent=45, middle=(0, 0, 28))
    again = measure(scan, points, options=PlanningOptions(samples=8)).measurements["lca_height_mm"].value
    assert again == pytest.approx(plan.measurements["lca_height_mm"].value + 3.0, abs=1e-2)
