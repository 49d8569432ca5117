"""What can be built and what can be loaded: architectures by name, published weights by ``name.tag``. No torch.

Architectures are data in this module. Published weights are described by a ``registry.json`` beside them in
``assets/<name>.<tag>/``, written by :func:`cardiac_ct_fm.model.export_pretrained`; nothing about a weights file
(sha256, metrics, provenance) is repeated in code.
"""

from __future__ import annotations

from cardiac_ct_fm.config import BackboneConfig, ModelConfig
from cardiac_ct_fm.errors import UnknownNameError

_BACKBONES: dict[str, BackboneConfig] = {
    # The paper's transformer: feature size 48, 96³ windows (Tölle et al. 2025), MONAI's defaults otherwise.
    "cardiac_swin_base": BackboneConfig("swin_unetr", 48, (2, 2, 2, 2), (3, 6, 12, 24), 7),
    # Attention windows of 4 tokens need no padding at 64³ and 96³ in the first stages, where 7 pads 32 → 35 and
    # 24 → 28, and train twice as fast at 64³ (measured on 2 CPU cores).
    "cardiac_swin_small": BackboneConfig("swin_unetr", 24, (2, 2, 2, 2), (3, 6, 12, 24), 4),
    "cardiac_swin_tiny": BackboneConfig("swin_unetr", 24, (2, 2, 2), (3, 6, 12), 4),
    # The published sizes of UNETR (Hatamizadeh et al. 2022): feature size 16, ViT width 768.
    "cardiac_unetr_base": BackboneConfig("unetr", 16),
    # The paper's CNN: six stages, 32 → 320 features.
    "cardiac_unet_base": BackboneConfig("dynunet", 32, (2, 2, 2, 2, 2)),
    "cardiac_unet_small": BackboneConfig("dynunet", 16, (2, 2, 2, 2)),
}

ARCHITECTURES: dict[str, ModelConfig] = {
    name: ModelConfig(name=name, backbone=backbone) for name, backbone in _BACKBONES.items()
}
"""Model configurations by name; each has the core heads and the default looks."""


def architecture(name: str) -> ModelConfig:
    """The configuration of the architecture called ``name``.

    Raises:
        UnknownNameError: no such architecture.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, sorted(ARCHITECTURES))
    return ARCHITECTURES[name]
