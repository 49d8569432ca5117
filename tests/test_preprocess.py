"""What a network sees: resampling without aliasing, normalisation."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.ndimage import map_coordinates

from cardiac_ct_fm.config import IntensityConfig
from cardiac_ct_fm.geometry import Grid, to_canonical
from cardiac_ct_fm.preprocess import look_tensor, normalise, resample_hu
from cardiac_ct_fm.volume_io import Volume
from tests.test_geometry import affines

AIR = -1024.0
INTENSITY = IntensityConfig()


def rotation(degrees: float) -> np.ndarray:
    """A turn about an axis that is not one of the coordinate axes."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def ramp(points: np.ndarray) -> np.ndarray:
    """A straight ramp of HU in the world, far from both clips."""
    return points @ np.array([1.5, -2.0, 0.7]) + 100


def ramp_volume(shape: tuple[int, int, int], affine: np.ndarray) -> Volume:
    return Volume(ramp(Grid(shape, affine).points()).astype(np.float32), affine)


def smooth_volume(spacing: tuple[float, float, float] = (1.0, 1.2, 1.5), order: str = "F") -> Volume:
    """A smooth, bumpy image of 72 mm edge around the origin."""
    shape = tuple(int(72 / s) for s in spacing)
    grid = Grid.centred((0, 0, 0), spacing, shape)
    x, y, z = np.moveaxis(grid.points(), -1, 0)
    hu = 300 * np.sin(x / 9) * np.cos(y / 11) + 200 * np.sin(z / 8 + x / 15)
    return Volume(np.asarray(np.rint(hu), dtype=np.int16, order=order), np.array(grid.affine))


@settings(deadline=None, max_examples=60)
@given(affines(), st.floats(0.4, 6.0), st.floats(0, 90))
def test_a_ramp_comes_back_as_itself_from_any_orientation_on_any_look(
    affine: np.ndarray, spacing: float, angle: float
) -> None:
    shape = (24, 20, 22)
    affine = affine.copy()
    affine[:3, 3] = 0
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) / 2)
    volume = ramp_volume(shape, affine)
    look = Grid.centred((1, 2, -1), spacing, (9, 10, 8), rotation(angle))
    seen = resample_hu(volume, look, -5000).numpy()
    reach = 1.5 * np.maximum(spacing / np.asarray(volume.grid.spacing), 1) + 1
    ijk = volume.grid.voxel(look.points())
    inner = ((ijk >= reach) & (ijk <= np.asarray(shape) - 1 - reach)).all(axis=-1)
    np.testing.assert_allclose(seen[inner], ramp(look.points())[inner], atol=0.05)


@settings(deadline=None, max_examples=30)
@given(affines(oblique=False))
def test_a_look_along_the_scans_axes_reproduces_the_ramp_too(affine: np.ndarray) -> None:
    volume = ramp_volume((20, 20, 20), affine)
    look = Grid.centred(volume.grid.centre_ras, 1.0, (6, 5, 4))
    np.testing.assert_allclose(resample_hu(volume, look, -5000).numpy(), ramp(look.points()), atol=0.05)


@pytest.mark.parametrize("angle", [0.0, 25.0])
@pytest.mark.parametrize("spacing", [0.8, 2.0, 4.0])
def test_the_look_does_not_depend_on_how_the_scan_is_stored(angle: float, spacing: float) -> None:
    volume = smooth_volume()
    look = Grid.centred((3, -2, 1), spacing, (16, 16, 16), rotation(angle))
    expected = look_tensor(volume, look, INTENSITY)
    data, affine = volume.data, np.array(volume.affine)
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = data.shape[0] - 1
    stored = [
        Volume(data[::-1], affine @ flipped),
        Volume(np.ascontiguousarray(data.transpose(2, 0, 1)), affine[:, [2, 0, 1, 3]]),
        Volume(data.astype(np.float32), affine),
        Volume(data.astype(">i2"), affine),
        Volume(*to_canonical(data[:, ::-1], affine)),
    ][:4]
    for other in stored:
        torch.testing.assert_close(look_tensor(other, look, INTENSITY), expected, atol=2e-5, rtol=0)


def test_a_finer_look_is_linear_interpolation() -> None:
    volume = smooth_volume()
    for look in (Grid.centred((1, 2, 3), 0.7, (20, 21, 22)), Grid.centred((1, 2, 3), 0.7, (20, 21, 22), rotation(40))):
        ijk = volume.grid.voxel(look.points())
        expected = map_coordinates(volume.data.astype(float), np.moveaxis(ijk, -1, 0), order=1, mode="nearest")
        np.testing.assert_allclose(resample_hu(volume, look, AIR).numpy(), expected, atol=0.02)


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_a_coarser_look_averages_noise_instead_of_picking_single_voxels(angle: float) -> None:
    rng = np.random.default_rng(0)
    noise = Volume((100 * rng.standard_normal((80, 80, 80))).astype(np.float32), np.eye(4) * [1, 1, 1, 1])
    look = Grid.centred(noise.grid.centre_ras, 4.0, (10, 10, 10), rotation(angle))
    spread = float(resample_hu(noise, look, -5000).std())
    # A box of 4 voxels leaves 100 / 4^(3/2) = 12.5 HU; linear interpolation on top of it takes a little more away.
    assert 8.0 < spread < 12.5


@pytest.mark.parametrize("spacing", [1.0, 2.0, 4.0])
def test_a_slightly_turned_look_sees_nearly_what_the_straight_one_sees(spacing: float) -> None:
    volume = smooth_volume((0.6, 0.6, 0.8))
    straight = Grid.centred((0, 0, 0), spacing, (12, 12, 12))
    turned = Grid.centred((0, 0, 0), spacing, (12, 12, 12), rotation(0.05))
    difference = resample_hu(volume, straight, AIR) - resample_hu(volume, turned, AIR)
    assert float(difference.abs().max()) < 6.0


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_outside_of_the_scan_there_is_air(angle: float) -> None:
    volume = Volume(np.full((30, 30, 30), 200, np.int16), np.eye(4))
    look = Grid.centred(volume.grid.centre_ras + 10, 1.0, (40, 40, 40), rotation(angle))
    seen = resample_hu(volume, look, AIR).numpy()
    inside = volume.grid.contains(look.points())
    deep = volume.grid.voxel(look.points())
    border = (np.abs(deep + 0.5) < 1e-3).any(-1) | (np.abs(deep - 29.5) < 1e-3).any(-1)
    np.testing.assert_allclose(seen[inside & ~border], 200, atol=0.01)
    np.testing.assert_array_equal(seen[~inside & ~border], AIR)
    far = Grid.centred((1000, 0, 0), 1.0, (4, 4, 4), rotation(angle))
    np.testing.assert_array_equal(resample_hu(volume, far, AIR).numpy(), AIR)


def test_padding_outside_of_the_reconstruction_circle_counts_as_air() -> None:
    padded = smooth_volume().data.copy()
    padded[:10] = -3024
    plain = np.maximum(padded, -1024)
    look = Grid.centred((-25, 0, 0), 2.0, (16, 16, 16))
    seen = [resample_hu(Volume(d, smooth_volume().affine), look, AIR) for d in (padded, plain)]
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_only_the_part_under_the_look_is_touched(angle: float) -> None:
    data = np.full((100, 90, 80), np.nan, np.float32)
    data[20:60, 20:60, 20:60] = 55
    look = Grid.centred((40, 40, 40), 1.0, (16, 16, 16), rotation(angle))
    seen = resample_hu(Volume(data, np.eye(4)), look, AIR)
    np.testing.assert_allclose(seen.numpy(), 55, atol=1e-3)


def test_a_memory_mapped_scan_is_read_and_left_alone(tmp_path) -> None:
    values = smooth_volume().data
    values.T.tofile(tmp_path / "values.raw")
    mapped = np.memmap(tmp_path / "values.raw", np.int16, "r", shape=values.shape, order="F")
    look = Grid.centred((0, 0, 0), 2.0, (16, 16, 16))
    affine = smooth_volume().affine
    torch.testing.assert_close(
        look_tensor(Volume(mapped, affine), look, INTENSITY), look_tensor(Volume(values, affine), look, INTENSITY)
    )
    np.testing.assert_array_equal(mapped, values)


def test_slabs_do_not_change_the_result(monkeypatch) -> None:
    import cardiac_ct_fm.preprocess as module

    volume = smooth_volume()
    for angle in (0.0, 20.0):
        look = Grid.centred((0, 0, 0), 1.7, (30, 30, 30), rotation(angle))
        whole = resample_hu(volume, look, AIR)
        monkeypatch.setattr(module, "_SLAB_VOXELS", 7000)
        monkeypatch.setattr(module, "_BLOCK_EDGE", 13)
        torch.testing.assert_close(resample_hu(volume, look, AIR), whole, atol=0.05, rtol=0)
        monkeypatch.undo()


def test_normalisation_is_clip_then_shift_then_scale() -> None:
    hu = torch.tensor([-3024.0, -1024.0, -440.0, 81.0, 1500.0, 3000.0])
    expected = torch.tensor([-584.0, -584.0, 0.0, 521.0, 1940.0, 1940.0]) / 521
    torch.testing.assert_close(normalise(hu, INTENSITY), expected)


def test_the_real_scan_fills_a_look(demo_volume: Volume) -> None:
    look = Grid.centred(demo_volume.grid.centre_ras, 2.0, (64, 64, 64))
    seen = look_tensor(demo_volume, look, INTENSITY)
    assert seen.shape == (1, 1, 64, 64, 64) and seen.dtype == torch.float32
    hu = seen * INTENSITY.std_hu + INTENSITY.mean_hu
    nearest = demo_volume.data[tuple(np.rint(demo_volume.grid.voxel(look.points())).astype(int).T)].T
    assert np.corrcoef(hu.numpy().ravel(), np.clip(nearest, -1024, 1500).ravel())[0, 1] > 0.95
