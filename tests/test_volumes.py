"""Volumes of label maps with known content."""

from __future__ import annotations

import numpy as np
import pytest

from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volume_io import Volume
from cardiac_ct_fm.volumes import structure_volumes


def prediction(labels: np.ndarray, spacing: tuple[float, float, float]) -> Prediction:
    volume = Volume(np.zeros(labels.shape, np.int16), np.diag([*spacing, 1.0]))
    return Prediction(volume, label_maps={"calc": labels}, classes={"calc": ("Calc", "Other")})


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_block_has_the_volume_of_its_voxels(order: str) -> None:
    labels = np.zeros((40, 30, 20), np.uint8, order=order)
    labels[10:20, 10:20, 5:10] = 1
    volumes = structure_volumes(prediction(labels, (0.5, 1.0, 2.0)))
    assert volumes["Calc_volume_ml"].value == pytest.approx(0.5)
    assert volumes["Calc_volume_ml"].status == "ok"


def test_what_is_not_there_has_no_volume() -> None:
    volumes = structure_volumes(prediction(np.zeros((8, 8, 8), np.uint8), (1.0, 1.0, 1.0)))
    assert volumes["Calc_volume_ml"].value is None
    assert volumes["Calc_volume_ml"].status == "not_found"


def test_what_reaches_an_edge_is_marked_and_keeps_what_is_seen() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:10, 5:10, 18] = 1
    labels[5:10, 5:10, 5] = 2
    volumes = structure_volumes(prediction(labels, (1.0, 1.0, 1.0)))
    assert volumes["Calc_volume_ml"].status == "truncated"
    assert volumes["Calc_volume_ml"].value == pytest.approx(0.025)
    assert volumes["Other_volume_ml"].status == "ok"
