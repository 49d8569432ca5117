"""NIfTI files and arrays in, and what is refused with one clear line."""

from __future__ import annotations

import gzip
import platform
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiac_ct_fm.errors import CardiacCTError, ImageError
from cardiac_ct_fm.process import memory_gb
from cardiac_ct_fm.volume_io import Volume, as_hounsfield, case_name, load_volume

ISAL_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
"""Where isal comes with the package: ``dependencies`` of ``pyproject.toml``."""

OBLIQUE = nib.affines.from_matvec(
    np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0] @ np.diag([1.5, 1.5, 2.0]), [10, -20, 30]
)


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """Something like a chest: lung around soft tissue with fat and a bright vessel, with noise; (40, 44, 36) int16."""
    hu = np.full((40, 44, 36), -850.0)
    hu[6:34, 6:38] = 50
    hu[6:34, 6:12] = -90
    hu[18:24, 20:26] = 350
    hu += 20 * np.random.default_rng(0).standard_normal(hu.shape)
    return np.rint(hu).astype(np.int16)


def write(path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE, slope: float = 1, inter: float = 0) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII.GZ"])
@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([-1.5, 1.5, -2.0, 1.0])[:, [2, 0, 1, 3]]])
def test_values_and_place_are_read_as_stored(tmp_path: Path, chest: np.ndarray, name: str, affine: np.ndarray) -> None:
    volume = load_volume(write(tmp_path / name, chest, affine))
    np.testing.assert_array_equal(volume.data, chest)
    assert volume.data.dtype == np.int16
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


def test_an_uncompressed_scan_is_not_read_before_it_is_needed(tmp_path: Path, chest: np.ndarray) -> None:
    volume = load_volume(write(tmp_path / "ct.nii", chest))
    assert isinstance(volume.data, np.memmap)


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "read_as"),
    [
        ("i2", 1, 0, "int16"),
        (">i2", 1, 0, "int16"),
        ("u2", 1, -1024, "int16"),
        ("i4", 1, -1024, "int16"),
        ("f4", 1, 0, "float32"),
        ("f8", 1, 0, "float32"),
        ("i2", 0.5, -100, "float32"),
        ("f4", 2, 1, "float32"),
    ],
)
def test_every_way_of_storing_hounsfield_units_gives_the_same_scan(
    tmp_path: Path, chest: np.ndarray, dtype: str, slope: float, inter: float, read_as: str
) -> None:
    stored = ((chest.astype(float) - inter) / slope).astype(dtype)
    image = nib.Nifti1Image(stored, OBLIQUE)
    image.header["sform_code"] = 1
    path = tmp_path / "ct.nii.gz"
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)
    # nibabel would divide by the slope; the header is set after the values were written.
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[112:120] = np.array([slope, inter], np.dtype("f4").newbyteorder(image.header.endianness)).tobytes()
    path.write_bytes(gzip.compress(bytes(raw), 1))
    np.testing.assert_allclose(nib.load(path).get_fdata(), chest, atol=0.51)  # the file says what was meant
    volume = load_volume(path)
    np.testing.assert_allclose(volume.data, chest, atol=0.51)
    assert volume.data.dtype.name == read_as and volume.data.dtype.isnative


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path: Path, chest: np.ndarray) -> None:
    for name in ("a.nii", "a.nii.gz"):
        volume = load_volume(write(tmp_path / name, chest[..., None]))
        np.testing.assert_array_equal(volume.data, chest)


def test_an_array_with_its_affine_is_a_scan(chest: np.ndarray) -> None:
    volume = load_volume((chest, OBLIQUE))
    assert np.shares_memory(volume.data, chest) and volume.grid.shape == chest.shape
    assert load_volume(volume) is volume
    lists = load_volume(([[[0] * 3] * 3] * 3, np.eye(4).tolist()), check=False)
    assert lists.data.dtype == np.int16


def test_lengths_in_metres_are_turned_into_mm(tmp_path: Path, chest: np.ndarray) -> None:
    metres = OBLIQUE.copy()
    metres[:3] /= 1000
    image = nib.Nifti1Image(chest, metres)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(load_volume(tmp_path / "ct.nii.gz").affine, OBLIQUE, atol=1e-4)


def test_wrapping_sixteen_bits_never_changes_a_value() -> None:
    raw = np.array([[[0, 1000, 40000], [65535, 32768, 32767]]], np.uint16)
    shifted = as_hounsfield(raw, "x", 1.0, -32768.0)
    np.testing.assert_array_equal(shifted, raw.astype(int) - 32768)
    assert shifted.dtype == np.int16
    assert as_hounsfield(raw, "x", 1.0, -1024.0).dtype == np.float32


def test_a_case_is_named_after_its_file() -> None:
    assert case_name("/a/b/ct.nii.gz") == case_name("x/ct.nii") == case_name("ct") == "ct"
    assert case_name("scan.01.nii.gz") == "scan.01"


def _text(path: Path, chest: np.ndarray) -> Path:
    path.write_text("this is not an image\n" * 50)
    return path


def _truncated(path: Path, chest: np.ndarray) -> Path:
    write(path, chest)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _truncated_plain(path: Path, chest: np.ndarray) -> Path:
    return _truncated(path.with_suffix(""), chest)


def _no_orientation(path: Path, chest: np.ndarray) -> Path:
    image = nib.Nifti1Image(chest, None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, path)
    return path


def _singular(path: Path, chest: np.ndarray) -> Path:
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    image = nib.Nifti1Image(chest, np.eye(4))
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = flat[:3]
    image.header["sform_code"] = 1
    path_header = image.header.copy()
    nib.save(image, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[280:328] = flat[:3].astype(np.dtype("f4").newbyteorder(path_header.endianness)).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def _rgb(path: Path, chest: np.ndarray) -> Path:
    colours = np.zeros(chest.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colours, OBLIQUE), path)
    return path


def _some_nan(path: Path, chest: np.ndarray) -> Path:
    data = chest.astype(np.float32)
    data[3, 4, 5] = np.nan
    return write(path, data)


def _huge(path: Path, chest: np.ndarray) -> Path:
    header = nib.Nifti1Image(chest, OBLIQUE).header
    header.set_data_dtype(np.int16)
    header.set_data_shape((20000, 20000, 20000))
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    return path


BAD: dict[str, tuple[Callable[[Path, np.ndarray], Path], str]] = {
    "missing": (lambda p, c: p, "does not exist"),
    "text": (_text, "not a NIfTI image"),
    "truncated": (_truncated, "truncated or damaged"),
    "truncated .nii": (_truncated_plain, "truncated: .* of .* bytes"),
    "png": (lambda p, c: _text(p.parent / "a.png", c), "no image that can be read here"),
    "2-D": (lambda p, c: write(p, c[:, :, 0]), "2-D"),
    "one slice": (lambda p, c: write(p, c[:, :, :1]), "2-D"),
    "4-D": (lambda p, c: write(p, np.stack([c, c], axis=-1)), r"4 dimensions \(40, 44, 36, 2\)"),
    "RGB": (_rgb, "colours"),
    "complex": (lambda p, c: write(p, c.astype(np.complex64)), "complex"),
    "zeros": (lambda p, c: write(p, c * 0), "every voxel is 0"),
    "all NaN": (lambda p, c: write(p, np.full(c.shape, np.nan, np.float32)), "not numbers"),
    "one NaN": (_some_nan, "holds 1 voxel that is not a number"),
    "singular": (_singular, "singular"),
    "no orientation": (_no_orientation, "does not say where its voxels are"),
    "huge": (_huge, r"20000 × 20000 × 20000 voxels, 16000\.0 GB, and [\d.]+ GB of memory are available\. Give the"),
    "thick": (lambda p, c: write(p, c, np.diag([1, 1, 12.0, 1])), "1 × 1 × 12 mm; at 12 mm or more"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_refused_in_one_line_with_the_file_and_a_way_out(
    tmp_path: Path, chest: np.ndarray, kind: str
) -> None:
    make, says = BAD[kind]
    path = make(tmp_path / "scan.nii.gz", chest)
    with pytest.raises(ImageError, match=says) as caught:
        load_volume(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    assert re.search(r"\b(Give|Export|Copy|Repair|Replace|Extract|Convert|Reconstruct)\b", text), text
    assert isinstance(caught.value, CardiacCTError) and caught.value.exit_code == 1


@pytest.mark.parametrize("reader", ["isal", "standard library"])
def test_a_changed_byte_is_noticed(
    tmp_path: Path, chest: np.ndarray, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader == "isal":
        if platform.machine() not in ISAL_MACHINES:
            pytest.skip("isal is not made for this machine")
        assert find_spec("isal") is not None, "a dependency of the package on this machine"
    else:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    path = write(tmp_path / "ct.nii.gz", chest)
    whole = path.read_bytes()
    load_volume(path)
    for position in (*range(1000, len(whole) - 8, len(whole) // 20), len(whole) - 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(ImageError, match=r"damaged|not a NIfTI image"):
            load_volume(path)


def test_the_real_scan_is_read(demo_volume: Volume) -> None:
    assert demo_volume.grid.shape == (120, 126, 164) and demo_volume.data.dtype == np.int16
    assert demo_volume.grid.orientation == "LPS" and demo_volume.name == "ct_cropped"
    assert (int(demo_volume.data.min()), int(demo_volume.data.max())) == (-1078, 3343)


def test_files_that_a_container_has_cached_count_as_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardiac_ct_fm.process._CGROUP", tmp_path)
    machine = memory_gb()
    for name, text in (("max", "900000000"), ("current", "800000000"), ("stat", "anon 1\ninactive_file 0")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert memory_gb()[0] == machine[0], "what cannot be read limits nothing"
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000000\nactive_file 100000000\n")
    total, available = memory_gb()
    assert total == pytest.approx(0.9) and available == pytest.approx(0.9 - 0.8 + 0.6)
