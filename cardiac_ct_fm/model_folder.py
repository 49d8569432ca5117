"""The model folder: ``config.json``, safetensors, ``registry.json`` with their sha256, and the model card."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.errors import OutputError
from cardiac_ct_fm.files import UNFINISHED
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.model_card import model_card
from cardiac_ct_fm.tensor_files import write_model
from cardiac_ct_fm.weights import CONFIG_FILE, sha256_of

CARD = "README.md"
"""The model card's name, which the Hub shows."""

_TENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")

MADE = re.compile(rf"{_TENSORS.pattern}|pictures/[^/]+\.(png|jpg|jpeg)")
"""Tensors, index and pictures of a model, which go when another model takes its place in a Hub repository."""


def write_folder(
    folder: str | Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    info: ModelInfo,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> None:
    """Write a model folder; other files in it stay, an older model in it is replaced.

    All files are written to a temporary folder inside and then moved, ``registry.json`` first, whose sha256 show a
    mixture, and the configuration last, without which a new folder is none.

    Raises:
        OutputError: the folder cannot be written.
        WeightsError: a weight does not fit into ``dtype``.
    """

    def write(inside: Path) -> list[Path]:
        tensors = write_model(inside, weights, dtype, max_shard_bytes)
        count = sum(tensor.numel() for tensor in weights.values())
        facts = {path.name: _facts(path) for path in tensors}
        return [*tensors, *_write_texts(inside, config, dataclasses.replace(info, parameters=count), facts)]

    _replace(Path(folder), write, stale=_TENSORS)


def copy_folder(folder: str | Path, config: ModelConfig, info: ModelInfo, files: Mapping[str, Path]) -> None:
    """Write a model folder whose files are there already; other files in it stay, an older model in it is replaced.

    Card and ``registry.json`` are written from what is known, not copied. Where the files lie in the folder, nothing
    is done.

    Args:
        folder: the model folder.
        config: the configuration, for the card.
        info: what is known (:func:`cardiac_ct_fm.unchanged.original_files`).
        files: name in the folder → file: pictures, weights, configuration.

    Raises:
        OutputError: the folder cannot be written.
    """
    target = Path(folder)
    if target.resolve() == files[CONFIG_FILE].parent.resolve():
        return

    def write(inside: Path) -> list[Path]:
        for name, path in files.items():
            (inside / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, inside / name)
        return [*(inside / name for name in files), *_write_card(inside, config, info)]

    _replace(target, write, stale=_TENSORS)


def rewrite_texts(folder: str | Path, config: ModelConfig, info: ModelInfo) -> None:
    """Write configuration, ``registry.json`` and card of a model folder anew; its weights stay as they are.

    Args:
        folder: the model folder.
        config: for the same weights.
        info: ``files`` and ``parameters`` as they were.

    Raises:
        OutputError: the folder cannot be written.
    """
    weights = {name: dict(facts) for name, facts in info.files.items() if name != CONFIG_FILE}
    _replace(Path(folder), lambda inside: _write_texts(inside, config, info, weights), stale=None)


def _replace(target: Path, write: Callable[[Path], Sequence[Path]], stale: re.Pattern[str] | None) -> None:
    """Let files be written to a temporary folder inside, then move them over the old ones.

    ``registry.json`` is moved first and the configuration last: until all are moved, the sha256 tell a mixture. What
    an older model leaves over is taken away at the very end, so that an interruption loses no more than it must.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target) as temporary:
            written = write(Path(temporary))
            for path in sorted(written, key=lambda path: (path.name == CONFIG_FILE, path.name != MANIFEST)):
                place = target / path.relative_to(temporary)
                place.parent.mkdir(exist_ok=True)
                path.replace(place)
            names = {path.name for path in written}
            for path in [path for path in target.iterdir() if stale and stale.fullmatch(path.name)]:
                if path.name not in names:
                    path.unlink()
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}. Choose another folder.") from error


def _write_texts(
    folder: Path, config: ModelConfig, info: ModelInfo, weights: Mapping[str, dict[str, Any]]
) -> list[Path]:
    """Card, ``registry.json`` and configuration, in this order.

    Args:
        folder: where to.
        config: of the model.
        info: what else is known.
        weights: ``files`` of :class:`~cardiac_ct_fm.manifest.ModelInfo` without the configuration.
    """
    settings = folder / CONFIG_FILE
    settings.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    facts = dataclasses.replace(
        info,
        name=config.name,
        heads=tuple(head.name for head in config.heads),
        provenance=config.provenance,
        files={settings.name: _facts(settings), **weights},
    )
    return [*_write_card(folder, config, facts), settings]


def _write_card(folder: Path, config: ModelConfig, info: ModelInfo) -> list[Path]:
    """Card and ``registry.json``, from what is known and nothing else."""
    manifest, card = folder / MANIFEST, folder / CARD
    manifest.write_text(json.dumps(info.to_manifest(), indent=2) + "\n", encoding="utf-8")
    card.write_text(model_card(config, info), encoding="utf-8")
    return [card, manifest]


def _facts(path: Path) -> dict[str, Any]:
    """What ``registry.json`` says of a file."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}
