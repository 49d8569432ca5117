"""Bad input, end to end: one clear line, the right exit code, no traceback, nothing half-written; batches go on."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import Answer, files_in, run
from conftest import DEMO_SCAN, DICOM_ARCHIVE, ROOT
from small_scans import every_second_voxel, nifti
from tiny_finder import save_finder

from cardiac_ct_fm.volume_io import Volume

Maker = Callable[[Path, np.ndarray, np.ndarray], Path]


def missing(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    return folder / "nowhere.nii.gz"


def text(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "text.nii.gz").write_text("This is not an image.\n" * 40)
    return folder / "text.nii.gz"


def truncated(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    whole = nifti(folder / "whole.nii.gz", data, affine).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) * 2 // 3])
    return folder / "cut.nii.gz"


def two_dimensional(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    return nifti(folder / "slice.nii.gz", data[:, :, 40], affine)


def four_dimensional(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    return nifti(folder / "phases.nii.gz", np.stack([data, data], axis=-1), affine)


def coloured(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    pixels = np.zeros(data.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nifti(folder / "rgb.nii.gz", pixels, affine)


def zeros(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    return nifti(folder / "zeros.nii.gz", np.zeros_like(data), affine)


def not_a_number(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    values = data.astype(np.float32)
    values[3:5] = np.nan
    return nifti(folder / "nan.nii.gz", values, affine)


def singular(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    flat = affine.copy()
    flat[:3, 2] = flat[:3, 1]
    image = nib.Nifti1Image(data, None)
    image.header["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = flat[row]
    image.header["qform_code"] = 0
    path = folder / "flat.nii"
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + data.tobytes(order="F"))
    return path


def picture(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    grey = np.clip((data + 160.0) / 400.0 * 255.0, 0, 255).astype(np.uint8)
    return nifti(folder / "window.nii.gz", grey, affine)


def unit_scaled(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    low, high = float(data.min()), float(data.max())
    return nifti(folder / "normalised.nii.gz", ((data - low) / (high - low)).astype(np.float32), affine)


def magnetic(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """Positive intensities without a gap between fat and muscle, noise in the air: what an MR looks like."""
    rng = np.random.default_rng(0)
    signal = np.where(data < -300, 15.0, 400.0 + 0.8 * np.clip(data, -150, 400))
    noisy = np.hypot(signal + rng.normal(0, 25, data.shape), rng.normal(0, 25, data.shape))
    return nifti(folder / "mr.nii.gz", noisy.astype(np.int16), affine)


def thick(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    coarse = affine.copy()
    coarse[:3, 2] *= 8
    return nifti(folder / "thick.nii.gz", np.ascontiguousarray(data[:, :, ::8]), coarse)


def no_dicom(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "notes").mkdir()
    (folder / "notes" / "report.txt").write_text("Nothing here.")
    return folder / "notes"


def other_format(folder: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder / "scan.png"


BAD: dict[str, tuple[Maker, str]] = {
    "a missing file": (missing, "does not exist"),
    "a text file": (text, "is not a NIfTI image"),
    "a truncated file": (truncated, "truncated or damaged"),
    "a 2-D image": (two_dimensional, "2-D image"),
    "a 4-D image": (four_dimensional, "4 dimensions"),
    "an RGB image": (coloured, "colours"),
    "all zeros": (zeros, "every voxel is 0"),
    "NaN": (not_a_number, "not numbers"),
    "a singular affine": (singular, "affine"),
    "a window of 0-255": (picture, "0–255"),
    "intensities of 0-1": (unit_scaled, "0…1"),
    "an MR": (magnetic, "MR"),
    "12 mm slices": (thick, "12 mm"),
    "a folder without DICOM": (no_dicom, "no DICOM"),
    "another format": (other_format, "no image that can be read"),
}


@pytest.fixture(scope="module")
def small(demo_volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The real scan without most of its detail, to be quick."""
    return every_second_voxel(demo_volume)


def refused(answer: Answer, code: int, reason: str, out: Path) -> None:
    assert answer.code == code, answer.err
    assert reason in answer.line
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert files_in(out) == []


@pytest.mark.parametrize("what", BAD)
def test_a_bad_scan_gets_one_line_and_leaves_nothing(
    what: str, tmp_path: Path, small: tuple[np.ndarray, np.ndarray], finder: Path
) -> None:
    make, reason = BAD[what]
    scan = make(tmp_path, *small)
    refused(run("predict", scan, "-o", tmp_path / "out", "-m", finder), 1, reason, tmp_path / "out")


def test_the_line_says_what_to_do_with_several_dicom_series(tmp_path: Path, finder: Path) -> None:
    import pydicom

    folder = tmp_path / "study"
    with zipfile.ZipFile(DICOM_ARCHIVE) as archive:
        archive.extractall(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file())[::2]:
        slice_ = pydicom.dcmread(path)
        slice_.SeriesInstanceUID = f"{slice_.SeriesInstanceUID[:-2]}99"
        slice_.SeriesDescription = "every other"
        slice_.save_as(path)
    answer = run("predict", folder, "-o", tmp_path / "out", "-m", finder)
    refused(answer, 1, "--series", tmp_path / "out")
    assert "every other" in answer.line
    unknown = run("predict", folder, "-o", tmp_path / "out", "-m", finder, "--series", "nobody")
    refused(unknown, 1, "'nobody'", tmp_path / "out")


def test_a_scan_without_a_heart_is_refused(tmp_path: Path, demo_path: Path) -> None:
    blind = save_finder(tmp_path / "blind", finds_heart=False)
    refused(run("predict", demo_path, "-o", tmp_path / "out", "-m", blind), 1, "shows no heart", tmp_path / "out")


def test_weights_that_were_changed_are_refused(tmp_path: Path, demo_path: Path, finder: Path) -> None:
    broken = shutil.copytree(finder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 0xFF
    weights.write_bytes(content)
    refused(run("predict", demo_path, "-o", tmp_path / "out", "-m", broken), 1, "sha256", tmp_path / "out")


def test_a_pickle_is_not_loaded(tmp_path: Path, demo_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    answer = run("predict", demo_path, "-o", tmp_path / "out", "-m", tmp_path / "model.pt")
    refused(answer, 1, "is a pickle", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--heads", "haert"], "Did you mean 'heart'?"),
        (["--quality", "best"], "best"),
        (["--device", "abacus"], "abacus"),
        (["--threads", "0"], "--threads"),
        (["--valve", "quadricuspid"], "quadricuspid"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], reason: str, tmp_path: Path, demo_path: Path, finder: Path
) -> None:
    answer = run("predict", demo_path, "-o", tmp_path / "out", "-m", finder, *arguments)
    refused(answer, 2, reason, tmp_path / "out")


def test_an_unknown_model_offers_the_known_ones(tmp_path: Path, demo_path: Path) -> None:
    answer = run("predict", demo_path, "-o", tmp_path / "out", "-m", "cardiac_swin_tini")
    refused(answer, 2, "cardiac_swin_tiny", tmp_path / "out")


def test_a_missing_argument_or_output_is_exit_code_2(tmp_path: Path, demo_path: Path) -> None:
    assert run("predict", "-o", tmp_path / "out").code == 2
    answer = run("predict", demo_path)
    assert answer.code == 2
    assert "--out" in answer.line
    assert run("predcit").code == 2


def test_a_batch_goes_on_and_says_so(tmp_path: Path, small: tuple[np.ndarray, np.ndarray], finder: Path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    nifti(folder / "a.nii.gz", *small)
    text(folder, *small)
    nifti(folder / "z.nii.gz", *small)
    answer = run("predict", folder, "-o", tmp_path / "out", "-m", finder, "--json")
    assert answer.code == 3
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["name"], row["status"]) for row in rows] == [("a", "done"), ("text", "failed"), ("z", "done")]
    assert "is not a NIfTI image" in rows[1]["error"]
    assert "Traceback" not in answer.err
    assert "1 of 3 scans failed" in answer.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "measurements.csv", "z"]
    with (tmp_path / "out" / "measurements.csv").open(newline="") as stream:
        table = {line["case"]: line for line in csv.DictReader(stream)}
    assert {name: line["status"] for name, line in table.items()} == {"a": "done", "text": "failed", "z": "done"}
    assert table["text"]["reason"] == rows[1]["error"]
    assert (table["text"]["LV_volume_ml"], table["text"]["LV_volume_ml_status"]) == ("", "not_measured")
    for line, row in ((table["a"], rows[0]), (table["z"], rows[2])):
        for measured in row["measurements"]:
            cell, value = line[measured["name"]], measured["value"]
            assert cell == "" if value is None else float(cell) == pytest.approx(value, rel=1e-4)


def test_a_batch_in_which_nothing_works_is_a_failure(
    tmp_path: Path, small: tuple[np.ndarray, np.ndarray], finder: Path
) -> None:
    answer = run("predict", text(tmp_path, *small), tmp_path / "nowhere.nii", "-o", tmp_path / "out", "-m", finder)
    assert answer.code == 1
    assert "2 of 2 scans failed" in answer.err
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    "command",
    [
        ("predict", DEMO_SCAN, "-m", "no-such-model"),
        ("measure", DEMO_SCAN, "--landmarks", "nowhere.mrk.json"),
        ("evaluate", "--digital", "0"),
        ("finetune", "nowhere.json", "--head", "mine", "-m", "no-such-model"),
    ],
)
def test_a_bad_output_folder_is_noticed_before_anything_is_computed(
    command: tuple[object, ...], tmp_path: Path
) -> None:
    taken = tmp_path / "out"
    taken.write_text("a file where a folder should be")
    answer = run(*command, "-o", taken)
    assert answer.code == 1
    assert f"{taken} is a file, not a folder" in answer.line
    assert "cannot be written" in run(*command, "-o", "/proc/nope").line


def test_a_scan_whose_own_folder_is_a_file_is_refused_before_it_is_computed(tmp_path: Path, demo_path: Path) -> None:
    taken = tmp_path / "ct_cropped"
    taken.write_text("a file where a folder should be")
    answer = run("predict", demo_path, "-o", tmp_path, "-m", "no-such-model")
    assert answer.code == 1
    assert f"{taken} is a file, not a folder" in answer.line


def test_points_that_do_not_fit_are_refused(tmp_path: Path, demo_path: Path) -> None:
    points = tmp_path / "edited.mrk.json"
    points.write_text("{")
    refused(
        run("measure", demo_path, "--landmarks", points, "-o", tmp_path / "out"),
        1,
        "no landmark file",
        tmp_path / "out",
    )
    points.write_text(json.dumps({"coordinate_system": "LPS", "unit": "mm", "landmarks": []}))
    refused(run("measure", demo_path, "--landmarks", points, "-o", tmp_path / "out"), 1, "RAS", tmp_path / "out")


def test_a_real_process_behaves_the_same(tmp_path: Path) -> None:
    """No part of this rests on running inside the test process."""
    (tmp_path / "text.nii.gz").write_text("no image")
    command = [sys.executable, "-m", "cardiac_ct_fm", "predict", tmp_path / "text.nii.gz", "-o", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "is not a NIfTI image" in done.stderr
    assert files_in(tmp_path / "out") == []
