"""Which scans a list of files and folders means, and what their results are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.scan_list import Case, list_cases


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def test_a_file_is_one_case_named_without_its_ending(tmp_path: Path) -> None:
    assert list_cases([tmp_path / "ct.nii.gz"]) == [Case("ct", tmp_path / "ct.nii.gz")]
    assert names(list_cases([tmp_path / "a.b.NII"])) == ["a.b"]


def test_a_folder_is_searched_to_its_end_and_keeps_its_order(tmp_path: Path) -> None:
    touch(tmp_path / "b.nii.gz", tmp_path / "a" / "ct.nii", tmp_path / "a" / "notes.txt", tmp_path / ".trash" / "x.nii")
    assert names(list_cases([tmp_path])) == ["a/ct", "b"]


def test_results_are_no_scans(tmp_path: Path) -> None:
    touch(tmp_path / "ct.nii.gz", tmp_path / "out" / "ct" / "segmentation.nii.gz", tmp_path / "out" / "ct" / "run.json")
    assert names(list_cases([tmp_path])) == ["ct"]


def test_the_same_scan_given_twice_is_one_case(tmp_path: Path) -> None:
    touch(tmp_path / "ct.nii.gz")
    assert len(list_cases([tmp_path / "ct.nii.gz", tmp_path, tmp_path / "." / "ct.nii.gz"])) == 1


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    scans = [tmp_path / p / "ct.nii.gz" for p in ("anna", "berta")] + [tmp_path / "CT.nii.gz"]
    found = names(list_cases(scans))
    assert found[:2] == ["anna-ct", "berta-ct"]
    assert len({n.casefold() for n in found}) == 3


def test_what_does_not_exist_is_listed_so_that_reading_says_so(tmp_path: Path) -> None:
    assert names(list_cases([tmp_path / "nowhere"])) == ["nowhere"]
    with pytest.raises(ImageError, match="No scan"):
        list_cases([])


def test_a_dicom_folder_is_one_case(dicom_folder: Path) -> None:
    (case,) = list_cases([dicom_folder])
    assert case == Case(dicom_folder.name, dicom_folder)
    (chosen,) = list_cases([dicom_folder], series="12")
    assert chosen.series == "12"


def test_patients_in_folders_of_their_own_are_cases_of_their_own(dicom_folder: Path, tmp_path: Path) -> None:
    import pydicom

    first = sorted(p for p in dicom_folder.rglob("*") if p.is_file())[:4]
    for patient in ("anna", "berta"):
        for path in first:
            header = pydicom.dcmread(path)
            header.SeriesInstanceUID = "1.2.3" if patient == "anna" else "1.2.4"
            (tmp_path / patient / "CT").mkdir(parents=True, exist_ok=True)
            header.save_as(tmp_path / patient / "CT" / path.name)
    touch(tmp_path / "carla.nii.gz")
    assert names(list_cases([tmp_path])) == ["anna/CT", "berta/CT", "carla"]


def test_a_series_spread_over_folders_is_one_case(dicom_folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(p for p in dicom_folder.rglob("*") if p.is_file())[:6]):
        part = tmp_path / "study" / f"part{number % 2}"
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part)
    (case,) = list_cases([tmp_path])
    assert case.source == tmp_path / "study"
    assert case.series
