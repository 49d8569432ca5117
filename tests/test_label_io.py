"""Label maps as NIfTI files on the scan's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.errors import DataError, OutputError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import load_covered, load_label_map, save_covered, save_label_map, take_apart
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volume_io import Volume
from tests.test_geometry import affines

NAMES = {1: "Myo", 2: "LA", 200: "Häkchen"}


def labels_of(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 200], np.uint8), shape)


@settings(deadline=None, max_examples=20)
@given(affines())
def test_labels_names_and_place_come_back(tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("labels") / "s.nii.gz"
    labels, grid = labels_of((7, 8, 9)), Grid((7, 8, 9), affine)
    save_label_map(path, labels, grid, NAMES)
    read, where, names = load_label_map(path)
    np.testing.assert_array_equal(read, labels)
    assert names == NAMES and where.same_as(grid, 1e-3)


def test_other_programs_read_the_same(tmp_path: Path, demo_path: Path, demo_volume: Volume) -> None:
    labels = np.asfortranarray(labels_of(demo_volume.grid.shape))
    save_label_map(tmp_path / "s.nii.gz", labels, demo_volume, NAMES)
    image = nib.load(tmp_path / "s.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels)
    np.testing.assert_array_equal(image.affine, demo_volume.affine)
    np.testing.assert_allclose(image.get_qform(), demo_volume.affine, atol=1e-4)
    assert image.get_data_dtype() == np.uint8 and image.header.get_intent()[0] == "label"
    itk, scan = sitk.ReadImage(str(tmp_path / "s.nii.gz")), sitk.ReadImage(str(demo_path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, labels)
    np.testing.assert_allclose(itk.GetOrigin(), scan.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(itk.GetDirection(), scan.GetDirection(), atol=1e-5)


def test_a_tilted_scan_keeps_its_shear(tmp_path: Path) -> None:
    sheared = np.diag([0.5, 0.5, 1.0, 1.0])
    sheared[1, 2] = 0.4
    save_label_map(tmp_path / "s.nii.gz", labels_of((5, 5, 5)), Grid((5, 5, 5), sheared), NAMES)
    np.testing.assert_allclose(nib.load(tmp_path / "s.nii.gz").affine, sheared, atol=1e-6)


def test_without_the_fast_compressor_the_file_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, grid = labels_of((20, 20, 20)), Grid((20, 20, 20), np.eye(4))
    save_label_map(tmp_path / "a.nii.gz", labels, grid, NAMES)
    monkeypatch.setitem(__import__("sys").modules, "isal.igzip", None)
    save_label_map(tmp_path / "b.nii.gz", labels, grid, NAMES)
    for name in ("a", "b"):
        np.testing.assert_array_equal(load_label_map(tmp_path / f"{name}.nii.gz")[0], labels)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    labels, grid = labels_of((9, 9, 9)), Grid((9, 9, 9), np.eye(4))
    for name in ("a", "b"):
        save_label_map(tmp_path / f"{name}.nii.gz", labels, grid, NAMES)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_unnamed_values_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    grid = Grid((3, 3, 3), np.eye(4))
    with pytest.raises(DataError, match=r"values \[5\], which have no name"):
        save_label_map(tmp_path / "s.nii.gz", np.full((3, 3, 3), 5, np.uint8), grid, NAMES)
    with pytest.raises(DataError, match="uint8 of shape"):
        save_label_map(tmp_path / "s.nii.gz", np.zeros((3, 3, 4), np.uint8), grid, NAMES)
    with pytest.raises(DataError, match="uint8 of shape"):
        save_label_map(tmp_path / "s.nii.gz", np.zeros((3, 3, 3), np.int16), grid, NAMES)
    assert not list(tmp_path.iterdir())


def test_anybodys_mask_can_be_read_and_a_ct_is_no_mask(tmp_path: Path, demo_path: Path) -> None:
    mask = labels_of((4, 5, 6))
    nib.save(nib.Nifti1Image(mask.astype(np.float32), np.eye(4)), tmp_path / "m.nii.gz")
    read, _, names = load_label_map(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read, mask)
    assert names == {}
    with pytest.raises(DataError, match="no label map"):
        load_label_map(demo_path)


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match=r"s\.nii\.gz cannot be written"):
            save_label_map(tmp_path / "s.nii.gz", labels_of((40, 40, 40)), Grid((40, 40, 40), np.eye(4)), NAMES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


CLASSES = {"heart": HEADS["heart"].classes, "calc": ("Calc",), "plaque": ("Hard", "LV"), "veins": ("SVC",)}


def overlapping(shape: tuple[int, int, int] = (30, 20, 25)) -> Prediction:
    """Four heads whose labels lie over each other, drawn at random; two of them name a class alike."""
    rng = np.random.default_rng(1)
    maps = {head: np.zeros(shape, np.uint8, order="F") for head in CLASSES}
    for (head, classes), box in zip(
        CLASSES.items(), (np.s_[:], np.s_[5:15], np.s_[10:22, 3:], np.s_[8:12]), strict=True
    ):
        maps[head][box] = rng.integers(0, len(classes) + 1, maps[head][box].shape)
    return Prediction(Volume(np.zeros(shape, np.int16), np.eye(4)), label_maps=maps, classes=CLASSES)


def test_heads_come_back_whole_from_under_finer_labels(tmp_path: Path) -> None:
    found = overlapping()
    save_covered(tmp_path / "covered.npz", found.label_maps)
    maps, classes, unknown = take_apart(*found.combined(), CLASSES, load_covered(tmp_path / "covered.npz"))
    assert classes == CLASSES and list(maps) == list(CLASSES)
    for head, labels in found.label_maps.items():
        np.testing.assert_array_equal(maps[head], labels)
    assert not any(unknown.values())


def test_what_lies_under_labels_that_a_person_painted_is_counted_as_unknown(tmp_path: Path) -> None:
    found = overlapping()
    save_covered(tmp_path / "covered.npz", found.label_maps)
    labels, names = found.combined()
    labels[28:30, 0, 0] = 8
    maps, _, unknown = take_apart(labels, names, CLASSES, load_covered(tmp_path / "covered.npz"))
    assert unknown == {"heart": 2, "calc": 0, "plaque": 0, "veins": 0}
    np.testing.assert_array_equal(maps["heart"][:28], found.label_maps["heart"][:28])
    _, _, unknown = take_apart(labels, names, CLASSES, {})
    assert unknown["heart"] == np.count_nonzero(labels > 7)


def test_labels_of_no_head_are_carried_along() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    maps, classes, _ = take_apart(labels * (labels > 9), {13: "LV", 10: "Plaque", 12: "Stent"}, {}, {})
    assert classes["other"] == ("Plaque", "label_11", "Stent", "label_14", "label_15")
    np.testing.assert_array_equal(maps["other"].ravel()[10:], [1, 2, 3, 0, 4, 5])
    np.testing.assert_array_equal(maps["heart"] == 3, labels == 13)
    maps, classes, _ = take_apart(labels, {}, {"heart": CLASSES["heart"]}, {})
    np.testing.assert_array_equal(maps["heart"][labels < 8], labels[labels < 8])
    assert classes["other"] == tuple(f"label_{v}" for v in range(8, 16))


def test_a_damaged_record_of_covered_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "covered.npz"
    assert load_covered(path) == {}
    save_covered(path, {"heart": np.ones((3, 3, 3), np.uint8)})
    assert not path.exists(), "one head alone hides nothing"
    path.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="is damaged"):
        load_covered(path)
