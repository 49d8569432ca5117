"""Optimizer, cosine schedule and averaged weights by timm, imported when a training begins.

timm imports torchvision, and beside a CPU build of torch a torchvision built for CUDA cannot register its own
operators; see :func:`timm_parts`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cardiac_ct_fm.errors import MissingExtraError

WARMUP_SHARE = 0.05
"""Share of all updates over which the learning rate rises from nothing."""

AVERAGE_DECAY = 0.995
"""Largest decay of the averaged weights: they remember about 200 updates."""

_OPERATORS = ("nms", "qnms")
"""Operators that torchvision's Python code declares meta functions for, and that its binary should have defined."""

_defined: list[Any] = []
"""Keeps the definitions alive: a library that is collected takes its operators with it."""


@dataclass(frozen=True)
class TimmParts:
    """The three pieces of timm that training uses."""

    create_optimizer: Any
    cosine: Any
    average: Any


def timm_parts() -> TimmParts:
    """Import timm.

    Where torchvision's binary does not fit torch, ``import torchvision`` ends with "operator torchvision::nms does not
    exist" (seen with torch 2.13.0+cpu, torchvision 0.28, timm 1.0.31). Its operators are not needed here; declaring
    them, without an implementation, lets the import pass. It is done only after the import has failed.

    Raises:
        MissingExtraError: timm is not installed.
    """
    try:
        return _imported()
    except ImportError as error:
        raise MissingExtraError("Training (optimizer, schedule, averaged weights by timm)", "train") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library: Any = importlib.import_module("torch.library").Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _defined.append(library)
    return _imported()


def _imported() -> TimmParts:
    optim = importlib.import_module("timm.optim")
    scheduler = importlib.import_module("timm.scheduler")
    utils = importlib.import_module("timm.utils")
    return TimmParts(optim.create_optimizer_v2, scheduler.CosineLRScheduler, utils.ModelEmaV3)


class Schedule:
    """Optimizer, learning rate and averaged weights of a training.

    Args:
        network: what is trained; its average is kept.
        groups: parameter groups, each with its own ``lr`` and ``weight_decay``.
        updates: number of updates of the whole training.

    Attributes:
        optimizer: AdamW.
        average: a copy of ``network`` with averaged weights, in evaluation mode.
    """

    def __init__(self, network: nn.Module, groups: list[dict[str, Any]], updates: int) -> None:
        timm = timm_parts()
        self.network = network
        self.optimizer: torch.optim.Optimizer = timm.create_optimizer(groups, opt="adamw", lr=groups[0]["lr"])
        warmup = max(1, round(WARMUP_SHARE * updates))
        self._cosine = timm.cosine(
            self.optimizer, t_initial=updates, warmup_t=warmup, warmup_lr_init=0.0, t_in_epochs=False
        )
        self._average = timm.average(network, decay=AVERAGE_DECAY, use_warmup=True)
        self.updates = 0

    @property
    def average(self) -> nn.Module:
        """The network with averaged weights."""
        module: nn.Module = self._average.module
        return module

    @property
    def lr(self) -> float:
        """Learning rate of the last group, the heads'."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def step(self) -> None:
        """One update: the optimizer with this update's learning rate, then the average."""
        self._cosine.step_update(self.updates + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self._average.update(self.network, step=self.updates)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that :meth:`load` needs beside the number of updates."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in moments(self.optimizer).items()}
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, torch.Tensor], updates: int) -> None:
        """Go on where :meth:`state` was taken."""
        self.updates = updates
        self.network.load_state_dict(part(tensors, "network."))
        self.average.load_state_dict(part(tensors, "average."))
        load_moments(self.optimizer, part(tensors, "optimizer."))


def moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer remembers, by the parameter's number (``0.exp_avg``)."""
    return {
        f"{i}.{key}": torch.as_tensor(value)
        for i, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state[parameter].items()
    }


def load_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`moments` gave. Adam counts its steps on the CPU, its moments live with the parameter."""
    for i, parameter in enumerate(_parameters(optimizer)):
        own = part(tensors, f"{i}.")
        if own:
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                for key, value in own.items()
            }


def part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose name begins with ``prefix``, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
