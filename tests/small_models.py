"""Networks small enough for tests, of every architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import ROOT

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import BackboneConfig, HeadConfig, LookConfig, ModelConfig

HEADS = (HeadConfig.builtin("heart"), HeadConfig.builtin("hps"))
LOOKS = (LookConfig("heart", 2.0, 32, ("heart", "hps")),)

BACKBONES = {
    "swin of three stages": BackboneConfig("swin_unetr", 12, (1, 1, 1), (3, 6, 12), 4),
    "swin of four stages": BackboneConfig("swin_unetr", 12, (1, 1, 1, 1), (3, 6, 12, 24), 2),
    "unetr": BackboneConfig("unetr", 1, image_size=32),
    "residual u-net": BackboneConfig("dynunet", 4, (2, 2, 2)),
    "plain u-net": BackboneConfig("dynunet", 4, (2, 2, 2), residual=False, last_stride=(2, 2, 1)),
}


def small_config(kind: str = "residual u-net", name: str = "small") -> ModelConfig:
    return ModelConfig(name=name, backbone=BACKBONES[kind], heads=HEADS, looks=LOOKS)


def small_model(kind: str = "residual u-net", seed: int = 0, name: str = "small") -> ccf.CardiacCTModel:
    return ccf.create_model(small_config(kind, name), seed=seed).eval()


def image() -> torch.Tensor:
    """The same noise (1, 1, 32, 32, 32) every time."""
    return torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))


def published_model(root: Path) -> Path:
    """Weights in half precision and shards, published with figures and a picture."""
    return ccf.export_pretrained(
        small_model(),
        root,
        tag="told",
        license="cc-by-4.0",
        metrics={"Held out": {"Dice": 0.875}},
        pictures={ROOT / "docs" / "coronaries.png": "Coronaries"},
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
