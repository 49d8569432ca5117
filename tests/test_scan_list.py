"""Which scans a list of files and folders means, and what their results are called."""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path

import pydicom
import pytest

from cardiac_ct_fm.dicom_io import load_dicom_folder
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
    touch(tmp_path / "killed" / "segmentation.nii.gz")
    assert names(list_cases([tmp_path])) == ["ct"]


def test_a_list_stays_the_same_when_results_lie_beside_the_scans(dicom_folder: Path, tmp_path: Path) -> None:
    for patient in ("anna", "berta"):
        slices(dicom_folder, tmp_path / patient, uid=f"1.2.{len(patient)}")
    before = list_cases([tmp_path])
    touch(*(tmp_path / case.name / "run.json" for case in before), tmp_path / "anna" / "segmentation.nii.gz")
    assert list_cases([tmp_path]) == before
    assert names(before) == ["anna", "berta"]


def test_the_same_scan_given_twice_is_one_case(tmp_path: Path) -> None:
    touch(tmp_path / "ct.nii.gz")
    assert len(list_cases([tmp_path / "ct.nii.gz", tmp_path, tmp_path / "." / "ct.nii.gz"])) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only there a file name may be any bytes")
def test_names_that_are_no_unicode_can_be_written_and_stay_apart(tmp_path: Path) -> None:
    touch(*(tmp_path / os.fsdecode(name) for name in (b"M\xfcller.nii.gz", b"M\xf6ller.nii.gz", b"\xe4/ct.nii")))
    found = names(list_cases([tmp_path]))
    assert len(set(found)) == 3 and "_/ct" in found
    assert all(name.encode() and name.startswith(("M_ller", "_")) for name in found)


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    scans = [tmp_path / p / "ct.nii.gz" for p in ("anna", "berta")] + [tmp_path / "CT.nii.gz"]
    found = names(list_cases(scans))
    assert found[:2] == ["anna-ct", "berta-ct"]
    assert len({n.casefold() for n in found}) == 3


def test_files_of_one_name_in_one_folder_are_told_apart_by_their_endings(tmp_path: Path) -> None:
    touch(tmp_path / "ct.nii", tmp_path / "ct.nii.gz", tmp_path / "other.nii")
    assert set(names(list_cases([tmp_path]))) == {"ct-nii", "ct-nii-gz", "other"}
    touch(tmp_path / "CT.nii", tmp_path / "CT.NII")
    cases = list_cases([tmp_path])
    assert {case.source.name: case.name for case in cases} == {
        "CT.NII": "CT-NII",
        "CT.nii": "CT-nii-2",
        "ct.nii": "ct-nii-3",
        "ct.nii.gz": "ct-nii-gz",
        "other.nii": "other",
    }, "no folder further up is named"


def test_a_file_made_from_a_dicom_folder_beside_it_has_results_of_its_own(dicom_folder: Path, tmp_path: Path) -> None:
    slices(dicom_folder, tmp_path / "p1", uid="1.2.3")
    touch(tmp_path / "p1.nii.gz")
    assert sorted(names(list_cases([tmp_path]))) == ["p1", "p1-nii-gz"]
    assert names(list_cases([tmp_path / "p1", tmp_path / "p1.nii.gz"])) == ["p1", "p1-nii-gz"]


def test_links_into_one_store_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    for patient in ("anna", "berta"):
        touch(tmp_path / "store" / patient)
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "ct.nii").symlink_to(tmp_path / "store" / patient)
    assert names(list_cases([tmp_path / p / "ct.nii" for p in ("anna", "berta")])) == ["anna-ct", "berta-ct"]


def test_no_two_scans_share_a_name_whatever_they_are_called(tmp_path: Path) -> None:
    files = ("a/ct.nii", "b/ct.nii", "a-ct.nii", "x/a-ct.nii", "a/ct.nii.gz", "a/CT.nii", "ct-nii.nii", "a/ct-nii.nii")
    touch(*(tmp_path / file for file in files))
    for scans in ([tmp_path / file for file in files], [tmp_path], [tmp_path, tmp_path / "a", tmp_path / "x"]):
        found = names(list_cases(scans))
        assert len({name.casefold() for name in found}) == len(found) == len(files)
        assert not any(tmp_path.parent.name in name for name in found)


def test_what_does_not_exist_is_listed_so_that_reading_says_so(tmp_path: Path) -> None:
    assert names(list_cases([tmp_path / "nowhere"])) == ["nowhere"]
    with pytest.raises(ImageError, match="No scan"):
        list_cases([])


def test_a_dicom_folder_is_one_case(dicom_folder: Path) -> None:
    (case,) = list_cases([dicom_folder])
    assert case == Case(dicom_folder.name, dicom_folder)
    (chosen,) = list_cases([dicom_folder], series="12")
    assert chosen.series == "12"


def slices(source: Path, *folders: Path, uid: str) -> None:
    """Two slices of the real series in each folder, under another series UID."""
    files = iter(sorted(source.glob("*.dcm")))
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in islice(files, 2):
            header = pydicom.dcmread(path)
            header.SeriesInstanceUID = uid
            header.save_as(folder / path.name)


def test_patients_in_folders_of_their_own_are_cases_of_their_own(dicom_folder: Path, tmp_path: Path) -> None:
    slices(dicom_folder, tmp_path / "anna" / "CT", uid="1.2.3")
    slices(dicom_folder, tmp_path / "berta" / "CT", uid="1.2.4")
    touch(tmp_path / "carla.nii.gz")
    assert names(list_cases([tmp_path])) == ["anna/CT", "berta/CT", "carla"]


def test_a_series_spread_over_folders_is_one_case(dicom_folder: Path, tmp_path: Path) -> None:
    slices(dicom_folder, *(tmp_path / "study" / f"part{number}" for number in range(3)), uid="1.2.3")
    assert list_cases([tmp_path]) == [Case("study", tmp_path / "study", "1.2.3")]


@pytest.mark.parametrize("depth", ["", "p1"])
def test_two_series_spread_over_parts_of_one_folder_are_told_apart_by_their_uids(
    dicom_folder: Path, tmp_path: Path, depth: str
) -> None:
    home = tmp_path / "study" / depth
    slices(dicom_folder, home / "1", home / "2", uid="1.2.5.7")
    slices(dicom_folder, home / "3", home / "4", uid="1.2.6.7")
    slices(dicom_folder, tmp_path / "study" / "p2", uid="1.2.8")
    name = depth or "study"
    assert sorted(list_cases([tmp_path / "study"]), key=lambda case: case.source.name == "p2") == [
        Case(f"{name}-5.7", home, "1.2.5.7"),
        Case(f"{name}-6.7", home, "1.2.6.7"),
        Case("p2", tmp_path / "study" / "p2"),
    ]


def test_the_index_of_a_medium_is_no_scan(dicom_folder: Path, tmp_path: Path) -> None:
    slices(dicom_folder, tmp_path / "images" / "1", uid="1.2.3")
    slices(dicom_folder, tmp_path / "images" / "2", uid="1.2.4")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert names(list_cases([tmp_path])) == ["images/1", "images/2"]


def test_a_damaged_file_spoils_its_own_case_only(dicom_folder: Path, tmp_path: Path) -> None:
    for patient in ("anna", "berta"):
        slices(dicom_folder, tmp_path / patient, uid=f"1.2.{len(patient)}")
    victim = min((tmp_path / "anna").iterdir())
    victim.write_bytes(victim.read_bytes().replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00ZZ"))
    anna, berta = list_cases([tmp_path])
    assert (anna.name, berta.name) == ("anna", "berta")
    with pytest.raises(ImageError, match=f"{victim.name} is truncated or damaged"):
        load_dicom_folder(anna.source)
    assert load_dicom_folder(berta.source).data.shape[2] == 2
