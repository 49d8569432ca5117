"""Where weights come from: a folder, a name in the registry, a repository; and what their card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_models import BACKBONES, image, small_model

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.doctor import examine
from cardiac_ct_fm.hub import HubOptions
from cardiac_ct_fm.manifest import ModelInfo
from cardiac_ct_fm.registry import MODELS_VARIABLE
from cardiac_ct_fm.runtime import choose_device
from cardiac_ct_fm.weights import resolve, sha256_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published model ``small.first`` in a folder of weights that the registry knows."""
    root = tmp_path / "weights"
    model = small_model()
    model._set_config(model.config.replace(provenance={"command": "made for a test", "seed": 0}))
    ccf.export_pretrained(model, root, tag="first", metrics={"cohort": {"dice": 0.5}}, dtype=torch.float32)
    monkeypatch.setenv(MODELS_VARIABLE, str(root))
    return root


# ---- sources


def test_a_model_folder_that_is_there_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_model().save_pretrained("coronaries/model")
    assert resolve("coronaries/model").source == "folder coronaries/model"
    with pytest.raises(ccf.WeightsError, match="coronaries/model"):
        resolve("hf:coronaries/model", HubOptions(local_files_only=True))
    (tmp_path / "coronaries" / "nothing").mkdir()
    with pytest.raises(ccf.WeightsError, match=r"folder coronaries/nothing has no config\.json"):
        resolve("coronaries/nothing")


def test_a_model_folder_comes_before_a_registered_name_and_says_so(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.first").mkdir()
    assert resolve("small.first").source == "small.first", "a folder without a model is in nobody's way"
    assert not caplog.messages
    small_model(seed=1).save_pretrained("small.first")
    assert resolve("small.first").source == "folder small.first"
    assert "'registry:small.first'" in caplog.messages[0]
    assert resolve("registry:small.first").source == "small.first"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("cardiac_swin_tinny.x", ccf.UnknownNameError, "no model called"),
        ("./nowhere", ccf.WeightsError, "does not exist"),
        (Path("nowhere"), ccf.WeightsError, "does not exist"),
        ("registry:nothing", ccf.UnknownNameError, "no model called 'nothing'"),
        ("org/name@a/b/c@d", ccf.WeightsError, "does not exist"),
    ],
)
def test_a_source_that_is_nothing_says_so(source: str | Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ccf.from_pretrained(source)


def test_a_file_or_a_revision_where_a_folder_is_meant_is_explained(folder: Path) -> None:
    with pytest.raises(ccf.UsageError, match=r"give the folder that holds config\.json"):
        ccf.from_pretrained(folder / "model.safetensors")
    with pytest.raises(ccf.UsageError, match="revision='main' is for Hub repositories"):
        ccf.from_pretrained(folder, revision="main")
    with pytest.raises(ccf.UsageError, match="give one of them"):
        ccf.from_pretrained("org/name@v1", revision="v2")


@pytest.mark.parametrize("device", ["gpu", "xla", "cuda:99", "meta"])
def test_a_device_that_cannot_compute_is_refused(device: str, folder: Path) -> None:
    with pytest.raises(ccf.UsageError, match=f"no device called '{device}'.*choose auto"):
        ccf.from_pretrained(folder, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_why_there_is_no_gpu_is_told() -> None:
    why = "was built without CUDA" if torch.version.cuda is None else "torch sees 0 GPUs"
    with pytest.raises(ccf.UsageError, match=f"'cuda' that torch can use here .*{why}"):
        choose_device("cuda")
    with pytest.raises(ccf.UsageError, match="'xla' that torch can use here; choose auto"):
        choose_device("xla")


def test_a_folder_without_a_model_says_what_a_model_is(tmp_path: Path) -> None:
    with pytest.raises(ccf.WeightsError, match=r"has no config\.json"):
        ccf.from_pretrained(tmp_path)


# ---- the registry


@torch.no_grad()
def test_a_registered_model_is_found_by_name_with_and_without_its_tag(registered: Path) -> None:
    x = image()
    assert "small.first" in ccf.list_models(pretrained=True)
    assert ccf.list_models("small.*", pretrained=True) == ["small.first"]
    for name in ("small", "small.first"):
        assert torch.equal(ccf.from_pretrained(name)(x)["hps"], small_model()(x)["hps"])
    info = ccf.model_info("small")
    assert (info.full_name, info.pretrained, info.license) == ("small.first", True, "apache-2.0")
    assert info.metrics == {"cohort": {"dice": 0.5}}
    assert info.provenance == {"command": "made for a test", "seed": 0}
    assert info.parameters == small_model().num_parameters
    assert info.sha256["model.safetensors"] == sha256_of(registered / "small.first" / "model.safetensors")


def test_of_several_weights_the_default_is_meant_or_the_tags_are_named(registered: Path) -> None:
    ccf.export_pretrained(small_model(seed=1), registered, tag="second")
    with pytest.raises(ccf.UsageError, match=r"small\.first or small\.second"):
        ccf.from_pretrained("small")
    ccf.export_pretrained(small_model(seed=1), registered, tag="second", default=True)
    assert ccf.model_info("small").tag == "second"


def test_every_load_from_the_registry_is_verified(registered: Path) -> None:
    model = ccf.from_pretrained("small.first")
    assert model.weight_files is not None
    assert model.weight_files.verified
    config = registered / "small.first" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ccf.WeightsError, match="sha256"):
        ccf.from_pretrained("small.first")


def test_files_without_published_sha256_are_loaded_with_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ccf.from_pretrained(folder)
    assert not caplog.messages
    (folder / "registry.json").unlink()
    ccf.from_pretrained(folder, verify=False)
    assert not caplog.messages, "not asked for"
    model = ccf.from_pretrained(folder)
    assert model.weight_files is not None and not model.weight_files.verified
    (message,) = caplog.messages
    assert f"folder {folder} has no registry.json" in message and "not verified" in message


def test_an_architecture_without_weights_says_how_to_get_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    with pytest.raises(ccf.WeightsError, match=r"no trained weights.*create_model\('cardiac_unetr_base'\)"):
        ccf.from_pretrained("cardiac_unetr_base")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pictures", None),
        ("pictures", ["a.png"]),
        ("pictures", {"pictures/a.png": None}),
        ("files", None),
        ("files", {"config.json": {"sha256": 64}}),
        ("files", {"config.json": {"sha256": "0" * 64, "bytes": "many"}}),
        ("heads", "hps"),
        ("heads", [1]),
        ("metrics", []),
        ("provenance", None),
        ("parameters", "4"),
        ("name", 1),
    ],
)
def test_a_value_of_another_kind_in_a_registry_file_is_named(key: str, value: object, folder: Path) -> None:
    path = folder / "registry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ccf.WeightsError, match=f"registry.json is not a description of weights .'{key}'"):
        ModelInfo.from_manifest(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 9}', '{"format_version": 1, "name": "x"}'])
def test_a_damaged_registry_file_concerns_its_own_model_alone(content: str, registered: Path, folder: Path) -> None:
    (registered / "small.first" / "registry.json").write_text(content)
    for name in ("small", "small.first"):
        with pytest.raises(ccf.WeightsError, match=r"small\.first/registry\.json"):
            ccf.from_pretrained(name)
    assert any("small.first/registry.json" in f.text for f in examine() if f.verdict == "problem")
    assert "small.first" not in ccf.list_models(pretrained=True)
    assert ccf.model_info("cardiac_swin_tiny").pretrained
    assert resolve(str(folder)).verified


def test_the_packages_own_default_stays_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ccf.export_pretrained(small_model(name="cardiac_swin_tiny"), tmp_path, tag="mine", default=True)
    own = ccf.model_info("cardiac_swin_tiny").full_name
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert ccf.model_info("cardiac_swin_tiny.mine").default
    assert ccf.model_info("cardiac_swin_tiny").full_name == own


def test_all_architectures_are_listed_and_fit_wildcards() -> None:
    assert ccf.list_models("cardiac_swin_*") == ["cardiac_swin_base", "cardiac_swin_small", "cardiac_swin_tiny"]
    info = ccf.model_info("cardiac_unetr_base")
    assert (info.pretrained, info.heads) == (False, ("heart", "hps", "ms", "calc"))


def test_the_bundled_weights_load_verified_and_fit_in_ten_megabytes() -> None:
    model = ccf.from_pretrained("cardiac_swin_tiny")
    assert model.weight_files is not None
    assert model.weight_files.verified
    assert sum(p.stat().st_size for p in model.weight_files.tensors) <= 10_000_000
    assert model.config.provenance


# ---- the model card


def test_the_model_card_states_what_was_recorded_and_what_was_not(registered: Path) -> None:
    card = (registered / "small.first" / "README.md").read_text()
    assert "not a medical device" in card
    assert "| dice | 0.5 |" in card
    assert "Command that made the weights: made for a test" in card
    assert "Synthetic share of the training data: not recorded" in card
    assert str(small_model().generate_model_card()).count("not recorded") >= 2


def test_the_card_of_the_bundled_weights_says_how_they_were_made_and_how_good_they_are() -> None:
    model = ccf.from_pretrained("cardiac_swin_tiny")
    assert model.weight_files is not None
    card = (model.weight_files.tensors[0].parent / "README.md").read_text(encoding="utf-8")
    assert "not recorded" not in card
    runs = model.config.provenance["runs"]
    assert all(f"`{' '.join(run['command'])}` (from_step {run['from_step']}" in card for run in runs)
    for command in ("heldout --model cardiac_swin_tiny", "real_scan"):
        assert f"python -m recipes.benchmarks.{command}" in card


def test_a_configuration_survives_its_json() -> None:
    for kind in BACKBONES:
        config = small_model(kind).config
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
