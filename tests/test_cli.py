"""The command line: what it writes, what it prints, what it leaves alone, and what it does not import."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from command_line import files_in, run
from conftest import DEMO_SCAN, ROOT
from test_bad_input import nifti
from tiny_finder import save_finder

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, LANDMARKS
from cardiac_ct_fm.landmark_io import Landmark, read_landmarks, write_slicer
from cardiac_ct_fm.process import usable_cpus
from cardiac_ct_fm.volume_io import Volume
from cardiac_ct_fm.weights import sha256_of

COMMANDS = ("predict", "measure", "doctor", "models", "info", "convert", "push", "finetune", "evaluate", "cohort")
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


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_finder(tmp_path_factory.mktemp("models") / "finder")


@pytest.fixture(scope="module")
def small_scan(demo_volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    affine = demo_volume.affine.copy()
    affine[:3, :3] *= 2
    folder = tmp_path_factory.mktemp("scans")
    return nifti(folder / "small.nii.gz", np.ascontiguousarray(demo_volume.data[::2, ::2, ::2]), affine)


@pytest.fixture(scope="module")
def predicted(small_scan: Path, finder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of one prediction and what was printed."""
    out = tmp_path_factory.mktemp("out")
    answer = run("predict", small_scan, "-o", out, "-m", finder)
    assert answer.code == 0, answer.err
    return out / "small", answer.out


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages in memory after a command."""
    code = (
        "import sys, io, contextlib\nfrom cardiac_ct_fm.cli import main\nnowhere = io.StringIO()\n"
        f"with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere): main({arguments!r})\n"
        "print(' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_version_answers_without_importing_anything() -> None:
    assert run("--version").out == f"cardiac-ct-fm {ccf.__version__}\n"
    assert not imported_by("--version") & {"typer", "rich", "numpy", "torch", "monai", "cardiac_ct_fm.commands"}


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("predict", "nowhere.nii.gz", "-o", "out")])
def test_help_and_refusals_import_no_network(arguments: tuple[str, ...]) -> None:
    assert not imported_by(*arguments) & {"torch", "monai", "scipy", "matplotlib"}


def test_help_names_every_command_and_every_command_explains_itself() -> None:
    top = run("--help")
    assert top.code == 0
    for command in COMMANDS:
        assert command in top.out
        page = run(command, "--help")
        assert page.code == 0
        assert "Usage: cardiac-ct-fm " + command in page.out
    assert "Not a medical device" in top.out


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    answer = run()
    assert answer.code == 2
    assert "predict" in answer.out


def test_predict_writes_all_results_and_nothing_else(predicted: tuple[Path, str], finder: Path) -> None:
    folder, _ = predicted
    assert set(RESULTS) <= set(files_in(folder))
    assert not [name for name in files_in(folder.parent) if ".part-" in name]
    facts = json.loads((folder / "run.json").read_text())
    assert facts["model"] == "finder"
    assert facts["quality"] == "standard"
    assert facts["seconds"]["load"] > 0
    assert facts["weights_sha256"] == {"model.safetensors": sha256_of(finder / "model.safetensors")}
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
    assert written["coronaries.safetensors"] == sha256_of(tmp_path / "coronaries.safetensors")
    assert model.weight_files is None, "a random head is in no file"


def test_measure_with_corrected_points_fills_what_prediction_could_not(
    predicted: tuple[Path, str], demo_path: Path, tmp_path: Path
) -> None:
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


def test_models_lists_architectures_and_info_tells_about_a_folder(finder: Path) -> None:
    listing = run("models", "cardiac_swin_*")
    assert listing.code == 0
    assert "cardiac_swin_base" in listing.out
    assert "cardiac_unet" not in listing.out
    rows = json.loads(run("models", "--json").out)
    assert {"cardiac_swin_tiny", "cardiac_unet_base"} <= {row["full_name"] for row in rows}
    page = run("info", finder)
    assert page.code == 0
    assert "sha256" in page.out
    assert run("info", "nobody").code == 2


def test_info_begins_with_limitations_and_figures_and_tells_trainings_in_one_line() -> None:
    known, page = ccf.model_info("cardiac_swin_tiny"), run("info", "cardiac_swin_tiny").out
    order = ["Limitations", *known.metrics, "Facts", "Provenance"]
    assert [line.strip() for line in page.splitlines() if line.strip() in order] == order
    assert known.provenance["limitations"][0].split(",")[0] in " ".join(page.split())
    runs = known.provenance["runs"]
    (line,) = (line for line in page.splitlines() if line.split()[:1] == ["trainings"])
    assert line.split()[1] == f"{len(runs)}," and runs[-1]["commit"] in line
    assert "--start-from" not in page
    assert "--start-from" in run("info", "cardiac_swin_tiny", "--json").out


def test_weights_in_a_shared_folder_are_listed_and_verified(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ccf.export_pretrained(ccf.from_pretrained(finder), tmp_path, tag="test", description="for a test")
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", str(tmp_path))
    assert "finder.test" in run("models").out
    assert "sha256 verified" in next(line for line in run("doctor").out.splitlines() if "finder.test" in line)
    weights = tmp_path / "finder.test" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    answer = run("doctor")
    assert answer.code == 1
    assert "✗" in next(line for line in answer.out.splitlines() if "finder.test" in line)


def test_doctor_as_json_has_a_verdict_on_everything() -> None:
    findings = json.loads(run("doctor", "--json").out)
    assert {"Software", "Hardware", "Weights"} == {f["group"] for f in findings}
    assert {f["verdict"] for f in findings} <= {"ok", "note", "problem"}
    assert next(f for f in findings if f["name"] == "torch")["verdict"] == "ok"


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two coarse digital patients to train with and one to test on, with their data list."""
    folder = tmp_path_factory.mktemp("cohort") / "site1"
    answer = run("cohort", "--n", "3", "--test", "1", "--spacing", "4.0", "--size", "48", "-o", folder)
    assert answer.code == 0, answer.err
    return folder


def test_cohort_writes_patients_and_their_data_list(patients: Path, tmp_path: Path) -> None:
    listing = json.loads((patients / "datalist.json").read_text())
    assert (len(listing["training"]), len(listing["test"])) == (2, 1)
    assert (patients / listing["training"][0]["image"]).exists()
    bad = run("cohort", "--site", "9", "-o", tmp_path / "nine")
    assert bad.code == 2
    assert "1…8" in bad.line
    assert not (tmp_path / "nine").exists()


def test_evaluate_scores_the_scans_of_a_data_list(patients: Path, finder: Path, tmp_path: Path) -> None:
    listing = patients / "datalist.json"
    wrong = run("evaluate", listing, "--section", "validation", "-o", tmp_path / "figures", "-m", finder)
    assert wrong.code == 1
    assert "it has training, test: choose with --section" in wrong.line
    answer = run("evaluate", listing, "-o", tmp_path / "figures", "-m", finder)
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "figures" / "summary.json").read_text())
    assert summary["scans"] == 1
    row = next(line for line in answer.out.splitlines() if line.split()[:1] == ["LV"])
    assert float(row.split()[1]) == pytest.approx(summary["segmentation"]["LV"]["dice"]["median"], abs=6e-4)
    assert run("evaluate", "-o", tmp_path / "nothing").code == 2


def test_finetune_makes_a_head_that_predict_takes(
    patients: Path, finder: Path, small_scan: Path, tmp_path: Path
) -> None:
    size = ("--epochs", "1", "--patch", "16", "--windows", "1", "--validation", "0")
    answer = run(
        "finetune", patients / "datalist.json", "--head", "coronaries", "-o", tmp_path / "head", "-m", finder, *size
    )
    assert answer.code == 0, answer.err
    (head_file,) = (tmp_path / "head").glob("*.safetensors")
    assert str(head_file) in answer.out
    used = run(
        "predict", small_scan, "-o", tmp_path / "out", "-m", finder, "--head-file", head_file, "--heads", "coronaries"
    )
    assert used.code == 0, used.err
    assert "Coronary" in used.out


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError("a fault\nof ours")

    monkeypatch.setattr("cardiac_ct_fm.registry.model_info", broken)
    answer = run("info", "cardiac_swin_tiny")
    assert answer.code == 1
    assert "ZeroDivisionError" in answer.line
    assert "--debug" in answer.line
    monkeypatch.setenv("CARDIAC_CT_FM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("info", "cardiac_swin_tiny")


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


def test_cores_are_counted_as_this_process_may_use_them() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
