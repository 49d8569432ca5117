"""The label that names each voxel's sinus: it turns with the cusps, and its head is trained but not published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import small_model
from torch import Tensor

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case, case_of
from cardiac_ct_fm.cohort.render import Look
from recipes import pretrain
from recipes.sinus_labels import HEAD, HIGH_MM, sinus_labels
from recipes.turned_roots import turned

SPACING, EDGE = 2.0, 28


def labelled(case: Case) -> tuple[Tensor, Tensor, Tensor, Look]:
    """Points (N, 3) relative to the middle of the hinge points, their label, the hinge points, and the look."""
    hinges = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS])
    middle = hinges.mean(0)
    look = case.look(middle, SPACING, (EDGE,) * 3)[1]
    labels = sinus_labels(case, middle, SPACING, look)
    return (case.grid(middle, SPACING, (EDGE,) * 3) - middle).reshape(-1, 3), labels.reshape(-1), hinges - middle, look


@pytest.mark.parametrize("degrees", [0.0, 40.0])
def test_each_sinus_lies_on_the_side_of_its_hinge_point(degrees: float) -> None:
    points, labels, hinges, _ = labelled(turned(5, degrees, {}))
    for number in range(3):
        middle = points[labels == number + 1].mean(0)
        assert int((hinges / hinges.norm(dim=1, keepdim=True) @ middle).argmax()) == number


def test_the_sinuses_are_blood() -> None:
    _, labels, _, look = labelled(turned(5, 0.0, {}))
    inside = labels > 0
    assert set(look.heart.reshape(-1)[inside].tolist()) <= {HEART_LABELS["Aorta"], HEART_LABELS["LV"]}


def test_each_sinus_ends_below_at_its_own_hinge_point_however_high_that_is() -> None:
    """Lifted by 4 mm, a hinge point takes the floor of its sinus with it, and no other's."""
    floors = []
    for lift in (0.0, 4.0):
        case = turned(5, 0.0, {}, hinges={"LCC": lift})
        centre = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS]).mean(0)
        look = case.look(centre, 1.0, (48,) * 3)[1]
        label = sinus_labels(case, centre, 1.0, look).reshape(-1)
        local = case.heart.local(case.heart.warp.to_template(case.grid(centre, 1.0, (48,) * 3)).reshape(-1, 3))
        height = local[:, 2] / case.heart.shape.scale
        floors.append([float(height[label == number + 1].min()) for number in range(3)])
        hinges = [case.heart.patient.root.hinge_z_mm[name] for name in HINGE_POINTS]
        assert np.allclose(floors[-1], hinges, atol=1.0)
        assert height[label > 0].max() <= HIGH_MM + 0.1  # the label interpolates between every second point
    risen = np.subtract(*floors[::-1])
    assert abs(risen[HINGE_POINTS.index("LCC")] - 4.0) < 1.0
    assert np.abs(np.delete(risen, HINGE_POINTS.index("LCC"))).max() < 0.5


def test_the_head_is_trained_and_not_published(tmp_path: Path) -> None:
    model = small_model()
    known = set(model.state_dict())
    model.add_head(HEAD, HINGE_POINTS, looks=["heart"])
    optimiser = torch.optim.AdamW(model.parameters())
    pretrain.save(tmp_path, model, model, optimiser, 1)
    assert set(load_file(tmp_path / "average.safetensors")) == known
    other = small_model(seed=1)
    other.add_head(HEAD, HINGE_POINTS, looks=["heart"])
    assert pretrain.resume(tmp_path, other, other, torch.optim.AdamW(other.parameters())) == 1
    assert torch.equal(other.heads[HEAD].weight, model.heads[HEAD].weight)
    fresh = small_model(seed=2)
    fresh.add_head(HEAD, HINGE_POINTS, looks=["heart"])
    start = pretrain.start_weights(str(tmp_path / "average.safetensors"), dict(fresh.state_dict()))
    assert torch.equal(start[f"heads.{HEAD}.weight"], fresh.heads[HEAD].weight)
    assert torch.equal(start["heads.hps.weight"], model.heads["hps"].weight)


def test_beside_open_leaflets_a_sinus_is_what_lies_between_them_and_the_wall() -> None:
    """On the root's axis, 10 mm up, blood lies above closed leaflets, and between open ones."""
    shares = []
    for opening in (0.0, 0.8):
        case = turned(5, 0.0, {})
        root = dataclasses.replace(case.heart.patient.root, opening=opening)
        case = case_of(dataclasses.replace(case.heart.patient, root=root), 5)
        centre = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS]).mean(0)
        look = case.look(centre, 1.0, (48,) * 3)[1]
        label = sinus_labels(case, centre, 1.0, look).reshape(-1)
        points = case.grid(centre, 1.0, (48,) * 3)
        _, radius, height = case.heart.shape.polar(case.heart.local(case.heart.warp.to_template(points)).reshape(-1, 3))
        inner = ((height / case.heart.shape.scale - 12).abs() < 2) & (radius < 4)
        shares.append(float((label[inner] > 0).float().mean()))
        assert set(label.unique().tolist()) == {0, 1, 2, 3}
    assert shares == [1.0, 0.0]
