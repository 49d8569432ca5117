"""Grids, affines and orientations."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.geometry import (
    Grid,
    apply_affine,
    lps_affine,
    parallel_axes,
    ras_to_lps,
    to_canonical,
    validated_affine,
)


@st.composite
def affines(draw: st.DrawFn, oblique: bool = True) -> np.ndarray:
    """Any voxel order, any flips, any spacing and (if oblique) any rotation."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 5.0)] * 3))
    linear = np.eye(3)[:, order] * signs * spacing
    if oblique:
        a, b, c = draw(st.tuples(*[st.floats(-np.pi, np.pi)] * 3))
        for angle, (i, j) in zip((a, b, c), ((0, 1), (1, 2), (0, 2)), strict=True):
            turn = np.eye(3)
            turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            linear = turn @ linear
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return matrix


shapes = st.tuples(*[st.integers(2, 9)] * 3)


@settings(deadline=None, max_examples=50)
@given(affines(), shapes, st.tuples(*[st.floats(-20, 20)] * 3))
def test_voxel_undoes_world(affine: np.ndarray, shape: tuple[int, int, int], ijk: tuple[float, float, float]) -> None:
    grid = Grid(shape, affine)
    np.testing.assert_allclose(grid.voxel(grid.world(ijk)), ijk, atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(affines(), shapes)
def test_points_are_the_world_of_every_voxel(affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    np.testing.assert_allclose(grid.points(), grid.world(index), atol=1e-3)
    np.testing.assert_allclose(grid.points_tensor().numpy(), grid.world(index), atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(affines(), shapes)
def test_canonical_keeps_every_value_at_its_place(affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    data = np.arange(np.prod(shape)).reshape(shape)
    view, turned = to_canonical(data, affine)
    before, after = Grid(shape, affine), Grid(view.shape, turned)
    index = np.rint(before.voxel(after.points().reshape(-1, 3))).astype(int)
    np.testing.assert_array_equal(data[tuple(index.T)], view.ravel())
    assert after.same_as(before.canonical())


@settings(deadline=None, max_examples=48)
@given(affines(oblique=False), shapes)
def test_orientation_letters_are_nibabels(affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, affine)
    assert tuple(grid.orientation) == nib.aff2axcodes(affine)
    assert grid.canonical().orientation == "RAS"


@settings(deadline=None, max_examples=30)
@given(affines(), shapes)
def test_a_grid_contains_its_voxels_and_not_what_lies_beyond_its_border(
    affine: np.ndarray, shape: tuple[int, int, int]
) -> None:
    grid = Grid(shape, affine)
    assert grid.contains(grid.points()).all()
    assert grid.contains(grid.world([-0.49, 0, 0])) and not grid.contains(grid.world([-0.51, 0, 0]))
    assert not grid.contains(grid.world(np.asarray(shape) - 0.49))


def test_a_centred_grid_has_its_middle_at_the_point() -> None:
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    grid = Grid.centred((10, -20, 30), (1, 2, 3), (4, 5, 6), axes)
    np.testing.assert_allclose(grid.centre_ras, (10, -20, 30))
    np.testing.assert_allclose(grid.spacing, (1, 2, 3))
    np.testing.assert_allclose(grid.extent_mm, (4, 10, 18))
    np.testing.assert_allclose(grid.affine[:3, 2] / 3, axes[:, 2])
    assert grid.voxel_mm3 == pytest.approx(6)


def test_coverage_is_the_share_of_the_other_grids_volume() -> None:
    scan = Grid((100, 100, 50), np.eye(4))
    assert scan.coverage_of(Grid((40, 40, 40), np.eye(4))) == 1
    assert scan.coverage_of(scan.block((0, 0, 25), (100, 100, 50))) == pytest.approx(0.5)
    assert scan.coverage_of(scan.block((200, 0, 0), (10, 10, 10))) == 0


def test_a_block_is_a_part_of_the_same_lattice() -> None:
    affine = np.diag([-0.5, 0.7, 2.0, 1.0])
    grid = Grid((10, 11, 12), affine)
    block = grid.block((2, 3, 4), (5, 5, 5))
    np.testing.assert_allclose(block.world([1, 1, 1]), grid.world([3, 4, 5]))


def test_ras_and_lps_differ_in_the_first_two_signs_only() -> None:
    np.testing.assert_array_equal(ras_to_lps([[1, 2, 3]]), [[-1, -2, 3]])
    np.testing.assert_array_equal(ras_to_lps(ras_to_lps([4.0, -5.0, 6.0])), [4, -5, 6])
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    np.testing.assert_array_equal(
        apply_affine(lps_affine(affine), [1, 1, 1]), ras_to_lps(apply_affine(affine, [1, 1, 1]))
    )


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (np.eye(3), "4×4"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
    ],
)
def test_an_affine_that_is_no_place_is_refused_with_a_way_out(broken: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        validated_affine(broken)
    assert "Repair the header" in str(caught.value)


def test_a_gantry_tilt_is_no_reason_to_refuse() -> None:
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.radians(30))
    np.testing.assert_array_equal(validated_affine(sheared), sheared)


def test_a_grid_cannot_be_changed_behind_its_back() -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5
    with pytest.raises(ImageError, match="at least 1 voxel"):
        Grid((2, 0, 2), np.eye(4))


def test_parallel_axes_are_paired_and_oblique_ones_are_not() -> None:
    swapped = np.eye(4)[:, [2, 0, 1, 3]] * 2
    swapped[3, 3] = 1
    assert parallel_axes(swapped, (50, 50, 50)) == (1, 2, 0)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
    assert parallel_axes(turned, (50, 50, 50)) is None


def test_reading_and_writing_images_needs_no_torch() -> None:
    modules = ["geometry", "files", "volume_io", "dicom_io", "image_checks", "label_io", "landmark_io", "result"]
    code = "import sys\n" + "\n".join(f"import cardiac_ct_fm.{m}" for m in modules)
    code += "\nsys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
