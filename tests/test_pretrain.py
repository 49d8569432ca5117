"""Plain training goes on after a stop as if there had been none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_model
from torch.utils.data import DataLoader

from cardiac_ct_fm.config import DEFAULT_LOOKS, IntensityConfig
from cardiac_ct_fm.model import create_model
from cardiac_ct_fm.training.denormals import flushed
from cardiac_ct_fm.training.looks import CohortLooks, LookPlan
from recipes import pretrain

PLAN = LookPlan({"heart": 1.0}, {"heart": (8, 16)})


def first_looks(count: int, workers: int, done: int = 0) -> list[torch.Tensor]:
    looks = CohortLooks(DEFAULT_LOOKS, IntensityConfig(), PLAN, start=3, done=done)
    stream = iter(DataLoader(looks, batch_size=1, num_workers=workers, collate_fn=pretrain.collate))
    return [next(stream)["image"] for _ in range(count)]


def test_a_training_starts_from_a_runs_file_or_from_published_weights(tmp_path: Path) -> None:
    model, optimiser = updated(0, 1)
    pretrain.save(tmp_path, model, model, optimiser, 1)
    model.save_pretrained(tmp_path / "published")
    for source in (tmp_path / "average.safetensors", tmp_path / "published"):
        other = small_model(seed=1)
        other.load_state_dict(pretrain.start_weights(str(source), dict(other.state_dict())))
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_what_looks_at_points_again_stays_out_of_a_trunks_training(tmp_path: Path) -> None:
    heads = ("heart", "hps")
    config = create_model("cardiac_unet_small", heads=heads).config
    refining = tuple(replace(head, refine=8) if head.name == "hps" else head for head in config.heads)
    create_model(config.replace(heads=refining), seed=2).save_pretrained(tmp_path / "published")
    own = dict(create_model("cardiac_unet_small", heads=heads, seed=1).state_dict())
    assert pretrain.start_weights(str(tmp_path / "published"), own).keys() == own.keys()


@pytest.mark.parametrize(("workers", "done"), [(0, 5), (2, 5)])
def test_the_stream_of_looks_goes_on_with_the_look_after_the_last(workers: int, done: int) -> None:
    whole, rest = first_looks(done + 2, workers), first_looks(2, workers, done)
    assert all(torch.equal(a, b) for a, b in zip(whole[done:], rest, strict=True))
    assert not torch.equal(rest[0], whole[0])


def updated(seed: int, steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A network and an optimiser that has made some updates."""
    model = small_model(seed=seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    return model, optimiser


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_the_moments_live_where_the_parameters_do_after_a_stop(tmp_path: Path) -> None:
    model, optimiser = updated(0, 2)
    pretrain.save(tmp_path, model, model, optimiser, 2)
    elsewhere = small_model().to("meta")
    other = torch.optim.AdamW(elsewhere.parameters())
    assert pretrain.resume(tmp_path, elsewhere, elsewhere, other) == 2
    for parameter in elsewhere.parameters():
        assert other.state[parameter]["exp_avg"].device.type == "meta"
        assert other.state[parameter]["step"] == torch.tensor(2.0)


def test_weights_and_step_belong_together_after_a_kill_between_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rename is the last in turn."""
    replace, moves = Path.replace, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal moves
        if moves == 0:
            raise KeyboardInterrupt
        moves -= 1
        return replace(self, target)

    by_step = {step: updated(step, step) for step in (1, 2)}
    for last in (0, 1):
        pretrain.save(tmp_path, by_step[1][0], by_step[1][0], by_step[1][1], 1)
        with monkeypatch.context() as patch:
            moves = last
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                pretrain.save(tmp_path, by_step[2][0], by_step[2][0], by_step[2][1], 2)
        found, optimiser = small_model(seed=9), torch.optim.AdamW(small_model().parameters())
        step = pretrain.resume(tmp_path, found, small_model(), optimiser)
        expected = by_step[step][0].state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())


def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 2)
    options = ["--steps", "3", "--share", "0", "1", "0", "--heart-window", "32", "--threads", "1", "--out"]
    pretrain.main([*options, str(tmp_path / "whole")])
    assert not flushed()  # scipy's k-d trees crash in a process that counts denormal numbers as 0
    save = pretrain.save  # after two of three steps, in the middle of a patient

    def killed(*state: object) -> None:
        save(*state)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrain, "save", killed)
        pretrain.main([*options, str(tmp_path / "killed")])
    pretrain.main([*options, str(tmp_path / "killed")])
    whole, resumed = (load_file(tmp_path / name / "average.safetensors") for name in ("whole", "killed"))
    assert max(float((whole[k] - resumed[k]).abs().max()) for k in whole) < 1e-6
