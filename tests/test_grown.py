"""A four-stage trunk that grew out of a three-stage one answers nearly as the old one did, and learns from there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import BACKBONES, small_config, small_model
from torch import Tensor

import cardiac_ct_fm as ccf
from cardiac_ct_fm.cohort.case import draw_case
from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.preprocess import normalise
from recipes import pretrain
from recipes.grown import grown

FOUR = ModelConfig(
    name="four",
    backbone=dataclasses.replace(BACKBONES["swin of four stages"], window_size=4),
    heads=small_config().heads,
    looks=(),
)


def grow(old: ccf.CardiacCTModel, new: ccf.CardiacCTModel) -> ccf.CardiacCTModel:
    trunk = {k: v for k, v in old.state_dict().items() if not k.startswith(pretrain.OF_A_SECOND_LOOK)}
    new.load_state_dict(grown(trunk, dict(new.state_dict())))
    return new.eval()


def likeness(old: ccf.CardiacCTModel, new: ccf.CardiacCTModel, x: Tensor) -> tuple[float, float]:
    """The least correlation of a class' logits, and the least share of voxels of the same class, over all heads."""
    with torch.inference_mode():
        pairs = [(a[0].flatten(1), b[0].flatten(1)) for a, b in zip(old(x).values(), new(x).values(), strict=True)]
    classes = [torch.stack(pair) for a, b in pairs for pair in zip(a, b, strict=True)]
    same = [float((a.argmax(0) == b.argmax(0)).float().mean()) for a, b in pairs]
    return min(float(torch.corrcoef(c)[0, 1]) for c in classes), min(same)


def test_a_grown_network_answers_nearly_as_the_old_one_and_a_fresh_one_does_not() -> None:
    old, fresh = small_model("swin of three stages"), ccf.create_model(FOUR, seed=1).eval()
    x = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    correlation, same = likeness(old, grow(old, ccf.create_model(FOUR, seed=1)), x)
    assert correlation > 0.99
    assert same > 0.95
    correlation, same = likeness(old, fresh, x)
    assert correlation < 0.5
    assert same < 0.5


def test_the_bundled_network_keeps_its_answers_on_a_digital_patient_when_it_grows() -> None:
    old = ccf.from_pretrained("cardiac_swin_tiny")
    new = grow(old, ccf.create_model("cardiac_swin_small", seed=1))
    case = draw_case(3, None)
    hu, _ = case.look(case.heart.landmarks["RCC"].float(), 1.0, (64, 64, 64), noise_seed=3)
    correlation, same = likeness(old, new, normalise(hu, old.config.intensity)[None, None])
    assert correlation > 0.95
    assert same > 0.97


def test_the_new_stage_is_read_and_learns() -> None:
    new = grow(small_model("swin of three stages"), ccf.create_model(FOUR, seed=1)).train()
    new(torch.randn(1, 1, 64, 32, 32))["heart"].square().mean().backward()
    deep = [p for name, p in new.named_parameters() if "layers4" in name or "encoder10" in name]
    assert deep
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in deep)


def test_what_is_given_stays_as_it_was() -> None:
    old, new = dict(small_model("swin of three stages").state_dict()), dict(ccf.create_model(FOUR).state_dict())
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in (old, new)]
    grown(old, new)
    for state, copy in zip((old, new), before, strict=True):
        assert all(torch.equal(tensor, copy[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("swin of three stages", "swin of three stages"),
        ("swin of three stages", "swin of four stages"),  # of another attention window
        ("residual u-net", "swin of four stages"),
        ("swin of four stages", "swin of four stages"),
    ],
)
def test_networks_that_do_not_follow_each_other_are_refused(small: str, large: str) -> None:
    with pytest.raises(ccf.WeightsError, match="Only a four-stage Swin model grows"):
        grown(dict(small_model(small).state_dict()), dict(small_model(large).state_dict()))


def test_a_wider_network_and_other_heads_are_refused() -> None:
    old = dict(small_model("swin of three stages").state_dict())
    for change in ({"backbone": dataclasses.replace(FOUR.backbone, feature_size=24)}, {"heads": FOUR.heads[:1]}):
        with pytest.raises(ccf.WeightsError, match="does not fit"):
            grown(old, dict(ccf.create_model(FOUR.replace(**change)).state_dict()))


def test_the_training_command_grows_what_it_starts_from(tmp_path: Path) -> None:
    """With next to no learning rate the weights that come out are those that the training began with."""
    old = dict(ccf.create_model("cardiac_swin_tiny", seed=3).state_dict())
    save_file({name: tensor.contiguous() for name, tensor in old.items()}, tmp_path / "old.safetensors")
    options = ["--model", "cardiac_swin_small", "--start-from", str(tmp_path / "old.safetensors"), "--steps", "1"]
    look = ["--share", "0", "1", "0", "--heart-window", "64", "--threads", "1"]
    pretrain.main([*options, *look, "--lr", "1e-12", "--out", str(tmp_path / "run")])
    found = load_file(tmp_path / "run" / "average.safetensors")
    torch.manual_seed(0)  # as the command does before it draws the new stage
    expected = grown(old, dict(ccf.create_model("cardiac_swin_small").state_dict()))
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name].float(), tensor.float(), atol=1e-6) for name, tensor in expected.items())
