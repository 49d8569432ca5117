"""A model folder that finds something in every scan: no training, so mechanics can be tested in seconds.

The trunk is random; the heads' biases decide. The heart head prefers the left ventricle everywhere, the landmark
heads one point each within the look, so every stage has something to work on.
"""

from __future__ import annotations

from pathlib import Path

import torch

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import BackboneConfig, LookConfig, ModelConfig

LOOKS = (
    LookConfig("locate", 8.0, 32, ("heart",)),
    LookConfig("heart", 4.0, 32, ("heart", "hps", "ms")),
    LookConfig("root", 2.0, 32, ("heart", "hps", "ms", "calc")),
)


def save_finder(folder: Path, *, finds_heart: bool = True) -> Path:
    """Write the model to ``folder``; with ``finds_heart=False`` it sees background in every scan."""
    config = ModelConfig(name="finder", backbone=BackboneConfig("dynunet", 4, (2, 2)), looks=LOOKS)
    model = ccf.create_model(config, seed=0)
    with torch.no_grad():
        for head in model.heads.values():
            bias = next(p for name, p in head.named_parameters() if name.endswith("bias"))
            bias.zero_()
            bias[0] = 0.0 if finds_heart else 20.0
        if finds_heart:
            heart = next(p for n, p in model.heads["heart"].named_parameters() if n.endswith("bias"))
            heart[3] = 3.0
    model.save_pretrained(folder)
    return folder
