"""Losses for partially labelled looks: Dice + cross-entropy per head, summed over the labels that a look has."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
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


POINT_WEIGHT = 20.0
"""Weight of a sphere's voxels against the background's in the cross-entropy of landmark heads.

A sphere of 4 mm fills 0.1 % of a 64³ look at 1 mm. With weight 1 the spheres were still unlearned after 600 steps
(loss 1.03, a Dice near 0); five spheres at 20 weigh a tenth of the background.
"""


CENTRE_VOXELS = 4.0
"""The unit of distances in :func:`centre_loss`: the radius of a landmark's sphere in a look at 1 mm."""

NEAR_VOXELS = 8.0
"""How far around a labelled sphere :func:`centre_loss` looks: the haze of a whole look would outweigh the sphere, and
one point that is missed all others."""


def centre_loss(logits: Tensor, target: Tensor) -> Tensor:
    """How far the middle of each predicted sphere lies from the middle of the labelled one, near the latter.

    The overlap of two spheres hardly changes where they nearly meet; this term does. A predicted middle is the mean of
    the voxels within :data:`NEAR_VOXELS`, weighted with the square of their probability; where hardly any probability
    is, the distance counts less, down to nothing, and the overlap alone has to bring the sphere.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels 0…C-1.

    Returns:
        Scalar: mean distance in units of :data:`CENTRE_VOXELS` over the spheres that are there, 0 where there are none.
    """
    probability = logits.float().softmax(1)
    axes = [torch.arange(edge, device=target.device, dtype=torch.float32) for edge in target.shape[1:]]
    away = []
    for sample, labels in zip(probability, target, strict=True):
        for number in labels.unique().tolist():
            if number == 0:
                continue
            middle = (labels == number).nonzero().float().mean(0)
            near = [(axis - m).abs() <= NEAR_VOXELS for axis, m in zip(axes, middle, strict=True)]
            offsets = torch.stack(
                torch.meshgrid(*(a[n] - m for a, n, m in zip(axes, near, middle, strict=True)), indexing="ij")
            )
            box = tuple(slice(int(n.nonzero()[0]), int(n.nonzero()[-1]) + 1) for n in near)
            weight = sample[(number, *box)].square() * (offsets.norm(dim=0) <= NEAR_VOXELS)
            mean = (offsets * weight).sum((1, 2, 3)) / (weight.sum() + 1.0)
            away.append((mean.square().sum() + 1e-4).sqrt())
    return torch.stack(away).mean() / CENTRE_VOXELS if away else logits.new_zeros((), dtype=torch.float32)


def partial_label_loss(
    logits: dict[str, Tensor],
    targets: dict[str, Tensor],
    points: Collection[str] = ("hps", "ms"),
    centre_weight: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Sum of :func:`dice_ce` over the heads that have a target.

    Args:
        logits: (B, C, X, Y, Z) per head.
        targets: (B, X, Y, Z) per labelled head.
        points: the heads that are landmark heads; their classes weigh :data:`POINT_WEIGHT` in the cross-entropy.
        centre_weight: factor on the :func:`centre_loss` of landmark heads.

    Returns:
        The loss, and each head's part as a number.

    Raises:
        KeyError: a target has no logits.
    """
    parts = {}
    for head, target in targets.items():
        weights = None
        if head in points:
            weights = torch.full((logits[head].shape[1],), POINT_WEIGHT, device=target.device)
            weights[0] = 1.0
        parts[head] = dice_ce(logits[head], target, weights=weights)
        if head in points and centre_weight > 0:
            parts[head] = parts[head] + centre_weight * centre_loss(logits[head], target)
    total = torch.stack(list(parts.values())).sum()
    return total, {head: float(part.detach()) for head, part in parts.items()}
