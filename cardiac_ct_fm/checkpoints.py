"""Other people's checkpoints: how they are read without running code, and what their keys mean here.

Known layouts: the research code of Tölle et al. (npj Digital Medicine 2025) with its three trunks, MONAI's SwinUNETR,
and the self-supervised Swin encoder of Tang et al. (CVPR 2022) as MONAI's ``load_from`` takes it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import BackboneConfig, HeadConfig
from cardiac_ct_fm.errors import WeightsError
from cardiac_ct_fm.tensor_files import read_tensors

Merging = Literal["monai", "monai<1.5"]

SETTINGS = ("fed_task", "patches", "deep_supervision", "condition_on_seg", "output_seg")
"""Settings that the research code keeps as buffers in its state dicts."""

TASK_HEADS = {1: "hps", 2: "ms", 3: "calc"}
"""``fed_task`` of the research code → the one head that was trained; 0 is distillation, which trains all."""

ORIGINAL_AXES = "SPL"
"""Axes of the research code's arrays: SimpleITK's (z, y, x) of an image whose axes are LPS."""

IMAGE_WEIGHTS = (
    "swinViT.patch_embed.proj.weight",
    "vit.patch_embedding.patch_embeddings.weight",
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
    "input_block.conv1.conv.weight",
)
"""Weights that see the input's channels."""

_NNUNET_CONV = re.compile(r"(encoder|decoder)\.stages\.(\d+)\.(?:0\.)?convs\.(\d)\.(conv|norm)\.(weight|bias)")
_NNUNET_UP = re.compile(r"decoder\.transpconvs\.(\d+)\.(weight|bias)")


@dataclass
class Layout:
    """A checkpoint in this package's terms.

    Attributes:
        kind: what was recognised, in words.
        backbone: the trunk that its shapes describe.
        trunk: tensors by their names in the trunk.
        heads: weight and bias by head name.
        settings: what the checkpoint says about itself.
        left_out: heads that were in the file but not trained.
    """

    kind: str
    backbone: BackboneConfig
    trunk: dict[str, Tensor]
    heads: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, floats as float32, without containers and the prefix of data parallel training.

    Raises:
        WeightsError: missing, damaged, or holding more than tensors; such a file is not opened further.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; give the path of a checkpoint.")
    if path.suffix == ".safetensors":
        raw: Any = read_tensors([path])
    else:
        try:
            raw = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0][:120]
            raise WeightsError(
                f"{path} cannot be read as tensors alone ({reason}); save its state dict with torch.save and try again."
            ) from error
    while isinstance(raw, dict) and not any(isinstance(v, Tensor) for v in raw.values()):
        inner = next((raw[key] for key in ("state_dict", "model", "model_state_dict", "net") if key in raw), None)
        if inner is None:
            break
        raw = inner
    if not isinstance(raw, dict) or not raw or not all(isinstance(v, Tensor) for v in raw.values()):
        raise WeightsError(f"{path} holds no state dict; save model.state_dict() and try again.")
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value for key, value in raw.items()
    }


def recognise(state: Mapping[str, Tensor], merging: Merging | None) -> Layout:
    """Translate a state dict.

    Args:
        state: what :func:`read_checkpoint` gave.
        merging: which patch merging a Swin trunk was trained with; None leaves it to what the layout says.

    Raises:
        WeightsError: not one of the known layouts.
    """
    settings = {key: float(state[key]) for key in SETTINGS if key in state}
    plain = {key: value for key, value in state.items() if key not in SETTINGS}
    if any(key.startswith("swin_unetr.") for key in plain):
        trunk = _below(plain, "swin_unetr.")
        config = _swin_config({k: v for k, v in trunk.items() if not k.startswith("out.")}, merging or "monai<1.5")
        return _original("SwinUNETR of the research code", config, trunk, _conv_heads(plain, "outs."), settings)
    if any(key.startswith("seg_layers.") for key in plain):
        return _original("U-Net of the research code", *_nnunet(plain), _finest_heads(plain), settings)
    if any(key.startswith("vit.") for key in plain):
        trunk = {k: v for k, v in plain.items() if not k.startswith("outs.")}
        return _original(
            "UNETR of the research code", _unetr_config(trunk), trunk, _conv_heads(plain, "outs."), settings
        )
    if "encoder1.layer.conv1.conv.weight" in plain and any(key.startswith("swinViT.") for key in plain):
        config = _swin_config(plain, merging or "monai")
        heads = {"out": (plain["out.conv.conv.weight"], plain["out.conv.conv.bias"])}
        return Layout("MONAI SwinUNETR", config, _without(plain, "out."), heads)
    encoder = {
        re.sub(r"\.fc([12])\.", r".linear\1.", key.removeprefix("swinViT.").removeprefix("encoder.")): value
        for key, value in plain.items()
    }
    if "patch_embed.proj.weight" in encoder and any(key.startswith("layers1.") for key in encoder):
        wanted = {f"swinViT.{k}": v for k, v in encoder.items() if k.startswith(("patch_embed.", "layers"))}
        return Layout("self-supervised Swin encoder", _swin_config(wanted, merging or "monai<1.5"), wanted)
    raise WeightsError(
        f"The checkpoint has no known layout (its first keys: {', '.join(list(state)[:3])}); known are the research "
        "code's SwinUNETR, U-Net and UNETR, MONAI's SwinUNETR and self-supervised Swin encoders."
    )


def head_config(name: str, channels: int, classes: Iterable[str] | None = None) -> HeadConfig:
    """A head of the vocabulary where name and size agree, else one with the given or numbered classes.

    Raises:
        WeightsError: the number of classes does not fit the weights.
    """
    if classes is None and name in HEADS and HEADS[name].channels == channels:
        return HeadConfig.builtin(name)
    named = tuple(classes) if classes is not None else tuple(f"{name}_{i}" for i in range(1, channels))
    if len(named) + 1 != channels:
        raise WeightsError(
            f"The head {name!r} has {channels} channels, background included, but {len(named)} classes were "
            f"named ({', '.join(named)}); name {channels - 1}."
        )
    return HeadConfig(name, "segmentation", named)


def _original(
    kind: str,
    config: BackboneConfig,
    trunk: dict[str, Tensor],
    heads: dict[str, tuple[Tensor, Tensor]],
    settings: dict[str, float],
) -> Layout:
    """A checkpoint of the research code: its axes, its label channel made one-hot, its trained heads."""
    if config.in_channels == 2:
        trunk = {k: one_hot_input(v) if k in IMAGE_WEIGHTS else v for k, v in trunk.items()}
    task = TASK_HEADS.get(int(settings.get("fed_task", 0)))
    trained = {
        n: w for n, w in heads.items() if task is None or n == task or (n == "heart" and settings.get("output_seg"))
    }
    channels = 1 + len(HEADS["heart"].classes) if config.in_channels == 2 else config.in_channels
    backbone = BackboneConfig(**{**config.__dict__, "in_channels": channels, "orientation": ORIGINAL_AXES})
    left_out = [name for name in heads if name not in trained]
    return Layout(kind, backbone, _without(trunk, "out."), trained, settings, left_out)


def one_hot_input(weight: Tensor) -> Tensor:
    """Weights for image + integer label channel as weights for image + one-hot label channels: the same function.

    Example:
        A convolution that sees label 3 as the number 3 with weight w sees its one-hot channel with weight 3·w.
    """
    labels = torch.arange(1.0, 1 + len(HEADS["heart"].classes)).view(1, -1, *[1] * (weight.ndim - 2))
    return torch.cat([weight[:, :1], weight[:, 1:2] * labels], dim=1)


def _swin_config(trunk: Mapping[str, Tensor], merging: Merging) -> BackboneConfig:
    """Sizes of a Swin trunk from its tensors."""
    if any("layers1c." in key for key in trunk):
        raise WeightsError("The checkpoint is a SwinUNETR version 2 (use_v2=True); only version 1 is known here.")
    embed = trunk["swinViT.patch_embed.proj.weight"]
    blocks = [
        [k for k in trunk if re.match(rf"swinViT\.layers{i}\.0\.blocks\.\d+\.norm1\.weight", k)] for i in range(1, 5)
    ]
    tables = [
        trunk[f"swinViT.layers{i + 1}.0.blocks.0.attn.relative_position_bias_table"] for i, b in enumerate(blocks) if b
    ]
    edge = round(len(tables[0]) ** (1 / 3))
    return BackboneConfig(
        "swin_unetr",
        embed.shape[0],
        tuple(len(b) for b in blocks if b),
        tuple(t.shape[1] for t in tables),
        window_size=(edge + 1) // 2,
        in_channels=embed.shape[1],
        merging=merging,
    )


def _unetr_config(trunk: Mapping[str, Tensor]) -> BackboneConfig:
    """Sizes of a UNETR from its tensors; its patches have 16 voxels along each axis."""
    tokens = trunk["vit.patch_embedding.position_embeddings"].shape[1]
    first = trunk["encoder1.layer.conv1.conv.weight"]
    return BackboneConfig("unetr", first.shape[0], in_channels=first.shape[1], image_size=16 * round(tokens ** (1 / 3)))


def _nnunet(state: Mapping[str, Tensor]) -> tuple[BackboneConfig, dict[str, Tensor]]:
    """nnU-Net's PlainConvUNet as a plain DynUNet; biases before an instance norm, which have no effect, are dropped."""
    net = _below({re.sub(r"^unet\.", "model.", k): v for k, v in state.items()}, "model.")
    depth = sum(bool(re.fullmatch(r"encoder\.stages\.\d+\.0\.convs\.0\.conv\.weight", k)) for k in net)
    trunk: dict[str, Tensor] = {}
    for key, value in net.items():
        if match := _NNUNET_CONV.fullmatch(key):
            side, stage, conv, part, what = match.groups()
            if part == "conv" and what == "bias":
                continue
            block = f"upsamples.{stage}.conv_block" if side == "decoder" else _dynunet_block(int(stage), depth)
            trunk[f"{block}.{part}{int(conv) + 1}{'.conv' if part == 'conv' else ''}.{what}"] = value
        elif match := _NNUNET_UP.fullmatch(key):
            trunk[f"upsamples.{match[1]}.transp_conv.conv.{match[2]}"] = value
    first, deepest = trunk["input_block.conv1.conv.weight"], trunk["upsamples.0.transp_conv.conv.weight"]
    x, y, z = deepest.shape[2:]
    config = BackboneConfig(
        "dynunet", first.shape[0], (2,) * (depth - 1), in_channels=first.shape[1], residual=False, last_stride=(x, y, z)
    )
    return config, trunk


def _dynunet_block(stage: int, stages: int) -> str:
    """Name of an encoder stage in MONAI's DynUNet."""
    return "input_block" if stage == 0 else "bottleneck" if stage == stages - 1 else f"downsamples.{stage - 1}"


def _conv_heads(state: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Heads kept as MONAI's output blocks, ``<prefix><name>.conv.conv.weight``."""
    names = [k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix) and k.endswith(".weight")]
    return {n: (state[f"{prefix}{n}.conv.conv.weight"], state[f"{prefix}{n}.conv.conv.bias"]) for n in names}


def _finest_heads(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The full-resolution head of each deep supervision list, ``seg_layers.<name>.<i>``, coarse to fine."""
    found: dict[str, int] = {}
    for key in state:
        if match := re.fullmatch(r"seg_layers\.(\w+)\.(\d+)\.weight", key):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]))
    return {n: (state[f"seg_layers.{n}.{i}.weight"], state[f"seg_layers.{n}.{i}.bias"]) for n, i in found.items()}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _without(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefix)}
