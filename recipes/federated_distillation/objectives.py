"""What a site minimises: Dice + CE per head on the labels that a window has, and what may be added to it.

Spheres of points weigh more than background, as in plain training: unweighted, they stay unlearned. Added are deep
supervision (CNN), the teachers' probabilities (soft distillation), the global network's answers for missing labels
(conditional distillation) and FedProx' pull towards the global parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.heads import CoarseHeads
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.training.losses import POINT_WEIGHT, dice_ce
from recipes.federated_distillation.examples import Example
from recipes.federated_distillation.pseudo_labels import UNKNOWN

DEEP_WEIGHTS = (1.0, 0.5, 0.25)
"""Weights of full, half and quarter resolution (the paper's research code)."""

SURE = 50.0
"""A logit whose softmax is 1 in single precision, and 0 with the opposite sign."""

CONDITIONAL_RAMP = (0.01, 1.0)
"""Weight of the conditional loss in the first and the last round (ConDistFL, Wang et al. 2023)."""

CONDITIONAL_TEMPERATURE = 0.5
"""Temperature of both networks' probabilities in the conditional loss (same source)."""


class Trainee(nn.Module):
    """A network and, for CNNs, the coarse heads of its deep supervision, trained and averaged together.

    Args:
        model: the network.
    """

    def __init__(self, model: CardiacCTModel) -> None:
        super().__init__()
        self.model = model
        self.coarse: CoarseHeads | None = None
        if model.config.backbone.architecture == "dynunet":
            levels = model.backbone.decoder_info[1 : len(DEEP_WEIGHTS)]
            self.coarse = CoarseHeads(levels, model.config.heads)

    def forward(self, x: Tensor, heads: Sequence[str], segmentation: Tensor | None = None) -> dict[str, list[Tensor]]:
        """Logits per head, full resolution first, then coarser ones."""
        maps = self.model.decoder_maps(x, segmentation)
        logits = {head: [self.model.heads[head](maps[0])] for head in heads}
        if self.coarse is not None:
            for head, values in self.coarse(maps[1 : len(DEEP_WEIGHTS)], heads).items():
                logits[head] += values
        return logits


def stack(examples: Sequence[Example], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, 1, X, Y, Z) and heart segmentations (B, 1, X, Y, Z)."""
    images = torch.stack([e.image for e in examples]).to(device)
    return images, torch.stack([e.heart[None] for e in examples]).to(device)


def labelled_loss(
    logits: Mapping[str, list[Tensor]], examples: Sequence[Example]
) -> tuple[Tensor | None, dict[str, float]]:
    """Sum over heads of the loss on the windows that have a label of it.

    A head's loss is pooled over the windows of equal weight, as nnU-Net's batch Dice; windows with pseudo-labels of
    another weight form groups of their own.

    Args:
        logits: head → (B, C, …) at full and coarser resolutions.
        examples: the B windows.

    Returns:
        The loss (None where no window has any label), and each head's part.
    """
    total: Tensor | None = None
    parts: dict[str, float] = {}
    for head, levels in logits.items():
        own = [i for i, e in enumerate(examples) if head in e.targets]
        if not own:
            continue
        loss = levels[0].new_zeros((), dtype=torch.float32)
        classes = point_weights(head, levels[0])
        for weight in sorted({examples[i].weights[head] for i in own}):
            group = [i for i in own if examples[i].weights[head] == weight]
            target = torch.stack([examples[i].targets[head] for i in group]).to(levels[0].device)
            loss = loss + weight * len(group) / len(own) * _deep([level[group] for level in levels], target, classes)
        parts[head] = float(loss.detach())
        total = loss if total is None else total + loss
    return total, parts


def point_weights(head: str, logits: Tensor) -> Tensor | None:
    """Class weights (C,) of a landmark head's cross-entropy, background first; None for a segmentation."""
    if HEADS[head].kind != "landmarks":
        return None
    weights = logits.new_full((logits.shape[1],), POINT_WEIGHT, dtype=torch.float32)
    weights[0] = 1.0
    return weights


def _deep(levels: list[Tensor], target: Tensor, classes: Tensor | None) -> Tensor:
    """Dice + CE at every resolution, labels taken by nearest neighbour; voxels that are unknown teach nothing."""
    weights = DEEP_WEIGHTS[: len(levels)]
    total = levels[0].new_zeros(())
    for weight, logits in zip(weights, levels, strict=True):
        own = target
        if logits.shape[2:] != target.shape[1:]:
            own = F.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0]
        unknown = own == UNKNOWN
        if bool(unknown.any()):  # there the answer is background already, for sure
            sure = logits.new_full((1, logits.shape[1], 1, 1, 1), -SURE)
            sure[:, 0] = SURE
            logits, own = torch.where(unknown[:, None], sure, logits), own.masked_fill(unknown, 0)
        total = total + weight * dice_ce(logits, own, weights=classes)
    return total / sum(weights)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened probabilities, times T² (Hinton et al. 2015).

    Args:
        student: logits (B, C, X, Y, Z).
        teacher: logits of the same shape; no gradient flows into them.
        temperature: T.
    """
    own = (student.float() / temperature).log_softmax(1)
    goal = (teacher.detach().float() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(own, goal, log_target=True, reduction="none").sum(1).mean()


def conditional_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Soft Dice between the foreground probabilities of the site's and the global network.

    ConDistFL (Wang et al. 2023) conditions on what a site has not labelled. There all organs share one softmax, so it
    divides by the background's share; here every label type has a softmax of its own, and what is not labelled is the
    whole head: the conditional probability is the head's own.

    Args:
        student: logits (B, C, X, Y, Z).
        teacher: logits of the global network, same shape.
    """
    own = (student.float() / CONDITIONAL_TEMPERATURE).softmax(1)[:, 1:]
    goal = (teacher.detach().float() / CONDITIONAL_TEMPERATURE).softmax(1)[:, 1:]
    axes = (0, 2, 3, 4)
    dice = (2 * (own * goal).sum(axes) + 1.0) / ((own**2).sum(axes) + (goal**2).sum(axes) + 1.0)
    return (1 - dice).mean()


def conditional_weight(round_number: int, rounds: int) -> float:
    """Linear ramp of :data:`CONDITIONAL_RAMP` over the rounds."""
    low, high = CONDITIONAL_RAMP
    return low + (high - low) * (round_number / max(rounds - 1, 1))


def proximal(parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance of the trained parameters from the global ones (FedProx, Li et al. 2020)."""
    return torch.stack([((p - start[name]) ** 2).sum() for name, p in parameters.items()]).sum() / 2
