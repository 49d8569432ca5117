"""Training of the second look at points: what a patient gives, and that a stop changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cardiac_ct_fm.refinement import EDGE, lattice
from recipes import refine

SEED = 7
FIRST = 10_000_000 * (SEED + 1)


@pytest.fixture(scope="module")
def batch() -> refine.Batch:
    return refine.RootPatches(SEED).of(FIRST)


def test_a_patient_gives_patches_of_all_points_around_guesses_beside_them(batch: refine.Batch) -> None:
    seen, offsets, kinds = batch
    assert seen.shape == (len(kinds), 1, EDGE, EDGE, EDGE) and offsets.shape == (len(kinds), 3)
    assert set(kinds.tolist()) == set(range(5)) and len(kinds) > 5
    assert 0.5 < float(offsets.norm(dim=1).median()) < 6.0 and float(offsets.abs().max()) < EDGE / 2 - 1
    assert float(seen.std()) > 0.1


def test_the_stream_goes_on_where_it_ended(batch: refine.Batch) -> None:
    stream = iter(refine.RootPatches(SEED))
    first, second = next(stream), next(stream)
    resumed = next(iter(refine.RootPatches(SEED, done=1)))
    assert all(torch.equal(a, b) for a, b in zip(first, batch, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second, resumed, strict=True))
    assert not torch.equal(first[0], second[0][: len(first[0])])


def test_guesses_turn_together_and_are_about_as_far_off_as_is_said() -> None:
    angles = np.radians([0.0, 120.0, 240.0, 10.0, 130.0])
    true = np.stack([12 * np.cos(angles), 12 * np.sin(angles), np.array([0.0, 0.0, 0.0, 14.0, 14.0])], 1)
    rng = np.random.default_rng(0)
    off = np.linalg.norm([refine.first_guesses(true, rng) - true for _ in range(400)], axis=2)
    assert np.median(off) == pytest.approx(2.5, abs=0.4)
    assert 0.02 < (off > 6.0).mean() < 0.1


def test_the_loss_is_least_where_the_point_is() -> None:
    offsets = torch.tensor([[2.3, -1.2, 0.4]])

    def loss(guess: torch.Tensor) -> float:
        return float(refine.cross_entropy((lattice() - guess).square().sum(-1)[None] / -2, offsets))

    here = loss(offsets[0])
    assert all(loss(offsets[0] + step) > here + 0.05 for step in torch.cat([torch.eye(3), -torch.eye(3)]))


def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "SAVE_EVERY", 2)
    options = ["--steps", "3", "--width", "8", "--warmup", "1", "--seed", str(SEED), "--log-every", "1", "--out"]
    refine.main([*options, str(tmp_path / "whole")])
    save = refine.save

    def killed(*state: object) -> None:
        save(*state)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(refine, "save", killed)
        refine.main([*options, str(tmp_path / "killed")])
    refine.main([*options, str(tmp_path / "killed")])
    whole, resumed = (load_file(tmp_path / name / "average.safetensors") for name in ("whole", "killed"))
    assert max(float((whole[k] - resumed[k]).abs().max()) for k in whole) < 1e-6
    rows = (tmp_path / "killed" / "history.csv").read_text().splitlines()
    assert rows[0].split(",") == refine.COLUMNS and [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]
