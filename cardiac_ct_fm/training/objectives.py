"""What a new head is trained for, and what its validation reports."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.anatomy import HeadKind
from cardiac_ct_fm.training.losses import POINT_WEIGHT, dice_ce

CLDICE_WEIGHT = 0.5
"""Share of the centreline term for thin trees, the middle of what its authors tried (Shit et al. 2021)."""

SKELETON_STEPS = 3
"""Erosions of the soft skeleton: enough for a radius of 3 voxels; a left main of 4.5 mm has 2.3 at 1 mm."""


def head_loss(logits: Tensor, target: Tensor, kind: HeadKind, thin: bool = False) -> Tensor:
    """Dice + cross-entropy, spheres of points weighted up, and clDice for thin trees.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels.
        kind: of the head.
        thin: whether centrelines count.

    Returns:
        Scalar.
    """
    weights = None
    if kind == "landmarks":
        weights = torch.full((logits.shape[1],), POINT_WEIGHT, device=logits.device)
        weights[0] = 1.0
    loss = dice_ce(logits, target, weights=weights)
    if not thin:
        return loss
    return (1 - CLDICE_WEIGHT) * loss + CLDICE_WEIGHT * soft_cldice(logits, target)


def soft_cldice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft clDice of all structures, by MONAI; scalar in 0…1.

    Args:
        logits: (B, C, X, Y, Z), background first.
        target: (B, X, Y, Z) integer labels.
    """
    from monai.losses.cldice import SoftclDiceLoss

    measure = SoftclDiceLoss(iter_=SKELETON_STEPS, include_background=False)
    truth = F.one_hot(target.long(), logits.shape[1]).movedim(-1, 1).float()
    loss: Tensor = measure(logits.float().softmax(1), truth)
    return loss


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
