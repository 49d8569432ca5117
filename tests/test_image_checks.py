"""Which images count as cardiac CT in Hounsfield units."""

from __future__ import annotations

import numpy as np
import pytest

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.image_checks import check_volume, image_warnings
from cardiac_ct_fm.volume_io import Volume

AFFINE = np.diag([1.5, 1.5, 1.5, 1.0])


def refusal(data: np.ndarray, affine: np.ndarray = AFFINE) -> str | None:
    """Why a volume is refused, or None."""
    try:
        check_volume(Volume(data, affine, "scan"))
    except ImageError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def hu(demo_volume: Volume) -> np.ndarray:
    """A real CT angiography."""
    return np.asarray(demo_volume.data)


def test_a_real_scan_passes_in_any_type_and_with_padding(hu: np.ndarray) -> None:
    padded = hu.copy()
    padded[:30] = -3024
    half = hu.copy()
    half[:60], half[60] = -2000, -1500
    for data in (hu, hu.astype(np.float32), padded, half, np.maximum(hu, -1024)):
        assert refusal(data) is None


def test_the_dicom_series_passes(dicom_folder) -> None:
    from cardiac_ct_fm.dicom_io import load_dicom_folder

    check_volume(load_dicom_folder(dicom_folder))


def test_a_tight_crop_without_any_air_passes(hu: np.ndarray) -> None:
    crop = hu[40:100, 40:100, 40:100].copy()
    crop[crop < -200] = 0
    assert refusal(crop) is None


def test_noise_and_voxels_in_another_order_show_no_body(hu: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(100, 50, (100, 100, 100)).astype(np.float32)
    assert "shows no body" in str(refusal(noise)) and "(correlation 0.00;" in str(refusal(noise))
    disordered = hu.ravel(order="C").reshape(hu.shape, order="F")
    assert "stored in another order of the axes" in str(refusal(disordered))


@pytest.mark.parametrize("spacing", [1, 6])
def test_a_loud_scan_and_one_of_thick_voxels_show_a_body(hu: np.ndarray, spacing: int) -> None:
    """Noise of 250 HU in a heart alone; voxels of 9 mm."""
    crop = (hu if spacing > 1 else hu[40:80, 45:85, 60:100])[::spacing, ::spacing, ::spacing].astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 250 if spacing == 1 else 0, crop.shape)
    assert refusal(crop + noise.astype(np.float32), np.diag([1.5 * spacing] * 3 + [1])) is None


def test_values_shifted_by_1024_are_recognised_and_the_way_back_is_named(hu: np.ndarray) -> None:
    shifted = np.clip(hu, -1024, 3071) + 1024
    for data in (shifted.astype(np.int16), shifted.astype(np.float32), shifted[40:100, 40:100, 40:100]):
        assert "Subtract 1024" in str(refusal(data))
    padded = shifted.copy()
    padded[:20] = -2000
    assert "Subtract 1024" in str(refusal(padded))
    assert "1024 was subtracted twice" in str(refusal(np.clip(hu, -1024, 3071) - 1024))


@pytest.mark.parametrize(
    ("remap", "says"),
    [
        (lambda x: (255 * np.clip((x + 160) / 400, 0, 1)).astype(np.uint8).astype(np.int16), "0–255 grey values"),
        (lambda x: np.clip((x + 1024) / 2500, 0, 1).astype(np.float32), "scaled to 0…1"),
        (lambda x: (2 * np.clip((x + 1024) / 2500, 0, 1) - 1).astype(np.float32), "spans only"),
        (lambda x: ((x + 440.0) / 521.0).astype(np.float32), "spans only"),
        (lambda x: np.full_like(x, -3024) + (np.arange(x.size).reshape(x.shape) % 2).astype(x.dtype), "padding only"),
        (
            lambda x: np.full_like(x, -1000) + (np.arange(x.size).reshape(x.shape) % 300).astype(x.dtype),
            "no soft tissue",
        ),
    ],
)
def test_other_scales_are_refused_by_name(hu: np.ndarray, remap, says: str) -> None:
    message = str(refusal(remap(hu)))
    assert says in message and "scan" in message


def test_an_mr_is_no_ct(hu: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    # Rician background, fat and blood bright, muscle grey: magnitudes, so never negative.
    magnitude = np.select([hu < -500, hu < -30, hu < 150], [5, 700, 250], 900) + 0.0
    for scale in (0.5, 1.0, 2.0, 4.0):
        noisy = scale * np.hypot(magnitude + 30 * rng.standard_normal(hu.shape), 30 * rng.standard_normal(hu.shape))
        assert "MR" in str(refusal(np.rint(noisy).astype(np.int16))), scale


def test_voxels_and_extent_have_limits(hu: np.ndarray) -> None:
    assert refusal(hu, np.diag([1, 1, 11.9, 1])) is None
    assert "12 mm or more" in str(refusal(hu, np.diag([1, 1, 12, 1])))
    assert "covers only" in str(refusal(hu[:, :, :10], np.diag([1.5, 1.5, 1.5, 1])))
    assert "not in mm" in str(refusal(hu, np.diag([0.0015, 0.0015, 0.0015, 1])))
    assert "not in mm" in str(refusal(hu, np.diag([100.0, 100, 100, 1])))


def test_thick_slices_and_unusual_positions_are_said(hu: np.ndarray) -> None:
    assert image_warnings(Volume(hu, AFFINE)) == []
    assert "5.0 mm apart" in image_warnings(Volume(hu, np.diag([1.0, 1, 5, 1])))[0]
    assert "supine" in image_warnings(Volume(hu, AFFINE, facts={"patient_position": "HFP"}))[0]
    assert image_warnings(Volume(hu, AFFINE, facts={"patient_position": "HFS"})) == []
