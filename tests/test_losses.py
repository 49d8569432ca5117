"""Losses of pretraining: what a landmark's distance costs beside its sphere's overlap."""

from __future__ import annotations

import pytest
import torch

from cardiac_ct_fm.training.losses import CENTRE_VOXELS, NEAR_VOXELS, centre_loss, partial_label_loss

EDGE, RADIUS = 24, 4.0


def spheres(*middles: tuple[float, float, float]) -> torch.Tensor:
    """Label map (1, X, Y, Z) with a sphere per middle, 1, 2, …"""
    axis = torch.arange(EDGE).float()
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    label = torch.zeros(EDGE, EDGE, EDGE, dtype=torch.uint8)
    for number, middle in enumerate(middles, start=1):
        label[(points - torch.tensor(middle)).norm(dim=-1) <= RADIUS] = number
    return label[None]


def sure_of(label: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits (1, C, X, Y, Z) that say this label and hardly anything else."""
    return 20.0 * torch.nn.functional.one_hot(label.long(), classes).movedim(-1, 1).float()


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_a_sphere_costs_its_distance(shift: float) -> None:
    truth = spheres((8, 8, 8), (15, 15, 15))
    found = spheres((8 + shift, 8, 8), (15, 15, 15))
    cost = float(centre_loss(sure_of(found, 3), truth))
    assert cost == pytest.approx(shift / 2 / CENTRE_VOXELS, abs=5e-3)


def test_a_sphere_that_is_not_there_costs_nothing() -> None:
    logits = sure_of(spheres((8, 8, 8)), 3)
    assert float(centre_loss(logits, torch.zeros(1, EDGE, EDGE, EDGE))) == 0
    assert float(centre_loss(logits, spheres((8, 8, 8)))) < 0.01


def test_neither_haze_nor_what_is_far_away_nor_a_miss_counts_much() -> None:
    truth = spheres((8, 8, 8))
    haze = torch.full((1, 1, EDGE, EDGE, EDGE), 0.02) + 0.97 * (truth == 1)
    elsewhere = sure_of(spheres((8, 8, 8), (8, 8, 20)).clamp_max(1), 2)
    missed = sure_of(torch.zeros_like(truth), 2)
    for logits in (torch.cat([torch.zeros_like(haze), torch.logit(haze)], 1), elsewhere, missed):
        assert float(centre_loss(logits, truth)) < 0.02
    everywhere = sure_of(torch.ones_like(truth), 2)
    assert float(centre_loss(everywhere, truth)) <= NEAR_VOXELS / CENTRE_VOXELS


def test_where_the_overlap_hardly_changes_the_distance_pulls_a_sphere_to_its_place() -> None:
    truth = spheres((12, 12, 12))
    place = torch.tensor([10.0, 12.0, 12.0], requires_grad=True)
    axis = torch.arange(EDGE).float()
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    sphere = 4 * (RADIUS - (points - place).norm(dim=-1))
    logits = torch.stack([torch.zeros_like(sphere), sphere])[None]
    centre_loss(logits, truth).backward()
    assert place.grad is not None
    assert float(place.grad[0]) < -0.5 / CENTRE_VOXELS, "downhill is toward the truth"
    assert float(place.grad[1:].abs().max()) < 0.05 / CENTRE_VOXELS


def test_only_landmark_heads_have_centres() -> None:
    truth, found = spheres((8, 8, 8)), sure_of(spheres((11, 8, 8)), 2)
    logits, targets = {"hps": found, "calc": found}, {"hps": truth, "calc": truth}
    _, plain = partial_label_loss(logits, targets)
    _, with_centres = partial_label_loss(logits, targets, centre_weight=2.0)
    assert with_centres["calc"] == plain["calc"]
    assert with_centres["hps"] - plain["hps"] == pytest.approx(2.0 * 3.0 / CENTRE_VOXELS, rel=1e-2)
