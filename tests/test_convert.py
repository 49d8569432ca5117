"""Other people's checkpoints: the converted model gives the logits of the network that the file came from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import SwinUNETR
from original_networks import HEADS, OriginalSwin, OriginalUNet, OriginalUnetr, old_swin
from safetensors.torch import load_file, save_file
from small_models import small_config, small_model
from torch import Tensor, nn

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import BackboneConfig, HeadConfig, IntensityConfig
from cardiac_ct_fm.convert import ORIGINAL_INTENSITY, convert
from cardiac_ct_fm.exchange import export_bundle, export_onnx

TOLERANCE = 1e-5


def seeded(network: type[nn.Module], *arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network(*arguments).eval()


def to_ras(array: Tensor) -> Tensor:
    """A tensor in the research code's axes (z, y, x of LPS) as (x, y, z) of RAS."""
    return array.permute(0, 1, 4, 3, 2).flip(2, 3)


def scan(size: tuple[int, int, int] = (64, 32, 32)) -> tuple[Tensor, Tensor]:
    """An image and a heart label map in the research code's axes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 1, *size, generator=generator), torch.randint(0, 8, (1, 1, *size), generator=generator)


# ---- the research code


@pytest.mark.parametrize("network", [OriginalSwin, OriginalUNet])
@pytest.mark.parametrize("conditioned", [False, True])
@torch.no_grad()
def test_a_checkpoint_of_the_research_code_gives_its_logits(
    network: type[nn.Module], conditioned: bool, tmp_path: Path
) -> None:
    original = seeded(network, conditioned)
    torch.save(original.state_dict(), tmp_path / "final_ckpt.pt")
    converted = convert(tmp_path / "final_ckpt.pt", tmp_path / "model")
    image, labels = scan()
    expected = original(torch.cat([image, labels.float()], dim=1) if conditioned else image)
    model = ccf.from_pretrained(tmp_path / "model")
    for candidate in (converted, model):
        logits = candidate(to_ras(image), segmentation=to_ras(labels) if conditioned else None)
        assert {name: t.shape[1] for name, t in logits.items()} == HEADS
        for name in HEADS:
            assert (logits[name] - to_ras(expected[name])).abs().max() <= TOLERANCE
    assert model.config.intensity == ORIGINAL_INTENSITY
    assert model.config.condition_on_seg is conditioned
    assert [(look.spacing_mm, look.heads) for look in model.config.looks] == [(1.0, tuple(HEADS))]
    for value, feature in zip(
        model.forward_intermediates(to_ras(image), to_ras(labels) if conditioned else None),
        model.feature_info,
        strict=True,
    ):
        sizes = [edge * step for edge, step in zip(value.shape[2:], feature.stride, strict=True)]
        assert sizes == list(to_ras(image).shape[2:])


@torch.no_grad()
def test_a_unetr_of_the_research_code_gives_its_logits_without_the_norm_that_newer_vits_hold(tmp_path: Path) -> None:
    original = seeded(OriginalUnetr)
    state = {k: v for k, v in original.state_dict().items() if "norm_cross_attn" not in k}
    torch.save({"model": state}, tmp_path / "unetr.pt")
    model = convert(tmp_path / "unetr.pt", tmp_path / "model")
    image, _ = scan((32, 32, 32))
    expected = original(image)
    assert (model(to_ras(image))["hps"] - to_ras(expected["hps"])).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("task", "heads"), [(0, ["calc", "hps", "ms"]), (1, ["hps"]), (2, ["ms"]), (3, ["calc"])])
def test_heads_that_a_task_did_not_train_are_left_out_and_named(task: int, heads: list[str], tmp_path: Path) -> None:
    torch.save(seeded(OriginalUNet, False, task).state_dict(), tmp_path / "ckpt.pt")
    model = convert(tmp_path / "ckpt.pt", tmp_path / "model")
    assert sorted(model.heads) == heads
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("Heads left out" in card) is (task != 0)
    assert "no look that finds the heart" in card
    assert "Converted from: ckpt.pt (U-Net of the research code), sha256" in card


@torch.no_grad()
def test_the_older_prefix_of_its_u_net_is_known(tmp_path: Path) -> None:
    original = seeded(OriginalUNet, False)
    renamed = {("unet." + k[6:] if k.startswith("model.") else k): v for k, v in original.state_dict().items()}
    torch.save({"model": renamed}, tmp_path / "ckpt.pt")
    image, _ = scan()
    logits = convert(tmp_path / "ckpt.pt", tmp_path / "model")(to_ras(image))
    assert (logits["ms"] - to_ras(original(image)["ms"])).abs().max() <= TOLERANCE


# ---- MONAI


@pytest.mark.parametrize("trained_with", ["monai", "monai<1.5"])
@torch.no_grad()
def test_a_monai_swin_unetr_gives_its_logits_with_the_merging_it_was_trained_with(
    trained_with: Any, tmp_path: Path
) -> None:
    def today(channels: int, outputs: int, window: int) -> SwinUNETR:
        return SwinUNETR(channels, outputs, feature_size=12, window_size=window)

    old = trained_with == "monai<1.5"
    reference = seeded(old_swin if old else today, 1, 6, 4)  # type: ignore[arg-type]
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, tmp_path / "swin.safetensors")
    image, _ = scan()
    source, target = tmp_path / "swin.safetensors", tmp_path / "model"
    model = convert(source, target, head="hps", trained_with=trained_with)
    assert (model(image)["hps"] - reference(image)).abs().max() <= TOLERANCE
    other: Any = "monai" if old else "monai<1.5"
    wrong = convert(source, target, head="hps", trained_with=other)
    assert (wrong(image)["hps"] - reference(image)).abs().max() > 0.01, "the merging matters"
    named = convert(source, target, head="organs", classes=list("abcde"), trained_with=trained_with)
    assert named.config.heads == (HeadConfig("organs", "segmentation", tuple("abcde")),)


def test_what_a_monai_file_does_not_tell_has_to_be_said(tmp_path: Path) -> None:
    path = tmp_path / "swin.pt"
    torch.save(seeded(old_swin, 1, 6, 4).state_dict(), path)  # type: ignore[arg-type]
    with pytest.raises(ccf.UsageError, match=r"trained_with='monai<1\.5' or trained_with='monai'"):
        convert(path, tmp_path / "model", head="hps")
    with pytest.raises(ccf.UsageError, match="say what it segments with head="):
        convert(path, tmp_path / "model", trained_with="monai")
    with pytest.raises(ccf.WeightsError, match=r"has 6 channels.*name 5"):
        convert(path, tmp_path / "model", head="organs", classes=["one"], trained_with="monai")
    assert not (tmp_path / "model").exists()


@torch.no_grad()
def test_a_self_supervised_encoder_is_loaded_as_monai_loads_it(tmp_path: Path) -> None:
    source = seeded(old_swin, 1, 2, 4)  # type: ignore[arg-type]
    published = {
        "module." + k.removeprefix("swinViT.").replace("linear1", "fc1").replace("linear2", "fc2"): v
        for k, v in source.state_dict().items()
        if k.startswith("swinViT.")
    }
    published["module.norm.weight"] = torch.ones(192)
    path = tmp_path / "model_swinvit.pt"
    torch.save({"state_dict": published}, path)
    with pytest.raises(ccf.UsageError, match="holds an encoder alone"):
        convert(path, tmp_path / "model")
    model = convert(path, tmp_path / "model", seed=3)
    reference = seeded(old_swin, 1, 2, 4)  # type: ignore[arg-type]
    reference.load_from({"state_dict": published})
    image, _ = scan()
    for ours, theirs in zip(model.forward_intermediates(image), reference.swinViT(image), strict=True):
        assert (ours - theirs).abs().max() <= TOLERANCE
    assert "random (seed 3)" in (tmp_path / "model" / "README.md").read_text()
    again = convert(path, tmp_path / "again", seed=3)
    assert torch.equal(again.heads["hps"].weight, model.heads["hps"].weight)


# ---- what must be refused


def test_a_file_that_holds_more_than_tensors_is_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('the pickle ran')",)

    path = tmp_path / "ckpt.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hparams": Bomb()}, path)
    with pytest.raises(ccf.WeightsError, match="cannot be read as tensors alone"):
        convert(path, tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv.weight": torch.zeros(3)}, "no known layout .its first keys: conv.weight"),
        ({"epoch": 3}, "holds no state dict"),
        (b"not a checkpoint", "cannot be read as tensors alone"),
        (None, "does not exist"),
    ],
)
def test_a_file_of_no_known_layout_is_explained(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ccf.WeightsError, match=message):
        convert(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_with_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    state = seeded(OriginalUNet, False).state_dict()
    del state["model.decoder.stages.1.convs.0.norm.bias"]
    torch.save(state, tmp_path / "ckpt.pt")
    with pytest.raises(ccf.WeightsError, match=r"1 missing \(first: backbone\.upsamples\.1"):
        convert(tmp_path / "ckpt.pt", tmp_path / "model")


# ---- out: MONAI bundle


BUNDLED = {
    "MONAI's own class": BackboneConfig("swin_unetr", 12, (2, 2, 2, 2), (3, 6, 12, 24), 4),
    "MONAI's UNETR": BackboneConfig("unetr", 1, image_size=32),
    "a class of this package": BackboneConfig("dynunet", 4, (2, 2, 2)),
}


@pytest.mark.parametrize("kind", BUNDLED)
@torch.no_grad()
def test_a_monai_bundle_gives_the_models_logits_and_its_preprocessing(kind: str, tmp_path: Path) -> None:
    model = ccf.create_model(small_config().replace(backbone=BUNDLED[kind]), seed=0).eval()
    folder = export_bundle(model, tmp_path / "bundle")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    labels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert (labels["0"], labels["6"], labels["9"]) == ("heart: background", "heart: Aorta", "hps: RCC")
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network").eval()
    parser.get_parsed_content("load_weights")
    assert type(network).__module__.startswith("cardiac_ct_fm") is (kind == "a class of this package")
    size = (32, 32, 32) if kind == "MONAI's UNETR" else (64, 32, 32)
    x = torch.randn(1, 1, *size)
    expected = torch.cat(list(model(x).values()), dim=1)
    assert (network(x) - expected).abs().max() <= TOLERANCE

    hu = np.linspace(-2000, 3000, 8 * 8 * 8, dtype=np.float32).reshape(8, 8, 8)
    (folder / "data").mkdir()
    nib.save(nib.Nifti1Image(hu, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "data" / "ct.nii.gz")
    image = parser.get_parsed_content("dataset")[0]["image"]
    i = IntensityConfig()
    np.testing.assert_allclose(image[0].numpy(), (hu.clip(i.low_hu, i.high_hu) - i.mean_hu) / i.std_hu, atol=1e-5)
    labels_out = parser.get_parsed_content("postprocessing").transforms[0]({"pred": expected[0]})["pred"]
    assert torch.equal(labels_out[0].long(), model(x)["heart"][0].argmax(0))
    assert torch.equal(labels_out[1].long(), model(x)["hps"][0].argmax(0))


def test_a_bundle_leaves_a_second_look_at_points_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config()
    heads = tuple(dataclasses.replace(head, refine=8) if head.name == "hps" else head for head in config.heads)
    folder = export_bundle(ccf.create_model(config.replace(heads=heads), seed=0), tmp_path / "bundle")
    assert not [k for k in load_file(folder / "models" / "model.safetensors") if "refine" in k]
    assert "second look" not in (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert "Without the second look at hps" in (folder / "configs" / "metadata.json").read_text(encoding="utf-8")
    assert "The bundle has no second look at hps" in caplog.text
    plain = export_bundle(ccf.create_model(config, seed=0), tmp_path / "plain")
    assert "second look" not in (plain / "configs" / "metadata.json").read_text(encoding="utf-8")


def test_a_model_that_no_bundle_can_express_is_refused(tmp_path: Path) -> None:
    conditioned = ccf.create_model(small_config(), condition_on_seg=True)
    for model in (conditioned, ccf.create_model(small_config().replace(looks=()))):
        with pytest.raises(ccf.UsageError, match="A bundle needs"):
            export_bundle(model, tmp_path / "bundle")


# ---- out: ONNX


def test_onnx_without_its_packages_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cardiac_ct_fm.exchange.find_spec", lambda name: None)
    with pytest.raises(ccf.MissingExtraError, match=r"pip install \"cardiac-ct-fm\[onnx\]\""):
        export_onnx(small_model(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@torch.no_grad()
def test_an_onnx_file_gives_the_models_logits(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = small_model()
    path = export_onnx(model, tmp_path / "model.onnx", window=32)
    session = runtime.InferenceSession(str(path))
    x = torch.randn(1, 1, 32, 32, 32)
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": x.numpy()}), strict=True))
    for name, logits in model(x).items():
        np.testing.assert_allclose(outputs[name], logits.numpy(), atol=1e-4)
    stored = session.get_modelmeta().custom_metadata_map["cardiac_ct_fm"]
    assert json.loads(stored) == model.config.to_dict()
    with pytest.raises(ccf.UsageError, match="pad to 40×40×40"):
        export_onnx(model, path, window=33)
