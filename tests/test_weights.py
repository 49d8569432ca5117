"""Saving and loading: exact round trips, only what was chosen, and everything that must be refused."""

from __future__ import annotations

import copy
import json
import pickle
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import BACKBONES, image, small_model

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.weights import sha256_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_manifest(folder: Path) -> None:
    """Write the sha256 of the files as they are now into ``registry.json``, as if they had been published so."""
    path = folder / "registry.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = {"sha256": sha256_of(folder / name), "bytes": 0}
    path.write_text(json.dumps(manifest))


# ---- round trips


@pytest.mark.parametrize("kind", BACKBONES)
@torch.no_grad()
def test_a_saved_model_gives_bit_identical_logits(kind: str, tmp_path: Path) -> None:
    model = small_model(kind)
    x = torch.randn(1, 1, *((64, 32, 32) if kind == "swin of four stages" else (32, 32, 32)))
    model.save_pretrained(tmp_path)
    again = ccf.from_pretrained(tmp_path)
    assert again.config == model.config
    assert not again.training
    assert all(torch.equal(again(x)[name], logits) for name, logits in model(x).items())


@torch.no_grad()
def test_half_precision_files_are_loaded_as_float32(tmp_path: Path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path, dtype=torch.float16)
    again = ccf.from_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    for name, parameter in again.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, model.get_parameter(name).half().float())
    assert ccf.from_pretrained(tmp_path, dtype=torch.bfloat16).heads["hps"].weight.dtype == torch.bfloat16


@torch.no_grad()
def test_shards_below_the_limit_are_read_as_one_model(tmp_path: Path) -> None:
    model, x = small_model(), image()
    model.save_pretrained(tmp_path, max_shard_bytes=100_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert all(len(load_file(p)) == 1 or p.stat().st_size <= 100_000 for p in shards)
    assert torch.equal(ccf.from_pretrained(tmp_path)(x)["hps"], model(x)["hps"])
    shards[1].unlink()
    with pytest.raises(ccf.WeightsError, match=shards[1].name):
        ccf.from_pretrained(tmp_path)


def test_saving_over_an_older_model_leaves_no_stale_shard_and_no_foreign_file_lost(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path, max_shard_bytes=100_000)
    (tmp_path / "notes.txt").write_text("mine")
    small_model(seed=1).save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "notes.txt", "registry.json",
    ]  # fmt: skip
    assert torch.equal(ccf.from_pretrained(tmp_path).heads["hps"].weight, small_model(seed=1).heads["hps"].weight)


def test_attention_tables_that_follow_from_the_window_size_are_not_stored(tmp_path: Path) -> None:
    small_model("swin of three stages").save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "index" in name]


def test_a_head_that_was_added_is_saved_with_the_model(tmp_path: Path) -> None:
    model = small_model()
    model.add_head("coronaries", ["Left", "Right"], own_decoder=True)
    model.save_pretrained(tmp_path)
    assert list(ccf.from_pretrained(tmp_path).heads) == ["heart", "hps", "coronaries"]
    assert "Left, Right" in (tmp_path / "README.md").read_text()


def test_loading_leaves_the_global_random_state_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    ccf.from_pretrained(folder)
    assert torch.equal(torch.rand(1), expected)


# ---- only the chosen heads


@torch.no_grad()
def test_only_the_chosen_heads_are_loaded(folder: Path) -> None:
    model, x = ccf.from_pretrained(folder, heads=["hps"]), image()
    assert list(model.heads) == ["hps"]
    assert [h.name for h in model.config.heads] == ["hps"]
    assert torch.equal(model(x)["hps"], small_model()(x)["hps"])
    with pytest.raises(ccf.ConfigError, match="no head 'lungs'"):
        ccf.from_pretrained(folder, heads=["lungs"])


def test_tensors_of_heads_that_were_not_chosen_are_never_read(folder: Path) -> None:
    """A head full of NaN does not disturb those who leave it out."""
    tensors = load_file(folder / "model.safetensors")
    tensors["heads.heart.weight"] = torch.full_like(tensors["heads.heart.weight"], float("nan"))
    save_file(tensors, folder / "model.safetensors")
    edit_manifest(folder)
    ccf.from_pretrained(folder, heads=["hps"])
    with pytest.raises(ccf.WeightsError, match=r"not finite in 'heads\.heart\.weight'"):
        ccf.from_pretrained(folder)


# ---- head files


@pytest.mark.parametrize("own_decoder", [False, True])
@torch.no_grad()
def test_a_head_file_puts_the_head_on_the_trunk_it_was_trained_on(own_decoder: bool, folder: Path) -> None:
    model, x = ccf.from_pretrained(folder), image()
    model.add_head("coronaries", ["Coronary"], own_decoder=own_decoder)
    if own_decoder:
        for parameter in model.decoders["coronaries"].parameters():
            parameter.add_(0.01)
    path = model.eval().save_head("coronaries", folder.parent / "coronaries.safetensors")
    again = ccf.from_pretrained(folder, heads=["heart", str(path)])
    assert list(again.heads) == ["heart", "coronaries"]
    assert again.config.head("coronaries").classes == ("Coronary",)
    assert torch.equal(again(x)["coronaries"], model(x)["coronaries"])
    assert torch.equal(again(x)["heart"], model(x)["heart"])
    again.save_pretrained(folder.parent / "both")
    assert torch.equal(ccf.from_pretrained(folder.parent / "both")(x)["coronaries"], model(x)["coronaries"])
    with pytest.raises(ccf.UsageError, match="has a head 'coronaries' already"):
        again.load_head(path)


def test_head_files_of_any_name_keep_their_digests_apart(folder: Path) -> None:
    files = [folder.parent / "a" / "model.safetensors", *(folder.parent / at / "head.safetensors" for at in "bc")]
    model = ccf.from_pretrained(folder)
    for number, file in enumerate(files):
        file.parent.mkdir()
        model.add_head(f"mine{number}", [f"Class{number}"])
        model.save_head(f"mine{number}", file)
    loaded = ccf.from_pretrained(folder, heads=["heart", *files])
    assert loaded.weight_files is not None
    assert loaded.weight_files.sha256 == {"model.safetensors": sha256_of(folder / "model.safetensors")}
    assert loaded.weight_files.heads == {f"mine{n}": sha256_of(file) for n, file in enumerate(files)}


def test_a_head_file_of_a_linear_head_is_a_few_kilobytes(folder: Path) -> None:
    model = ccf.from_pretrained(folder)
    assert model.save_head("hps", folder / "hps.safetensors").stat().st_size < 4_000


def test_a_head_for_another_trunk_is_refused_and_leaves_nothing_behind(folder: Path) -> None:
    other = small_model(seed=1)
    other.add_head("coronaries", ["Coronary"])
    path = other.save_head("coronaries", folder.parent / "coronaries.safetensors")
    model = ccf.from_pretrained(folder)
    with pytest.raises(ccf.WeightsError, match="was trained on the trunk of small with sha256"):
        model.load_head(path)
    assert list(model.heads) == ["heart", "hps"]
    with pytest.raises(ccf.WeightsError, match="was trained on the trunk"):
        ccf.from_pretrained(folder, heads=[path])


def test_what_is_no_head_file_is_refused(folder: Path, tmp_path: Path) -> None:
    model = ccf.from_pretrained(folder)
    with pytest.raises(ccf.WeightsError, match="is not a head file"):
        model.load_head(folder / "model.safetensors")
    with pytest.raises(ccf.WeightsError, match="does not exist"):
        ccf.from_pretrained(folder, heads=["nowhere.safetensors"])
    with pytest.raises(ccf.UsageError, match=r"must end with \.safetensors"):
        model.save_head("hps", tmp_path / "hps.pt")
    with pytest.raises(ccf.UsageError, match="not in float32"):
        model.to(torch.float16).save_head("hps", tmp_path / "hps.safetensors")


# ---- refused: unsafe, damaged, not fitting


@pytest.mark.parametrize("name", ["pytorch_model.bin", "final_ckpt.pt"])
def test_a_pickle_offered_as_weights_is_refused_in_one_line(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / name)
    for source in (folder, folder / name):
        with pytest.raises(ccf.WeightsError, match=r"is a pickle, which can run code.*convert") as caught:
            ccf.from_pretrained(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(ccf.WeightsError, match="is a pickle"):
        ccf.from_pretrained(folder, heads=[folder / name])


@pytest.mark.parametrize("protocol", [2, 4, "zip"])
def test_a_pickle_under_a_safe_name_is_refused_unopened(protocol: int | str, folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('the pickle ran')",)

    path = folder / "model.safetensors"
    if protocol == "zip":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(), protocol=int(protocol)))
    with pytest.raises(ccf.WeightsError, match="is a pickle"):
        ccf.from_pretrained(folder, verify=False)


def test_a_damaged_file_is_refused_by_its_sha256(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ccf.WeightsError, match="the file is damaged or was changed"):
        ccf.from_pretrained(folder)
    ccf.from_pretrained(folder, verify=False)


def test_a_truncated_file_is_refused_even_without_verification(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ccf.WeightsError, match="not a whole safetensors file"):
        ccf.from_pretrained(folder, verify=False)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "only foreign names"])
def test_names_and_shapes_must_match_exactly(change: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors["heads.hps.bias"]
    elif change == "unknown":
        tensors["heads.lungs.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors["heads.hps.bias"] = torch.zeros(7)
    else:
        tensors = {"net." + name: tensor for name, tensor in tensors.items()}
    save_file(tensors, path)
    edit_manifest(folder)
    with pytest.raises(ccf.WeightsError, match="do not fit its configuration"):
        ccf.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99.*Install the version"),
        ({"surprise": 1}, "not a model configuration"),
        ({"backbone": {"architecture": "resnet"}}, "not a model configuration"),
        ({"backbone": {**small_model().config.to_dict()["backbone"], "architecture": "resnet"}}, "resnet"),
    ],
)
def test_a_configuration_of_another_kind_is_refused(change: dict[str, object], message: str, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    edit_manifest(folder)
    with pytest.raises(ccf.CardiacCTError, match=message):
        ccf.from_pretrained(folder)


def test_a_configuration_that_lacks_a_setting_is_refused_and_nothing_is_assumed() -> None:
    whole = small_model().config.to_dict()
    for path in ((), ("backbone",), ("intensity",), ("heads", 0), ("looks", 0)):
        for key in reduce(getitem, path, whole):
            damaged = copy.deepcopy(whole)
            del reduce(getitem, path, damaged)[key]
            if key in ("hidden", "refine"):  # the first published files have no such keys
                assert ModelConfig.from_dict(damaged) == ModelConfig.from_dict(whole)
                continue
            with pytest.raises(ccf.WeightsError, match=key):
                ModelConfig.from_dict(damaged)


@pytest.mark.parametrize("shard", ["../a.safetensors", "..\\a.safetensors", "C:a.safetensors", "a.bin", 1, None])
def test_shards_outside_the_folder_are_refused(shard: object, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "a.safetensors")
    index = {"metadata": {}, "weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ccf.WeightsError, match=r"shards are \.safetensors files beside it"):
        ccf.from_pretrained(folder, verify=False)


def test_weights_that_do_not_fit_half_precision_are_not_written(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.heads["hps"].bias[0] = 1e6
    with pytest.raises(ccf.WeightsError, match=r"not finite in torch\.float16"):
        model.save_pretrained(tmp_path / "model", dtype=torch.float16)
    assert list((tmp_path / "model").iterdir()) == []


def test_a_failed_saving_leaves_the_older_model_as_it_was(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    model = small_model(seed=1)
    with torch.no_grad():
        model.heads["hps"].bias[0] = float("nan")
    with pytest.raises(ccf.WeightsError, match="not finite"):
        model.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
