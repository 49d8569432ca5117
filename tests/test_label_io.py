"""Label maps as NIfTI files on the scan's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings

from cardiac_ct_fm.errors import DataError, OutputError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import load_label_map, save_label_map
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
