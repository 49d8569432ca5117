"""What disease and doctors left in a heart: coronary plaques, coronary stents and pacemaker leads.

All are thin tubes in template mm, drawn from the patient's seed alone. None carries a label: they are what a network
has to tell from lumen and from calcium of the valve. Their streaks come from :mod:`streaks`, as for any dense object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiac_ct_fm.cohort.raster import tube_field
from cardiac_ct_fm.cohort.templates import load_template
from cardiac_ct_fm.cohort.vessels import Tube, tube

RA, RV = 3, 4
"""Their places in the heart label, as in :mod:`heart`."""

LEAD_SHARE, STENT_SHARE, PLAQUE_SHARE = 0.1, 0.12, 0.7
"""Share of patients with a lead, a stent, calcified plaques: choices near what a TAVI clinic sees, not a statistic."""

PLAQUES = 5.0
"""Mean number of plaques of a patient who has some [choice of this project]."""

LEAD_RADIUS_MM = 1.0
"""Pacemaker leads are 5 to 8 French, 1.7 to 2.7 mm across (makers' data sheets)."""

STRUT_MM = 0.1
"""Coronary stent struts are 0.06 to 0.15 mm thick (makers' data sheets)."""

LEAD_HU, STENT_HU = 12000.0, 7000.0
"""Platinum–iridium and cobalt–chromium before partial volume; scanners end near 3071 HU, as ``acquire`` does."""

STENTED: tuple[str, ...] = ("LAD", "LCx", "RCA")


@dataclass(frozen=True)
class Implants:
    """Tubes (template mm) by kind; ``plaque_hu`` belongs to all plaques of the patient."""

    plaques: tuple[Tube, ...] = ()
    stents: tuple[Tube, ...] = ()
    leads: tuple[Tube, ...] = ()
    plaque_hu: float = 900.0

    def to(self, device: torch.device | str) -> Implants:
        """The same on another device."""
        plaques, stents, leads = (tuple(t.to(device) for t in kind) for kind in (self.plaques, self.stents, self.leads))
        return Implants(plaques, stents, leads, self.plaque_hu)

    def paint(self, hu: Tensor, q: Tensor, step: float) -> Tensor:
        """Put them over an image.

        Args:
            hu: (X·Y·Z,) HU.
            q: (X, Y, Z, 3) template mm of the grid.
            step: its spacing in template mm.
        """
        for tubes, value, strut in (
            (self.plaques, self.plaque_hu, 0.0),
            (self.stents, STENT_HU, STRUT_MM),
            (self.leads, LEAD_HU, 0.0),
        ):
            if not tubes:
                continue
            distance = tube_field(tubes, q, step).reshape(-1)
            cover = (distance / step + 0.5).clamp(0, 1)
            if strut:
                cover = (strut / step) * (1 - distance.abs() / step).clamp(0, 1)
            hu = hu + cover * (value - hu)
        return hu


NO_IMPLANTS = Implants()


def draw_implants(
    seed: int, template: str, coronaries: tuple[Tube, ...], tubes: tuple[Tube, ...], scale: float
) -> Implants:
    """Draw a patient's plaques, stents and lead.

    Args:
        seed: the patient's.
        template: name of his template heart.
        coronaries: his coronary arteries.
        tubes: his great vessels.
        scale: template mm per patient mm.
    """
    rng = np.random.default_rng([seed, 20261123])
    arteries = {t.name: t for t in coronaries}
    plaques = []
    if rng.random() < PLAQUE_SHARE:
        plaques = [_plaque(rng, arteries, scale) for _ in range(int(rng.poisson(PLAQUES)))]
    stents = []
    if rng.random() < STENT_SHARE:
        stents = [_stent(rng, arteries[str(rng.choice(STENTED))], scale)]
    leads = [_lead(rng, template, tubes, scale)] if rng.random() < LEAD_SHARE else []
    return Implants(tuple(plaques), tuple(stents), tuple(leads), float(rng.uniform(500, 1400)))


def _piece(vessel: Tube, start: float, length_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Line (n, 3) and radius (n,) of a part of a vessel, from a share of its length on; at least three points."""
    line, radius = vessel.line.double().cpu().numpy(), vessel.radius.double().cpu().numpy()
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    first = start * along[-1]
    at = np.linspace(first, min(along[-1], first + length_mm), max(3, math.ceil(length_mm / 2.5) + 1))
    return np.stack([np.interp(at, along, line[:, k]) for k in range(3)], 1), np.interp(at, along, radius)


def _plaque(rng: np.random.Generator, arteries: dict[str, Tube], scale: float) -> Tube:
    """Calcium in the wall of a coronary artery, more often in its first half."""
    vessel = arteries[str(rng.choice(["LM", "LAD", "LCx", "RCA"], p=[0.15, 0.45, 0.15, 0.25]))]
    line, radius = _piece(vessel, float(rng.beta(1.2, 2.0)) * 0.8, float(rng.uniform(2, 9)) * scale)
    side = rng.normal(size=3)
    tangent = line[-1] - line[0]
    side -= tangent * (side @ tangent) / max(float(tangent @ tangent), 1e-6)
    side /= max(float(np.linalg.norm(side)), 1e-6)
    thick = np.sin(np.linspace(0.35, math.pi - 0.35, len(line))) * rng.uniform(0.5, 1.4) * scale
    return tube("plaque", "calcium", np.concatenate([line + side * radius[:, None], thick[:, None]], 1))


def _stent(rng: np.random.Generator, vessel: Tube, scale: float) -> Tube:
    """A stent in the proximal half of an artery, a little wider than it."""
    line, radius = _piece(vessel, float(rng.uniform(0.02, 0.4)), float(rng.uniform(12, 30)) * scale)
    return tube("stent", "metal", np.concatenate([line, radius[:, None] + 0.1 * scale], 1))


def _lead(rng: np.random.Generator, template: str, tubes: tuple[Tube, ...], scale: float) -> Tube:
    """A lead from the left arm's vein by superior vena cava and right atrium to the apex of the right ventricle."""
    vein = next(t for t in tubes if t.name == "SVC").line.double().cpu().numpy()[::-1]
    course = np.concatenate([vein[:-2:4], _right_heart(template)])
    course[:-1] += rng.normal(0, 2.0, (len(course) - 1, 3))
    radius = np.full((len(course), 1), LEAD_RADIUS_MM * scale)
    return tube("lead", "metal", np.concatenate([course, radius], 1))


@lru_cache(maxsize=4)
def _right_heart(template: str) -> NDArray[np.float64]:
    """Template mm (3, 3): middle of the right atrium, of the tricuspid valve, and a point in the ventricle's apex."""
    heart = load_template(template)
    where = torch.stack(torch.meshgrid(*[torch.arange(n) for n in heart.fields.shape[1:]], indexing="ij"), -1)
    points = where * heart.spacing_mm + heart.low
    atrium = points[heart.fields[RA] > 8].mean(0)
    between = torch.maximum(heart.fields[RA].abs(), heart.fields[RV].abs()) < 1.5 * heart.spacing_mm
    valve = points[between].mean(0)
    ventricle = points[heart.fields[RV] > 4]
    apex = ventricle[(ventricle - valve).norm(dim=-1).argmax()]
    return torch.stack([atrium, valve, apex]).double().numpy()
