"""Pretrained networks for cardiac CT: chambers, valve landmarks, calcium, and heads of your own.

Public names load on first use, so that ``import cardiac_ct_fm`` imports no torch.

Example:
    >>> import cardiac_ct_fm as ccf
    >>> model = ccf.from_pretrained("cardiac_swin_tiny")
    >>> prediction = ccf.Predictor(model)("ct.nii.gz")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cardiac_ct_fm import errors as errors
from cardiac_ct_fm.errors import (
    CardiacCTError,
    ConfigError,
    DataError,
    ImageError,
    MissingExtraError,
    OutputError,
    UnknownNameError,
    UsageError,
    WeightsError,
)

if TYPE_CHECKING:
    from cardiac_ct_fm.exchange import export_bundle, export_onnx
    from cardiac_ct_fm.inference import Predictor
    from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
    from cardiac_ct_fm.outputs import write_outputs
    from cardiac_ct_fm.publish import export_pretrained
    from cardiac_ct_fm.registry import list_models, model_info
    from cardiac_ct_fm.training.finetune import finetune

__version__ = "0.1.0"

_HOMES = {
    "CardiacCTModel": "cardiac_ct_fm.model",
    "Predictor": "cardiac_ct_fm.inference",
    "create_model": "cardiac_ct_fm.model",
    "export_bundle": "cardiac_ct_fm.exchange",
    "export_onnx": "cardiac_ct_fm.exchange",
    "export_pretrained": "cardiac_ct_fm.publish",
    "finetune": "cardiac_ct_fm.training.finetune",
    "from_pretrained": "cardiac_ct_fm.model",
    "list_models": "cardiac_ct_fm.registry",
    "model_info": "cardiac_ct_fm.registry",
    "write_outputs": "cardiac_ct_fm.outputs",
}

__all__ = [
    "CardiacCTError",
    "CardiacCTModel",
    "ConfigError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "OutputError",
    "Predictor",
    "UnknownNameError",
    "UsageError",
    "WeightsError",
    "create_model",
    "errors",
    "export_bundle",
    "export_onnx",
    "export_pretrained",
    "finetune",
    "from_pretrained",
    "list_models",
    "model_info",
    "write_outputs",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted({*globals(), *__all__})
