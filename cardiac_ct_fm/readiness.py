"""What a model needs to predict from whole scans (a head and looks that find the heart, float32), and its cautions."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch

from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.look_config import LookName
from cardiac_ct_fm.model import CardiacCTModel

NEEDED: tuple[LookName, ...] = ("locate", "heart", "root")
"""Looks that prediction takes, each where the one before points."""

FAST = (
    'Quality "fast" sees the root at 2 mm and does not look again at its points: they may lie far off and be sure. '
    'Measure at quality "standard".'
)
"""On the demonstration scan a hinge point was 9 mm off with a confidence of 0.81, and the annulus 37 % too large."""

FEW_ROUNDS = 10
"""Of fewer federated rounds from random weights nothing can be expected: in 24 small ones a network with all heads
found 96 % of the points (``docs/federation.md``); a choice of this project."""

WINDOWS_ALONE = "For logits of a window the model is enough: model(x)."


def cautions(model: CardiacCTModel, quality: str, points: Collection[str]) -> list[str]:
    """Sentences for the user about the weights and the quality, where points were asked for.

    Args:
        model: that predicted.
        quality: of the prediction.
        points: names of the points that were looked for.
    """
    said = [FAST] if quality == "fast" and points else []
    facts = model.config.provenance
    rounds = facts.get("rounds")
    if isinstance(rounds, int) and rounds < FEW_ROUNDS and facts.get("start_from") == "nothing":
        said.append(
            f"{model.config.name} was trained in {rounds} federated rounds from random weights: that shows that a "
            "federation runs, and finds nothing that can be relied on."
        )
    return said


def ready(model: CardiacCTModel, device: torch.device) -> CardiacCTModel:
    """The model itself where it is in evaluation mode, in float32 and on the device; else a copy that is.

    The caller's model is never changed: it may be in training. Other precisions are what many CPUs refuse.

    Raises:
        UsageError: it has no head or not the looks that find a heart, or sees more than the image.
    """
    config = model.config
    if "heart" not in model.heads:
        raise UsageError(
            f"{config.name} has no head 'heart', which finds the heart in a scan; load it too, heads=['heart', …], or "
            f"train it. {WINDOWS_ALONE}"
        )
    if config.condition_on_seg:
        raise UsageError(
            f"{config.name} is conditioned on a heart segmentation, which a scan does not bring; predict with a model "
            "that sees the image alone. With one at hand: model(x, segmentation=…) gives the logits of a window."
        )
    looks = [look.name for look in config.looks]
    missing = [name for name in NEEDED if name not in looks]
    if missing:
        raise UsageError(
            f"{config.name} has no look {', '.join(map(repr, missing))} (it has {', '.join(looks) or 'none'}), and a "
            f"whole scan needs {', '.join(NEEDED)}; converted checkpoints were trained at one spacing. Train its trunk "
            f"at these, with config.replace(looks=…). {WINDOWS_ALONE}"
        )
    place = torch.empty(0, device=device).device  # "cuda" is "cuda:0" for a tensor
    tensors = [*model.parameters(), *model.buffers()]
    fits = all(t.device == place and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors)
    if fits and not any(module.training for module in model.modules()):
        return model
    return copy.deepcopy(model).to(device, torch.float32).eval()
