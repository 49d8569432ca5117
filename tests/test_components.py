"""Connected regions and extents of label maps, against the plain way of computing them."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from numpy.typing import NDArray

from cardiac_ct_fm import components
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


@pytest.mark.parametrize("part", [10, 4_000_000])
@pytest.mark.parametrize("view", ["C", "F", "turned", "flipped"])
def test_one_pass_keeps_what_label_by_label_keeps(view: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_PART", part)
    labels = noise(view if view in "CF" else "C")
    labels = {"turned": labels.transpose(1, 2, 0), "flipped": labels[::-1, :, ::-1]}.get(view, labels)
    before = labels.copy()
    kept = largest_regions(labels)
    sizes = [[int((m == v).sum()) for v in range(1, 5)] for m in (kept, plain(labels))]
    assert sizes[0] == sizes[1]
    assert all(cc3d.connected_components(kept == v, connectivity=6, return_N=True)[1] == 1 for v in range(1, 5))
    np.testing.assert_array_equal(kept[kept > 0], labels[kept > 0])
    np.testing.assert_array_equal(labels, before)


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
