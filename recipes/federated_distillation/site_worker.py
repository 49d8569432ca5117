"""What a site does with an order: train, label or test. Knows no federation engine and opens no connection.

Whatever goes wrong becomes a reply with one of the known reasons; the details stay in the site's own log.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cardiac_ct_fm.errors import CardiacCTError, OutputError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.model import CardiacCTModel
from recipes.federated_distillation.aggregation import part_of
from recipes.federated_distillation.examples import generator
from recipes.federated_distillation.local_training import Drawn, LocalRound, scans_per_part
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.plan import Step
from recipes.federated_distillation.privacy import privatise
from recipes.federated_distillation.pseudo_labels import PseudoLabels, doubt, pseudo_file
from recipes.federated_distillation.scans import Scan
from recipes.federated_distillation.scoring import pool, score
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import Site
from recipes.federated_distillation.trainee import SiteProblemError, arrays_of, load_into, model_from, trainee_of

logger = logging.getLogger("federated_distillation.site")


class SiteWorker:
    """One site at work.

    Args:
        site: its scans.
        settings: the experiment's.
        plan: its steps.
        work: folder for pseudo-labels and teachers, which never leave.
        device: where to train; a GPU where there is one by default.
        drawn: windows of the site that other experiments have drawn and that are theirs too.
    """

    def __init__(
        self,
        site: Site,
        settings: Settings,
        plan: list[Step],
        work: Path,
        device: str = "auto",
        drawn: Drawn | None = None,
    ) -> None:
        self.site, self.settings = site, settings
        self.steps = {step.name: step for step in plan}
        self.work = work / settings.exp_name
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(chosen)
        self._drawn: Drawn = {} if drawn is None else drawn

    def handle(self, order: Order) -> Reply:
        """Do what is asked; whatever goes wrong becomes a reply that gives a known reason and nothing else."""
        reply = Reply(self.site.name, order.step, order.round)
        begin = time.monotonic()
        try:
            step = self.steps[order.step]
            {"train": self._train, "label": self._label, "test": self._test}[order.kind](step, order, reply)
        except SiteProblemError as error:
            logger.error("%s: %s is left out of round %d: %s", order.step, self.site.name, order.round, error)
            return Reply(self.site.name, order.step, order.round, left_out=error.reason)
        except OutputError as error:
            logger.error("%s: %s is left out of round %d: %s", order.step, self.site.name, order.round, error)
            return Reply(self.site.name, order.step, order.round, left_out="disk full")
        except Exception:
            logger.exception("%s: %s is left out of round %d", order.step, self.site.name, order.round)
            return Reply(self.site.name, order.step, order.round, left_out="failed")
        reply.metrics.setdefault("all", {})["seconds"] = round(time.monotonic() - begin, 2)
        return reply

    def _train(self, step: Step, order: Order, reply: Reply) -> None:
        """One round of local training; fills the reply with changes, counts and losses."""
        trainee = trainee_of(step, 0)
        load_into(trainee, order.parameters["model"])
        trainee.to(self.device)
        pseudo = self._pseudo_labels() if step.pseudo else {}
        scans = self._usable(step, pseudo)
        helpers = self._helpers(step, order)
        frozen = self.settings.finetune and step.stage != "teach"  # teachers train whole
        if frozen:
            trainee.model.freeze("trunk")
        work = LocalRound(
            self.settings, self.site.name, step, order.round, scans, pseudo, helpers, self.device, self._drawn
        )
        reply.metrics |= work.fit(trainee)
        scans = [s for s in scans if s.key not in work.unusable]
        if not scans:
            raise SiteProblemError("no data", "no training scan can be read")
        counts = scans_per_part(step, scans, pseudo)
        old = order.parameters["model"]
        for name, new in arrays_of(trainee).items():
            change = new - old[name]
            if counts.get(part_of(name), 0) and (change.any() or not frozen):
                reply.changes[name] = change
        if any(not np.isfinite(c).all() for c in reply.changes.values()):
            raise SiteProblemError("not finite", "the parameters are not finite any more; lower --lr")
        if self.settings.dp_noise:
            noise = np.random.default_rng()
            reply.changes = privatise(reply.changes, self.settings.dp_clip, self.settings.dp_noise, noise)
        reply.counts = counts
        reply.metrics["all"] = {"scans": len(scans), "pseudo": len(pseudo)}
        if self.settings.test_on_local_updates:
            self._score(trainee.model.eval(), step, reply)

    def _usable(self, step: Step, pseudo: dict[str, PseudoLabels]) -> list[Scan]:
        """Training scans with any label of the step's heads; a task network's scans need the task's own label."""
        points = {h for h in step.heads if h != "heart"}
        wanted = points if len(points) == 1 else set(step.heads)
        usable = [s for s in self.site.training if wanted & s.labels or s.key in pseudo]
        for scan in list(usable):
            try:
                _ = scan.root_centre
            except CardiacCTError as error:
                logger.warning("A scan is left out: %s", error)
                usable.remove(scan)
        if not usable:
            raise SiteProblemError("no data", f"no training scan has a label of {', '.join(sorted(wanted))}")
        return usable

    def _helpers(self, step: Step, order: Order) -> dict[str, CardiacCTModel]:
        """Frozen networks whose answers are learned from, by head."""
        if step.conditional:
            model = model_from(step, order.parameters["model"]).to(self.device)
            return dict.fromkeys(step.heads, model)
        if step.pseudo and self.settings.soft_targets:
            label = next(s for s in self.steps.values() if s.kind == "label")
            return {h: self._teacher(h, t).to(self.device) for h, t in label.teachers if self._file(h).exists()}
        return {}

    def _file(self, head: str) -> Path:
        return self.work / f"teacher-{head}.safetensors"

    def _teacher(self, head: str, step: str) -> CardiacCTModel:
        tensors = load_file(self._file(head))
        return model_from(self.steps[step], {k: v.numpy() for k, v in tensors.items()})

    def _label(self, step: Step, order: Order, reply: Reply) -> None:
        """Write pseudo-labels of the scans that may be trained on."""
        teachers = {}
        for head, source in step.teachers:
            if source not in order.parameters:
                continue
            teachers[head] = model_from(self.steps[source], order.parameters[source]).to(self.device)
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in order.parameters[source].items()}
            with atomic_write(self._file(head)) as temporary:
                save_file(tensors, temporary, metadata={"format": "pt"})
        kept = dict.fromkeys(teachers, 0)
        asked = dict.fromkeys(teachers, 0)
        for scan in self.site.training:
            rng = generator(self.settings.seed, self.site.name, scan.key, "label")
            try:
                labels = doubt(scan, teachers, self.settings, rng)
            except CardiacCTError as error:
                logger.warning("A scan is left out: %s", error)
                continue
            labels.save(pseudo_file(self.work, scan))
            for head in teachers:
                asked[head] += head not in scan.labels
                kept[head] += head in labels.weight
        for head in teachers:
            reply.metrics[head] = {"kept": kept[head], "dropped": asked[head] - kept[head]}

    def _pseudo_labels(self) -> dict[str, PseudoLabels]:
        """What :meth:`_label` wrote, by the scans' keys; scans without any accepted label are left out."""
        found = {s.key: pseudo_file(self.work, s) for s in self.site.training}
        loaded = {key: PseudoLabels.load(path) for key, path in found.items() if path.exists()}
        return {key: labels for key, labels in loaded.items() if labels.weight}

    def _test(self, step: Step, order: Order, reply: Reply) -> None:
        """Errors on the scans that were held out."""
        source = self.steps.get(step.source, step)
        self._score(model_from(source, order.parameters["model"]).to(self.device), step, reply)

    def _score(self, model: CardiacCTModel, step: Step, reply: Reply) -> None:
        scans = [s for s in self.site.held_out if s.labels.intersection(step.heads)]
        if not scans and step.kind == "test":
            raise SiteProblemError("no data", "no held-out scan has a label of the tested heads")
        for head, kinds in pool([score(model, s, step.heads, self.settings.seed) for s in scans]).items():
            reply.metrics.setdefault(head, {}).update(kinds)
