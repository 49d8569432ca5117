"""What can be built and what can be loaded: architectures by name, published weights by ``name.tag``. No torch.

Architectures are data in this module. Published weights are described by a ``registry.json`` beside them in
``assets/<name>.<tag>/``, written by :func:`cardiac_ct_fm.export_pretrained`; nothing about a weights file
(sha256, metrics, provenance) is repeated in code. The environment variable ``CARDIAC_CT_FM_MODELS`` names further
folders of such ``<name>.<tag>`` folders, separated as in ``PATH``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cardiac_ct_fm.config import COMPACT_LOOKS, DEFAULT_LOOKS, BackboneConfig, LookConfig, ModelConfig
from cardiac_ct_fm.errors import UnknownNameError, UsageError, WeightsError

ASSETS = Path(__file__).parent / "assets"
"""Weights that travel inside the package."""

MODELS_VARIABLE = "CARDIAC_CT_FM_MODELS"
"""Environment variable with further folders of weights, for example a group's network share."""

MANIFEST = "registry.json"
"""Name of the file that describes a folder of weights."""

MANIFEST_VERSION = 1
"""Version of ``registry.json``; raised when its meaning changes."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of an architecture, or of one set of weights for it.

    Attributes:
        name: architecture name.
        tag: name of the weights, None for the architecture alone.
        heads: head names.
        parameters: number of weights, trunk and heads together.
        pretrained: whether weights can be loaded by this name.
        license: SPDX identifier of the weights.
        description: one line for people.
        default: whether ``name`` without a tag means these weights.
        files: file name → ``{"sha256": …, "bytes": …}``.
        repo_id: Hub repository that holds the files, None where they lie beside ``registry.json``.
        revision: commit of that repository.
        metrics: measured figures, each with what it was measured on.
        provenance: data, recipe, command, seed.
        folder: where ``registry.json`` was found.
    """

    name: str
    tag: str | None = None
    heads: tuple[str, ...] = ()
    parameters: int = 0
    pretrained: bool = False
    license: str | None = None
    description: str = ""
    default: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    repo_id: str | None = None
    revision: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def full_name(self) -> str:
        """``name.tag``, or the architecture's name."""
        return self.name if self.tag is None else f"{self.name}.{self.tag}"

    @property
    def sha256(self) -> dict[str, str]:
        """File name → sha256."""
        return {name: str(facts["sha256"]) for name, facts in self.files.items()}

    def to_manifest(self) -> dict[str, Any]:
        """The content of ``registry.json``."""
        keys = (
            "name",
            "tag",
            "heads",
            "parameters",
            "license",
            "description",
            "default",
            "files",
            "repo_id",
            "revision",
            "metrics",
            "provenance",
        )
        plain = {key: getattr(self, key) for key in keys}
        return {"format_version": MANIFEST_VERSION, **plain, "heads": list(self.heads)}

    @classmethod
    def from_manifest(cls, path: Path) -> ModelInfo:
        """Read a ``registry.json``.

        Raises:
            WeightsError: not such a file, or of another version.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            version = raw.pop("format_version")
            if version != MANIFEST_VERSION:
                raise WeightsError(
                    f"{path} has format_version {version!r}; this version of cardiac-ct-fm reads {MANIFEST_VERSION}. "
                    "Install the version that wrote it."
                )
            raw["heads"] = tuple(raw["heads"])
            info = cls(**raw, pretrained=True, folder=path.parent)
            if not all(len(digest) == 64 for digest in info.sha256.values()):
                raise WeightsError(
                    f"{path} lists a file without a sha256 of 64 digits; write it again with export_pretrained."
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is not a description of weights ({error}); write it again with export_pretrained."
            ) from error
        return info


@dataclass(frozen=True)
class _Architecture:
    """A backbone and the number of weights of the model with the core heads."""

    backbone: BackboneConfig
    parameters: int
    description: str
    looks: tuple[LookConfig, ...] = DEFAULT_LOOKS


_ARCHITECTURES: dict[str, _Architecture] = {
    # Feature size 48 and 96³ windows are the paper's (Tölle et al., npj Digital Medicine 2025, 8:88).
    "cardiac_swin_base": _Architecture(
        BackboneConfig("swin_unetr", 48, (2, 2, 2, 2), (3, 6, 12, 24), 7),
        62_187_541,
        "the paper's SwinUNETR, feature size 48",
    ),
    # Attention windows of 4 tokens need no padding in the first stages at 64³ and 96³, where 7 pads 32 → 35 and
    # 24 → 28, and train twice as fast at 64³ (measured on 2 CPU cores).
    "cardiac_swin_small": _Architecture(
        BackboneConfig("swin_unetr", 24, (2, 2, 2, 2), (3, 6, 12, 24), 4),
        15_536_569,
        "SwinUNETR, feature size 24",
    ),
    "cardiac_swin_tiny": _Architecture(
        BackboneConfig("swin_unetr", 24, (2, 2, 2), (3, 6, 12), 4),
        4_415_977,
        "SwinUNETR of three stages, feature size 24; below 10 MB in fp16",
        COMPACT_LOOKS,
    ),
    # Feature size 16 and ViT width 768 as published (Hatamizadeh et al. 2022).
    "cardiac_unetr_base": _Architecture(BackboneConfig("unetr", 16), 92_802_563, "UNETR with a ViT-B/16 encoder"),
    # The paper's CNN as its research code builds it: plain blocks, six stages, 32 → 320 features, the last stride
    # 2×2×1.
    "cardiac_unet_base": _Architecture(
        BackboneConfig("dynunet", 32, (2, 2, 2, 2, 2), residual=False, last_stride=(2, 2, 1)),
        30_781_171,
        "the paper's U-Net (nnU-Net, six stages, 32 to 320 features)",
    ),
    "cardiac_unet_small": _Architecture(
        BackboneConfig("dynunet", 16, (2, 2, 2, 2)), 5_690_979, "residual U-Net of five stages, 16 to 256 features"
    ),
}

ARCHITECTURES: dict[str, ModelConfig] = {
    name: ModelConfig(name=name, backbone=entry.backbone, looks=entry.looks) for name, entry in _ARCHITECTURES.items()
}
"""Model configurations by name; each has the core heads."""


def architecture(name: str) -> ModelConfig:
    """The configuration of the architecture called ``name``.

    Raises:
        UnknownNameError: no such architecture.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, sorted(ARCHITECTURES))
    return ARCHITECTURES[name]


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that fit a wildcard pattern, sorted.

    Args:
        pattern: ``*`` and ``?`` as in a shell.
        pretrained: list weights (``name.tag``) instead of architectures.
    """
    names = _published()[0] if pretrained else ARCHITECTURES
    return sorted(name for name in names if fnmatchcase(name, pattern))


def known_names() -> list[str]:
    """All names that :func:`model_info` takes, sorted."""
    published, _ = _published()
    return sorted({*ARCHITECTURES, *published, *(info.name for info in published.values())})


def model_info(name: str) -> ModelInfo:
    """What is known of ``name.tag``, or of ``name``: its default weights where there are any, else the architecture.

    Of several defaults the package's own is meant.

    Raises:
        UnknownNameError: no such name.
        UsageError: there are several weights of this name and none is the default.
        WeightsError: the ``registry.json`` of this name is damaged.
    """
    published, damaged = _published()
    if name in published:
        return published[name]
    tags = [info for info in published.values() if info.name == name]
    defaults = [info for info in tags if info.default]
    for chosen in (tags, defaults, [info for info in defaults if info.folder == ASSETS / info.full_name]):
        if len(chosen) == 1:
            return chosen[0]
    for folder, error in damaged.items():
        if not tags and name in (folder, folder.partition(".")[0]):
            raise error
    if tags:
        raise UsageError(f"{name!r} can be {' or '.join(sorted(i.full_name for i in tags))}; write the one you want.")
    if name not in _ARCHITECTURES:
        raise UnknownNameError("model", name, known_names())
    return architecture_info(name)


def architecture_info(name: str) -> ModelInfo:
    """What is known of an architecture itself, whether there are weights for it or not.

    Raises:
        UnknownNameError: no such architecture.
    """
    heads = tuple(head.name for head in architecture(name).heads)
    entry = _ARCHITECTURES[name]
    return ModelInfo(name, heads=heads, parameters=entry.parameters, description=entry.description)


def damaged_models() -> dict[str, WeightsError]:
    """Weights that cannot be listed: the name of their folder, ``name.tag``, and what is wrong."""
    return _published()[1]


def _published() -> tuple[dict[str, ModelInfo], dict[str, WeightsError]]:
    """Weights by ``name.tag``, and damaged ones; the package's own first, then those of :data:`MODELS_VARIABLE`."""
    found: dict[str, ModelInfo] = {}
    damaged: dict[str, WeightsError] = {}
    for root in (ASSETS, *(Path(p) for p in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if p)):
        for manifest in sorted(root.glob(f"*/{MANIFEST}")):
            try:
                info = ModelInfo.from_manifest(manifest)
                found.setdefault(info.full_name, info)
            except WeightsError as error:
                damaged.setdefault(manifest.parent.name, error)
    return found, damaged
