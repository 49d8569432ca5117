"""A whole digital patient from one seed: heart, surroundings, scanner; rendered as labelled looks at any spacing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.cohort.chambers import LA, MYO, RV
from cardiac_ct_fm.cohort.heart import DigitalHeart, build_heart
from cardiac_ct_fm.cohort.image import acquire, field_of_view
from cardiac_ct_fm.cohort.patient import Patient, Sex, draw_patient
from cardiac_ct_fm.cohort.render import Look, render
from cardiac_ct_fm.cohort.scanner import ScannerParameters, draw_scanner
from cardiac_ct_fm.cohort.surroundings import SurroundingsParameters, background, draw_surroundings
from cardiac_ct_fm.cohort.thorax import HeartExtent

LANDMARK_RADIUS_MM = 4.0
"""Landmarks are learned as spheres of this radius, as in the paper's research code."""


@dataclass(frozen=True)
class Case:
    """One digital patient on the scanner's table; body mm, RAS, origin at the heart's centre.

    Without ``surroundings`` the heart lies in nothing but fat.
    """

    heart: DigitalHeart
    surroundings: SurroundingsParameters | None
    scanner: ScannerParameters

    def grid(self, centre: Tensor, spacing_mm: float, shape: tuple[int, int, int]) -> Tensor:
        """Points (X, Y, Z, 3) of an axis-parallel grid around ``centre`` (3,)."""
        device = self.heart.offsets.device
        axes = [
            (torch.arange(n, device=device) - (n - 1) / 2) * spacing_mm + float(c)
            for n, c in zip(shape, centre, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def shows(self, point: Tensor) -> Tensor:
        """Whether a body point (3,) lies in the scan's field of view, as a boolean scalar."""
        place = (float(point[0]), float(point[1]), float(point[2]))
        return field_of_view(torch.ones(1, 1, 1), 1.0, self.scanner, place)[0, 0, 0] > 0

    def ideal(self, centre: Tensor, spacing_mm: float, shape: tuple[int, int, int]) -> Look:
        """Image and labels on a grid around ``centre``, before the scanner blurs, adds noise and ends the scan."""
        points = self.grid(centre, spacing_mm, shape)
        body = self.surroundings
        around = None if body is None else lambda away: background(points, away, body)[0]
        return render(self.heart, points, spacing_mm, around)

    def look(
        self, centre: Tensor, spacing_mm: float, shape: tuple[int, int, int], noise_seed: int = 0
    ) -> tuple[Tensor, Look]:
        """Image in HU (X, Y, Z) as the scanner gives it, and the labels, on a grid around ``centre``."""
        look = self.ideal(centre, spacing_mm, shape)
        generator = torch.Generator().manual_seed(noise_seed)
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        image = acquire(look.hu, spacing_mm, self.scanner, generator, place)
        seen = field_of_view(torch.ones_like(image), spacing_mm, self.scanner, place) > 0
        return image, look.within(seen)

    def landmark_labels(self, head: str, centre: Tensor, spacing_mm: float, look: Look) -> Tensor:
        """Label map (X, Y, Z) uint8 of a landmark head: spheres, the nearer point where two overlap.

        Points that the scan does not show are not drawn.
        """
        shape = tuple(look.seen.shape)
        points = self.grid(centre, spacing_mm, (shape[0], shape[1], shape[2]))
        names = HEADS[head].classes
        device = points.device
        distance = torch.stack([(points - self.heart.landmarks[n].to(device)).norm(dim=-1) for n in names])
        nearest = distance.min(0)
        shown = torch.stack([self.shows(self.heart.landmarks[n]) for n in names]).to(device)
        inside = (nearest.values <= LANDMARK_RADIUS_MM) & shown[nearest.indices] & look.seen
        return torch.where(inside, nearest.indices + 1, torch.zeros_like(nearest.indices)).to(torch.uint8)


def draw_case(seed: int, sex: Sex | None = None, *, strength: float = 1.0, device: torch.device | str = "cpu") -> Case:
    """Draw one digital patient.

    Args:
        seed: any non-negative integer; the same seed gives the same patient on any machine.
        sex: ``F`` or ``M``; drawn evenly when None.
        strength: dial of the domain randomisation, 0 (a clean published-range patient) … 2.
        device: where looks are rendered.

    Raises:
        ConfigError: a parameter is out of its range.
    """
    return case_of(draw_patient(seed, sex, strength=strength), seed, strength=strength, device=device)


def case_of(patient: Patient, seed: int, *, strength: float = 1.0, device: torch.device | str = "cpu") -> Case:
    """Put a patient on the table: surroundings and scanner of ``seed``; arguments as in :func:`draw_case`."""
    heart = build_heart(patient)
    rng = torch.Generator().manual_seed(seed * 7919 + 17)
    surroundings = draw_surroundings(rng, patient.sex, _extent(heart), patient.blood["PA"])
    scanner = draw_scanner(rng, strength)
    return Case(heart if str(device) == "cpu" else build_heart(patient, device), surroundings, scanner)


def _extent(heart: DigitalHeart) -> HeartExtent:
    """How far the heart reaches to the front, back and floor (from a 6 mm grid), and the descending aorta."""
    axis = torch.arange(-96, 97, 6.0)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    label = heart.fields(heart.warp.to_template(points)).label
    inside = label[[MYO, LA, RV]] > 0
    front = points[inside[0] | inside[2], 1].max()
    back = points[inside[1], 1].min()
    floor = points[inside.any(0), 2].min()
    arch = heart.warp.to_body(heart.tubes[0].line[::5])
    down = arch[int(arch[:, 2].argmax()) :]
    return HeartExtent(
        float(front), float(back), float(floor), tuple((float(x), float(y), float(z)) for x, y, z in down)
    )
