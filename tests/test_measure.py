"""``measure`` into the folder of a prediction: what a person did not touch stays as it was."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import run
from small_scans import every_second_voxel, nifti

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.result import Landmark, Prediction
from cardiac_ct_fm.volume_io import Volume, load_volume
from cardiac_ct_fm.volumes import structure_volumes


@pytest.fixture
def prediction(demo_volume: Volume, tmp_path: Path) -> Prediction:
    """Chambers, calcium on the aorta, a user's plaque on that, and two unsure points, saved in ``out/ct``."""
    scan = nifti(tmp_path / "ct.nii.gz", *every_second_voxel(demo_volume))
    volume = load_volume(scan)
    heart, calc, plaque = (np.zeros(volume.grid.shape, np.uint8) for _ in range(3))
    heart[10:30, 10:30, 20:40], heart[30:40, 10:30, 20:40] = 6, 3
    calc[26:32, 15:25, 25:35], plaque[28:36, 15:25, 30:32] = 1, 2
    points = {"RCC": volume.grid.world([20, 20, 30]), "LCA": volume.grid.world([22, 20, 36])}
    found = Prediction(
        volume,
        {name: Landmark(name, True, tuple(at), 0.2) for name, at in points.items()},
        {"heart": heart, "calc": calc, "plaque": plaque},
        {"heart": HEADS["heart"].classes, "calc": ("Calc",), "plaque": ("Hard", "Soft")},
        run={"model": "mine", "trunk_sha256": "abc"},
    )
    found.write_files(tmp_path / "out" / "ct")
    return found


def test_one_corrected_point_leaves_all_else_alone(prediction: Prediction, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "ct"
    table = tmp_path / "out" / "measurements.csv"
    table.write_text("case,status,reason,LV_volume_ml\nother,done,,7\np1/ct,done,,9\n")
    before = np.asarray(nib.load(folder / "segmentation.nii.gz").dataobj)
    content = json.loads((folder / "landmarks.mrk.json").read_text())
    content["markups"][0]["controlPoints"][0]["position"][2] += 1
    edited = tmp_path / "edited.mrk.json"
    edited.write_text(json.dumps(content))

    answer = run("measure", tmp_path / "ct.nii.gz", "--landmarks", edited, "-o", tmp_path / "out")

    assert answer.code == 0, answer.err
    points = read_landmarks(folder / "landmarks.json")
    assert (points["RCC"].confidence, points["LCA"].confidence) == (1, 0.2)
    labels = json.loads((folder / "segmentation.json").read_text())["labels"]
    assert (labels["10"], labels["11"]) == ("Hard", "Soft")
    np.testing.assert_array_equal(np.asarray(nib.load(folder / "segmentation.nii.gz").dataobj), before)
    rows = {m["name"]: m for m in json.loads((folder / "measurements.json").read_text())["measurements"]}
    for name, volume in structure_volumes(prediction).items():
        assert (rows[name]["value"], rows[name]["status"]) == (pytest.approx(volume.value), volume.status), name
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["model"], facts["trunk_sha256"]) == ("mine", "abc")
    assert facts["measured"]["landmarks"] == str(edited)
    assert "Placed by a person and taken as certain: RCC." in facts["warnings"]
    assert "mine" in (folder / "report.html").read_text(encoding="utf-8")
    lines = {line["case"]: line for line in csv.DictReader(table.open(newline=""))}
    assert {name: lines[name]["LV_volume_ml"] for name in ("other", "p1/ct")} == {"other": "7", "p1/ct": "9"}
    assert f"If this is the same scan, that row is old: measure with -o {tmp_path / 'out' / 'p1'}" in answer.err
    assert float(lines["ct"]["LV_volume_ml"]) == pytest.approx(rows["LV_volume_ml"]["value"], rel=1e-4)


@pytest.mark.parametrize("out", ["batch", "batch/p1"])
def test_a_scan_of_a_batch_is_measured_where_it_lies_and_its_row_is_replaced(
    out: str, prediction: Prediction, tmp_path: Path
) -> None:
    folder, table = tmp_path / "batch" / "p1" / "ct", tmp_path / "batch" / "measurements.csv"
    shutil.copytree(tmp_path / "out" / "ct", folder)
    table.write_text("case,status,reason,LV_volume_ml\np1/ct,done,,7\np2/ct,done,,8\n")
    points = folder / "landmarks.mrk.json"
    answer = run("measure", tmp_path / "ct.nii.gz", "--landmarks", points, "-o", tmp_path / out, "--json")
    assert answer.code == 0, answer.err
    assert f"The row of this scan in {table} was written anew." in answer.err
    assert [path.parent for path in (tmp_path / "batch").rglob("report.html")] == [folder]
    row = json.loads(answer.out)
    assert tmp_path / out / row["name"] == folder
    measured = next(m["value"] for m in row["measurements"] if m["name"] == "LV_volume_ml")
    lines = {line["case"]: line["LV_volume_ml"] for line in csv.DictReader(table.open(newline=""))}
    assert lines == {"p1/ct": f"{measured:.6g}", "p2/ct": "8"}


def test_without_a_record_of_what_labels_cover_the_loss_is_said(prediction: Prediction, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "ct"
    (folder / "covered.npz").unlink()
    answer = run("measure", tmp_path / "ct.nii.gz", "--landmarks", folder / "landmarks.mps", "-o", tmp_path, "--json")
    assert answer.code == 0, answer.err
    row = json.loads(answer.out)
    lost = next(w for w in row["warnings"] if "over those of heart" in w)
    finer = (prediction.mask("Calc") | prediction.mask("Soft")).sum() * prediction.grid.voxel_mm3 / 1000
    assert f"up to {finer:.1f} mL too small" in lost


def test_without_a_label_map_the_other_numbers_are_explained(prediction: Prediction, tmp_path: Path) -> None:
    points = tmp_path / "edited.mps"
    points.write_bytes((tmp_path / "out" / "ct" / "landmarks.mps").read_bytes())
    command = ("measure", tmp_path / "ct.nii.gz", "--landmarks", points, "-o")

    def told(*more: object) -> list[bool]:
        """Whether the output, ``run.json`` and the report say it."""
        out = tmp_path / "elsewhere"
        printed = " ".join(run(*command, out, *more).out.split())
        noted = json.loads((out / "ct" / "run.json").read_text())["warnings"]
        page = (out / "ct" / "report.html").read_text(encoding="utf-8")
        assert printed.count("No label map was found") <= 1
        return [any("No label map was found" in text for text in place) for place in ([printed], noted, [page])]

    assert told() == [True, True, True]
    assert told("--segmentation", tmp_path / "out" / "ct" / "segmentation.nii.gz") == [False, False, False]
