"""Volumes of label maps with known content."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.volume_io import Volume
from cardiac_ct_fm.volumes import cut_off, structure_volumes

HEART = {"heart": HEADS["heart"].classes}


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
    assert volumes["Calc_volume_ml"].details["message"] == "The head calc marked none."


def test_what_reaches_an_edge_is_marked_and_keeps_what_is_seen() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:10, 5:10, 18] = 1
    labels[5:10, 5:10, 5] = 2
    volumes = structure_volumes(prediction(labels, (1.0, 1.0, 1.0)))
    assert volumes["Calc_volume_ml"].status == "truncated"
    assert volumes["Calc_volume_ml"].value == pytest.approx(0.025)
    assert volumes["Other_volume_ml"].status == "ok"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("radius_mm", "status"), [(20.0, "ok"), (9.5, "truncated")])
def test_what_reaches_the_reconstruction_circle_is_cut_off(radius_mm: float, status: str, order: str) -> None:
    x, y, _ = np.ogrid[-24.5:25, -24.5:25, :20]
    circle = np.broadcast_to(np.hypot(x, y) > radius_mm, (50, 50, 20))
    labels = np.zeros((50, 50, 20), np.uint8, order=order)
    labels[20:30, 16:33, 8:12] = 3
    data = np.array(np.where(circle, -3024, 40), dtype=np.int16, order=order)
    found = prediction(labels, (1.0, 1.0, 1.0))
    found = replace(found, volume=replace(found.volume, data=data), label_maps={"heart": labels}, classes=HEART)
    assert structure_volumes(found)["LV_volume_ml"].status == status
    assert any("LV is cut off" in sentence for sentence in cut_off(found)) == (status == "truncated")
    assert "RV was not found." in cut_off(found)
