"""Publishing weights: a folder ``<name>.<tag>`` in the form that the registry reads, and its card written anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.errors import OutputError, UsageError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.model_folder import rewrite_texts
from cardiac_ct_fm.pretrained import LICENSE, PretrainedModel
from cardiac_ct_fm.weights import resolve

PICTURES = "pictures"
"""Folder beside the card for what it shows."""


def export_pretrained(
    model: PretrainedModel,
    folder: str | Path,
    *,
    tag: str,
    description: str = "",
    license: str = LICENSE,
    metrics: Mapping[str, Any] | None = None,
    pictures: Mapping[Path, str] | None = None,
    default: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Publish weights: write ``folder/<name>.<tag>/`` in the form that the registry reads.

    Args:
        model: the trained model; its ``config.provenance`` says how it was made.
        folder: a folder of weights, for example the package's ``assets``.
        tag: name of these weights, for example ``synthetic``.
        description: one line for people.
        license: SPDX identifier.
        metrics: figures for the model card, each group with what it was measured on.
        pictures: files with their captions for the card, in its order; they are copied.
        default: whether the architecture's name alone means these weights.
        dtype: precision on disk.

    Returns:
        The folder that was written.

    Raises:
        UsageError: the tag is not a word, or a picture is no PNG or JPEG.
        OutputError: the folder cannot be written.
    """
    if not tag.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"tag {tag!r} must be letters, digits, '-' or '_', for example 'synthetic'.")
    shown = _read(pictures or {})
    info = ModelInfo(
        model.config.name,
        tag,
        license=license,
        description=description,
        default=default,
        metrics=dict(metrics or {}),
        pictures={name: caption for name, (_, caption) in shown.items()},
    )
    target = Path(folder) / info.full_name
    model.save_pretrained(target, dtype=dtype, info=info)
    _write(target, {name: data for name, (data, _) in shown.items()})
    return target


def rewrite_card(
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    pictures: Mapping[Path, str] | None = None,
    description: str | None = None,
) -> None:
    """Write the card of published weights anew, and what it is made from; the weights stay to the byte.

    Args:
        folder: what :func:`export_pretrained` wrote.
        provenance: instead of the old one.
        metrics: instead of the old ones.
        pictures: instead of the old ones.
        description: instead of the old one.

    Raises:
        WeightsError: a file of the folder is missing or damaged.
        UsageError: a picture is no PNG or JPEG.
        OutputError: the folder cannot be written.
    """
    target = Path(folder)
    config = ModelConfig.load(resolve(target).config)
    info = ModelInfo.from_manifest(target / MANIFEST)
    shown = None if pictures is None else _read(pictures)
    changes: dict[str, Any] = {"metrics": metrics, "description": description}
    changes["pictures"] = None if shown is None else {name: caption for name, (_, caption) in shown.items()}
    info = dataclasses.replace(info, **{key: value for key, value in changes.items() if value is not None})
    rewrite_texts(target, config if provenance is None else config.replace(provenance=dict(provenance)), info)
    if shown is not None:
        _write(target, {name: data for name, (data, _) in shown.items()})


def _read(pictures: Mapping[Path, str]) -> dict[str, tuple[bytes, str]]:
    """Name in the model folder → content and caption; read before anything is written.

    Raises:
        UsageError: not there, no PNG or JPEG, or two of one name.
    """
    read: dict[str, tuple[bytes, str]] = {}
    for path, caption in pictures.items():
        name = f"{PICTURES}/{path.name}"
        if not path.is_file() or path.suffix not in (".png", ".jpg", ".jpeg"):
            raise UsageError(f"{path} is no picture for a card; give a .png or .jpg file that exists.")
        if name in read:
            raise UsageError(f"two pictures are called {path.name}; rename one, the card keeps them in one folder.")
        read[name] = path.read_bytes(), caption
    return read


def _write(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write pictures and take older ones away.

    Raises:
        OutputError: the file system refuses.
    """
    for name, data in pictures.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(data)
    for stale in (folder / PICTURES).glob("*"):
        if f"{PICTURES}/{stale.name}" not in pictures:
            try:
                stale.unlink()
            except OSError as error:
                raise OutputError(
                    f"{stale} is no picture of the card and cannot be taken away ({error.strerror or error}); remove "
                    "it and write the card again."
                ) from error
