"""DICOM folders: a real series, and what can be wrong with one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import RLELossless, generate_uid

from cardiac_ct_fm.dicom_io import find_series, load_dicom_folder
from cardiac_ct_fm.errors import ImageError, MissingExtraError
from cardiac_ct_fm.volume_io import load_volume

SERIES_UID = "1.3.6.1.4.1.14519.5.2.1.9203.8273.286130801613533577338339572281"


def copy(source: Path, target: Path, keep: slice, change: Callable[[Any, int], None] | None = None) -> Path:
    """Some slices of the real series, in order of height, changed one by one."""
    target.mkdir(parents=True, exist_ok=True)
    heights = sorted((float(pydicom.dcmread(p, True).ImagePositionPatient[2]), p) for p in source.glob("*.dcm"))
    for number, (_, path) in enumerate(heights[keep]):
        header = pydicom.dcmread(path)
        if change is not None:
            change(header, number)
        header.save_as(target / f"{len(list(target.iterdir())):03d}.dcm")
    return target


def renamed(description: str, uid: str) -> Callable[[Any, int], None]:
    def change(header: Any, number: int) -> None:
        header.SeriesDescription, header.SeriesInstanceUID, header.SOPInstanceUID = description, uid, generate_uid()

    return change


def test_the_real_series_has_itks_values_and_place(dicom_folder: Path) -> None:
    volume = load_volume(dicom_folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(dicom_folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
    assert volume.data.dtype == np.int16 and volume.data.flags.f_contiguous
    for index in ((0, 0, 0), (511, 0, 50), (100, 200, 30)):
        lps = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.grid.world(index), (-lps[0], -lps[1], lps[2]), atol=1e-4)
    assert volume.grid.orientation == "LPS"
    np.testing.assert_allclose(volume.grid.spacing, (0.804688, 0.804688, 5.0))


def test_its_facts_name_the_position_and_no_patient(dicom_folder: Path) -> None:
    volume = load_volume(dicom_folder)
    assert volume.facts["patient_position"] == "FFS" and volume.facts["series_uid"] == SERIES_UID
    assert volume.facts["slice_thickness_mm"] == 5.0 and volume.name == "crlm-1006"
    assert "CRLM-CT-1006" not in str(dict(volume.facts)) and "1994" not in str(dict(volume.facts))


def test_names_and_order_of_the_files_do_not_matter(dicom_folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(dicom_folder.glob("*.dcm"), reverse=True)):
        target = tmp_path / ("upper" if number % 2 else "lower") / f"{number * 37 % 51}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(dicom_folder / "1-01.dcm", tmp_path / "a copy of one slice.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")
    shuffled, plain = load_volume(tmp_path), load_volume(dicom_folder)
    np.testing.assert_array_equal(shuffled.data, plain.data)
    assert shuffled.grid.same_as(plain.grid)


def test_several_series_are_listed_and_one_can_be_chosen(dicom_folder: Path, tmp_path: Path) -> None:
    copy(dicom_folder, tmp_path, slice(0, 12), renamed("Lung 5.0", "1.2.3.111"))
    copy(dicom_folder, tmp_path, slice(10, 26), renamed("CTA 5.0", "1.2.3.222"))

    def localizer(header: Any, number: int) -> None:
        renamed("Topogram", "1.2.3.333")(header, number)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    copy(dicom_folder, tmp_path, slice(0, 2), localizer)
    with pytest.raises(ImageError) as caught:
        load_volume(tmp_path)
    text = str(caught.value)
    for part in (
        "2 CT series",
        "1.2.3.111 (Lung 5.0, CT, 12 slices)",
        "1.2.3.222 (CTA 5.0, CT, 16 slices)",
        "--series",
    ):
        assert part in text
    assert "Topogram" not in text and "\n" not in text
    for choice in ("1.2.3.222", "222", "CTA 5.0"):
        assert load_volume(tmp_path, series=choice).grid.shape == (512, 512, 16)
    with pytest.raises(ImageError, match=r"no CT series that fit '999'.*Lung 5\.0"):
        load_volume(tmp_path, series="999")
    with pytest.raises(ImageError, match=r"2 CT series that fit '1\.2\.3'"):
        load_volume(tmp_path, series="1.2.3")


def test_heart_phases_in_one_series_are_told_apart(dicom_folder: Path, tmp_path: Path) -> None:
    def phase(percent: int) -> Callable[[Any, int], None]:
        def change(header: Any, number: int) -> None:
            header.SOPInstanceUID = generate_uid()
            header.NominalPercentageOfCardiacPhase = percent
            header.PixelData = (header.pixel_array + percent).astype(np.int16).tobytes()

        return change

    for percent in (30, 75):
        copy(dicom_folder, tmp_path, slice(0, 10), phase(percent))
    found = find_series(tmp_path)
    assert sorted(s.key for s in found) == [f"{SERIES_UID}#30.0", f"{SERIES_UID}#75.0"]
    with pytest.raises(ImageError, match=r"2 CT series.*#30\.0.*#75\.0"):
        load_volume(tmp_path)
    early, late = (load_volume(tmp_path, series=f"#{p}.0") for p in (30, 75))
    assert early.grid.same_as(late.grid)
    np.testing.assert_array_equal(late.data - early.data, 45)


def test_stacks_of_two_sizes_in_one_series_can_each_be_chosen(dicom_folder: Path, tmp_path: Path) -> None:
    def halved(header: Any, number: int) -> None:
        values = header.pixel_array[::2, ::2]
        header.SOPInstanceUID, header.PixelData = generate_uid(), values.tobytes()
        header.Rows, header.Columns = values.shape
        header.PixelSpacing = [2 * float(v) for v in header.PixelSpacing]

    copy(dicom_folder, tmp_path, slice(0, 8))
    copy(dicom_folder, tmp_path, slice(0, 6), halved)
    keys = [series.key for series in find_series(tmp_path)]
    assert keys == [f"{SERIES_UID}#1-512x512", f"{SERIES_UID}#2-256x256"]
    with pytest.raises(ImageError, match=r"2 CT series.*#1-512x512.*#2-256x256"):
        load_volume(tmp_path, series=SERIES_UID)
    for choice, shape in ((keys[0], (512, 512, 8)), (keys[1], (256, 256, 6)), ("256x256", (256, 256, 6))):
        assert load_dicom_folder(tmp_path, choice).grid.shape == shape


def test_orientations_that_are_equal_but_for_rounding_are_one_stack(dicom_folder: Path, tmp_path: Path) -> None:
    def turn(header: Any, number: int) -> None:
        header.ImageOrientationPatient = [1, round(0.0005 + (-1) ** number * 1e-5, 6), 0, 0, 1, 0]

    def turn_away(header: Any, number: int) -> None:
        header.SOPInstanceUID, header.ImageOrientationPatient = generate_uid(), [1, 0, 0, 0, 0, -1]

    copy(dicom_folder, tmp_path, slice(0, 6), turn)
    assert [(s.key, len(s.slices)) for s in find_series(tmp_path)] == [(SERIES_UID, 6)]
    copy(dicom_folder, tmp_path, slice(0, 4), turn_away)
    assert [s.key for s in find_series(tmp_path)] == [f"{SERIES_UID}#{n}-512x512" for n in (1, 2)]


def test_a_lost_slice_is_found_and_named(dicom_folder: Path, tmp_path: Path) -> None:
    copy(dicom_folder, tmp_path, slice(0, 20))
    (tmp_path / "007.dcm").unlink()
    with pytest.raises(ImageError, match=r"5\.00 mm apart, but 10\.00 mm between 006\.dcm and 008\.dcm"):
        load_volume(tmp_path)


@pytest.mark.parametrize(
    "element", ["Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"]
)
def test_a_file_without_its_place_in_the_patient_is_no_slice_and_harms_no_other(
    element: str, dicom_folder: Path, tmp_path: Path
) -> None:
    def damage(header: Any, number: int) -> None:
        if number == 5 and element in ("Rows", "Columns"):
            delattr(header, element)
        elif number == 5:
            setattr(header, element, list(header.get(element))[:-1])

    copy(dicom_folder, tmp_path, slice(0, 6), damage)
    assert [len(series.slices) for series in find_series(tmp_path)] == [5]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's own about such a value
def test_a_header_element_that_is_no_number_makes_no_slice(dicom_folder: Path, tmp_path: Path) -> None:
    path = copy(dicom_folder, tmp_path, slice(0, 1)) / "000.dcm"
    spacing = b"0.804688\\0.804688"
    assert path.read_bytes().count(spacing) == 1
    path.write_bytes(path.read_bytes().replace(spacing, b"0.804688\\O.8O4688"))
    with pytest.raises(ImageError, match="no DICOM image series"):
        load_dicom_folder(tmp_path)


DAMAGE = {
    "a value representation that does not exist": (b"\x20\x00\x32\x00DS", b"\x20\x00\x32\x00ZZ"),
    "a number of the wrong length": (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00US\x01\x00"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_header_is_an_error_that_names_the_file(how: str, dicom_folder: Path, tmp_path: Path) -> None:
    path = copy(dicom_folder, tmp_path, slice(0, 4)) / "000.dcm"
    intact, damaged = DAMAGE[how]
    assert path.read_bytes().count(intact) == 1
    path.write_bytes(path.read_bytes().replace(intact, damaged))
    with pytest.raises(
        ImageError, match=r"000\.dcm is truncated or damaged \(.+\).*take it out of the folder"
    ) as caught:
        load_dicom_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("representation", ["IS", "LO"])
def test_a_slice_of_two_frames_is_none_and_one_that_hides_them_is_named(
    representation: str, dicom_folder: Path, tmp_path: Path
) -> None:
    def two(header: Any, number: int) -> None:
        if number == 3:
            header.add_new("NumberOfFrames", representation, "2")
            header.PixelData *= 2

    says = {"IS": r"10\.00 mm between 002\.dcm and 004\.dcm", "LO": r"003\.dcm is .* damaged \(its pixels are \(2, 512"}
    copy(dicom_folder, tmp_path, slice(0, 6), two)
    with pytest.raises(ImageError, match=says[representation]):
        load_dicom_folder(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's own about such a value
def test_a_fact_that_is_no_number_is_not_known(dicom_folder: Path, tmp_path: Path) -> None:
    for path in copy(dicom_folder, tmp_path, slice(0, 3)).iterdir():
        path.write_bytes(path.read_bytes().replace(b"\x18\x00\x60\x00DS", b"\x18\x00\x60\x00LO"))
    facts = load_dicom_folder(tmp_path).facts
    assert "kvp" not in facts and facts["slice_thickness_mm"] == 5.0


def test_a_gantry_tilt_stays_in_the_affine(dicom_folder: Path, tmp_path: Path) -> None:
    def tilt(header: Any, number: int) -> None:
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x, round(float(y) + 1.25 * number, 6), z]

    volume = load_volume(copy(dicom_folder, tmp_path, slice(0, 12), tilt))
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -1.25, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("millimetres", "fits"), [((20.0, 0), False), ((0, 0.5), False), ((-0.5, 0), False), ((0.05, 0.05), True)]
)
def test_a_jump_within_the_plane_is_no_tilt(
    millimetres: tuple[float, float], fits: bool, dicom_folder: Path, tmp_path: Path
) -> None:
    def jump(header: Any, number: int) -> None:
        x, y, z = map(float, header.ImagePositionPatient)
        if number >= 6:
            header.ImagePositionPatient = [round(x + millimetres[0], 4), round(y + millimetres[1], 4), z]

    copy(dicom_folder, tmp_path, slice(0, 12), jump)
    if fits:
        assert load_dicom_folder(tmp_path).grid.shape == (512, 512, 12)
    else:
        with pytest.raises(ImageError, match=r"slice 00[56]\.dcm .* lies off the even line of the others"):
            load_dicom_folder(tmp_path)


@pytest.mark.parametrize(("factor", "fits"), [(1.1, False), (1.001, False), (1.0001, True)])
def test_slices_of_another_pixel_spacing_are_no_part_of_the_stack(
    factor: float, fits: bool, dicom_folder: Path, tmp_path: Path
) -> None:
    def zoom(header: Any, number: int) -> None:
        if number >= 3:
            header.PixelSpacing = [round(float(v) * factor, 6) for v in header.PixelSpacing]

    copy(dicom_folder, tmp_path, slice(0, 6), zoom)
    if fits:
        assert load_dicom_folder(tmp_path).grid.shape == (512, 512, 6)
    else:
        with pytest.raises(ImageError, match=r"slice 003\.dcm .* has another pixel spacing"):
            load_dicom_folder(tmp_path)


@pytest.mark.parametrize("how", ["RLE", "JPEG", "JPEG2000"])
def test_compressed_slices_give_the_same_values(dicom_folder: Path, tmp_path: Path, how: str) -> None:
    def compress(header: Any, number: int) -> None:
        if how == "RLE":
            header.compress(RLELossless)
            return
        # ITK packs the stored values; its pixel data then replace those of the original slice.
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(how)
        writer.SetFileName(str(tmp_path / "codec.dcm"))
        writer.Execute(sitk.GetImageFromArray(header.pixel_array[None]))
        codec = pydicom.dcmread(tmp_path / "codec.dcm")
        header.file_meta.TransferSyntaxUID = codec.file_meta.TransferSyntaxUID
        header["PixelData"] = codec["PixelData"]
        for element in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            header[element] = codec[element]

    plain = load_volume(copy(dicom_folder, tmp_path / "plain", slice(0, 10)))
    packed = copy(dicom_folder, tmp_path / "packed", slice(0, 10), compress)
    first = pydicom.dcmread(next(iter(packed.glob("*.dcm"))))
    assert first.file_meta.TransferSyntaxUID.is_encapsulated
    volume = load_volume(packed)
    np.testing.assert_array_equal(volume.data, plain.data)
    assert volume.grid.same_as(plain.grid)


def _other_modality(header: Any, number: int) -> None:
    header.Modality = "MR"


def _enhanced(header: Any, number: int) -> None:
    header.NumberOfFrames = 20
    del header.ImagePositionPatient


def _cut_off(folder: Path) -> None:
    path = folder / "003.dcm"
    path.write_bytes(path.read_bytes()[:200_000])


@pytest.mark.parametrize(
    ("keep", "change", "afterwards", "says"),
    [
        (slice(0, 8), _other_modality, None, r"holds no CT but .*MR, 8 slices"),
        (slice(0, 2), _enhanced, None, "multi-frame .*dcm2niix"),
        (slice(0, 1), None, None, "2-D image"),
        (slice(0, 8), None, _cut_off, r"003\.dcm is truncated or damaged"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    dicom_folder: Path, tmp_path: Path, keep: slice, change: Any, afterwards: Any, says: str
) -> None:
    copy(dicom_folder, tmp_path, keep, change)
    if afterwards:
        afterwards(tmp_path)
    with pytest.raises(ImageError, match=says) as caught:
        load_dicom_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_dicom_says_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no DICOM image series \(it is empty\)"):
        load_volume(tmp_path)
    (tmp_path / "ct.nii.gz").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"1 × \.nii\.gz.*Give"):
        load_volume(tmp_path)


def test_without_the_extra_the_error_names_it(dicom_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"cardiac-ct-fm\[dicom\]"):
        load_volume(dicom_folder)
