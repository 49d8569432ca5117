"""The model folder: ``config.json``, safetensors, ``registry.json`` with their sha256, and the model card."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

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


def write_folder(
    folder: str | Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    info: ModelInfo,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> None:
    """Write a model folder; other files in it stay, an older model in it is replaced.

    All files are written to a temporary folder inside and then moved, the configuration last: a folder is readable
    when it is whole, and the sha256 in ``registry.json`` shows a mixture.

    Raises:
        OutputError: the folder cannot be written.
        WeightsError: a weight does not fit into ``dtype``.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target) as temporary:
            written = _write(Path(temporary), config, weights, info, dtype, max_shard_bytes)
            (target / CONFIG_FILE).unlink(missing_ok=True)
            for stale in [path for path in target.iterdir() if _TENSORS.fullmatch(path.name)]:
                stale.unlink()
            for path in written:
                path.replace(target / path.name)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}. Choose another folder.") from error


def _write(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    info: ModelInfo,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> list[Path]:
    """All files of a model folder, the configuration last."""
    tensors = write_model(folder, weights, dtype, max_shard_bytes)
    settings, manifest, card = folder / CONFIG_FILE, folder / MANIFEST, folder / CARD
    settings.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    facts = dataclasses.replace(
        info,
        name=config.name,
        heads=tuple(head.name for head in config.heads),
        parameters=sum(tensor.numel() for tensor in weights.values()),
        provenance=config.provenance,
        files={p.name: {"sha256": sha256_of(p), "bytes": p.stat().st_size} for p in (settings, *tensors)},
    )
    manifest.write_text(json.dumps(facts.to_manifest(), indent=2) + "\n", encoding="utf-8")
    card.write_text(model_card(config, facts), encoding="utf-8")
    return [*tensors, card, manifest, settings]
