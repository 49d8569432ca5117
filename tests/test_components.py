"""Connected regions and extents of label maps, against the plain way of computing them."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cardiac_ct_fm.components import labels_at_edge, largest_regions, occupied_box, voxel_counts


def noise(order: str = "F", empty: int = 5) -> NDArray[np.uint8]:
    """Blobs of four labels with a rim of background."""
    coarse = np.random.default_rng(0).integers(0, 5, (9, 8, 7))
    return np.asarray(np.pad(coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2), empty), dtype=np.uint8, order=order)


def plain(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest region of every label, label by label."""
    result = np.zeros_like(labels)
    for value in range(1, int(labels.max()) + 1):
        regions, count = cc3d.connected_components(labels == value, connectivity=6, return_N=True)
        if count:
            sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
            result[regions == 1 + int(sizes.argmax())] = value
    return result


@pytest.mark.parametrize("view", ["C", "F", "turned", "flipped"])
def test_runs_keep_what_label_by_label_keeps(view: str) -> None:
    labels = noise(view if view in "CF" else "C")
    labels = {"turned": labels.transpose(1, 2, 0), "flipped": labels[::-1, :, ::-1]}.get(view, labels)
    before = labels.copy()
    kept = largest_regions(labels)
    sizes = [[int((m == v).sum()) for v in range(1, 5)] for m in (kept, plain(labels))]
    assert sizes[0] == sizes[1]
    assert all(cc3d.connected_components(kept == v, connectivity=6, return_N=True)[1] == 1 for v in range(1, 5))
    np.testing.assert_array_equal(kept[kept > 0], labels[kept > 0])
    np.testing.assert_array_equal(labels, before)
    assert largest_regions(labels, in_place=True) is labels
    np.testing.assert_array_equal(labels, kept)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), shape=st.tuples(*[st.integers(1, 7)] * 3))
def test_the_largest_region_is_as_large_on_any_map(seed: int, shape: tuple[int, int, int]) -> None:
    labels = np.asfortranarray(np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8))
    kept, expected = largest_regions(labels), plain(labels)
    assert [int((kept == v).sum()) for v in (1, 2)] == [int((expected == v).sum()) for v in (1, 2)]
    assert all(cc3d.connected_components(kept == v, connectivity=6, return_N=True)[1] <= 1 for v in (1, 2))
    np.testing.assert_array_equal(kept[kept > 0], labels[kept > 0])


def test_of_equal_regions_the_first_in_memory_stays() -> None:
    labels = np.zeros((9, 5, 5), np.uint8, order="F")
    labels[6:8, 1, 1], labels[1:3, 3, 1], labels[1:3, 3, 3] = 1, 1, 1
    assert np.argwhere(largest_regions(labels)).tolist() == [[6, 1, 1], [7, 1, 1]]


def test_a_map_without_labels_stays_empty() -> None:
    empty = np.zeros((6, 5, 4), np.uint8)
    assert not largest_regions(empty).any()
    assert occupied_box(empty) is None
    assert labels_at_edge(empty, (1, 1, 1)) == set()


@pytest.mark.parametrize("order", ["C", "F"])
def test_counts_and_edges_are_those_of_the_whole_map(order: str) -> None:
    labels = noise(order)
    labels[1, 9, 9], labels[9, -3, 9], labels[9, 9, 1] = 7, 8, 9
    np.testing.assert_array_equal(voxel_counts(labels), np.bincount(labels.ravel(), minlength=256))
    assert labels_at_edge(labels, (1, 1, 1)) == set()
    assert labels_at_edge(labels, (2, 1, 1)) == {7}
    assert labels_at_edge(labels, (2, 3, 2)) == {7, 8, 9}
    assert labels_at_edge(labels, (50, 50, 50)) == {1, 2, 3, 4, 7, 8, 9}
    box = occupied_box(labels)
    assert box == tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(labels))
    np.testing.assert_array_equal(voxel_counts(labels, box), voxel_counts(labels))
    assert labels_at_edge(labels, (2, 3, 2), box) == {7, 8, 9}
