"""``cohort``, ``finetune`` and ``evaluate``: patients, a head that learns on them, and how good a model is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


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
    head = next(line for line in answer.out.splitlines() if line.split()[:1] == ["Structure"])
    asked = summary["segmentation"]["LV"]["dice"]["asked"]
    assert head.split()[-3:] == ["Scans", "Missed", "Invented"] and row.split()[-3] == str(asked) == "1"
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
