"""Heads for thin trees, the coronary arteries above all: hidden layers, blocks, the detail look, their losses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_patients import PATIENTS, listing, rows
from small_models import small_config
from small_trunk import SETTINGS, head_of, logits, same, trunk
from tiny_finder import save_finder

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.config import BackboneConfig
from cardiac_ct_fm.exchange import export_bundle
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import TREE_MM, near_chambers
from cardiac_ct_fm.heads import READ_MAPS
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.looks import Answer
from cardiac_ct_fm.training import loop
from cardiac_ct_fm.training.finetune import finetune
from cardiac_ct_fm.training.objectives import class_weights, head_loss, soft_cldice
from cardiac_ct_fm.training.settings import HIDDEN_CHANNELS, FinetuneSettings
from cardiac_ct_fm.training.trainee import HeadTrainee
from cardiac_ct_fm.training.windows import BLOCK, ON_TREE, Window, blocks_of


def test_coronaries_get_hidden_layers_and_other_heads_the_last_convolution_alone() -> None:
    assert FinetuneSettings().hidden_for("coronaries") == HIDDEN_CHANNELS
    assert FinetuneSettings(hidden=0).hidden_for("coronaries") == 0
    assert FinetuneSettings(train="decoder").hidden_for("coronaries") == 0
    assert FinetuneSettings().hidden_for("ventricle") == 0
    assert FinetuneSettings(hidden=8).hidden_for("ventricle") == 8
    assert FinetuneSettings().learning_rate("coronaries") != FinetuneSettings().learning_rate("ventricle")
    with pytest.raises(ccf.ConfigError, match="hidden is -1"):
        FinetuneSettings(hidden=-1)


def test_maps_are_kept_at_their_own_resolution_and_give_the_same_head_as_maps_that_are_computed_anew(
    data_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept and read, computed each time, or first kept and then no room for more: one head."""
    settings = dataclasses.replace(SETTINGS, hidden=4, thin=True, epochs=2, patch=32)
    sizes: dict[str, int] = {}
    read = loop.FeatureCache.get

    def watched(cache: Any, key: str, compute: Any) -> Window:
        window = read(cache, key, compute)
        sizes[key] = sum(file.stat().st_size for file in cache.folder.glob(f"{key}.*"))
        return window

    monkeypatch.setattr(loop.FeatureCache, "get", watched)
    kept = finetune(trunk(), data_list, "ventricle", settings=settings)
    levels = [k.channels for k in trunk().backbone.decoder_info[READ_MAPS]]
    full, half, quarter = 2 * 32**3, 2 * 16**3 * levels[0], 2 * 8**3 * levels[1]
    assert set(sizes.values()) == {full + half + quarter + 32**3 + 4 * 128}, "three maps, labels, and four headers"
    for room_gb in (0.0, 3.5 * max(sizes.values()) / 1e9):
        other = finetune(trunk(), data_list, "ventricle", settings=dataclasses.replace(settings, cache_gb=room_gb))
        assert same(head_of(other), head_of(kept))
        assert same(logits(other.model), logits(kept.model))


def test_hidden_layers_change_the_head_and_nothing_of_what_it_is_shown(
    data_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[torch.Tensor, list[float]]] = []
    seen: list[torch.Tensor] = []
    loss, features = loop.head_loss, HeadTrainee.features

    def watched(logits: torch.Tensor, target: torch.Tensor, weights: list[float], thin: bool) -> torch.Tensor:
        if torch.is_grad_enabled():  # an update, no validation
            shown.append((target, weights))
        return loss(logits, target, weights, thin)

    monkeypatch.setattr(HeadTrainee, "features", lambda own, image: seen.append(image) or features(own, image))
    monkeypatch.setattr(loop, "head_loss", watched)
    batches, images = {}, {}
    for hidden, thin in ((0, True), (4, True), (0, False), (4, False)):
        settings = dataclasses.replace(SETTINGS, hidden=hidden, thin=thin, epochs=1, patch=40)
        finetune(trunk(), data_list, "ventricle", settings=settings)
        batches[hidden, thin], images[hidden, thin] = list(shown), list(seen)
        shown.clear(), seen.clear()
    for thin in (True, False):
        assert all(torch.equal(a, b) for a, b in zip(images[0, thin], images[4, thin], strict=True))
        for (a, first), (b, second) in zip(batches[0, thin], batches[4, thin], strict=True):
            assert torch.equal(a, b)
            assert first == second
    assert {(*y.shape[1:], *w) for y, w in batches[0, True]} == {(BLOCK, BLOCK, BLOCK, 1.0, 1.0)}
    assert all(y.shape[1:] == (40, 40, 40) and w[1] > 1.0 for y, w in batches[0, False])
    pairs = zip(images[0, True], images[0, False], strict=True)
    alike = [torch.equal(a, b) for a, b in pairs]
    assert alike == [True, False] * (PATIENTS - 1) + [True, True], (
        "a tree's first window and validation stay as they are"
    )


@pytest.mark.parametrize("thin", [True, False])
def test_validation_is_told_by_the_loss_that_is_trained(
    thin: bool, data_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[float] = []
    loss = loop.head_loss

    def watched(logits: torch.Tensor, target: torch.Tensor, weights: list[float], *given: bool) -> torch.Tensor:
        if not torch.is_grad_enabled():
            validated.append(float(head_loss(logits, target, weights, thin)))
        return loss(logits, target, weights, *given)

    monkeypatch.setattr(loop, "head_loss", watched)
    settings = dataclasses.replace(SETTINGS, hidden=4, thin=thin, epochs=1)
    (row,) = finetune(trunk(), data_list, "ventricle", settings=settings).standing.history
    assert row["val_loss"] == pytest.approx(np.mean(validated))


@pytest.mark.parametrize("part", ["head", "decoder", "all"])
def test_a_head_with_hidden_layers_is_learned_and_travels_like_any_other(
    part: str, data_list: Path, tmp_path: Path, trunk_folder: Path
) -> None:
    settings = dataclasses.replace(SETTINGS, train=part, hidden=4, lr=0.02, epochs=2)
    result = finetune(trunk(), data_list, "ventricle", out=tmp_path / "out", settings=settings)
    assert result.path is not None
    head = result.model.config.head("ventricle")
    assert (head.hidden, head.own_decoder) == (4, part == "decoder")
    history = result.standing.history
    if part == "head":  # other windows are drawn anew for each epoch, so two losses are not comparable
        assert history[-1]["train_loss"] < history[0]["train_loss"]
    if part == "all":
        assert same(logits(ccf.from_pretrained(result.path)), logits(result.model))
        return
    loaded = ccf.from_pretrained(trunk_folder, heads=["heart", "hps", result.path])
    assert same(logits(loaded), logits(result.model))
    loaded.save_pretrained(tmp_path / "whole")
    assert same(logits(ccf.from_pretrained(tmp_path / "whole")), logits(result.model))
    before = logits(trunk())
    assert all(torch.equal(logits(loaded)[other], before[other]) for other in ("heart", "hps"))


def test_hidden_layers_see_the_image_beside_the_map() -> None:
    model = trunk()
    model.add_head("ventricle", ["Ventricle"], hidden=4)
    x = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(x)["ventricle"]
        model.heads["ventricle"].first.weight[:, -1] = 0
        assert not torch.equal(model(x)["ventricle"], before)
    with pytest.raises(ccf.ConfigError, match="hidden=-2"):
        model.add_head("other", ["Other"], hidden=-2)


def test_a_bundle_of_a_model_with_hidden_layers_is_read_with_this_package(tmp_path: Path) -> None:
    layers = BackboneConfig("swin_unetr", 12, (1, 1, 1, 1), (3, 6, 12, 24), 2)
    model = ccf.create_model(small_config().replace(backbone=layers), seed=0).eval()
    assert "JointOutput" not in json.dumps(_network_of(export_bundle(model, tmp_path / "plain")))
    model.add_head("ventricle", ["Ventricle"], hidden=4)
    assert "JointOutput" in json.dumps(_network_of(export_bundle(model, tmp_path / "hidden")))


def _network_of(bundle: Path) -> Any:
    return json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]


def test_blocks_lie_on_the_tree_and_anywhere() -> None:
    target = torch.zeros(64, 64, 64, dtype=torch.uint8)
    target[5, 40, 3:60] = 1
    where = torch.stack(torch.meshgrid(*[torch.arange(64.0)] * 3, indexing="ij"))
    window = Window(where, target)
    pairs = [blocks_of(window, np.random.default_rng(seed)) for seed in range(30)]
    assert all(target[block].shape == (BLOCK,) * 3 for pair in pairs for block in pair)
    assert all(torch.equal(window.read(block), where[(slice(None), *block)]) for pair in pairs for block in pair)
    on_tree = [bool((target[first] > 0).any()) for first, _ in pairs]
    anywhere = {tuple(axis.start for axis in second) for _, second in pairs}
    assert all(on_tree)
    assert ON_TREE < BLOCK / 2
    assert len(anywhere) > 20
    empty = torch.zeros(16, 16, 16)
    small = blocks_of(Window(where[:, :16, :16, :16], empty), np.random.default_rng(0))
    assert [tuple(empty[block].shape) for block in small] == [(16, 16, 16)] * 2


def test_a_block_of_maps_of_different_resolution_is_that_block_of_all_of_them_at_the_finest() -> None:
    noise = torch.Generator().manual_seed(0)
    image, half, quarter = (torch.randn(c, n, n, n, generator=noise) for c, n in ((1, 48), (3, 24), (5, 12)))
    window = Window(image, torch.zeros(48, 48, 48), (half, quarter))
    whole = window.read()
    assert whole.shape == (9, 48, 48, 48)
    assert torch.equal(whole[-1], image[0])
    for block in [*blocks_of(window, np.random.default_rng(3)), (slice(0, 5), slice(7, 20), slice(41, 48))]:
        assert torch.allclose(window.read(block), whole[(slice(None), *block)], atol=1e-6)


def test_coronaries_are_read_at_the_finest_spacing_all_over_the_heart(labelled: Path, tmp_path: Path) -> None:
    folder = save_finder(tmp_path / "finder")
    model = ccf.from_pretrained(folder)
    settings = FinetuneSettings(epochs=1, patch=16, windows=1, validation=0.0)
    result = finetune(model, listing(labelled, rows(labelled), name="thin.json"), "coronaries", settings=settings)
    detail = result.model.config.look("detail")
    assert (detail.spacing_mm, detail.heads) == (model.config.look("root").spacing_mm, ("coronaries",))
    with torch.no_grad():
        for name, value in result.model.heads["coronaries"].named_parameters():
            value.fill_(1.0 if name.endswith("bias") else 0.0)
            value[0] = 0.0
    pred = Predictor(result.model)(labelled / "p0" / "ct.nii.gz", heads=["coronaries"], measure=False)
    seen = pred.run["looks"]
    assert [look["spacing_mm"] for look in seen] == [4.0, 2.0]
    extent = np.ptp(np.argwhere(pred.mask("Coronary")), axis=0) * 4.0
    assert (extent > 1.5 * model.config.look("root").extent_mm).all()


def test_a_tree_far_from_all_chambers_is_none_of_the_hearts() -> None:
    look = Grid.centred((10.0, 0.0, 0.0), 2.0, (50, 50, 50))
    far = np.linalg.norm(look.points() - np.array([10.0, 0.0, 0.0]), axis=-1)
    heart = torch.zeros(8, *look.shape)
    heart[HEART_LABELS["LV"]] = torch.from_numpy(np.where(far < 20.0, 5.0, -5.0))
    scan = Grid.centred((0.0, 0.0, 0.0), 1.0, (120, 70, 70))
    found = np.ones(scan.shape, np.uint8)
    kept = near_chambers(found, scan, Answer(look, {"heart": heart})) > 0
    distance = np.linalg.norm(scan.points() - np.array([10.0, 0.0, 0.0]), axis=-1) - 20.0
    assert kept[distance < TREE_MM - 4.0].all()
    assert not kept[distance > TREE_MM + 4.0].any()
    nothing = Answer(look, {"heart": torch.zeros(8, *look.shape)})
    assert near_chambers(found, scan, nothing).all(), "without chambers nobody knows what is far from them"


def test_class_weights_grow_with_rarity_up_to_a_limit() -> None:
    assert class_weights([10_000, 10_000, 100, 1, 0]) == [1.0, 1.0, 10.0, 20.0, 1.0]


def test_cldice_counts_a_broken_tree_more_than_a_thinner_one() -> None:
    target = torch.zeros(1, 24, 24, 24, dtype=torch.uint8)
    target[0, 9:14, 9:14] = 1
    thinner, broken = target.clone(), target.clone()
    thinner[0, 9] = thinner[0, 13] = 0
    broken[0, :, :, 8:16] = 0

    def loss(answer: torch.Tensor) -> float:
        one = answer.float()[:, None] * 20 - 10
        return float(soft_cldice(torch.cat([-one, one], 1), target))

    assert loss(target) < 0.05
    assert loss(thinner) < loss(broken)


def test_cldice_looks_where_the_tree_is() -> None:
    target = torch.zeros(1, 64, 48, 40, dtype=torch.uint8)
    target[0, 40:44, 30:34, 10:38] = 1
    nothing = torch.stack([torch.full(target.shape, 10.0), torch.full(target.shape, -10.0)], 1)
    assert float(soft_cldice(nothing, target)) > 0.9
    empty = torch.zeros_like(target)
    assert float(soft_cldice(nothing, empty)) == 0.0
    both = torch.cat([nothing, nothing]), torch.cat([target, empty])
    assert float(soft_cldice(*both)) == pytest.approx(float(soft_cldice(nothing, target)))
    one = target.float()[:, None] * 20 - 10
    assert float(soft_cldice(torch.cat([-one, one], 1), target)) < 0.05
