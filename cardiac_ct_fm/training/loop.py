"""The fine-tuning loop: epochs of windows, validation of the averaged weights, early stopping, resuming.

Everything random follows from (seed, epoch, scan, window), never from a generator that lives on, so that a training
that was killed and goes on at its last epoch ends as if nothing had happened.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.config import HeadConfig, LookConfig
from cardiac_ct_fm.heads import EVERYTHING
from cardiac_ct_fm.training.features import FeatureCache
from cardiac_ct_fm.training.objectives import Overlap, class_weights, head_loss
from cardiac_ct_fm.training.scans import ScanSource
from cardiac_ct_fm.training.schedule import Schedule
from cardiac_ct_fm.training.settings import FinetuneSettings
from cardiac_ct_fm.training.trainee import HeadTrainee, Trainee
from cardiac_ct_fm.training.training_state import Standing, best_of, load_state, same_device, save_state, with_best
from cardiac_ct_fm.training.windows import Targets, Window, blocks_of, draw_window

MAX_GRADIENT = 2.0
"""Gradients are clipped to this norm; nnU-Net uses 12 for whole networks, one new head needs less."""

SCANS_BYTES = 2_000_000_000
"""Scans that are kept in memory between windows."""

MIXED_WINDOWS = 24
"""Windows among which the next batch is drawn, so that a batch does not show one scan alone."""

Progress = Callable[[str, int, int, float | None], None]
"""Called with (what is being done, steps done, steps in all, seconds left or None)."""


@dataclass(frozen=True)
class WindowKey:
    """Names one window.

    Attributes:
        part: ``training`` or ``validation``.
        scan: its scan.
        number: which of the scan's windows.
        epoch: 0 for windows that stay the same.
    """

    part: str
    scan: str
    number: int
    epoch: int = 0


class Windows:
    """Draws and keeps windows of two scan sources.

    Args:
        sources: ``training`` and ``validation``.
        head: the head that is trained.
        looks: looks that windows imitate, in turn.
        learner: the part of the model that learns; a head alone gets features.
        settings: patch, seed and size of the cache.
        cache: folder of the cache.
    """

    def __init__(
        self,
        sources: Mapping[str, ScanSource],
        head: HeadConfig,
        looks: tuple[LookConfig, ...],
        learner: Trainee,
        settings: FinetuneSettings,
        cache: Path,
    ) -> None:
        self.sources, self.head, self.looks, self.learner, self.settings = sources, head, looks, learner, settings
        self.cache = FeatureCache(cache, int(settings.cache_gb * 1e9)) if learner.takes_features else None
        self._scans: OrderedDict[tuple[str, str], Targets] = OrderedDict()

    def keys(self, part: str, epoch: int) -> list[WindowKey]:
        """All windows of an epoch, scan by scan."""
        fixed = self.cache is not None or part == "validation"
        return [
            WindowKey(part, scan, number, 0 if fixed else epoch)
            for scan in self.sources[part].keys
            for number in range(self.settings.windows)
        ]

    def get(self, key: WindowKey) -> Window:
        """The window; with the trunk's features as its image where a head is trained alone."""
        if self.cache is None:
            return self.image(key)
        return self.cache.get(f"{key.part}-{key.scan}-{key.number}", lambda: self._with_features(key))

    def _with_features(self, key: WindowKey) -> Window:
        assert isinstance(self.learner, HeadTrainee)
        window = self.image(key)
        *wider, finest = self.learner.features(window.image)
        return Window(finest, window.target, tuple(wider))

    def image(self, key: WindowKey) -> Window:
        """The window itself, drawn anew."""
        targets = self._targets(key)
        part = 0 if key.part == "training" else 1
        order = self.sources[key.part].keys.index(key.scan)
        rng = np.random.default_rng([self.settings.seed, part, key.epoch, order, key.number])
        look = self.looks[key.number % len(self.looks)]
        # A window that is kept looks the same in every epoch. Most heads learn from windows as prediction sees them;
        # of a thin tree only the first window of a scan is so, and its others are turned, scaled and varied.
        kept_as_it_is = self.cache is not None and not (self.settings.thin_head(self.head.name) and key.number > 0)
        vary = key.part == "training" and not kept_as_it_is
        return draw_window(targets, look, self.settings.patch, self.learner.model.config.intensity, rng, vary=vary)

    def _targets(self, key: WindowKey) -> Targets:
        """The scan's labels, read once as long as memory allows."""
        place = (key.part, key.scan)
        if place not in self._scans:
            scan = self.sources[key.part].load(key.scan)
            self._scans[place] = Targets(scan, self.head, self.settings.seed)
            while len(self._scans) > 1 and sum(map(_size, self._scans.values())) > SCANS_BYTES:
                self._scans.popitem(last=False)
        self._scans.move_to_end(place)
        return self._scans[place]


def _size(targets: Targets) -> int:
    scan = targets.scan
    return int(scan.volume.data.nbytes + sum(labels.nbytes for labels in scan.label_maps.values()))


class Loop:
    """One training.

    Args:
        learner: the part of the model that learns.
        windows: its data.
        settings: of the training.
        folder: where its state is kept; None keeps none.
        fingerprint: identity of model, data and settings.
        progress: told after every step.
    """

    def __init__(
        self,
        learner: Trainee,
        windows: Windows,
        settings: FinetuneSettings,
        folder: Path | None,
        fingerprint: str,
        progress: Progress | None = None,
    ) -> None:
        self.learner, self.windows, self.settings, self.folder = learner, windows, settings, folder
        self.fingerprint, self.progress = fingerprint, progress
        self.device = next(learner.model.parameters()).device
        self.head = windows.head
        count = len(windows.keys("training", 1))
        self.steps = -(-count // settings.batch_size)
        groups = learner.groups(settings.learning_rate(windows.head.name), settings.layer_decay, settings.weight_decay)
        self.schedule = Schedule(learner.network, groups, self.steps * settings.epochs)
        self.standing = Standing()
        self.best: dict[str, Tensor] = {}
        self.weights: list[float] = []
        self.thin = settings.thin_head(windows.head.name)
        self.in_blocks = windows.cache is not None and self.thin

    def run(self) -> Standing:
        """Train to the end, or on from where a killed run stood; the best averaged weights end in the model.

        Raises:
            DataError: a scan's image or reference does not do.
            UsageError: the folder holds another training.
            OutputError: the file system refuses.
        """
        if self.folder is not None:
            found = load_state(self.folder, self.fingerprint)
            if found is not None:
                tensors, self.standing = found
                self.schedule.load(tensors, self.standing.updates)
                self.best = same_device(best_of(tensors), self.device)
        self._prepare()
        while self.standing.epoch < self.settings.epochs and not self._stale():
            self._epoch()
        if self.best:
            self.schedule.average.load_state_dict(self.best)
        self.learner.adopt(self.schedule.average)
        self.learner.model.eval()
        return self.standing

    def _stale(self) -> bool:
        """Whether validation has not improved for too long; a head that finds nothing yet is given all epochs."""
        waited = self.standing.epoch - self.standing.best_epoch
        return bool(self.standing.best) and waited >= self.settings.patience

    def _prepare(self) -> None:
        """Read every scan once: problems show before the first update, features are computed, voxels counted."""
        keys = [key for part in self.windows.sources for key in self.windows.keys(part, 1)]
        if self.windows.cache is None:
            keys = [key for key in keys if key.number == 0]
        began = time.perf_counter()
        voxels = np.zeros(self.head.channels, np.int64)
        for done, key in enumerate(keys, start=1):
            target = self.windows.get(key).target
            if key.part == "training":
                voxels += np.bincount(target.numpy().ravel(), minlength=len(voxels))
            self._tell("reading scans", done, len(keys), began)
        # Half of the blocks lie on the tree, so it is not rare there (docs/finetuning.md has the trial).
        self.weights = [1.0] * len(voxels) if self.in_blocks else class_weights([int(n) for n in voxels])

    def _epoch(self) -> None:
        began = time.perf_counter()
        number = self.standing.epoch + 1
        torch.manual_seed(int(np.random.default_rng([self.settings.seed, number]).integers(2**62)))
        self.learner.model.train()
        total, seen = 0.0, 0
        for step, (x, target) in enumerate(self._batches(number), start=1):
            logits, kept = self.learner.learn(x)
            loss = head_loss(logits, target, self.weights, self.thin)
            torch.autograd.backward(loss if kept is None else loss + kept)
            torch.nn.utils.clip_grad_norm_(self.learner.network.parameters(), MAX_GRADIENT)
            self.schedule.step()
            total, seen = total + float(loss.detach()) * len(x), seen + len(x)
            self._tell(f"epoch {number}", step, self.steps, began, self.settings.epochs - number)
        self.learner.model.eval()
        row: dict[str, float | None] = {"epoch": number, "lr": self.schedule.lr, "train_loss": total / seen}
        row |= self._validate()
        self.standing.epoch, self.standing.updates = number, self.schedule.updates
        self.standing.seconds += time.perf_counter() - began
        if self._better(row):
            self.standing.best, self.standing.best_epoch = row["val_dice"], number
            self.best = {k: v.detach().clone() for k, v in self.schedule.average.state_dict().items()}
        self.standing.history.append({**row, "seconds": round(self.standing.seconds, 2)})
        if self.folder is not None:
            save_state(self.folder, with_best(self.schedule.state(), self.best), self.standing, self.fingerprint)

    def _better(self, row: Mapping[str, float | None]) -> bool:
        """Whether this epoch's weights are to be kept: a higher Dice, or the same and a lower loss on validation."""
        dice, loss = row["val_dice"], row["val_loss"]
        if dice is None or loss is None or not self.standing.history:
            return True
        best = self.standing.history[self.standing.best_epoch - 1]
        return bool(dice > best["val_dice"] or (dice == best["val_dice"] and loss < best["val_loss"]))

    @torch.no_grad()
    def _validate(self) -> dict[str, float | None]:
        """Loss and Dice of the averaged weights; None without validation scans."""
        keys = self.windows.keys("validation", 1) if "validation" in self.windows.sources else []
        if not keys:
            return {"val_loss": None, "val_dice": None}
        overlap, total = Overlap(self.head.classes), 0.0
        for key in keys:
            window = self.windows.get(key)
            x, target = window.read()[None].to(self.device), window.target[None].to(self.device)
            logits = self.learner.logits(self.schedule.average, x)
            total += float(head_loss(logits, target, self.weights, self.thin))
            overlap.add(logits, target)
        return {"val_loss": total / len(keys), "val_dice": overlap.mean()}

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Image or features (B, C, X, Y, Z) and targets (B, X, Y, Z), mixed over scans."""
        rng = np.random.default_rng([self.settings.seed, epoch, 7])
        keys = self.windows.keys("training", epoch)
        if self.windows.cache is not None:
            keys = [keys[i] for i in rng.permutation(len(keys))]
        else:
            keys = _scans_in_random_order(keys, rng)
        pool: list[Window] = []
        left = len(keys)
        for key in keys:
            pool.append(self.windows.get(key))
            left -= 1
            while len(pool) >= (max(MIXED_WINDOWS, self.settings.batch_size) if left else 1):
                size = min(self.settings.batch_size, len(pool))
                chosen = [pool.pop(int(rng.integers(len(pool)))) for _ in range(size)]
                shown = [(w, b) for w in chosen for b in (blocks_of(w, rng) if self.in_blocks else [EVERYTHING])]
                yield (
                    torch.stack([window.read(block) for window, block in shown]).to(self.device),
                    torch.stack([window.target[block] for window, block in shown]).to(self.device),
                )

    def _tell(self, what: str, done: int, total: int, began: float, epochs_left: int = 0) -> None:
        """Report progress with the time left at this pace; early stopping can only shorten it."""
        if self.progress is None:
            return
        pace = (time.perf_counter() - began) / done
        self.progress(what, done, total, pace * (total - done + epochs_left * self.steps))


def _scans_in_random_order(keys: list[WindowKey], rng: np.random.Generator) -> list[WindowKey]:
    """Windows scan by scan, so that each scan is read once, with scans in random order."""
    scans = list(dict.fromkeys(key.scan for key in keys))
    place = {scans[i]: rank for rank, i in enumerate(rng.permutation(len(scans)))}
    return sorted(keys, key=lambda key: (place[key.scan], key.number))
