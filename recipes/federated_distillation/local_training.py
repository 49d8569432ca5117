"""One round of training at a site: windows in, changed parameters and losses out.

Nothing is kept between rounds but drawn windows. Everything random follows from the settings' seed, the site's name,
the step and the round, so that a site that was killed trains a round again to the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cardiac_ct_fm.errors import CardiacCTError
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.runtime import fast_bf16
from cardiac_ct_fm.training.denormals import denormals_as_zero
from recipes.federated_distillation.examples import Example, View, choose_look, draw_view, example_of, generator
from recipes.federated_distillation.networks import learning_rate, shared_looks, window
from recipes.federated_distillation.objectives import (
    Trainee,
    conditional_loss,
    conditional_weight,
    labelled_loss,
    proximal,
    soft_loss,
    stack,
)
from recipes.federated_distillation.plan import Step
from recipes.federated_distillation.pseudo_labels import PseudoLabels
from recipes.federated_distillation.scans import Scan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.trainee import SiteProblemError

logger = logging.getLogger("federated_distillation.site")

MAX_NORM = 2.0
"""Gradients are clipped to this norm, as in plain training (``recipes.pretrain``)."""

CPU = torch.device("cpu")

Drawn = dict[tuple[object, ...], View]
"""Windows that come again, by what decides them."""


def scans_per_part(step: Step, scans: Sequence[Scan], pseudo: Mapping[str, PseudoLabels]) -> dict[str, float]:
    """How many scans train the trunk and each head; a pseudo-label counts as its weight.

    A head without any label at the site is not in the result, and the site sends nothing of it.
    """
    counts: dict[str, float] = {"trunk": float(len(scans))}
    for head in step.heads:
        own = sum(head in s.labels for s in scans)
        soft = sum(pseudo[s.key].weight.get(head, 0.0) for s in scans if s.key in pseudo and head not in s.labels)
        if own + soft > 0:
            counts[head] = float(own + soft)
    return counts


@dataclass
class LocalRound:
    """One round at one site.

    Attributes:
        settings: the experiment's.
        site: the site's name; it decides what is drawn.
        step: what is trained.
        number: of the round.
        scans: what it is trained on.
        pseudo: key of a scan → the teachers' labels.
        helpers: head → frozen network whose answers are learned where a window has no real label of the head.
        device: where to train.
        drawn: windows kept from earlier rounds.
        unusable: keys of scans that turned out not to be readable.
    """

    settings: Settings
    site: str
    step: Step
    number: int
    scans: Sequence[Scan]
    pseudo: Mapping[str, PseudoLabels] = field(default_factory=dict)
    helpers: Mapping[str, CardiacCTModel] = field(default_factory=dict)
    device: torch.device = CPU
    drawn: Drawn = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)

    @denormals_as_zero()
    def fit(self, trainee: Trainee) -> dict[str, dict[str, float]]:
        """Train through the epochs of the round.

        Returns:
            Head → mean ``loss`` and number of ``steps`` that had a label of it.

        Raises:
            SiteProblemError: the loss is not finite.
        """
        s, step = self.settings, self.step
        trainee.train()
        rate = learning_rate(s, step.network)
        groups = trainee.model.param_groups(rate, weight_decay=s.weight_decay)
        if trainee.coarse is not None:
            groups.append({"params": list(trainee.coarse.parameters()), "lr": rate, "weight_decay": s.weight_decay})
        optimiser = torch.optim.AdamW(groups, lr=rate)
        trained = {n: p for n, p in trainee.named_parameters() if p.requires_grad}
        start = {n: p.detach().clone() for n, p in trained.items()} if s.fedprox_mu else {}
        sums: dict[str, list[float]] = {}
        torch.manual_seed(int(generator(s.seed, self.site, step.name, self.number).integers(2**31)))
        for epoch in range(s.epochs):
            for batch in self._batches(epoch):
                loss, parts = self._loss(trainee, batch)
                if loss is None:
                    continue
                if s.fedprox_mu:
                    loss = loss + s.fedprox_mu * proximal(trained, start)
                if not bool(torch.isfinite(loss)):
                    raise SiteProblemError("not finite", f"the loss is {float(loss.detach())}; lower --lr")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
                torch.nn.utils.clip_grad_norm_(trainee.parameters(), MAX_NORM)
                optimiser.step()
                for head, value in parts.items():
                    sums.setdefault(head, []).append(value)
        return {head: {"loss": round(float(np.mean(v)), 6), "steps": len(v)} for head, v in sums.items()}

    def _loss(self, trainee: Trainee, batch: list[Example]) -> tuple[torch.Tensor | None, dict[str, float]]:
        """Loss of one batch on labels and on what helping networks say."""
        step = self.step
        x, heart = stack(batch, self.device)
        seg = heart if step.network.condition_on_seg else None
        asked = self.settings.precision
        fast = asked == "bfloat16" or (asked == "auto" and fast_bf16(self.device.type))
        half = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=fast)
        with half:
            logits = trainee(x, step.heads, seg)
        loss, parts = labelled_loss(logits, batch)
        for head, helper in self.helpers.items():
            bare = [i for i, e in enumerate(batch) if head in e.heads and head not in e.real]
            if not bare:
                continue
            with torch.no_grad(), half:
                need = heart[bare] if helper.config.condition_on_seg else None
                answer = helper(x[bare], heads=[head], segmentation=need)[head]
            own = logits[head][0][bare]
            if step.conditional:
                extra = conditional_weight(self.number, step.rounds) * conditional_loss(own, answer)
            else:
                extra = self.settings.soft_targets * soft_loss(own, answer, self.settings.temperature)
            loss = extra if loss is None else loss + extra
        return loss, parts

    def _batches(self, epoch: int) -> Iterator[list[Example]]:
        """Windows of all scans in a new order, ``batch_size`` scans at a time."""
        s, scans = self.settings, self.scans
        visit = self.number * s.epochs + epoch
        order = generator(s.seed, self.site, self.step.name, visit, "order").permutation(len(scans))
        turns = range(0, len(order), s.batch_size)
        for number, begin in enumerate(turns):
            if s.batch_maxnum and number >= s.batch_maxnum:
                return
            batch: list[Example] = []
            for i in order[begin : begin + s.batch_size]:
                try:
                    batch += self._windows(scans[i], visit)
                except CardiacCTError as error:
                    logger.warning("A scan is left out: %s", error)
                    self.unusable.add(scans[i].key)
            if batch:
                yield batch

    def _windows(self, scan: Scan, visit: int) -> list[Example]:
        """The windows of one scan in one pass; kept where they come again."""
        s, step, config = self.settings, self.step, self.step.network
        shared = shared_looks(s, config)
        looks = {look.name: look for look in shared}
        turn = visit % s.variants if s.variants else visit
        edge = window(s, config)
        result = []
        for number in range(s.looks_per_scan):
            key = (shared, config.intensity, step.looks, edge, scan.key, turn, number)
            view = self.drawn.get(key)
            if view is None:
                rng = generator(s.seed, self.site, scan.key, turn, number, *step.looks)
                view = draw_view(scan, choose_look(looks, step.looks, rng), edge, config.intensity, rng)
                if s.variants:
                    self.drawn[key] = view
            result.append(example_of(view, step.heads, self.pseudo.get(scan.key)))
        return result
