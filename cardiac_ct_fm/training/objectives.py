"""What a new head is trained for, and what its validation reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.training.losses import POINT_WEIGHT, dice_ce

CLDICE_WEIGHT = 0.5
"""Share of the centreline term for thin trees, the middle of what its authors tried (Shit et al. 2021)."""

MAX_CLASS_WEIGHT = POINT_WEIGHT
"""Largest class weight, that of the spheres of landmark heads in pretraining."""

SKELETON_STEPS = 3
"""Erosions of the soft skeleton: enough for a radius of 3 voxels; a left main of 4.5 mm has 2.3 at 1 mm."""

SKELETON_BLOCK = 32
"""Edge of the block of each window that the centreline term looks at. On whole windows of 64 voxels the soft skeleton
takes 17 times as long as everything else of a head's update (0.77 against 0.045 CPU-s for two windows)."""


def class_weights(voxels: Sequence[int]) -> list[float]:
    """Weights of the cross-entropy that let small structures be learned from few scans.

    The square root of how much rarer a class is than the background, within 1…:data:`MAX_CLASS_WEIGHT`; unweighted,
    a new head says "background" everywhere for hundreds of updates. A class without a voxel weighs 1.

    Args:
        voxels: per class, background first.
    """
    background = max(voxels[0], 1)
    return [1.0, *(min(max((background / n) ** 0.5, 1.0), MAX_CLASS_WEIGHT) if n else 1.0 for n in voxels[1:])]


def head_loss(logits: Tensor, target: Tensor, weights: Sequence[float] | None = None, thin: bool = False) -> Tensor:
    """Dice + cross-entropy, and clDice for thin trees.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels.
        weights: C class weights of the cross-entropy; see :func:`class_weights`.
        thin: whether centrelines count.

    Returns:
        Scalar.
    """
    table = None if weights is None else torch.tensor(weights, device=logits.device)
    loss = dice_ce(logits, target, weights=table)
    if not thin:
        return loss
    return (1 - CLDICE_WEIGHT) * loss + CLDICE_WEIGHT * soft_cldice(logits, target)


def soft_cldice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft clDice of all structures, by MONAI, where each window holds most of them; scalar in 0…1.

    Windows without any have no centreline and are left out; 0 where no window has.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels.
    """
    from monai.losses.cldice import SoftclDiceLoss

    measure = SoftclDiceLoss(iter_=SKELETON_STEPS, include_background=False)
    filled = [i for i, labels in enumerate(target) if bool((labels > 0).any())]
    if not filled:
        return logits.sum() * 0.0
    logits, target = logits[filled], target[filled]
    blocks = [_fullest_block(labels) for labels in target]
    answer = torch.stack([own[(slice(None), *block)] for own, block in zip(logits, blocks, strict=True)])
    labels = torch.stack([own[block] for own, block in zip(target, blocks, strict=True)])
    truth = F.one_hot(labels.long(), logits.shape[1]).movedim(-1, 1).float()
    loss: Tensor = measure(answer.float().softmax(1), truth)
    return loss


def _fullest_block(labels: Tensor) -> tuple[slice, slice, slice]:
    """The block of :data:`SKELETON_BLOCK` voxels with most labelled ones in a target (X, Y, Z)."""
    sizes = [min(SKELETON_BLOCK, n) for n in labels.shape]
    filled = F.avg_pool3d((labels > 0).float()[None, None], sizes, stride=SKELETON_BLOCK // 2)[0, 0]
    place = torch.unravel_index(filled.argmax(), filled.shape)
    x, y, z = (
        slice(int(p) * SKELETON_BLOCK // 2, int(p) * SKELETON_BLOCK // 2 + n) for p, n in zip(place, sizes, strict=True)
    )
    return x, y, z


def keep_loss(logits: dict[str, Tensor], before: dict[str, Tensor]) -> Tensor:
    """How far other heads have moved from what they said before: KL divergence (after Li and Hoiem 2017), scalar.

    Args:
        logits: (B, C, X, Y, Z) per head.
        before: the same of the model that the training began with.
    """
    parts = [
        -(before[head].float().softmax(1) * (now.float().log_softmax(1) - before[head].float().log_softmax(1)))
        .sum(1)
        .mean()
        for head, now in logits.items()
    ]
    return torch.stack(parts).sum()


@dataclass
class Overlap:
    """Dice pooled over all voxels of all windows: small or absent structures cannot make it jump.

    Attributes:
        classes: names without background.
        both, total: voxels per class.
    """

    classes: tuple[str, ...]
    both: list[int] = field(default_factory=list)
    total: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.both, self.total = [0] * len(self.classes), [0] * len(self.classes)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count (B, C, X, Y, Z) against (B, X, Y, Z)."""
        labels = logits.argmax(1)
        for i in range(len(self.classes)):
            ours, theirs = labels == i + 1, target == i + 1
            self.both[i] += int((ours & theirs).sum())
            self.total[i] += int(ours.sum()) + int(theirs.sum())

    def dice(self) -> dict[str, float | None]:
        """Class → Dice, None where neither has a voxel."""
        pairs = zip(self.classes, self.both, self.total, strict=True)
        return {name: 2 * both / total if total else None for name, both, total in pairs}

    def mean(self) -> float:
        """Mean over the classes that occur; 0 where none does."""
        values = [v for v in self.dice().values() if v is not None]
        return sum(values) / len(values) if values else 0.0
