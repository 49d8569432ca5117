"""A head of one's own: what is learned, what is written, what a kill changes (nothing), and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import files_in, run
from labelled_patients import PATIENTS, SIZE, listing, rows, save, write_patients
from safetensors.torch import load_file
from small_models import small_config
from tiny_finder import save_finder

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.config import BackboneConfig, LookConfig
from cardiac_ct_fm.exchange import export_bundle
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import TREE_MM, near_chambers
from cardiac_ct_fm.heads import READ_MAPS
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.looks import Answer
from cardiac_ct_fm.training import loop
from cardiac_ct_fm.training.finetune import FinetuneResult, finetune
from cardiac_ct_fm.training.objectives import class_weights, soft_cldice
from cardiac_ct_fm.training.settings import HIDDEN_CHANNELS, FinetuneSettings
from cardiac_ct_fm.training.trainee import HeadTrainee
from cardiac_ct_fm.training.windows import BLOCK, ON_TREE, Window, blocks_of

ROOT = Path(__file__).parent.parent
SETTINGS = FinetuneSettings(epochs=3, patch=16, windows=2, looks=("heart",))
RESULTS = ["finetune.json", "history.csv", "history.png", "montage.png", "ventricle.safetensors"]
LOOKS = (LookConfig("heart", 4.0, 16, ("heart", "hps")), LookConfig("root", 2.0, 16, ("heart", "hps")))


def trunk(seed: int = 0) -> ccf.CardiacCTModel:
    return ccf.create_model(small_config().replace(looks=LOOKS), seed=seed).eval()


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the data list."""
    return write_patients(tmp_path_factory.mktemp("patients")).parent


@pytest.fixture(scope="module")
def data(patients: Path) -> Path:
    return patients / "datalist.json"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneResult, Path]:
    out = tmp_path_factory.mktemp("out") / "ventricle"
    return finetune(trunk(), data, "ventricle", out=out, settings=SETTINGS), out


@pytest.fixture(scope="module")
def trunk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "trunk"
    trunk().save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: ccf.CardiacCTModel) -> dict[str, torch.Tensor]:
    return model(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)))


def head_of(result: FinetuneResult) -> dict[str, torch.Tensor]:
    return dict(result.model.heads[result.head].state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- what is learned and what is written


def test_the_last_layer_learns_more_on_a_trained_trunk_than_on_a_random_one(data: Path) -> None:
    """The left ventricle of a patient whom neither the head nor the trunk has seen."""
    settings = FinetuneSettings(epochs=12, patch=32, windows=3, looks=("locate",), lr=0.05)
    trained = finetune("cardiac_swin_tiny", data, "ventricle", settings=settings)
    random = finetune(ccf.create_model("cardiac_swin_tiny", seed=0), data, "ventricle", settings=settings)
    assert trained.best_dice is not None
    assert random.best_dice is not None
    assert trained.best_dice > max(0.6, random.best_dice + 0.1)


def test_the_results_are_whole_and_nothing_else_is_left(trained: tuple[FinetuneResult, Path]) -> None:
    result, out = trained
    assert files_in(out) == RESULTS
    report = json.loads((out / "finetune.json").read_text())
    assert report["head"]["classes"] == ["Ventricle"]
    assert report["trunk_sha256"] == trunk().trunk_sha256()
    assert report["best_val_dice"] == result.best_dice
    with (out / "history.csv").open(newline="") as file:
        written = [float(row["val_dice"]) for row in csv.DictReader(file)]
    assert written == [row["val_dice"] for row in result.standing.history]
    assert max(written) == result.best_dice


def test_the_head_file_is_small_and_brings_the_same_logits_to_the_same_trunk(
    trained: tuple[FinetuneResult, Path], trunk_folder: Path
) -> None:
    result, _ = trained
    assert result.path is not None
    assert result.path.stat().st_size < 10_000
    loaded = ccf.from_pretrained(trunk_folder, heads=["heart", "hps", result.path])
    assert same(logits(loaded), logits(result.model))
    before = logits(trunk())
    assert all(torch.equal(logits(loaded)[head], before[head]) for head in ("heart", "hps"))


def test_a_finished_training_is_read_back_and_another_one_is_not_written_over_it(
    trained: tuple[FinetuneResult, Path], data: Path
) -> None:
    result, out = trained
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = finetune(trunk(), data, "ventricle", out=out, settings=SETTINGS)
    assert same(head_of(again), head_of(result))
    with pytest.raises(ccf.UsageError, match="holds the result of another training"):
        finetune(trunk(), data, "ventricle", out=out, settings=dataclasses.replace(SETTINGS, lr=0.5))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_points_are_learned_alike_from_json_slicer_and_mitk(patients: Path) -> None:
    heads = []
    for ending in ("json", "mrk.json", "mps"):
        entries = [{"image": f"p{i}/ct.nii.gz", "label": f"p{i}/points.{ending}"} for i in range(2)]
        source = listing(patients, entries, name=f"points-{ending}.json")
        classes = ["RCC", "LCC", "NCC"]
        result = finetune(trunk(), source, "hinges", classes=classes, kind="landmarks", settings=SETTINGS)
        assert result.model.config.head("hinges").kind == "landmarks"
        heads.append(head_of(result))
    for other in heads[1:]:
        assert all(torch.allclose(heads[0][k], other[k], atol=1e-5) for k in heads[0])


def test_epochs_after_the_first_read_cached_features_and_the_size_of_the_cache_changes_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    features = HeadTrainee.features
    monkeypatch.setattr(HeadTrainee, "features", lambda self, image: computed.append(1) or features(self, image))
    kept = finetune(trunk(), data, "ventricle", settings=SETTINGS)
    windows = PATIENTS * SETTINGS.windows
    assert len(computed) == windows
    none = finetune(trunk(), data, "ventricle", settings=dataclasses.replace(SETTINGS, cache_gb=0.0))
    assert len(computed) == windows + (1 + SETTINGS.epochs) * windows
    assert same(head_of(kept), head_of(none))


def test_a_decoder_of_its_own_leaves_all_other_heads_as_they_were(data: Path, tmp_path: Path, trunk_folder) -> None:
    settings = dataclasses.replace(SETTINGS, train="decoder", epochs=1)
    result = finetune(trunk(), data, "ventricle", out=tmp_path / "out", settings=settings)
    after, before = logits(result.model), logits(trunk())
    assert all(torch.equal(after[head], before[head]) for head in before)
    assert result.path is not None
    assert same(logits(ccf.from_pretrained(trunk_folder, heads=["heart", "hps", result.path])), after)
    own, shared = result.model.decoders["ventricle"].parameters(), trunk().backbone.decoder_blocks().values()
    start = [parameter for block in shared for parameter in block.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(own, start, strict=True))


def test_the_whole_network_becomes_a_model_folder_whose_other_heads_stay_close(data: Path, tmp_path: Path) -> None:
    result = finetune(
        trunk(), data, "ventricle", out=tmp_path / "out", settings=dataclasses.replace(SETTINGS, train="all")
    )
    assert result.path == tmp_path / "out" / "model"
    loaded = ccf.from_pretrained(tmp_path / "out" / "model")
    assert same(logits(loaded), logits(result.model))
    assert loaded.trunk_sha256() != trunk().trunk_sha256()
    before, after = logits(trunk())["heart"].softmax(1), logits(loaded)["heart"].softmax(1)
    assert 0 < float((before - after).abs().mean()) < 0.05


# ---- thin trees


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
    data: Path, monkeypatch: pytest.MonkeyPatch
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
    kept = finetune(trunk(), data, "ventricle", settings=settings)
    levels = [k.channels for k in trunk().backbone.decoder_info[READ_MAPS]]
    full, half, quarter = 2 * 32**3, 2 * 16**3 * levels[0], 2 * 8**3 * levels[1]
    assert set(sizes.values()) == {full + half + quarter + 32**3 + 4 * 128}, "three maps, labels, and four headers"
    for room_gb in (0.0, 3.5 * max(sizes.values()) / 1e9):
        other = finetune(trunk(), data, "ventricle", settings=dataclasses.replace(settings, cache_gb=room_gb))
        assert same(head_of(other), head_of(kept))
        assert same(logits(other.model), logits(kept.model))


def test_hidden_layers_change_the_head_and_nothing_of_what_it_is_shown(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[torch.Tensor, list[float]]] = []
    seen: list[torch.Tensor] = []
    loss, features = loop.head_loss, HeadTrainee.features

    def watched(logits: torch.Tensor, target: torch.Tensor, weights: list[float], *thin: bool) -> torch.Tensor:
        if thin:  # an update; validation does without
            shown.append((target, weights))
        return loss(logits, target, weights, *thin)

    monkeypatch.setattr(HeadTrainee, "features", lambda own, image: seen.append(image) or features(own, image))
    monkeypatch.setattr(loop, "head_loss", watched)
    batches, images = {}, {}
    for hidden, thin in ((0, True), (4, True), (0, False), (4, False)):
        settings = dataclasses.replace(SETTINGS, hidden=hidden, thin=thin, epochs=1, patch=40)
        finetune(trunk(), data, "ventricle", settings=settings)
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


@pytest.mark.parametrize("part", ["head", "decoder", "all"])
def test_a_head_with_hidden_layers_is_learned_and_travels_like_any_other(
    part: str, data: Path, tmp_path: Path, trunk_folder: Path
) -> None:
    settings = dataclasses.replace(SETTINGS, train=part, hidden=4, lr=0.02, epochs=2)
    result = finetune(trunk(), data, "ventricle", out=tmp_path / "out", settings=settings)
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


def test_coronaries_are_read_at_the_finest_spacing_all_over_the_heart(patients: Path, tmp_path: Path) -> None:
    folder = save_finder(tmp_path / "finder")
    model = ccf.from_pretrained(folder)
    settings = FinetuneSettings(epochs=1, patch=16, windows=1, validation=0.0)
    result = finetune(model, listing(patients, rows(patients), name="thin.json"), "coronaries", settings=settings)
    detail = result.model.config.look("detail")
    assert (detail.spacing_mm, detail.heads) == (model.config.look("root").spacing_mm, ("coronaries",))
    with torch.no_grad():
        for name, value in result.model.heads["coronaries"].named_parameters():
            value.fill_(1.0 if name.endswith("bias") else 0.0)
            value[0] = 0.0
    pred = Predictor(result.model)(patients / "p0" / "ct.nii.gz", heads=["coronaries"], measure=False)
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


# ---- killed and resumed


PARTS = ("head", "decoder", "all")


@pytest.fixture(scope="module")
def killed(data: Path, trunk_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Per part a folder ``whole`` and one ``killed``, which SIGKILL hit again and again, each time a little later."""
    folder, script = tmp_path_factory.mktemp("killed"), Path(__file__).parent / "killed_training.py"
    done = subprocess.run(
        [sys.executable, str(script), str(trunk_folder), str(data), str(folder), *PARTS],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(int(kills) >= 6 for kills in done.stdout.split()), done.stdout
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_training_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(part: str, killed: Path) -> None:
    whole, resumed = killed / part / "whole", killed / part / "killed"
    assert files_in(resumed) == files_in(whole)
    (weights,) = (p.relative_to(whole) for p in whole.rglob("*.safetensors"))
    first, second = load_file(whole / weights), load_file(resumed / weights)
    assert first.keys() == second.keys()
    assert max(float((first[k] - second[k]).abs().max()) for k in first) <= 1e-6

    def history(folder: Path) -> list[list[str]]:
        with (folder / "history.csv").open(newline="") as file:
            return [[v for k, v in row.items() if k != "seconds"] for row in csv.DictReader(file)]

    assert history(resumed) == history(whole)


def test_a_training_with_other_settings_neither_goes_on_with_a_killed_ones_state_nor_harms_it(
    trained: tuple[FinetuneResult, Path], data: Path, tmp_path: Path
) -> None:
    def stop(what: str, done: int, steps: int, left: float | None) -> None:
        if what == "epoch 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(trunk(), data, "ventricle", out=tmp_path, settings=SETTINGS, progress=stop)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".part-one.txt").write_text("somebody else's")
    before = contents(tmp_path)
    assert {"state.safetensors", ".features"} <= {Path(name).parts[0] for name in before}
    with pytest.raises(ccf.UsageError, match="another model, other data or other settings"):
        finetune(trunk(), data, "ventricle", out=tmp_path, settings=dataclasses.replace(SETTINGS, lr=0.5))
    assert contents(tmp_path) == before, "a refusal costs nothing of what it protects"
    steps: list[str] = []
    went_on = finetune(
        trunk(), data, "ventricle", out=tmp_path, settings=SETTINGS, progress=lambda what, *_: steps.append(what)
    )
    assert "epoch 1" not in steps
    assert same(head_of(went_on), head_of(trained[0]))
    assert sorted(contents(tmp_path)) == sorted([*RESULTS, "notes/.part-one.txt"])


def test_a_damaged_state_is_told_and_left_where_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(ccf.WeightsError, match=r"state\.safetensors"):
        finetune(trunk(), data, "ventricle", out=tmp_path, settings=SETTINGS)
    assert contents(tmp_path) == {"state.safetensors": b"half a file"}


# ---- bad input


def bad_input(case: str, patients: Path, tmp_path: Path, trunk_folder: Path) -> tuple[list[Any], str]:
    """Arguments of a command that has to be refused, and what it says."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    head, model, extra = "ventricle", trunk_folder, []
    entries, more = rows(patients), {}
    if case == "image without label":
        entries, says = rows(patients, label=None), "has an image but no label"
    elif case == "label values outside the classes":
        labels = save(tmp_path / "values.nii.gz", np.full((SIZE,) * 3, 3, np.uint8), np.eye(4))
        import nibabel as nib

        scan = nib.load(patients / "p0" / "ct.nii.gz")
        save(labels, np.full((SIZE,) * 3, 3, np.uint8), scan.affine)
        entries, says = rows(patients, label=str(labels)), "holds the value 3; head 'ventricle' has 1 class"
    elif case == "label on another grid":
        labels = save(tmp_path / "grid.nii.gz", np.zeros((SIZE,) * 3, np.uint8), affine)
        entries, says = rows(patients, label=str(labels)), "lies on another grid than"
    elif case == "label that is no image":
        (tmp_path / "text.nii.gz").write_text("no image")
        entries, says = rows(patients, label=str(tmp_path / "text.nii.gz")), "text.nii.gz"
    elif case == "empty list":
        entries, says = [], "is empty"
    elif case == "no list":
        says = "cannot be read as a data list"
    elif case == "patient on both sides":
        more, says = {"validation": [{**rows(patients)[0], "image": "p2/ct.nii.gz"}]}, "has patient p0 in training and"
    elif case == "head that exists":
        head, says = "heart", "has a head 'heart' already; choose another name"
    elif case == "head with a bad name":
        head, says = "my head", "must be a Python identifier"
    elif case == "look that is unknown":
        extra, says = ["--looks", "nowhere"], "choose among locate, heart, root, detail"
    elif case == "patch that does not fit":
        extra, says = ["--patch", "15"], "needs a multiple of 8, for example 16"
    elif case == "points outside of the scan":
        points = json.loads((patients / "p0" / "points.json").read_text())
        for point in points["landmarks"]:
            point["ras"] = [900.0, 0.0, 0.0]
            point["lps"] = [-900.0, 0.0, 0.0]
        (tmp_path / "far.json").write_text(json.dumps(points))
        entries = rows(patients, label=str(tmp_path / "far.json"))
        head, extra = "hinges", ["--kind", "landmarks", "--classes", "RCC,LCC,NCC"]
        says = "lies outside of the scan"
    elif case == "pickle as weights":
        model = tmp_path / "pickled"
        trunk().save_pretrained(model)
        (model / "model.safetensors").unlink()
        torch.save({"x": torch.zeros(1)}, model / "pytorch_model.bin")
        says = "pytorch_model.bin"
    else:
        raise KeyError(case)
    name = tmp_path / "nothing.json" if case == "no list" else listing(patients, entries, name="bad.json", **more)
    return ["finetune", name, "--head", head, "-o", tmp_path / "out", "-m", model, *extra], says


@pytest.mark.parametrize(
    "case",
    [
        "image without label", "label values outside the classes", "label on another grid", "label that is no image",
        "empty list", "no list", "patient on both sides", "head that exists", "head with a bad name",
        "look that is unknown", "patch that does not fit", "points outside of the scan", "pickle as weights",
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    case: str, patients: Path, tmp_path: Path, trunk_folder: Path
) -> None:
    arguments, says = bad_input(case, patients, tmp_path, trunk_folder)
    answer = run(*arguments, *([] if "--patch" in arguments else ["--patch", "16"]), "--windows", "1", "--epochs", "1")
    assert answer.code in (1, 2)
    assert says in answer.line
    assert not (tmp_path / "out").exists()


def test_a_head_for_another_trunk_is_refused_in_one_line(
    trained: tuple[FinetuneResult, Path], data: Path, tmp_path: Path, patients: Path
) -> None:
    result, _ = trained
    trunk(seed=1).save_pretrained(tmp_path / "other")
    scan, other, out = patients / "p0" / "ct.nii.gz", tmp_path / "other", tmp_path / "out"
    answer = run("predict", scan, "-o", out, "-m", other, "--head-file", result.path)
    assert answer.code == 1
    assert "was trained on the trunk of small with sha256" in answer.line
    assert not (tmp_path / "out").exists()
