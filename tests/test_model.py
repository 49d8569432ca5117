"""Networks: what every architecture must do, MONAI's own logits, heads, freezing, parameter groups."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import UNETR, DynUNet, SwinUNETR
from small_models import BACKBONES, HEADS, small_config, small_model

import cardiac_ct_fm as ccf
from cardiac_ct_fm.backbones import build_backbone
from cardiac_ct_fm.config import BackboneConfig, HeadConfig, ModelConfig
from cardiac_ct_fm.heads import CoarseHeads
from cardiac_ct_fm.registry import ARCHITECTURES

SIZE = {"swin of four stages": (64, 32, 32)}


def image(kind: str = "residual u-net", seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, *SIZE.get(kind, (32, 32, 32)), generator=torch.Generator().manual_seed(seed))


# ---- what every architecture must do


@pytest.mark.parametrize("kind", BACKBONES)
@torch.no_grad()
def test_every_architecture_gives_logits_features_and_a_pyramid_as_it_describes_them(kind: str) -> None:
    model, x = small_model(kind), image(kind)
    logits = model(x)
    assert {name: tuple(t.shape) for name, t in logits.items()} == {
        "heart": (1, 8, *x.shape[2:]),
        "hps": (1, 6, *x.shape[2:]),
    }
    features = model.forward_features(x)
    assert features.shape == (1, model.backbone.out_channels, *x.shape[2:])
    for name, head in model.heads.items():
        torch.testing.assert_close(head(features), logits[name], rtol=0, atol=0)
    for maps, info in (
        (model.forward_intermediates(x), model.feature_info),
        (model.decoder_maps(x), model.backbone.decoder_info),
    ):
        assert [f.index for f in info] == list(range(len(maps)))
        for value, feature in zip(maps, info, strict=True):
            expected = tuple(edge // step for edge, step in zip(x.shape[2:], feature.stride, strict=True))
            assert (value.shape[1], tuple(value.shape[2:])) == (feature.channels, expected)
    assert model.feature_info[0].stride == (2, 2, 2)
    assert model.backbone.decoder_info[0].stride == (1, 1, 1)


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_parameter_of_every_architecture_learns(kind: str) -> None:
    model = small_model(kind).train()
    sum(t.square().mean() for t in model(image(kind)).values()).backward()
    unused_in_monai = "norm_cross_attn"  # its ViT blocks hold a norm for a cross attention that UNETR has not
    silent = [name for name, p in model.named_parameters() if p.grad is None and unused_in_monai not in name]
    assert silent == []


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_parameter_of_every_architecture_has_a_stage(kind: str) -> None:
    model = small_model(kind)
    groups = model.param_groups(lr=1.0, layer_decay=0.5, weight_decay=0.1)
    assert sum(p.numel() for g in groups for p in g["params"]) == model.num_parameters
    rates = sorted({g["lr"] for g in groups})
    assert rates[-1] == 1.0
    assert rates[0] == 0.5 ** len(model.backbone.stages)
    assert len(rates) == len(model.backbone.stages) + 1


@pytest.mark.parametrize(("name", "config"), ARCHITECTURES.items())
def test_the_registry_states_the_number_of_weights(name: str, config: ModelConfig) -> None:
    """Of weights that the name stands for, which may look at points again, or of the architecture."""
    info = ccf.model_info(name)
    if info.folder is not None:
        config = ModelConfig.load(info.folder / "config.json")
    with torch.device("meta") if name in ("cardiac_unetr_base", "cardiac_unet_base") else torch.device("cpu"):
        model = ccf.create_model(config)
    assert model.num_parameters == info.parameters


def test_the_tiny_trunk_fits_in_ten_megabytes_of_fp16() -> None:
    assert ccf.model_info("cardiac_swin_tiny").parameters * 2 < 10_000_000


# ---- MONAI's own networks


@torch.no_grad()
def test_four_stages_give_the_logits_of_monais_swin_unetr() -> None:
    torch.manual_seed(0)
    reference = SwinUNETR(in_channels=1, out_channels=6, feature_size=12, window_size=7).eval()
    config = small_config().replace(
        backbone=BackboneConfig("swin_unetr", 12), looks=(), heads=(HeadConfig.builtin("hps"),)
    )
    model = ccf.create_model(config).eval()
    state = reference.state_dict()
    model.backbone.load_state_dict({k: v for k, v in state.items() if not k.startswith("out.")}, strict=True)
    model.heads["hps"].load_state_dict(
        {"weight": state["out.conv.conv.weight"], "bias": state["out.conv.conv.bias"]}, strict=True
    )
    x = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(1))
    assert (model(x)["hps"] - reference(x)).abs().max() <= 1e-5


@torch.no_grad()
def test_unetr_and_dynunet_give_the_logits_of_monais() -> None:
    torch.manual_seed(0)
    unetr = UNETR(1, 2, img_size=32, feature_size=2, hidden_size=96, mlp_dim=384).eval()
    ours = build_backbone(BackboneConfig("unetr", 2, image_size=32)).eval()
    ours.load_state_dict({k: v for k, v in unetr.state_dict().items() if not k.startswith("out.")}, strict=True)
    x = image()
    torch.testing.assert_close(unetr.out(ours(x)), unetr(x), rtol=0, atol=1e-5)

    strides = [1, 2, 2, 2]
    dynunet = DynUNet(3, 1, 2, [3] * 4, strides, strides[1:], filters=[4, 8, 16, 32], res_block=True).eval()
    ours = build_backbone(BACKBONES["residual u-net"]).eval()
    named = ("input_block.", "downsamples.", "bottleneck.", "upsamples.")
    ours.load_state_dict({k: v for k, v in dynunet.state_dict().items() if k.startswith(named)}, strict=True)
    # Logits reach 8; MONAI itself is up to 1.2e-5 away from double precision there.
    torch.testing.assert_close(dynunet.output_block(ours(x)), dynunet(x), rtol=5e-6, atol=1e-5)


@torch.no_grad()
def test_fused_attention_without_autograd_gives_the_training_graphs_logits() -> None:
    model, x = small_model("swin of three stages"), image()
    with torch.enable_grad():
        trained = model(x)["hps"].detach()
    assert (model(x)["hps"] - trained).abs().max() <= 1e-5


# ---- inputs that do not fit


@pytest.mark.parametrize(
    ("kind", "shape", "advice"),
    [
        ("swin of three stages", (1, 1, 30, 32, 33), "pad to 32×32×48"),
        ("swin of four stages", (1, 1, 32, 32, 32), "pad to 64×32×32"),
        ("swin of three stages", (1, 1, 10, 10, 10), "pad to 32×16×16"),
        ("residual u-net", (1, 1, 30, 40, 40), "pad to 32×40×40"),
        ("unetr", (1, 1, 64, 64, 64), "pad or crop to 32×32×32"),
        ("residual u-net", (1, 2, 32, 32, 32), r"takes \(batch, 1, X, Y, Z\)"),
        ("residual u-net", (1, 32, 32, 32), r"takes \(batch, 1, X, Y, Z\)"),
    ],
)
def test_an_input_that_does_not_fit_is_told_what_would(kind: str, shape: tuple[int, ...], advice: str) -> None:
    with pytest.raises(ccf.UsageError, match=advice):
        small_model(kind)(torch.zeros(shape))


# ---- heads


@torch.no_grad()
def test_only_the_chosen_heads_are_computed_in_the_order_asked_for() -> None:
    model, x = small_model(), image()
    assert list(model(x, heads=["hps", "heart"])) == ["hps", "heart"]
    assert list(model(x, heads=["hps"])) == ["hps"]
    with pytest.raises(ccf.UnknownNameError, match=r"no head called 'hsp'.*Did you mean 'hps'"):
        model(x, heads=["hsp"])


@torch.no_grad()
def test_an_added_head_is_part_of_the_configuration_and_leaves_the_others_as_they_were() -> None:
    model, x = small_model(), image()
    before = model(x)
    model.add_head("coronaries", ["Left", "Right"])
    model.add_head("apex", ["Apex"], kind="landmarks", own_decoder=True)
    after = model.eval()(x)
    assert after["coronaries"].shape[1] == 3
    assert after["apex"].shape[1] == 2
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [h.name for h in model.config.heads] == ["heart", "hps", "coronaries", "apex"]
    assert model.config.head("apex") == HeadConfig("apex", "landmarks", ("Apex",), own_decoder=True)
    with pytest.raises(ccf.UsageError, match="has a head 'coronaries' already"):
        model.add_head("coronaries", ["Other"])
    for reserved in ("trunk", "decoder", "items", "forward"):
        with pytest.raises(ccf.ConfigError, match="reserved"):
            model.add_head(reserved, ["A"])


def test_only_the_head_that_finds_the_heart_is_read_from_the_look_that_finds_it() -> None:
    model = ccf.create_model("cardiac_swin_tiny", heads=["hps"])
    with pytest.raises(ccf.UsageError, match="'apex' can have heart, root"):
        model.add_head("apex", ["Apex"], looks=["locate"])
    assert list(model.heads) == ["hps"]
    model.add_head("heart", HeadConfig.builtin("heart").classes, looks=["locate", "heart", "root"])
    assert "heart" in model.config.look("locate").heads


def test_a_head_with_its_own_decoder_learns_without_touching_the_trunk() -> None:
    model, x = small_model(), image()
    model.add_head("apex", ["Apex"], own_decoder=True)
    model.freeze("trunk", "heart", "hps")
    with torch.no_grad():
        before = {name: t.clone() for name, t in model.eval()(x).items()}
    optimizer = torch.optim.SGD(model.param_groups(lr=0.1))
    model.train()(x, heads=["apex"])["apex"].square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        after = model.eval()(x)
    assert torch.equal(after["heart"], before["heart"])
    assert torch.equal(after["hps"], before["hps"])
    assert not torch.equal(after["apex"], before["apex"])


def test_coarse_heads_supervise_the_decoders_lower_maps() -> None:
    model, x = small_model(), image()
    coarse = CoarseHeads(model.backbone.decoder_info[1:3], model.config.heads)
    logits = coarse(model.decoder_maps(x)[1:3])
    assert [tuple(t.shape) for t in logits["hps"]] == [(1, 6, 16, 16, 16), (1, 6, 8, 8, 8)]
    assert [tuple(t.shape) for t in logits["heart"]] == [(1, 8, 16, 16, 16), (1, 8, 8, 8, 8)]
    with pytest.raises(ccf.UsageError, match="at least one"):
        CoarseHeads((), HEADS)


# ---- conditioning on the heart segmentation


@torch.no_grad()
def test_a_conditioned_trunk_sees_the_label_map_one_hot() -> None:
    model = ccf.create_model(small_config(), condition_on_seg=True, seed=0).eval()
    x = image()
    labels = torch.randint(0, 8, x.shape, generator=torch.Generator().manual_seed(3))
    one_hot = torch.nn.functional.one_hot(labels[:, 0], 8).movedim(-1, 1)[:, 1:]
    expected = model.heads["hps"](model.backbone(torch.cat([x, one_hot.float()], dim=1)))
    torch.testing.assert_close(model(x, segmentation=labels)["hps"], expected, rtol=0, atol=0)
    with pytest.raises(ccf.UsageError, match="pass segmentation of shape"):
        model(x)
    with pytest.raises(ccf.UsageError, match="not conditioned"):
        small_model()(x, segmentation=labels)


# ---- training


def test_frozen_parts_keep_their_weights_and_stay_in_evaluation_mode() -> None:
    model = small_model()
    model.freeze("encoder", "heart")
    model.train()
    assert not any(p.requires_grad for p in model.heads["heart"].parameters())
    assert not any(p.requires_grad for p in model.backbone.input_block.parameters())
    assert all(p.requires_grad for p in model.backbone.upsamples.parameters())
    assert not model.backbone.bottleneck.training
    assert model.backbone.upsamples.training
    names = {id(p) for g in model.param_groups(lr=1e-3) for p in g["params"]}
    assert names == {id(p) for p in model.parameters() if p.requires_grad}
    model.unfreeze("encoder")
    assert model.backbone.bottleneck.training
    assert all(p.requires_grad for p in model.backbone.parameters())
    with pytest.raises(ccf.UnknownNameError, match="no part called 'body'"):
        model.freeze("body")


def test_biases_norms_and_position_biases_have_no_weight_decay() -> None:
    model = small_model("swin of three stages")
    decays = {id(p): g["weight_decay"] for g in model.param_groups(lr=1e-3, weight_decay=0.05) for p in g["params"]}
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or "position_bias" in name
        assert decays[id(parameter)] == (0.0 if plain else 0.05), name
    with pytest.raises(ccf.ConfigError, match=r"layer_decay=1\.5"):
        model.param_groups(lr=1e-3, layer_decay=1.5)


# ---- creation


def test_a_seed_makes_the_weights_reproducible_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = small_model(seed=7), small_model(seed=7)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(small_model(seed=8).parameters()), next(first.parameters()))


def test_architectures_heads_and_parts_are_chosen_by_name() -> None:
    model = ccf.create_model("cardiac_swin_tiny", heads=["hps", HeadConfig("apex", "landmarks", ("Apex",))])
    assert list(model.heads) == ["hps", "apex"]
    with pytest.raises(ccf.UnknownNameError, match="Did you mean 'cardiac_swin_tiny'"):
        ccf.create_model("cardiac_swin_tny")
    with pytest.raises(ccf.UnknownNameError, match="no head called 'lungs'"):
        ccf.create_model("cardiac_swin_tiny", heads=["lungs"])


@torch.no_grad()
def test_a_copy_of_a_model_is_a_model() -> None:
    model, x = small_model(), image()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x)["hps"], model(x)["hps"])
    twin.add_head("extra", ["A"])
    assert "extra" not in model.heads
