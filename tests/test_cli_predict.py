"""``predict``: what it writes, what it prints, what it leaves alone, and what an interrupted batch leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import files_in, run
from conftest import ROOT

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, LANDMARKS
from cardiac_ct_fm.commands.table import LOCK, TABLE
from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.weights import sha256_of

RESULTS = (
    "landmarks.json",
    "landmarks.mps",
    "landmarks.mrk.json",
    "measurements.json",
    "planning.mrk.json",
    "preview.png",
    "report.html",
    "run.json",
    "segmentation.json",
    "segmentation.nii.gz",
)


def test_predict_writes_all_results_and_nothing_else(predicted: tuple[Path, str], finder: Path) -> None:
    folder, _ = predicted
    assert set(RESULTS) <= set(files_in(folder))
    assert not [name for name in files_in(folder.parent) if ".part-" in name]
    facts = json.loads((folder / "run.json").read_text())
    assert facts["model"] == "finder"
    assert facts["quality"] == "standard"
    assert facts["seconds"]["load"] > 0
    assert facts["weights_sha256"] == {"model.safetensors": sha256_of(finder / "model.safetensors")}
    assert facts["weights_verified"] is True
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "finder" in page and "Not a medical device" in page
    assert f"<dt>weights sha256</dt><dd>{facts['weights_sha256']['model.safetensors']} (model.safetensors)</dd>" in page
    assert f"<dt>trunk checksum</dt><dd>{facts['trunk_sha256']}</dd>" in page


def test_the_printed_seconds_add_up_and_name_every_stage(predicted: tuple[Path, str]) -> None:
    folder, printed = predicted
    line = next(line for line in printed.splitlines() if " s (" in line)
    total = float(line.split(" s (")[0])
    stages = {part.split()[0]: float(part.split()[1]) for part in line.split("(")[1].rstrip(")").split(", ")}
    assert set(stages) == {"model", "load", "locate", "heart", "root", "decode", "measure", "write"}
    assert sum(stages.values()) == pytest.approx(total, abs=0.05 * (len(stages) + 1))
    booked = json.loads((folder / "run.json").read_text())["seconds"]
    assert set(booked) == set(stages) - {"write"}
    assert all(stages[name] == pytest.approx(value, abs=0.051) for name, value in booked.items())


def test_predict_prints_every_expected_landmark_with_its_position(predicted: tuple[Path, str]) -> None:
    folder, printed = predicted
    for name, point in read_landmarks(folder / "landmarks.json").items():
        row = next(line for line in printed.splitlines() if line.split()[:1] == [name])
        if point.ras_mm is None:
            assert "not found" in row
        else:
            assert [float(v) for v in row.split()[-4:-1]] == pytest.approx(point.ras_mm, abs=0.06)
    assert str(folder) in printed
    assert "Not a medical device" in printed


def test_printed_volumes_are_those_of_the_label_map(predicted: tuple[Path, str]) -> None:
    folder, printed = predicted
    image = nib.load(folder / "segmentation.nii.gz")
    table = json.loads((folder / "segmentation.json").read_text())["labels"]
    labels = np.asarray(image.dataobj)
    value = next(int(v) for v, name in table.items() if name == "LV")
    millilitres = (labels == value).sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000
    row = next(line for line in printed.splitlines() if line.split()[:1] == ["LV"])
    assert float(row.split("ventricle")[1].split()[0]) == pytest.approx(millilitres, rel=0.2, abs=0.1)
    missing = next(line for line in printed.splitlines() if line.split()[:1] == ["PA"])
    assert "not found: the head heart marked none" in missing
    assert " 0" not in missing


def test_the_bundled_weights_find_the_heart_of_the_real_scan(demo_path: Path, tmp_path: Path) -> None:
    answer = run("predict", demo_path, "-o", tmp_path, "--supine", "--json")
    assert answer.code == 0, answer.err
    row = json.loads(answer.out)
    volumes = {m["name"]: m["value"] for m in row["measurements"] if m["name"].endswith("_volume_ml")}
    # Between an infant's and twice a large adult's chamber (domain of the cohort: 89 ± 21 to 190 ± 33 mL).
    assert all(20 < volumes[f"{name}_volume_ml"] < 400 for name in HEART_LABELS), volumes
    assert all(point["found"] for point in row["landmarks"] if point["name"] in HINGE_POINTS)
    facts = json.loads((tmp_path / "ct_cropped" / "run.json").read_text())
    assert facts["model"] == "cardiac_swin_tiny"
    assert len(facts["trunk_sha256"]) == 64
    assert facts["provenance"]["data"]


def test_json_is_one_object_per_scan_with_all_points_and_measurements(
    small_scan: Path, finder: Path, tmp_path: Path
) -> None:
    answer = run("predict", small_scan, "-o", tmp_path, "-m", finder, "--json", "--heads", "hps,heart")
    assert answer.code == 0
    row = json.loads(answer.out)
    assert [p["name"] for p in row["landmarks"]] == list(LANDMARKS[:5])
    assert row["status"] == "done"
    names = {m["name"] for m in row["measurements"]}
    assert {"annulus_area_mm2", "LV_volume_ml"} <= names
    assert "Calc_volume_ml" not in names
    saved = json.loads((tmp_path / "small" / "measurements.json").read_text())["measurements"]
    assert [m["name"] for m in saved] == [m["name"] for m in row["measurements"]]


def test_a_head_of_points_that_was_left_out_is_one_short_line(small_scan: Path, finder: Path, tmp_path: Path) -> None:
    answer = run("predict", small_scan, "-o", tmp_path, "-m", finder, "--heads", "heart", "--quality", "fast")
    assert answer.code == 0, answer.err
    assert "Not measured" not in answer.out and "RCC, LCC, NCC were not found" not in answer.out
    assert " ".join(answer.out.split()).count("Heads hps, ms were not run: RCC,") == 1
    rows = json.loads((tmp_path / "small" / "measurements.json").read_text())["measurements"]
    area = next(m for m in rows if m["name"] == "annulus_area_mm2")
    assert (area["status"], area["details"]["reason"]) == ("not_found", "head_not_run")


def test_skip_existing_leaves_complete_results_alone(small_scan: Path, finder: Path, tmp_path: Path) -> None:
    command = ("predict", small_scan, "-o", tmp_path, "-m", finder, "--quality", "fast", "--skip-existing")
    assert run(*command).code == 0
    marker = tmp_path / "small" / "run.json"
    before = marker.stat().st_mtime_ns
    again = run(*command)
    assert again.code == 0
    assert "nothing was done" in again.out
    assert marker.stat().st_mtime_ns == before
    marker.unlink()
    assert run(*command).code == 0
    assert marker.exists()


def test_skip_existing_mixes_no_settings_and_no_weights(small_scan: Path, finder: Path, tmp_path: Path) -> None:
    out, second = tmp_path / "out", tmp_path / "second.nii.gz"
    shutil.copyfile(small_scan, second)
    first = ("predict", small_scan, "-o", out, "-m", finder, "--quality", "fast", "--heads", "heart,hps")
    assert run(*first).code == 0
    both = ("predict", small_scan, second, "-o", out, "--skip-existing", "--quality")
    full = run("predict", small_scan, "-o", out, "--skip-existing", "-m", finder)
    assert full.code == 2
    assert (
        f"{out / 'small'} holds results of quality fast, not standard; give another folder, or leave out" in full.line
    )
    some = run(*both, "fast", "--heads", "heart", "-m", finder)
    assert some.code == 2 and "holds results of heads ['heart', 'hps'], not ['heart']" in some.line
    everything = run(*both, "fast", "-m", finder)
    assert everything.code == 2 and "holds results of heads ['heart', 'hps'], not ['calc'," in everything.err
    other = ccf.from_pretrained(finder)
    torch.nn.init.zeros_(next(other.heads["ms"].parameters()))
    other.save_pretrained(tmp_path / "other")
    others = run(*both, "fast", "--heads", "hps,heart", "-m", tmp_path / "other")
    assert others.code == 2 and "holds results of other weights" in others.err
    assert files_in(out) == [name for name in files_in(out) if not name.startswith("second")]
    assert run(*both, "fast", "--heads", "hps,heart", "-m", finder).code == 0
    assert (out / "second" / "run.json").exists()


def test_a_prediction_replaces_no_points_that_a_person_has_corrected(
    small_scan: Path, finder: Path, tmp_path: Path
) -> None:
    command = ("predict", small_scan, "-o", tmp_path, "-m", finder, "--quality", "fast")
    assert run(*command).code == 0
    again = run(*command)
    assert again.code == 0 and f"The earlier results in {tmp_path / 'small'} were replaced." in again.err
    points = tmp_path / "small" / "landmarks.mrk.json"
    later = (tmp_path / "small" / "run.json").stat().st_mtime + 60
    os.utime(points, (later, later))
    refused = run(*command)
    assert (
        refused.code == 1 and "points that a person has corrected (landmarks.mrk.json was edited there)" in refused.line
    )
    assert run("measure", small_scan, "--landmarks", points, "-o", tmp_path).code == 0
    before = points.read_bytes()
    refused = run(*command)
    assert (
        refused.code == 1 and "(its measurements are made with them), which a prediction would replace" in refused.line
    )
    assert points.read_bytes() == before


def test_a_table_that_another_run_holds_is_told_after_all_else_is_done(
    small_scan: Path, finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardiac_ct_fm.commands.table.WAIT_S", 0.1)
    out, above, damaged = tmp_path / "p1", tmp_path / TABLE, tmp_path / "damaged.nii.gz"
    above.write_text("case,status,reason\np1/small,done,as it was\n")
    damaged.write_bytes(small_scan.read_bytes()[:1000])
    out.mkdir()
    (out / LOCK).touch()
    answer = run("predict", small_scan, damaged, "-o", out, "-m", finder, "--quality", "fast", "--heads", "heart")
    assert answer.code == 1
    *_, failed, refusal = answer.err.strip().splitlines()
    assert "1 of 2 scans failed; the others are complete" in failed
    assert refusal.startswith("cardiac-ct-fm: ") and f"another run holds {out / LOCK}" in refusal
    assert "small" in answer.out and "damaged" in answer.out, "the summary is printed"
    assert "as it was" not in above.read_text()
    assert not (out / TABLE).exists()
    (out / LOCK).unlink()
    again = run("predict", small_scan, damaged, "-o", out, "-m", finder, "--quality", "fast", "--skip-existing")
    assert again.code == 3
    assert (out / TABLE).is_file()


def test_a_head_of_ones_own_joins_the_prediction(small_scan: Path, finder: Path, tmp_path: Path) -> None:
    model = ccf.from_pretrained(finder)
    model.add_head("coronaries", ["Coronary"])
    model.save_head("coronaries", tmp_path / "coronaries.safetensors")
    answer = run(
        "predict", small_scan, "-o", tmp_path / "out", "-m", finder, "--head-file", tmp_path / "coronaries.safetensors"
    )
    assert answer.code == 0, answer.err
    assert "Coronary" in answer.out
    written = json.loads((tmp_path / "out" / "small" / "run.json").read_text())["weights_sha256"]
    assert written["coronaries"] == sha256_of(tmp_path / "coronaries.safetensors")
    assert model.weight_files is None, "a random head is in no file"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_batch_keeps_what_is_whole_and_leaves_nothing_half_written(
    number: signal.Signals, code: int, small_scan: Path, finder: Path, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for k in range(40):
        os.link(small_scan, scans / f"s{k:02d}.nii.gz")
    command = [sys.executable, "-m", "cardiac_ct_fm", "predict", scans, "-o", tmp_path / "out", "-m", finder]
    before = signal.signal(
        number, signal.SIG_DFL
    )  # tests that run in the background ignore Ctrl-C, and children inherit it
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, before)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "s00" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "nothing is half-written" in err
    assert "Traceback" not in err
    done = sorted((tmp_path / "out").iterdir())
    assert 1 <= len(done) < 40
    for folder in done:
        assert set(RESULTS) <= set(files_in(folder)), folder
