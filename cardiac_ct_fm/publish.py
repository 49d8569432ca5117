"""Publishing weights: a folder ``<name>.<tag>`` in the form that the registry reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.manifest import ModelInfo
from cardiac_ct_fm.pretrained import LICENSE, PretrainedModel


def export_pretrained(
    model: PretrainedModel,
    folder: str | Path,
    *,
    tag: str,
    description: str = "",
    license: str = LICENSE,
    metrics: Mapping[str, Any] | None = None,
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
        default: whether the architecture's name alone means these weights.
        dtype: precision on disk.

    Returns:
        The folder that was written.

    Raises:
        UsageError: the tag is not a word.
        OutputError: the folder cannot be written.
    """
    if not tag.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"tag {tag!r} must be letters, digits, '-' or '_', for example 'synthetic'.")
    info = ModelInfo(
        model.config.name, tag, license=license, description=description, default=default, metrics=dict(metrics or {})
    )
    target = Path(folder) / info.full_name
    model.save_pretrained(target, dtype=dtype, info=info)
    return target
