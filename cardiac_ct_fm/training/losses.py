"""Losses for partially labelled looks: Dice + cross-entropy per head, summed over the labels that a look has."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch itself documents
from torch import Tensor


def dice_ce(logits: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Soft Dice over the classes that are present, plus cross-entropy over all voxels.

    Dice is pooled over the batch and leaves the background out, as nnU-Net's (Isensee et al. 2021); a class that
    is in no target contributes through the cross-entropy alone, because its Dice would only reward silence.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels 0…C-1.
        weights: (C,) class weights of the cross-entropy.

    Returns:
        Scalar, at least 0 up to rounding; 0 is perfect.
    """
    target = target.long()
    logits = logits.float()
    entropy = F.cross_entropy(logits, target, weight=weights)
    probability = logits.softmax(1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probability.dtype)
    axes = (0, 2, 3, 4)
    overlap = (probability * truth).sum(axes)[1:]
    total = (probability.sum(axes) + truth.sum(axes))[1:]
    present = truth.sum(axes)[1:] > 0
    if not present.any():
        return entropy
    dice = (2 * overlap + 1.0) / (total + 1.0)
    return entropy + (1 - dice)[present].mean()


def partial_label_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Sum of :func:`dice_ce` over the heads that have a target.

    Args:
        logits: (B, C, X, Y, Z) per head.
        targets: (B, X, Y, Z) per labelled head.

    Returns:
        The loss, and each head's part as a number.

    Raises:
        KeyError: a target has no logits.
    """
    parts = {head: dice_ce(logits[head], target) for head, target in targets.items()}
    total = torch.stack(list(parts.values())).sum()
    return total, {head: float(part.detach()) for head, part in parts.items()}
