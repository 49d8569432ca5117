"""A head of one's own: what is learned and what is written."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import files_in, run
from labelled_patients import PATIENTS, listing, rows, save, write_patients
from small_trunk import RESULTS, SETTINGS, contents, head_of, logits, same, trunk

import cardiac_ct_fm as ccf
from cardiac_ct_fm.training import loop
from cardiac_ct_fm.training.denormals import flushed
from cardiac_ct_fm.training.finetune import FinetuneResult, finetune
from cardiac_ct_fm.training.settings import FinetuneSettings
from cardiac_ct_fm.training.trainee import HeadTrainee


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_are_zero_while_a_head_learns_and_then_as_before(
    before: bool, data_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    loss = loop.head_loss
    monkeypatch.setattr(loop, "head_loss", lambda *given: seen.append(flushed()) or loss(*given))
    torch.set_flush_denormal(before)
    try:
        finetune(trunk(), data_list, "ventricle", settings=dataclasses.replace(SETTINGS, epochs=1))
        assert flushed() == before
    finally:
        torch.set_flush_denormal(False)
    assert seen
    assert all(seen)


def test_the_last_layer_learns_more_on_a_trained_trunk_than_on_a_random_one(data_list: Path) -> None:
    """The left ventricle of a patient whom neither the head nor the trunk has seen."""
    settings = FinetuneSettings(epochs=12, patch=32, windows=3, looks=("heart",), lr=0.05)
    trained = finetune("cardiac_swin_tiny", data_list, "ventricle", settings=settings)
    random = finetune(ccf.create_model("cardiac_swin_tiny", seed=0), data_list, "ventricle", settings=settings)
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
    assert report["warning"] is result.standing.warning is None
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
    trained: tuple[FinetuneResult, Path], data_list: Path
) -> None:
    result, out = trained
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = finetune(trunk(), data_list, "ventricle", out=out, settings=SETTINGS)
    assert same(head_of(again), head_of(result))
    with pytest.raises(ccf.UsageError, match="holds the result of another training"):
        finetune(trunk(), data_list, "ventricle", out=out, settings=dataclasses.replace(SETTINGS, lr=0.5))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_label_that_was_corrected_since_is_not_answered_with_the_old_head(tmp_path: Path) -> None:
    source = write_patients(tmp_path / "patients")
    out, settings = tmp_path / "out", dataclasses.replace(SETTINGS, epochs=1)
    finetune(trunk(), source, "ventricle", out=out, settings=settings)
    before = contents(out)
    label = source.parent / "p0" / "ventricle.nii.gz"
    scan = nib.load(label)
    save(label, np.zeros(scan.shape, np.uint8), scan.affine)
    with pytest.raises(ccf.UsageError, match=r"a label was changed.*Choose another folder, or remove it"):
        finetune(trunk(), source, "ventricle", out=out, settings=settings)
    assert contents(out) == before


def test_points_are_learned_alike_from_json_slicer_and_mitk(labelled: Path) -> None:
    heads = []
    for ending in ("json", "mrk.json", "mps"):
        entries = [{"image": f"p{i}/ct.nii.gz", "label": f"p{i}/points.{ending}"} for i in range(2)]
        source = listing(labelled, entries, name=f"points-{ending}.json")
        classes = ["RCC", "LCC", "NCC"]
        bare = ccf.create_model(trunk().config, heads=["heart"], seed=0)  # without hps, which knows these points too
        result = finetune(bare, source, "hinges", classes=classes, kind="landmarks", settings=SETTINGS)
        assert result.model.config.head("hinges").kind == "landmarks"
        heads.append(head_of(result))
    for other in heads[1:]:
        assert all(torch.allclose(heads[0][k], other[k], atol=1e-5) for k in heads[0])


def test_epochs_after_the_first_read_cached_features_and_the_size_of_the_cache_changes_nothing(
    data_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    features = HeadTrainee.features
    monkeypatch.setattr(HeadTrainee, "features", lambda self, image: computed.append(1) or features(self, image))
    kept = finetune(trunk(), data_list, "ventricle", settings=SETTINGS)
    windows = PATIENTS * SETTINGS.windows
    assert len(computed) == windows
    none = finetune(trunk(), data_list, "ventricle", settings=dataclasses.replace(SETTINGS, cache_gb=0.0))
    assert len(computed) == windows + (1 + SETTINGS.epochs) * windows
    assert same(head_of(kept), head_of(none))


def test_a_head_that_finds_nothing_trains_on_gives_its_lowest_loss_and_says_so(
    labelled: Path, trunk_folder: Path, tmp_path: Path
) -> None:
    """Nothing of the validation scan is labelled, so that every voxel that is found is wrong."""
    scan = nib.load(labelled / "p2" / "ct.nii.gz")
    blank = save(tmp_path / "blank.nii.gz", np.zeros(scan.shape, np.uint8), scan.affine)
    nothing = [{"image": "p2/ct.nii.gz", "label": str(blank), "patient": "p2"}]
    source = listing(labelled, rows(labelled), name="nothing.json", validation=nothing)
    settings = dataclasses.replace(SETTINGS, patience=1)
    result = finetune(trunk(), source, "ventricle", out=tmp_path / "out", settings=settings)
    losses = [row["val_loss"] for row in result.standing.history]
    assert [row["val_dice"] for row in result.standing.history] == [0.0] * settings.epochs
    assert losses[result.standing.best_epoch - 1] == min(losses) < losses[0]
    report = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert report["warning"] == result.standing.warning
    assert "met no label of the validation scans in 3 epochs (Dice 0)" in report["warning"]
    answer = run(
        "finetune", source, "--head", "ventricle", "-o", tmp_path / "told", "-m", trunk_folder, "--patch", "16",
        "--windows", "1", "--epochs", "1", "--looks", "heart",
    )  # fmt: skip
    assert (answer.code, answer.out.count("The head is of no use yet")) == (0, 1)


def test_a_decoder_of_its_own_leaves_all_other_heads_as_they_were(
    data_list: Path, tmp_path: Path, trunk_folder
) -> None:
    settings = dataclasses.replace(SETTINGS, train="decoder", epochs=1)
    result = finetune(trunk(), data_list, "ventricle", out=tmp_path / "out", settings=settings)
    after, before = logits(result.model), logits(trunk())
    assert all(torch.equal(after[head], before[head]) for head in before)
    assert result.path is not None
    assert same(logits(ccf.from_pretrained(trunk_folder, heads=["heart", "hps", result.path])), after)
    own, shared = result.model.decoders["ventricle"].parameters(), trunk().backbone.decoder_blocks().values()
    start = [parameter for block in shared for parameter in block.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(own, start, strict=True))


def test_the_whole_network_becomes_a_model_folder_whose_other_heads_stay_close(data_list: Path, tmp_path: Path) -> None:
    result = finetune(
        trunk(), data_list, "ventricle", out=tmp_path / "out", settings=dataclasses.replace(SETTINGS, train="all")
    )
    assert result.path == tmp_path / "out" / "model"
    loaded = ccf.from_pretrained(tmp_path / "out" / "model")
    assert same(logits(loaded), logits(result.model))
    assert loaded.trunk_sha256() != trunk().trunk_sha256()
    before, after = logits(trunk())["heart"].softmax(1), logits(loaded)["heart"].softmax(1)
    assert 0 < float((before - after).abs().mean()) < 0.05


# ---- thin trees
