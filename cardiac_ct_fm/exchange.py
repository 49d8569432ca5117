"""Models for other software: a MONAI bundle folder, an ONNX file."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cardiac_ct_fm import __version__
from cardiac_ct_fm.config import BackboneConfig, HeadConfig, ModelConfig
from cardiac_ct_fm.errors import MissingExtraError, OutputError, UsageError
from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.manifest import ModelInfo
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.model_card import model_card
from cardiac_ct_fm.tensor_files import write_tensors

_log = logging.getLogger(__name__)

OVERLAP = 0.25
"""Overlap of sliding windows in the bundle; MONAI's default."""


IGNITE_VERSION = "0.5.5"
"""Version of MONAI's optional engine with which a bundle was run from end to end (monai 1.6.1)."""


class JointOutput(nn.Module):
    """A model whose heads stand behind one another in one tensor, as MONAI's bundles expect.

    Args:
        config: :meth:`ModelConfig.to_dict` of the model.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = CardiacCTModel(ModelConfig.from_dict(config))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) → (B, channels of all heads, X, Y, Z)."""
        return torch.cat(list(self.model(x).values()), dim=1)


def export_bundle(model: CardiacCTModel, folder: str | Path) -> Path:
    """Write a MONAI bundle: metadata, an inference workflow, weights as safetensors, the model card.

    Four-stage Swin trunks and UNETRs become MONAI's own classes, so that the bundle runs without this package; all
    heads are the output channels of one convolution. Other trunks need this package beside MONAI. A bundle gives
    logits, the first look at points: the second one (:mod:`cardiac_ct_fm.refinement`) is left out.

    Args:
        model: a model in float32 without conditioning on a segmentation.
        folder: made where it does not exist.

    Returns:
        The folder.

    Raises:
        UsageError: the model is conditioned on a segmentation, has no heads or no looks.
        OutputError: the folder cannot be written.
    """
    if model.config.condition_on_seg or not model.config.heads or not model.config.looks:
        raise UsageError("A bundle needs a model with heads and looks and without conditioning on a segmentation.")
    target, again = Path(folder), ", ".join(model.refiners)
    if again:
        _log.warning("The bundle has no second look at %s: its points are less exact than this package's.", again)
    model = _of_one_look(model)
    network, weights = _monai_network(model)
    try:
        (target / "docs").mkdir(parents=True, exist_ok=True)
        info = ModelInfo(model.config.name, parameters=model.num_parameters)
        (target / "docs" / "README.md").write_text(model_card(model.config, info), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}. Choose another folder.") from error
    with atomic_write(target / "models" / "model.safetensors") as temporary:
        write_tensors(temporary, weights, torch.float32, {})
    write_json(target / "configs" / "metadata.json", _metadata(model.config, network, again))
    write_json(target / "configs" / "inference.json", _workflow(model.config, network))
    return target


def export_onnx(model: CardiacCTModel, path: str | Path, *, window: int = 96) -> Path:
    """Write an ONNX file with one input ``image`` (1, 1, window³) and one output of logits per head.

    A second look at points (:mod:`cardiac_ct_fm.refinement`) is left out.

    Args:
        model: a model without conditioning on a segmentation.
        path: the file.
        window: edge length of the input in voxels.

    Returns:
        The path.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        UsageError: the window does not fit the trunk, or the model is conditioned on a segmentation.
        OutputError: the file cannot be written.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise MissingExtraError("Writing an ONNX file", "onnx")
    if model.config.condition_on_seg or not model.config.heads:
        raise UsageError("ONNX needs a model with heads and without conditioning on a segmentation.")
    example = torch.zeros(1, 1, window, window, window)
    model.backbone.check_input(example)
    model = _of_one_look(model)
    outputs = _Tuple(model).to("cpu", torch.float32).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            outputs, (example,), dynamo=True, input_names=["image"], output_names=list(model.heads), verbose=False
        )
    if program is None:
        raise UsageError("torch's exporter gave no program for this model; use the bundle instead.")
    program.model.metadata_props["cardiac_ct_fm"] = json.dumps(model.config.to_dict())
    with atomic_write(path) as temporary:
        program.save(str(temporary), external_data=False)
    return Path(path)


def _of_one_look(model: CardiacCTModel) -> CardiacCTModel:
    """The model itself, or a copy without its second looks at points."""
    if not model.refiners:
        return model
    heads = tuple(dataclasses.replace(head, refine=0) for head in model.config.heads)
    plain = CardiacCTModel(model.config.replace(heads=heads)).to(next(model.parameters()))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("refiners.")})
    return plain.train(model.training)


class _Tuple(nn.Module):
    """A model whose logits come as a tuple, in the order of its heads."""

    def __init__(self, model: CardiacCTModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One tensor per head."""
        return tuple(self.model(image).values())


def _monai_network(model: CardiacCTModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A bundle's network definition, and its weights under the names that this network has."""
    config = model.config
    b = config.backbone
    arguments = _monai_arguments(b)
    if arguments is None or len(model.decoders) or any(head.hidden for head in config.heads):
        definition = {"_target_": "cardiac_ct_fm.exchange.JointOutput", "config": config.to_dict()}
        return definition, {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    weights = dict(model.backbone.state_dict())
    state = model.state_dict()
    for part in ("weight", "bias"):
        weights[f"out.conv.conv.{part}"] = torch.cat([state[f"heads.{head.name}.{part}"] for head in config.heads])
    channels = sum(head.channels for head in config.heads)
    return {**arguments, "in_channels": b.in_channels, "out_channels": channels}, weights


def _monai_arguments(b: BackboneConfig) -> dict[str, Any] | None:
    """MONAI's class and arguments for a trunk, None where MONAI has none."""
    if b.orientation != "RAS":
        return None
    if b.architecture == "swin_unetr" and len(b.depths) == 4 and b.merging == "monai":
        sizes = {"depths": list(b.depths), "num_heads": list(b.num_heads), "window_size": b.window_size}
        return {"_target_": "SwinUNETR", "feature_size": b.feature_size, **sizes, "use_flash_attention": True}
    if b.architecture == "unetr":
        hidden = 48 * b.feature_size
        sizes = {"feature_size": b.feature_size, "hidden_size": hidden, "mlp_dim": 4 * hidden}
        return {"_target_": "UNETR", "img_size": [b.image_size] * 3, **sizes}
    return None


def _metadata(config: ModelConfig, network: dict[str, Any], again: str) -> dict[str, Any]:
    """``metadata.json``: versions, what goes in and comes out, and of which heads a second look is left out."""
    lacks = f" Without the second look at {again} that cardiac-ct-fm takes, points are less exact." if again else ""
    packages = {"nibabel": version("nibabel"), "pytorch-ignite": IGNITE_VERSION, "safetensors": version("safetensors")}
    if "." in network["_target_"]:
        packages["cardiac-ct-fm"] = __version__
    look, i = config.looks[-1], config.intensity
    names, channel = {}, 0
    for head in config.heads:
        for offset, label in enumerate(("background", *head.classes)):
            names[str(channel + offset)] = f"{head.name}: {label}"
        channel += head.channels
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": [look.window] * 3,
        "dtype": "float32",
        "value_range": [(i.low_hu - i.mean_hu) / i.std_hu, (i.high_hu - i.mean_hu) / i.std_hu],
        "is_patch_data": True,
        "channel_def": {"0": "CT"},
    }
    logits = {
        **image, "format": "logits", "num_channels": channel, "value_range": [], "channel_def": names,
    }  # fmt: skip
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": "written by cardiac-ct-fm"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": packages,
        "name": config.name,
        "task": "Cardiac CT: segmentation and landmarks",
        "description": "A multi-head network for cardiac CT. Research use only; not a medical device." + lacks,
        "authors": "The cardiac-ct-fm authors",
        "copyright": "The cardiac-ct-fm authors",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": logits}},
    }


def _workflow(config: ModelConfig, network: dict[str, Any]) -> dict[str, Any]:
    """``inference.json``: the finest look slid over NIfTI files, one label map per head."""
    look, i = config.looks[-1], config.intensity
    transforms = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [look.spacing_mm] * 3, "mode": "bilinear"},
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": i.low_hu,
            "a_max": i.high_hu,
            "b_min": (i.low_hu - i.mean_hu) / i.std_hu,
            "b_max": (i.high_hu - i.mean_hu) / i.std_hu,
            "clip": True,
        },
    ]
    return {
        "imports": ["$import glob", "$from safetensors.torch import load_file"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii*'))]",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "weights": "$load_file(@bundle_root + '/models/model.safetensors')",
        "load_weights": "$@network.load_state_dict(@weights)",
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [look.window] * 3, "overlap": OVERLAP},
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(config.heads)},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": ["$monai.utils.set_determinism(0)", "@load_weights"],
        "run": ["$@evaluator.run()"],
    }


def _postprocessing(heads: tuple[HeadConfig, ...]) -> list[dict[str, Any]]:
    """From joint logits to one label map per head, back on the scan's grid."""
    sizes = [head.channels for head in heads]
    split = f"$lambda logits: torch.cat([part.argmax(0, keepdim=True) for part in logits.split({sizes})])"
    return [
        {"_target_": "Lambdad", "keys": "pred", "func": split},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": True,
            "to_tensor": True,
        },
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "labels"},
    ]
