"""The montage of digital patients shows something of everyone, also of a scan that ends in the root."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.cohort_montage import digital, shown_slice, views


def test_the_axial_slice_is_the_nearest_one_that_the_scan_shows() -> None:
    seen = np.ones((4, 4, 10), bool)
    assert shown_slice(seen, 5) == 5
    seen[:, :, 4:] = False
    assert shown_slice(seen, 5) == 3
    assert shown_slice(~seen, 2) == 4
    seen[:3, :, 3] = False
    assert shown_slice(seen, 5) == 2, "less than half of what other slices show is too little"
    assert shown_slice(np.zeros((4, 4, 10), bool), 5) == 5


def test_slices_hang_as_a_radiologist_hangs_them() -> None:
    image = np.zeros((3, 4, 5), np.float32)
    image[0, 1, 2] = 1.0  # RAS: the lowest x is the patient's left
    axial, coronal = views(image, (1, 1, 2))
    assert axial.shape == (4, 3) and coronal.shape == (5, 3)
    assert axial[1, 2] == 1.0 and coronal[2, 2] == 1.0, "left on the right"


@pytest.mark.parametrize(("seed", "cut_off"), [(506, True), (505, False)])
def test_no_picture_of_a_patient_is_black_and_a_scan_that_ends_is_said_to(seed: int, cut_off: bool) -> None:
    title, pictures = digital(seed)
    assert ("scan ends" in title) == cut_off
    assert len(pictures) == 4
    for picture in pictures:
        assert np.mean(picture > -100.0) > 0.2, "a fifth of it is tissue or blood"
    assert (np.mean(pictures[1] == pictures[1].min()) > 0.4) == cut_off, "what the scan does not show stays black"
