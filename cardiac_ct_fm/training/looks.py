"""Labelled looks of digital patients, made on the fly: what the network is trained on.

A look is drawn as prediction will see it: the locating look anywhere over the trunk (now and then without a
heart), the heart look around the heart and, as neighbouring windows do, off its middle, the root look around the
aortic root with the error that the look before leaves, and now and then anywhere in the heart, as ``full`` needs it.
No full volume is ever built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from cardiac_ct_fm.anatomy import HEADS, HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.cohort.render import Look
from cardiac_ct_fm.config import IntensityConfig, LookConfig
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.preprocess import normalise

Example = dict[str, Tensor]
"""``image`` (1, X, Y, Z) float32 normalised, and per head a label map (X, Y, Z) uint8."""

Labeller = Callable[[Case, Tensor, float, Look], Tensor]
"""Makes the label map (X, Y, Z) uint8 of a head from the patient, the look's middle, its voxel size and its labels."""


@dataclass(frozen=True)
class LookPlan:
    """How often each look is drawn and in which window.

    Attributes:
        share: relative frequency by look name.
        window: edge lengths in voxels by look name, drawn evenly.
        per_case: looks drawn from one patient before the next is made.
        empty: share of locating looks that are moved off the heart.
    """

    share: dict[str, float]
    window: dict[str, tuple[int, ...]]
    per_case: int = 4
    empty: float = 0.12


DEFAULT_PLAN = LookPlan(
    {"locate": 0.2, "heart": 0.4, "root": 0.4}, {"locate": (48, 64), "heart": (48, 64), "root": (48, 64)}
)


def look_centre(case: Case, look: str, rng: np.random.Generator, empty: float) -> Tensor:
    """Where a training look is centred, body mm (3,)."""
    if look == "locate":
        if rng.random() < empty:
            up = rng.choice([-1, 1]) * rng.uniform(190, 300)
            return torch.tensor([rng.normal(0, 30), rng.normal(0, 30), up]).float()
        return torch.tensor([rng.uniform(-60, 60), rng.uniform(-60, 40), rng.uniform(-110, 110)]).float()
    anywhere = torch.tensor([rng.uniform(-45, 45), rng.uniform(-45, 45), rng.uniform(-45, 65)]).float()
    if look == "heart":
        return anywhere if rng.random() < 0.45 else torch.from_numpy(rng.normal(0, 12, 3)).float()
    if rng.random() < 0.12:
        return anywhere
    root = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).mean(0).cpu()
    wide = 6.0 if rng.random() < 0.8 else 15.0
    return root + torch.tensor([0.0, 0.0, ROOT_ABOVE_MM]) + torch.from_numpy(rng.normal(0, wide, 3)).float()


def make_example(
    case: Case,
    look: LookConfig,
    window: int,
    intensity: IntensityConfig,
    rng: np.random.Generator,
    empty: float,
    labellers: Mapping[str, Labeller],
) -> Example:
    """One labelled look of a patient; heads that this look does not serve are left out."""
    shape = (window, window, window)
    centre = look_centre(case, look.name, rng, empty)
    spacing = look.spacing_mm * float(np.exp(rng.normal(0, 0.04)))
    hu, labels = case.look(centre, spacing, shape, int(rng.integers(2**31)))
    example: Example = {"image": normalise(hu, intensity)[None]}
    for head in look.heads:
        if head in labellers:
            example[head] = labellers[head](case, centre, spacing, labels)
        elif head in ("heart", "calc", "coronaries"):
            example[head] = getattr(labels, head)
        elif HEADS[head].kind == "landmarks":
            example[head] = case.landmark_labels(head, centre, spacing, labels)
    return example


class CohortLooks(IterableDataset[Example]):
    """An endless stream of labelled looks; one ``seed`` gives one stream per number of workers.

    Workers are asked in turn for one look each, as a data loader with batches of one does.

    Args:
        looks: the looks of the model that is trained.
        intensity: its normalisation.
        plan: mixture of looks.
        seed: first patient; patients of training runs start at multiples of 10 million, so none meets another.
        strength: dial of the domain randomisation.
        start: number of patients to skip.
        done: number of looks that were given before a stop: the stream goes on with the next.
        draw: makes the patient of a seed; ``draw_case`` at the strength above when None.
        labellers: makes the labels of heads that the vocabulary lacks.
    """

    def __init__(
        self,
        looks: tuple[LookConfig, ...],
        intensity: IntensityConfig,
        plan: LookPlan = DEFAULT_PLAN,
        seed: int = 0,
        strength: float = 1.0,
        start: int = 0,
        done: int = 0,
        draw: Callable[[int], Case] | None = None,
        labellers: Mapping[str, Labeller] | None = None,
    ) -> None:
        super().__init__()
        self.draw = draw or partial(draw_case, strength=strength)
        self.looks: dict[str, LookConfig] = {look.name: look for look in looks}
        self.intensity, self.plan, self.seed, self.start, self.done = intensity, plan, seed, start, done
        self.labellers = dict(labellers or {})

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        # Look k of the stream is look k // count of lane k % count; the patients of a lane are ``count`` apart.
        turn, lane = divmod(self.done + number, count)
        patients, shown = divmod(turn, self.plan.per_case)
        return islice(self._looks(self.start + lane + patients * count, count), shown, None)

    def _looks(self, patient: int, stride: int) -> Iterator[Example]:
        """All looks of this patient, then of the one ``stride`` further, and so on."""
        names = list(self.plan.share)
        odds = np.array([self.plan.share[n] for n in names])
        while True:
            seed = 10_000_000 * (self.seed + 1) + patient
            rng = np.random.default_rng(seed)
            case = self.draw(seed)
            for name in rng.choice(names, self.plan.per_case, p=odds / odds.sum()):
                look = self.looks[str(name)]
                window = int(rng.choice(self.plan.window[look.name]))
                yield make_example(case, look, window, self.intensity, rng, self.plan.empty, self.labellers)
            patient += stride
