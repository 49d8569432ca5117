"""Where a training stands, in one safetensors file that is replaced whole: weights, moments, averages, history.

Also what is removed when nothing of it is needed any more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.files import UNFINISHED, atomic_write
from cardiac_ct_fm.tensor_files import read_metadata, read_tensors

STATE_FILE = "state.safetensors"

CACHE_FOLDER = ".features"
"""Subfolder of the trunk's features while a head is trained."""


@dataclass
class Standing:
    """Numbers and history beside the tensors.

    Attributes:
        epoch: epochs done.
        updates: updates done.
        best: the best validation Dice so far, None before the first.
        best_epoch: when that was.
        seconds: time spent.
        history: one row per epoch.
    """

    epoch: int = 0
    updates: int = 0
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        """A sentence where the head found nothing of the validation scans, None where it did."""
        if self.best != 0:
            return None
        return (
            f"The head is of no use yet: it met no label of the validation scans in {self.epoch} epochs (Dice 0). "
            "Check these labels, or train longer, on more scans or more of the network (decoder)."
        )


def save_state(folder: Path, tensors: Mapping[str, Tensor], standing: Standing, fingerprint: str) -> None:
    """Replace the state file.

    Args:
        folder: of the training.
        tensors: everything that has a shape, float32.
        standing: everything else.
        fingerprint: identity of model, data and settings.

    Raises:
        OutputError: the file system refuses.
    """
    about = {"format": "pt", "standing": json.dumps(asdict(standing)), "fingerprint": fingerprint}
    with atomic_write(folder / STATE_FILE) as temporary:
        save_file(dict(tensors), str(temporary), metadata=about)


def load_state(folder: Path, fingerprint: str) -> tuple[dict[str, Tensor], Standing] | None:
    """The state of an interrupted training, None where there is none.

    Raises:
        UsageError: it belongs to another model, data or settings.
        WeightsError: the file is damaged.
    """
    if not holds_state(folder):
        return None
    file = folder / STATE_FILE
    about = read_metadata(file)
    if about.get("fingerprint") != fingerprint:
        raise UsageError(
            f"{folder} holds a training with another model, other data or other settings; choose another folder, or "
            "remove it to start anew."
        )
    return read_tensors([file]), Standing(**json.loads(about["standing"]))


def holds_state(folder: Path) -> bool:
    """Whether a training, no matter which, has finished an epoch in the folder; its state may be damaged."""
    return (folder / STATE_FILE).exists()


def tidy(folder: Path, result: Path) -> None:
    """Remove what was only needed to go on (state, cache of features) and what a killed run left half written.

    Args:
        folder: of the training; its subfolders are other people's.
        result: what the training gave; where it is a folder, it is the training's too.
    """
    (folder / STATE_FILE).unlink(missing_ok=True)
    _sweep(folder)
    if result.is_dir():
        _sweep(result)


def withdraw(folder: Path) -> None:
    """Leave nothing of a training that did not begin; to be called only where there was no state before."""
    _sweep(folder)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _sweep(folder: Path) -> None:
    """Remove the cache of features and everything half written that lies in the folder itself."""
    shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
    for left in folder.glob(f"{UNFINISHED}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def best_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The best averaged weights in a state."""
    return {name.removeprefix("best."): t for name, t in tensors.items() if name.startswith("best.")}


def with_best(tensors: dict[str, Tensor], best: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state and the best averaged weights in one table."""
    return tensors | {
        f"best.{name}": tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in best.items()
    }


def same_device(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}
