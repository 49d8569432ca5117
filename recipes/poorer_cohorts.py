"""The digital cohort with a part left out, to see what carries the transfer to real scans (an ablation)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.cohort.chambers import LV, MYO
from cardiac_ct_fm.cohort.heart import build_heart
from cardiac_ct_fm.cohort.templates import Template, load_template


@lru_cache(maxsize=2)
def ellipsoids(name: str) -> Template:
    """A template whose seven structures are ellipsoids of the same place, size and direction.

    The muscle is the ellipsoid of muscle and left ventricle together. Signed distances are approximate, as those of
    an ellipsoid have no closed form: (1 - k) k / |grad k²/2| with k = 1 on its surface.
    """
    real = load_template(name)
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in real.fields.shape[1:]], indexing="ij"), -1)
    points = index.float() * real.spacing_mm + real.low
    fields = []
    for k, field in enumerate(real.fields):
        inside = torch.maximum(field, real.fields[LV]) > 0 if k == MYO else field > 0
        fields.append(_ellipsoid(points[inside], points))
    return dataclasses.replace(real, fields=torch.stack(fields))


def _ellipsoid(inside: Tensor, points: Tensor) -> Tensor:
    """Signed distance (X, Y, Z) to the ellipsoid with the mean and covariance of the points ``inside`` (N, 3)."""
    middle = inside.mean(0)
    # a full ellipsoid has a fifth of its squared semi-axes as variance
    inverse = torch.linalg.inv(torch.cov((inside - middle).T) * 5)
    offset = points - middle
    slope = offset @ inverse
    k = (offset * slope).sum(-1).clamp_min(1e-6).sqrt()
    return ((1 - k) * k / slope.norm(dim=-1).clamp_min(1e-6)).clamp(-25, 25)


def without_templates(seed: int) -> Case:
    """Ellipsoids for chambers and great vessels; the root, the vessels and all else stay."""
    case = draw_case(seed)
    patient = case.heart.patient
    return dataclasses.replace(case, heart=build_heart(patient, template=ellipsoids(patient.template)))


def without_surroundings(seed: int) -> Case:
    """The heart in a sea of fat."""
    return dataclasses.replace(draw_case(seed), surroundings=None)


def without_randomisation(seed: int) -> Case:
    """Published spreads only: no extra poses, shapes, contrasts or scanner faults."""
    return draw_case(seed, strength=0.0)


WITHOUT: dict[str, Callable[[int], Case]] = {
    "templates": without_templates,
    "surroundings": without_surroundings,
    "randomisation": without_randomisation,
}
