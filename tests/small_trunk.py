"""A network that fine-tuning tests put heads on, and how two heads are compared."""

from __future__ import annotations

from pathlib import Path

import torch
from small_models import small_config

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.training.finetune import FinetuneResult
from cardiac_ct_fm.training.settings import FinetuneSettings

SETTINGS = FinetuneSettings(epochs=3, patch=16, windows=2, looks=("heart",))
RESULTS = ["finetune.json", "history.csv", "history.png", "montage.png", "ventricle.safetensors"]
LOOKS = (LookConfig("heart", 4.0, 16, ("heart", "hps")), LookConfig("root", 2.0, 16, ("heart", "hps")))


def trunk(seed: int = 0) -> ccf.CardiacCTModel:
    return ccf.create_model(small_config().replace(looks=LOOKS), seed=seed).eval()


@torch.no_grad()
def logits(model: ccf.CardiacCTModel) -> dict[str, torch.Tensor]:
    return model(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)))


def head_of(result: FinetuneResult) -> dict[str, torch.Tensor]:
    return dict(result.model.heads[result.head].state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
