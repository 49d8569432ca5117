"""Every shortcut of the networks gives what the plain path gives: oneDNN's layout, norms, shared attention masks."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.blocks import UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.nets.swin_unetr import BasicLayer
from torch import nn

import cardiac_ct_fm as ccf
from cardiac_ct_fm import cpu_blocks
from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.cpu_layers import (
    LAYOUT,
    Convolution,
    InstanceNorm,
    LastLayer,
    has_fast_layout,
    in_place_of_slow_ones,
)
from cardiac_ct_fm.swin_layers import SwinStage, window_kinds
from tests.small_models import BACKBONES, small_model


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("settings", [(3, 1, 1), (1, 1, 0), (2, 2, 0)])
def test_a_convolution_gives_what_torchs_does(inputs: int, settings: tuple[int, int, int]) -> None:
    plain = nn.Conv3d(inputs, 6, settings[0], settings[1], settings[2])
    fast, x = Convolution(plain), random(2, inputs, 12, 10, 8)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(fast(x.contiguous(memory_format=LAYOUT)), plain(x), rtol=0, atol=1e-5)
    assert dict(fast.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert fast.weight is plain.weight


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-5), (30.0, 1e-4)])
def test_an_instance_norm_gives_what_torchs_does_in_every_layout(affine: bool, offset: float, tolerance: float) -> None:
    plain = nn.InstanceNorm3d(24, affine=affine)
    if affine:
        nn.init.normal_(plain.weight), nn.init.normal_(plain.bias)
    fast = InstanceNorm(plain)
    x = 3 * random(2, 24, 40, 36, 32) + offset
    exact = plain.double()(x.double()).detach()
    plain.float()
    with torch.inference_mode():
        for layout in (torch.contiguous_format, LAYOUT):
            given = x.clone().contiguous(memory_format=layout)
            assert float((fast(given) - exact).abs().max()) < tolerance
    x.requires_grad_(True)
    assert float((fast(x).detach() - exact).abs().max()) < tolerance


@pytest.mark.parametrize("affine", [False, True])
def test_an_instance_norm_that_learns_in_bfloat16_keeps_the_layout_and_rounds_twice_at_most(affine: bool) -> None:
    plain = nn.InstanceNorm3d(24, affine=affine)
    for seed, parameter in enumerate(plain.parameters(), start=2):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    fast, reference = InstanceNorm(copy.deepcopy(plain)), plain.double()
    x = (2 * random(2, 24, 40, 36, 32) + 3).bfloat16().contiguous(memory_format=LAYOUT)
    gradient = random(*x.shape, seed=1).bfloat16().contiguous(memory_format=LAYOUT)
    found, exact = x.clone().requires_grad_(True), x.double().requires_grad_(True)
    given = fast(found)
    given.backward(gradient)
    wanted = reference(exact)
    wanted.backward(gradient.double())
    assert given.is_contiguous(memory_format=LAYOUT) and found.grad.is_contiguous(memory_format=LAYOUT)
    step = torch.finfo(torch.bfloat16).eps  # rounding moves a number by half of this, relatively
    torch.testing.assert_close(given.double(), wanted, rtol=step, atol=step)
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=step, atol=step)
    for own, other in zip(fast.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-2)


def test_an_instance_norm_of_constant_channels_is_finite_and_small() -> None:
    x = (300 * random(24)).reshape(1, 24, 1, 1, 1).expand(1, 24, 40, 36, 32).contiguous(memory_format=LAYOUT)
    with torch.inference_mode():
        normal = InstanceNorm(nn.InstanceNorm3d(24))(x)
    assert bool(torch.isfinite(normal).all()) and float(normal.abs().max()) < 0.1


@pytest.mark.parametrize("planes", [4, 6, 100])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 6), (6, 6), (4, 6)])
def test_a_residual_block_by_planes_gives_what_monais_does(
    monkeypatch: pytest.MonkeyPatch, planes: int, inputs: int, outputs: int
) -> None:
    plain, x = UnetResBlock(3, inputs, outputs, 3, 1, ("instance", {"affine": True})), random(2, inputs, 13, 10, 8)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    fast = replaced(monkeypatch, plain, planes * outputs * 10 * 8)
    assert type(fast) is cpu_blocks.ResidualBlock
    assert fast.state_dict().keys() == plain.state_dict().keys()
    given = x.clone()
    with torch.inference_mode():
        for layout in (torch.contiguous_format, LAYOUT):
            torch.testing.assert_close(fast(x.contiguous(memory_format=layout)), plain(x), rtol=0, atol=2e-5)
    assert torch.equal(x, given), "what a block reads stays as it is"
    torch.testing.assert_close(fast.train()(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("planes", [4, 6, 100])
def test_an_up_sampling_block_by_planes_gives_what_monais_does(monkeypatch: pytest.MonkeyPatch, planes: int) -> None:
    plain = UnetrUpBlock(3, 8, 6, 3, 2, "instance", res_block=True)
    low, skip = random(2, 8, 7, 5, 4), random(2, 6, 14, 10, 8, seed=1)
    fast = replaced(monkeypatch, plain, planes * 6 * 10 * 8)
    assert type(fast) is cpu_blocks.UpBlock
    assert fast.state_dict().keys() == plain.state_dict().keys()
    given = low.clone(), skip.clone()
    with torch.inference_mode():
        for layout in (torch.contiguous_format, LAYOUT):
            found = fast(low.contiguous(memory_format=layout), skip.contiguous(memory_format=layout))
            torch.testing.assert_close(found, plain(low, skip), rtol=0, atol=2e-5)
    assert torch.equal(low, given[0]) and torch.equal(skip, given[1]), "what a block reads stays as it is"
    torch.testing.assert_close(fast(low, skip), plain(low, skip), rtol=0, atol=0)


def test_a_block_that_halves_a_map_stays_monais() -> None:
    net = nn.Sequential(UnetResBlock(3, 4, 6, 3, 2, "instance"), UnetResBlock(3, 6, 6, 3, 1, "batch"))
    cpu_blocks.in_place_of_slow_blocks(net)
    assert [type(block) for block in net] == [UnetResBlock, UnetResBlock]


def test_a_block_whose_activation_gives_a_new_map_stays_monais() -> None:
    net = nn.Sequential(UnetResBlock(3, 6, 6, 3, 1, "instance", act_name=("relu", {"inplace": False})))
    cpu_blocks.in_place_of_slow_blocks(net)
    assert type(net[0]) is UnetResBlock


def replaced(monkeypatch: pytest.MonkeyPatch, plain: nn.Module, slab: int) -> nn.Module:
    """A copy of a block that takes ``slab`` values at a time, whatever the size of the map."""
    monkeypatch.setattr(cpu_blocks, "LARGE", 0)
    monkeypatch.setattr(cpu_blocks, "SLAB", slab)
    net = nn.Sequential(copy.deepcopy(plain)).eval()
    cpu_blocks.in_place_of_slow_blocks(net)
    return net[0]


def test_logits_are_what_a_convolution_gives_and_each_class_is_together_in_memory() -> None:
    plain, x = nn.Conv3d(6, 3, 1), random(2, 6, 5, 7, 9)
    with torch.inference_mode():
        logits = LastLayer(plain)(x.contiguous(memory_format=LAYOUT))
        assert logits.is_contiguous()
        torch.testing.assert_close(logits, plain(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(14, 14, 14), (13, 9, 7), (6, 6, 6), (5, 14, 7)])
@pytest.mark.parametrize("learning", [False, True])
def test_a_swin_stage_gives_what_monais_does(size: tuple[int, int, int], learning: bool) -> None:
    torch.manual_seed(0)
    plain = BasicLayer(12, 2, 3, (7, 7, 7), [0.0, 0.0], qkv_bias=True, downsample=None)
    plain.downsample = nn.Identity()
    for block in plain.blocks:
        nn.init.normal_(block.attn.relative_position_bias_table)
    fast, x = SwinStage(copy.deepcopy(plain)), random(2, 12, *size)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    with torch.set_grad_enabled(learning):
        expected, found = plain(x), fast(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if learning:
        expected.square().sum().backward(), found.square().sum().backward()
        for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_shifted_windows_fall_into_eight_kinds_that_are_made_once() -> None:
    cpu = torch.device("cpu")
    kinds = window_kinds((7, 7, 7), (7, 7, 7), (3, 3, 3), cpu)
    assert sorted(kinds.counts) == [1, 6, 6, 6, 36, 36, 36, 216]
    assert window_kinds((7, 7, 7), (7, 7, 7), (3, 3, 3), cpu) is kinds
    assert [tuple(m.shape) for m in window_kinds((2, 1, 1), (2, 2, 2), (1, 0, 0), cpu).masks] == [(8, 8)] * 2


@pytest.mark.parametrize("large", [0, cpu_blocks.LARGE])
@pytest.mark.parametrize("kind", BACKBONES)
def test_a_model_answers_the_same_with_and_without_shortcuts(
    monkeypatch: pytest.MonkeyPatch, kind: str, large: int
) -> None:
    monkeypatch.setattr(cpu_blocks, "LARGE", large)
    model = small_model(kind)
    x = random(1, 1, *(64, 32, 32) if kind == "swin of four stages" else (32, 32, 32))
    plain = {name: logits.detach() for name, logits in model(x).items()}  # autograd is on: torch's own paths
    with torch.inference_mode():
        assert has_fast_layout(x)
        fast = model(x)
        again = model(x)
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name], rtol=0, atol=2e-5)
        assert float((fast[name].argmax(1) != plain[name].argmax(1)).float().mean()) < 0.001
        assert torch.equal(again[name], fast[name])
        assert fast[name].is_contiguous()


@pytest.mark.parametrize("large", [0, cpu_blocks.LARGE])
def test_torchs_own_default_type_changes_nothing(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(cpu_blocks, "LARGE", large)
    model, x = small_model("swin of three stages"), random(1, 1, 32, 32, 32)
    with torch.inference_mode():
        expected = model(x)
        torch.set_default_dtype(torch.float64)
        try:
            found = model(x)
        finally:
            torch.set_default_dtype(torch.float32)
    for name, logits in expected.items():
        assert torch.equal(found[name], logits)


def test_masks_that_prediction_made_serve_training_too() -> None:
    window_kinds.cache_clear()
    model, x = small_model("swin of three stages"), random(1, 1, 32, 32, 32)
    with torch.inference_mode():
        model(x)
    model.train()(x)["heart"].square().mean().backward()
    assert all(p.grad is not None for p in model.backbone.swinViT.parameters())


def test_shortcuts_draw_no_random_numbers_and_keep_names() -> None:
    plain = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2), nn.BatchNorm3d(2))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    names = list(plain.state_dict())
    in_place_of_slow_ones(plain)
    assert torch.equal(torch.rand(1), expected)
    assert list(plain.state_dict()) == names
    assert [type(m) for m in plain] == [Convolution, InstanceNorm, nn.BatchNorm3d]


def test_learning_and_half_precision_keep_torchs_own_paths() -> None:
    x = random(1, 1, 4, 4, 4)
    assert not has_fast_layout(x)
    with torch.no_grad():
        assert has_fast_layout(x)
        assert not has_fast_layout(x.half())
        with torch.autocast("cpu", torch.bfloat16):
            assert not has_fast_layout(x)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not has_fast_layout(x)


def test_a_new_head_on_a_model_takes_the_shortcut_too() -> None:
    model = ccf.create_model("cardiac_swin_tiny", heads=["hps", HeadConfig("apex", "landmarks", ("Apex",))])
    assert all(isinstance(head, Convolution) for head in model.heads.values())
