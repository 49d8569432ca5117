"""Which network a step trains: architecture, size, heads and looks, as a :class:`cardiac_ct_fm.config.ModelConfig`."""

from __future__ import annotations

import dataclasses

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import BackboneConfig, HeadConfig, LookConfig, ModelConfig
from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.registry import architecture
from recipes.federated_distillation.settings import Settings

SMOKE_LOOKS = (
    LookConfig("locate", 8.0, 32, ("heart",)),
    LookConfig("heart", 5.0, 32, ("heart", "hps", "ms")),
    LookConfig("root", 2.0, 32, ("heart", "hps", "ms", "calc")),
)
"""Coarse looks of 32³ voxels, for networks that prove the plumbing in seconds; not meant to be accurate."""

_SMOKE = {
    "swin_unetr": BackboneConfig("swin_unetr", 12, (1, 1, 1), (3, 6, 12), 4),
    "unet": BackboneConfig("dynunet", 8, (2, 2, 2)),
    "unetr": BackboneConfig("unetr", 1, image_size=32),
}

_NAMES = {
    ("swin_unetr", "tiny"): "cardiac_swin_tiny",
    ("swin_unetr", "small"): "cardiac_swin_small",
    ("swin_unetr", "base"): "cardiac_swin_base",
    ("unet", "tiny"): "cardiac_unet_small",
    ("unet", "small"): "cardiac_unet_small",
    ("unet", "base"): "cardiac_unet_base",
    ("unetr", "tiny"): "cardiac_unetr_base",
    ("unetr", "small"): "cardiac_unetr_base",
    ("unetr", "base"): "cardiac_unetr_base",
}
"""Architectures of the registry; there is one UNETR and there are two U-Nets."""

LEARNING_RATE = {"swin_unetr": 8e-4, "unetr": 8e-4, "dynunet": 1e-2}
"""The paper's, read from its code: AdamW, 8e-4 for transformers, 1e-2 for the U-Net."""


def network(settings: Settings, kind: str, heads: tuple[str, ...]) -> ModelConfig:
    """The network of one kind.

    Args:
        settings: the experiment.
        kind: ``teacher`` (a task network that teaches) or ``student`` (what comes out).
        heads: the heads that it has.
    """
    family = settings.teacher_type if kind == "teacher" else settings.model_type
    if settings.size == "smoke":
        config = ModelConfig(
            name=f"cardiac_{family.removesuffix('_unetr')}_smoke", backbone=_SMOKE[family], looks=SMOKE_LOOKS
        )
    else:
        config = architecture(_NAMES[family, settings.size])
    config = config.with_heads(HeadConfig.builtin(h) for h in heads)
    if settings.condition_on_seg and "heart" not in heads:
        channels = 1 + len(HEADS["heart"].classes)
        backbone = dataclasses.replace(config.backbone, in_channels=channels)
        config = config.replace(backbone=backbone, condition_on_seg=True)
    return config


def shared_looks(settings: Settings, config: ModelConfig) -> tuple[LookConfig, ...]:
    """The looks of a network with all heads: windows are drawn for all of them, and networks with few share them."""
    return SMOKE_LOOKS if settings.size == "smoke" else architecture(config.name).looks


def window(settings: Settings, config: ModelConfig) -> int:
    """Edge in voxels of the windows that this network is trained on.

    Raises:
        ConfigError: the network cannot take windows of ``settings.patches``.
    """
    whole = min(look.window for look in config.looks)
    if not settings.patches:
        return whole
    step, backbone = config.backbone.divisor, config.backbone
    if backbone.architecture == "unetr" and settings.patches != backbone.image_size:
        raise ConfigError(
            f"patches is {settings.patches}; the position embedding of {config.name} is made for "
            f"{backbone.image_size} voxels. Give {backbone.image_size}, or 0 for the whole look."
        )
    if settings.patches % step or settings.patches > whole or settings.patches < 2 * step:
        sizes = [str(n) for n in range(2 * step, whole + 1, step)]
        raise ConfigError(
            f"patches is {settings.patches}; {config.name} takes {', '.join(sizes)} or 0 (the whole look)."
        )
    return settings.patches


def begins_at_checkpoint(settings: Settings, config: ModelConfig) -> bool:
    """Whether a network begins at ``settings.ckpt``: the one that comes out, and teachers that have its trunk."""
    if settings.task != "kd":
        return bool(settings.ckpt)  # there are no teachers
    return bool(settings.ckpt) and config.backbone == network(settings, "student", ("heart",)).backbone


def learning_rate(settings: Settings, config: ModelConfig) -> float:
    """The chosen learning rate, or the architecture's own.

    With a checkpoint the chosen one is for what begins there; teachers from nothing learn at their own.
    """
    own = LEARNING_RATE[config.backbone.architecture]
    return (settings.lr or own) if begins_at_checkpoint(settings, config) or not settings.ckpt else own
