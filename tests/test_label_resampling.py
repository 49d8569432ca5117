"""Logits and label maps from a look back to the scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

import cardiac_ct_fm.label_resampling as module
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_resampling import resample_label_map, resample_logits_to_grid, winning_channel
from cardiac_ct_fm.merging import RIM_MM
from cardiac_ct_fm.merging import _blend as blend
from tests.test_geometry import affines
from tests.test_preprocess import rotation


def blobs(grid: Grid, channels: int = 5) -> torch.Tensor:
    """Smooth random logits on a grid."""
    coarse = torch.randn(1, channels, 4, 5, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, grid.shape, mode="trilinear", align_corners=True)[0]


def by_hand(logits: torch.Tensor, look: Grid, target: Grid) -> np.ndarray:
    """Every voxel of the target interpolated, nothing skipped."""
    world = target.world(np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1))
    scaled = 2 * look.voxel(world) / (np.asarray(look.shape) - 1) - 1
    where = torch.from_numpy(scaled[..., ::-1].astype(np.float32))[None]
    winners = F.grid_sample(logits[None], where, "bilinear", "border", align_corners=True)[0].argmax(0).numpy()
    return np.where(look.contains(world), winners, 0)


@settings(deadline=None, max_examples=25)
@given(affines())
def test_skipping_uniform_cells_changes_nothing(affine: np.ndarray) -> None:
    affine = affine.copy()
    affine[:3, 3] = 0
    affine[:3, 3] = -affine[:3, :3] @ (15, 12, 10)
    target = Grid((30, 25, 21), affine)
    look = Grid.centred((2.1, -3.3, 1.7), 2.0, (18, 20, 16))
    logits = blobs(look)
    result, expected = resample_logits_to_grid(logits, look, target), by_hand(logits, look, target)
    assert result.flags.f_contiguous and result.dtype == np.uint8
    # Two channels may tie to the last bit of float32 at a point of the border.
    assert np.count_nonzero(result != expected) <= 2


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_the_winning_channel_is_torchs_argmax_and_the_first_of_equals(channels: int) -> None:
    values = torch.randint(0, 4, (channels, 7, 6, 5), generator=torch.Generator().manual_seed(1)).float()
    np.testing.assert_array_equal(winning_channel(values), values.argmax(0).numpy())


def test_slabs_and_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Grid.centred((0, 0, 0), 2.0, (20, 20, 20))
    logits = blobs(look)
    for angle in (0.0, 35.0):
        target = Grid.centred((3, 2, 1), (0.8, 0.9, 1.1), (50, 45, 40), rotation(angle))
        whole = resample_logits_to_grid(logits, look, target)
        monkeypatch.setattr(module, "_SLAB_VOXELS", 5000)
        monkeypatch.setattr(module, "_CHUNK_POINTS", 777)
        np.testing.assert_array_equal(resample_logits_to_grid(logits, look, target), whole)
        monkeypatch.undo()


def test_a_sphere_keeps_its_size_and_place_on_any_grid() -> None:
    look = Grid.centred((10, 20, 30), 2.0, (32, 32, 32), rotation(20))
    distance = torch.from_numpy(np.linalg.norm(look.points() - (12, 18, 33), axis=-1)) - 20
    logits = torch.stack([distance, -distance])
    for angle in (0.0, 50.0):
        target = Grid.centred((10, 20, 30), (0.7, 0.7, 1.5), (80, 80, 40), rotation(angle))
        labels = resample_logits_to_grid(logits, look, target)
        assert labels.sum() * target.voxel_mm3 == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
        np.testing.assert_allclose(target.world(np.argwhere(labels)).mean(axis=0), (12, 18, 33), atol=0.05)


@pytest.mark.parametrize("angle", [0.0, 15.0])
def test_a_finer_look_is_written_into_a_coarser_one_only_where_it_lies(angle: float) -> None:
    target = Grid.centred((0, 0, 0), 1.0, (40, 40, 40))
    below = np.full(target.shape, 7, np.uint8, order="F")
    look = Grid.centred((5, 0, 0), 1.0, (10, 10, 10), rotation(angle))
    logits = torch.zeros(3, 10, 10, 10)
    logits[2] = 1
    result = resample_logits_to_grid(logits, look, target, out=below)
    inside = look.contains(target.points())
    assert result is below and (result[inside] == 2).all() and (result[~inside] == 7).all()


def test_a_label_map_goes_to_a_finer_grid_and_back_unchanged() -> None:
    coarse = Grid.centred((0, 0, 0), 3.0, (11, 12, 13))
    labels = np.random.default_rng(0).integers(0, 8, coarse.shape).astype(np.uint8)
    fine = Grid.centred((0, 0, 0), 1.0, (33, 36, 39))
    up = resample_label_map(labels, coarse, fine)
    np.testing.assert_array_equal(up, labels.repeat(3, 0).repeat(3, 1).repeat(3, 2))
    np.testing.assert_array_equal(resample_label_map(up, fine, coarse), labels)


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_looks_are_blended_as_point_by_point(angle: float) -> None:
    coarse, fine = (
        Grid.centred((0, 0, 0), 2.0, (20, 21, 22)),
        Grid.centred((3, -2, 9), 1.0, (40, 36, 30), rotation(angle)),
    )
    below, above = blobs(coarse), blobs(fine).flip(0)
    size = np.asarray(coarse.shape) - 1
    at = (2 * coarse.voxel(fine.points()) / size - 1)[..., ::-1]
    place = torch.from_numpy(at.astype(np.float32))[None]
    share = F.grid_sample(below.softmax(0)[None], place, align_corners=True, padding_mode="border")[0]
    rim = np.minimum(
        np.indices(fine.shape), np.array(fine.shape)[:, None, None, None] - 1 - np.indices(fine.shape)
    ).min(0)
    own = torch.from_numpy(np.where((np.abs(at) > 1).any(-1), 1.0, np.clip(rim / RIM_MM, 0, 1))).float()
    expected = own * above.softmax(0) + (1 - own) * share
    torch.testing.assert_close(blend(below, coarse, above, fine).exp(), expected, atol=2e-5, rtol=0)


def test_half_precision_and_one_voxel_thick_looks_work() -> None:
    look = Grid.centred((0, 0, 0), 2.0, (6, 6, 1))
    target = Grid.centred((0, 0, 0), 1.0, (12, 12, 2))
    logits = torch.zeros(2, 6, 6, 1, dtype=torch.bfloat16)
    logits[1, :3] = 1
    labels = resample_logits_to_grid(logits, look, target)
    assert (labels[:5] == 1).all() and (labels[7:] == 0).all()


def test_a_look_beside_the_scan_leaves_it_empty_and_wrong_shapes_are_refused() -> None:
    look, target = Grid.centred((500, 0, 0), 1.0, (8, 8, 8)), Grid.centred((0, 0, 0), 1.0, (9, 9, 9))
    assert not resample_logits_to_grid(torch.ones(2, 8, 8, 8), look, target).any()
    with pytest.raises(DataError, match="do not fit"):
        resample_logits_to_grid(torch.ones(2, 8, 8, 9), look, target)
    with pytest.raises(DataError, match="does not lie"):
        resample_label_map(np.zeros((2, 2, 2), np.uint8), look, target)
