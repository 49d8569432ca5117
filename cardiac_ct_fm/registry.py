"""What can be built and what can be loaded: architectures by name, published weights by ``name.tag``. No torch.

Architectures are data in this module. Published weights are described by a ``registry.json`` beside them in
``<name>.<tag>/``, written by :func:`cardiac_ct_fm.export_pretrained`; nothing about a weights file (sha256, metrics,
provenance) is repeated in code. Such folders lie in the package (``assets/``), in ``weights/`` of a clone (what is too
large for the package) and in the folders that the environment variable ``CARDIAC_CT_FM_MODELS`` names, separated as
in ``PATH``. An installed package has no ``weights/``; copies of their ``registry.json`` in ``assets/elsewhere/`` let
it say what there is and where.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from cardiac_ct_fm.config import COMPACT_LOOKS, DEFAULT_LOOKS, BackboneConfig, LookConfig, ModelConfig
from cardiac_ct_fm.errors import UnknownNameError, UsageError, WeightsError
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo

ASSETS = Path(__file__).parent / "assets"
"""Weights that travel inside the package."""

ELSEWHERE = ASSETS / "elsewhere"
"""Descriptions, ``<name>.<tag>.json``, of published weights that are too large for the package."""

MODELS_VARIABLE = "CARDIAC_CT_FM_MODELS"
"""Environment variable with further folders of weights, for example a group's network share."""


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
    return sorted({*ARCHITECTURES, *published, *(info.name for info in published.values()), *absent_models()})


def model_info(name: str) -> ModelInfo:
    """What is known of ``name.tag``, or of ``name``: its default weights where there are any, else the architecture.

    Of several defaults the package's own is meant, or that of the clone. Weights that are published and not here are
    described, with ``pretrained=False``.

    Raises:
        UnknownNameError: no such name.
        UsageError: there are several weights of this name and none is the default.
        WeightsError: the ``registry.json`` of this name, or its description, is damaged.
    """
    published, _ = _published()
    if name in published:
        return published[name]
    tags = [info for info in published.values() if info.name == name]
    defaults = [info for info in tags if info.default]
    own = [[info for info in defaults if info.folder == root / info.full_name] for root in _own_folders()]
    for chosen in (tags, defaults, *own):
        if len(chosen) == 1:
            return chosen[0]
    for folder, error in damaged_models().items():
        if not tags and name in (folder, folder.partition(".")[0]):
            raise error
    if tags:
        raise UsageError(f"{name!r} can be {' or '.join(sorted(i.full_name for i in tags))}; write the one you want.")
    for info in absent_models().values():
        if name == info.full_name or (name == info.name and info.default):
            return info
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
    """Weights that cannot be listed: the name of their folder or description, ``name.tag``, and what is wrong."""
    here, damaged = _published()
    return {**{name: error for name, error in _described()[1].items() if name not in here}, **damaged}


def absent_models() -> dict[str, ModelInfo]:
    """Published weights that are not here, by ``name.tag``: an installed package has no ``weights/``."""
    here, damaged = _published()
    return {name: info for name, info in _described()[0].items() if name not in {*here, *damaged}}


def whereabouts(info: ModelInfo) -> str:
    """Where published weights lie that are not here, and how to use them: the end of a sentence."""
    return (
        f"its {info.size_bytes / 1e6:.0f} MB lie in weights/ of this project's repository and are no part of the "
        "installed package; install a clone with `pip install -e`, or set "
        f"{MODELS_VARIABLE}=CLONE/weights"
    )


def clone_weights() -> Path | None:
    """``weights/`` of the clone that this package runs from, whether it is there or not; None in an installed package.

    A folder beside the package is looked into only where this project's ``pyproject.toml`` lies there too, so that
    nobody else's ``site-packages/weights`` is ever read.
    """
    root = Path(__file__).parents[1]
    try:
        project = (root / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return root / "weights" if re.search(r'^name = "cardiac-ct-fm"$', project, flags=re.MULTILINE) else None


def named_folders() -> list[Path]:
    """Folders of weights that :data:`MODELS_VARIABLE` names, whether they are there or not."""
    return [Path(p) for p in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if p]


def weight_manifests(root: Path) -> tuple[list[Path], dict[Path, OSError]]:
    """``registry.json`` of each model in a folder of weights, and what there cannot be looked into, each with why.

    Raises:
        OSError: the folder itself is not there or cannot be listed.
    """
    manifests: list[Path] = []
    closed: dict[Path, OSError] = {}
    for inside in sorted(root.iterdir()):
        try:
            mode = (inside / MANIFEST).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            closed[inside] = error
            continue
        if stat.S_ISREG(mode):
            manifests.append(inside / MANIFEST)
    return manifests, closed


def _own_folders() -> list[Path]:
    """Folders of weights that belong to this project: the package's, then the clone's."""
    clone = clone_weights()
    return [ASSETS] if clone is None else [ASSETS, clone]


def _published() -> tuple[dict[str, ModelInfo], dict[str, WeightsError]]:
    """Weights by ``name.tag``, and damaged ones; the project's own first, then those of :data:`MODELS_VARIABLE`."""
    found: dict[str, ModelInfo] = {}
    damaged: dict[str, WeightsError] = {}
    for root in (*_own_folders(), *named_folders()):
        try:
            manifests, _ = weight_manifests(root)
        except OSError:  # not there, or closed: doctor tells
            continue
        for manifest in manifests:
            try:
                info = ModelInfo.from_manifest(manifest)
                found.setdefault(info.full_name, info)
            except WeightsError as error:
                damaged.setdefault(manifest.parent.name, error)
    return found, damaged


def _described() -> tuple[dict[str, ModelInfo], dict[str, WeightsError]]:
    """Weights that the package describes, by ``name.tag``, and damaged descriptions."""
    found: dict[str, ModelInfo] = {}
    damaged: dict[str, WeightsError] = {}
    for path in sorted(ELSEWHERE.glob("*.json")):
        try:
            info = ModelInfo.from_manifest(path)
            found[info.full_name] = replace(info, pretrained=False, folder=None)
        except WeightsError as error:
            damaged[path.stem] = error
    return found, damaged
