"""``measure``: from points that were corrected, and from points that nobody touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from command_line import run
from conftest import DEMO_SCAN

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.commands.table import LOCK, TABLE
from cardiac_ct_fm.landmark_io import Landmark, read_landmarks, write_slicer


def test_measure_with_corrected_points_fills_what_prediction_could_not(demo_path: Path, tmp_path: Path) -> None:
    disc = nib.load(DEMO_SCAN.parent / "annulus_proper.nii.gz")
    voxels = np.argwhere(np.asarray(disc.dataobj) > 0)
    points = voxels @ disc.affine[:3, :3].T + disc.affine[:3, 3]
    centre = points.mean(axis=0)
    left, front, _ = np.linalg.svd(points - centre, full_matrices=False)[2]
    left, front = left * np.sign(-left[0]), front * np.sign(front[1])
    radius = 12.0
    edited = [
        Landmark(name, True, tuple(centre + radius * (np.cos(a) * left + np.sin(a) * front)), 1.0)
        for name, a in zip(HINGE_POINTS, np.radians((46.0, -48.0, 178.0)), strict=True)
    ]
    write_slicer(tmp_path / "edited.mrk.json", edited)
    answer = run(
        "measure", demo_path, "--landmarks", tmp_path / "edited.mrk.json", "-o", tmp_path, "--supine", "--json"
    )
    assert answer.code == 0, answer.err
    rows = {m["name"]: m for m in json.loads(answer.out)["measurements"]}
    assert rows["hinge_circle_diameter_mm"]["value"] == pytest.approx(2 * radius, abs=0.1)
    # TotalSegmentator's report of this scan gives 4.9 cm²; the discs of both are known to about a tenth.
    assert rows["annulus_area_mm2"]["value"] == pytest.approx(490, rel=0.25)
    assert rows["carm_three_cusp_lao_deg"]["value"] is not None
    assert rows["lca_height_mm"]["value"] is None
    assert rows["lca_height_mm"]["status"] == "not_found"
    assert (tmp_path / "ct_cropped" / "preview.png").exists()
    scene = json.loads((tmp_path / "ct_cropped" / "planning.mrk.json").read_text())
    assert {"Plane", "ClosedCurve"} <= {markup["type"] for markup in scene["markups"]}


def test_measuring_what_nobody_edited_changes_nothing(
    predicted: tuple[Path, str], small_scan: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(predicted[0], tmp_path / "small"))

    def written() -> tuple[Any, ...]:
        rows = json.loads((folder / "measurements.json").read_text())["measurements"]
        facts = json.loads((folder / "run.json").read_text())
        points = read_landmarks(folder / "landmarks.json").values()
        return (
            {m["name"]: m["status"] for m in rows},
            {m["name"]: m["value"] for m in rows if m["value"] is not None},
            [(p.name, p.found, p.confidence if p.found else 0) for p in points],
            (folder / "segmentation.nii.gz").read_bytes(),
            {key: facts[key] for key in ("model", "trunk_sha256", "seconds", "classes", "input", "warnings")},
        )

    statuses, values, *rest = written()
    assert statuses["Calc_volume_ml"] != "not_found"
    # Files give points to 0.001 mm.
    unchanged = [statuses, pytest.approx(values, rel=1e-3, abs=2e-3), *rest]
    for name in ("landmarks.mrk.json", "landmarks.mps"):
        answer = run("measure", small_scan, "--landmarks", folder / name, "-o", tmp_path)
        assert answer.code == 0, answer.err
        assert list(written()) == unchanged
        assert "Measuring with" in answer.err
    assert json.loads((folder / "run.json").read_text())["measured"]["landmarks"] == str(folder / "landmarks.mps")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_point_that_was_moved_in_our_json_counts_as_certain(
    elsewhere: bool, predicted: tuple[Path, str], small_scan: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(predicted[0], tmp_path / "small"))
    content = json.loads((folder / "landmarks.json").read_text())
    row = next(row for row in content["landmarks"] if row["name"] == "RCC")
    x, y, z = row["ras"]
    row |= {"ras": [x, y, z + 2], "lps": None}
    assert row["confidence"] < 1
    edited = tmp_path / "edited.json" if elsewhere else folder / "landmarks.json"
    edited.write_text(json.dumps(content))
    answer = run("measure", small_scan, "--landmarks", edited, "-o", tmp_path)
    assert answer.code == 0, answer.err
    points = read_landmarks(folder / "landmarks.json")
    assert [name for name, point in points.items() if point.confidence == 1] == ["RCC"]
    assert "taken as certain: RCC." in (folder / "run.json").read_text()


def test_where_nothing_tells_which_points_were_moved_it_is_said(
    predicted: tuple[Path, str], small_scan: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(predicted[0], tmp_path / "small"))
    sister = folder / "landmarks.mrk.json"
    sister.write_text("no json")
    answer = run("measure", small_scan, "--landmarks", folder / "landmarks.json", "-o", tmp_path)
    assert answer.code == 1
    assert (
        answer.line.endswith("Restore it, or take it away.") and "landmarks.json were moved is told by" in answer.line
    )
    sister.unlink()
    for edited in (
        folder / "landmarks.json",
        Path(shutil.copy(predicted[0] / "landmarks.json", tmp_path / "mine.json")),
    ):
        out = folder.parent if edited.parent == folder else tmp_path / "elsewhere"
        answer = run("measure", small_scan, "--landmarks", edited, "-o", out, "--json")
        assert answer.code == 0, answer.err
        (said,) = [w for w in json.loads(answer.out)["warnings"] if "cannot be told" in w]
        assert str(edited) in said and "set it to 1 in those that you moved" in said


def test_points_that_were_not_looked_for_are_not_said_to_be_missing(
    small_scan: Path, finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = run("predict", small_scan, "-o", tmp_path, "-m", finder, "--heads", "heart,hps")
    assert answer.code == 0, answer.err
    folder, drawn = tmp_path / "small", []
    names = list(read_landmarks(folder / "landmarks.json", ()))
    assert not {"MS1", "MS2"} & set(names)
    monkeypatch.setattr("cardiac_ct_fm.preview.draw_notes", lambda _, missing, *rest: drawn.append((missing, rest[-1])))
    for name in ("landmarks.mrk.json", "landmarks.json"):
        answer = run("measure", small_scan, "--landmarks", folder / name, "-o", tmp_path)
        assert answer.code == 0, answer.err
        assert "MS1" not in answer.out.replace("Head ms was not run: MS1, MS2 were not looked for.", "")
        assert list(read_landmarks(folder / "landmarks.json", ())) == names
    assert len(drawn) == 2 and not any({"MS1", "MS2"} & set(missing) for missing, _ in drawn)
    assert all("Head ms was not run: MS1, MS2 were not looked for." in findings for _, findings in drawn)


def test_a_table_that_another_run_holds_is_told_after_all_else_is_done(
    predicted: tuple[Path, str], small_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardiac_ct_fm.commands.table.WAIT_S", 0.1)
    out = tmp_path / "p1"
    folder = Path(shutil.copytree(predicted[0], out / "small"))
    for table, name in ((out / TABLE, "small"), (tmp_path / TABLE, "p1/small")):
        table.write_text(f"case,status,reason\n{name},done,as it was\n")
    (out / LOCK).touch()
    answer = run("measure", small_scan, "--landmarks", folder / "landmarks.mrk.json", "-o", out, "--json")
    assert answer.code == 1
    assert f"another run holds {out / LOCK}" in answer.err.strip().splitlines()[-1]
    assert json.loads(answer.out)["name"] == "small"
    assert "as it was" in (out / TABLE).read_text()
    assert "as it was" not in (tmp_path / TABLE).read_text()


def test_a_misspelt_point_is_refused_and_a_point_of_ones_own_is_told(
    predicted: tuple[Path, str], small_scan: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(predicted[0], tmp_path / "small"))
    text = (folder / "landmarks.mrk.json").read_text()
    edited = tmp_path / "edited.mrk.json"
    edited.write_text(text.replace('"label": "RCC"', '"label": "RCX"'))
    before = (folder / "measurements.json").read_bytes()
    refused = run("measure", small_scan, "--landmarks", edited, "-o", tmp_path)
    assert refused.code == 1
    assert (
        f"{edited} has a point 'RCX' and none called RCC. If that is meant, name it so; a point of your own needs"
        in refused.line
    )
    assert (folder / "measurements.json").read_bytes() == before
    points = read_landmarks(folder / "landmarks.json")
    write_slicer(edited, [*points.values(), Landmark("Apex", True, (1.0, 2.0, 3.0), 1.0)])
    answer = run("measure", small_scan, "--landmarks", edited, "-o", tmp_path)
    assert answer.code == 0, answer.err
    assert "no measurement knows Apex; points are RCC, LCC, NCC" in answer.err
