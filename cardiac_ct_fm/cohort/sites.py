"""Eight digital hospitals: their scans and labels, their scanners and patients, and how their observers click.

Numbers of scans and labels are those of the paper (Tölle et al., npj Digital Medicine 2025, 8:88, read from the
research code), scaled down by a factor. Scanners, populations and contrast habits are this project's own choice:
they spread the sites over what clinical cardiac CT looks like and imitate no hospital.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from cardiac_ct_fm.anatomy import LANDMARKS
from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.cohort.patient import Sex
from cardiac_ct_fm.errors import ConfigError

SITE_SEEDS = 100_000
"""Patients of site ``k`` have seeds from ``k * SITE_SEEDS`` to below ``(k + 1) * SITE_SEEDS``."""

OBSERVER_BIAS_MM = 0.40
OBSERVER_SCATTER_MM = 0.83
"""SD per axis of a site's own habit and of a single click.

Together σ = 0.92 mm per axis: two observers of different sites then lie a median of 1.54·√2·σ = 2.0 mm apart, with
quartiles 1.4 and 2.7 mm, as human observers do (2.0 [1.3–2.8] mm, Astudillo et al. 2020).
"""


@dataclass(frozen=True)
class Site:
    """One hospital.

    Attributes:
        number: 1…8; name: its city in the paper.
        scans: scans in the paper; labelled: of these, how many carry ``hps``, ``ms`` and ``calc`` labels.
        slice_mm: range of slice thickness; noise: factor on the noise; fwhm_mm: range of the kernel's width.
        contrast: factor on the left heart's enhancement; women: share of women.
    """

    number: int
    name: str
    scans: int
    labelled: dict[str, int]
    slice_mm: tuple[float, float]
    noise: float
    fwhm_mm: tuple[float, float]
    contrast: float
    women: float


SITES: tuple[Site, ...] = (
    Site(1, "Heidelberg", 813, {"hps": 78, "ms": 73, "calc": 78}, (0.5, 0.8), 1.0, (0.7, 1.0), 1.0, 0.50),
    Site(2, "Munich", 1819, {"hps": 30, "ms": 0, "calc": 20}, (0.6, 1.0), 0.8, (0.7, 1.1), 1.1, 0.45),
    Site(3, "Münster", 3001, {"hps": 27, "ms": 20, "calc": 0}, (0.5, 0.75), 1.3, (0.6, 0.9), 0.9, 0.50),
    Site(4, "Göttingen", 1829, {"hps": 42, "ms": 0, "calc": 0}, (0.75, 1.5), 1.0, (0.9, 1.4), 1.0, 0.55),
    Site(5, "Berlin", 534, {"hps": 0, "ms": 0, "calc": 0}, (0.5, 1.0), 1.2, (0.7, 1.2), 1.2, 0.40),
    Site(6, "Frankfurt", 42, {"hps": 20, "ms": 0, "calc": 20}, (0.6, 0.9), 0.7, (0.8, 1.0), 0.85, 0.50),
    Site(7, "Hamburg", 60, {"hps": 34, "ms": 23, "calc": 0}, (1.0, 2.0), 0.8, (0.8, 1.3), 1.0, 0.45),
    Site(8, "Greifswald", 26, {"hps": 25, "ms": 0, "calc": 0}, (0.5, 0.8), 1.6, (0.6, 0.9), 0.75, 0.60),
)
"""The eight hospitals of the paper."""


@dataclass(frozen=True)
class SiteScan:
    """One scan of a site: its patient's seed and the heads that it is labelled for."""

    seed: int
    labels: tuple[str, ...]


def site(number: int) -> Site:
    """Site 1…8.

    Raises:
        ConfigError: no such site.
    """
    for candidate in SITES:
        if candidate.number == number:
            return candidate
    raise ConfigError(f"There is no site {number}; sites are 1…{len(SITES)} ({', '.join(s.name for s in SITES)}).")


def site_scans(number: int, factor: float = 0.01, least: int = 2) -> list[SiteScan]:
    """The scans of a site, scaled down, with the paper's pattern of labels.

    Args:
        number: 1…8.
        factor: share of the paper's numbers; a label that the site has is kept on at least one scan.
        least: scans that every site has at least.

    Raises:
        ConfigError: unknown site or a factor outside (0, 1].
    """
    here = site(number)
    if not 0 < factor <= 1:
        raise ConfigError(f"factor is {factor}; give a share of the paper's numbers in (0, 1].")
    labelled = {head: math.ceil(count * factor) for head, count in here.labelled.items()}
    count = max(least, math.ceil(here.scans * factor), *labelled.values())
    return [
        SiteScan(number * SITE_SEEDS + i, tuple(head for head, n in labelled.items() if i < n)) for i in range(count)
    ]


def draw_site_case(number: int, seed: int, *, strength: float = 0.7, device: torch.device | str = "cpu") -> Case:
    """A patient of a site: the site's mix of patients, its contrast and its scanner.

    Args:
        number: 1…8.
        seed: the patient.
        strength: dial of the domain randomisation; below 1, because a hospital varies less than the world.
        device: where looks are rendered.

    Raises:
        ConfigError: unknown site or bad parameters.
    """
    here = site(number)
    rng = np.random.default_rng([seed, number, 5])
    sex: Sex = "F" if rng.random() < here.women else "M"
    case = draw_case(seed, sex, strength=strength, device=device)
    blood = {
        k: float(np.clip(v * here.contrast, 150, 900)) if k in ("LV", "LA", "Aorta", "coronary") else v
        for k, v in case.heart.patient.blood.items()
    }
    patient = dataclasses.replace(case.heart.patient, blood=blood)
    scanner = dataclasses.replace(
        case.scanner,
        slice_mm=float(rng.uniform(*here.slice_mm)),
        fwhm_mm=float(rng.uniform(*here.fwhm_mm)),
        noise_hu=case.scanner.noise_hu * here.noise,
    )
    return dataclasses.replace(case, heart=dataclasses.replace(case.heart, patient=patient), scanner=scanner)


def observed_landmarks(number: int, case: Case) -> dict[str, torch.Tensor]:
    """The points of a patient as the site's observer clicked them, body mm (3,): truth, plus habit, plus scatter.

    Raises:
        ConfigError: unknown site.
    """
    habit = np.random.default_rng([site(number).number, 11]).normal(0, OBSERVER_BIAS_MM, (len(LANDMARKS), 3))
    click = np.random.default_rng([case.heart.patient.seed, number, 13]).normal(
        0, OBSERVER_SCATTER_MM, (len(LANDMARKS), 3)
    )
    return {
        name: case.heart.landmarks[name] + torch.from_numpy(habit[i] + click[i]).float().to(case.heart.offsets.device)
        for i, name in enumerate(LANDMARKS)
    }
