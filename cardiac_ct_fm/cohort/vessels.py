"""Vessels as tapered tubes: coronary arteries, arch and descending aorta, venae cavae, pulmonary vessels.

All coordinates are template mm. The great vessels' courses continue the template where its labels end; they
were laid out by hand along the usual anatomy (arch over the left main bronchus, descending aorta left of the
spine, superior vena cava right of the ascending aorta) and each patient moves and scales them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

STEP_MM = 2.5
"""Length of the straight pieces of a tube."""


@dataclass(frozen=True)
class Tube:
    """One vessel: polyline ``line`` (n, 3) with lumen ``radius`` (n,), both template mm, and the blood it carries."""

    name: str
    blood: str
    line: Tensor
    radius: Tensor

    def distance(self, points: Tensor) -> Tensor:
        """Signed distance of points (N, 3) to the lumen surface, mm, positive inside → (N,).

        Exact next to the vertex that is nearest; pieces are short against the radius of curvature.
        """
        nearest = (points @ self.line.T - (self.line**2).sum(-1) / 2).argmax(-1)
        best = torch.full((len(points),), -torch.inf, device=points.device)
        for first in ((nearest - 1).clamp_min(0), nearest.clamp_max(len(self.line) - 2)):
            start, along = self.line[first], self.line[first + 1] - self.line[first]
            offset = points - start
            t = ((offset * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
            radius = self.radius[first] + t * (self.radius[first + 1] - self.radius[first])
            best = torch.maximum(best, radius - (offset - t[:, None] * along).norm(dim=-1))
        return best

    def to(self, device: torch.device | str) -> Tube:
        """The same tube on another device."""
        return Tube(self.name, self.blood, self.line.to(device), self.radius.to(device))


GREAT_VESSELS: dict[str, tuple[str, tuple[tuple[float, float, float, float], ...]]] = {
    "arch": (
        "Aorta",
        (
            (18, 8, -56, 15.5),
            (22, 7, -44, 15.5),
            (18, 1, -26, 14.5),
            (6, -17, -13, 14),
            (-8, -40, -21, 13),
            (-14, -55, -42, 12.5),
            (-14, -61, -80, 12),
            (-11, -63, -120, 12),
            (-6, -64, -170, 11.5),
            (-2, -62, -300, 10),
        ),
    ),
    "SVC": (
        "SVC",
        (
            (27, -6, -82, 9),
            (28, -7, -66, 9),
            (27, -6, -45, 8.5),
            (25, -2, -20, 8.5),
            (20, 8, 2, 8),
            (-15, 18, 22, 7),
            (-45, 10, 35, 6),
        ),
    ),
    "right_subclavian": ("SVC", ((20, 8, 2, 7), (40, 4, 20, 6), (75, -5, 40, 5))),
    "IVC": (
        "IVC",
        ((27, -8, -132, 10), (26, -16, -146, 11), (22, -26, -170, 12), (18, -34, -210, 12), (14, -40, -300, 11)),
    ),
    "innominate": ("Aorta", ((11, -8, -13, 6), (14, -4, 10, 6), (26, 2, 40, 5))),
    "left_carotid": ("Aorta", ((3, -20, -10, 4), (0, -16, 12, 3.5), (-4, -10, 45, 3.5))),
    "left_subclavian": ("Aorta", ((-5, -34, -13, 5), (-9, -34, 12, 4.5), (-22, -30, 45, 4.5))),
    "right_PA": ("PA", ((48, -34, -62, 8), (62, -38, -70, 6), (78, -44, -90, 4), (90, -50, -115, 2.5))),
    "left_PA": ("PA", ((-44, -52, -54, 9), (-56, -62, -66, 7), (-66, -70, -92, 5), (-76, -74, -120, 3))),
    "right_superior_PV": ("LA", ((24, -24, -84, 7), (38, -24, -78, 6), (58, -26, -68, 4), (80, -28, -50, 2.5))),
    "right_inferior_PV": ("LA", ((24, -34, -96, 7), (40, -42, -100, 6), (58, -54, -110, 4), (76, -66, -124, 2.5))),
    "left_superior_PV": ("LA", ((-28, -36, -76, 7), (-42, -42, -68, 5.5), (-58, -46, -52, 4), (-72, -44, -32, 2.5))),
    "left_inferior_PV": ("LA", ((-26, -44, -92, 7), (-42, -54, -94, 5.5), (-58, -68, -102, 4), (-72, -80, -116, 2.5))),
}
"""Courses as (x, y, z, radius) in template mm, and the compartment whose blood they carry."""

ARCH_APEX_POINT = 3
ARCH_APEX: tuple[float, float, float] = GREAT_VESSELS["arch"][1][ARCH_APEX_POINT][:3]
ARCH_NORMAL: tuple[float, float, float] = (0.35, 0.93, 0.1)
"""The label Aorta (root and ascending aorta) ends at the plane through the arch's apex with this normal."""


def _curve(control: NDArray[np.float64]) -> NDArray[np.float64]:
    """A cubic spline through control points (n, 4), resampled every ``STEP_MM`` (x, y, z, radius)."""
    chord = np.linalg.norm(np.diff(control[:, :3], axis=0), axis=1)
    position = np.concatenate([[0], np.cumsum(np.maximum(chord, 1e-3))])
    count = max(2, int(position[-1] / STEP_MM) + 1)
    resampled: NDArray[np.float64] = CubicSpline(position, control)(np.linspace(0, position[-1], count))
    resampled[:, 3] = np.maximum(resampled[:, 3], 0.3)
    return resampled


def tube(name: str, blood: str, control: NDArray[np.float64]) -> Tube:
    """A tube through control points (n, 4): x, y, z, radius in template mm."""
    curve = torch.from_numpy(_curve(control)).float()
    return Tube(name, blood, curve[:, :3].contiguous(), curve[:, 3].contiguous())


def great_vessels(
    shift: NDArray[np.float64],
    calibre: NDArray[np.float64],
    ascending_radius: float,
    place: Callable[[Tensor], Tensor],
) -> tuple[list[Tube], Tensor]:
    """The patient's great vessels, and the top of his aortic arch (3,) in template mm.

    Args:
        shift: (40, 3) mm, jitter of control points; the first two of each vessel, at the heart, move less.
        calibre: (10,) factors on the radii.
        ascending_radius: radius of the ascending aorta in template mm; the arch starts with it.
        place: where control points (n, 3) of the template heart belong in this patient, template mm.
    """
    tubes = []
    apex = torch.tensor(ARCH_APEX)
    row = 0
    for index, (name, (blood, course)) in enumerate(GREAT_VESSELS.items()):
        control = np.array(course, float)
        moved = shift[(row + np.arange(len(course))) % len(shift)].copy()
        moved[:2] *= 0.4
        control[:, :3] = place(torch.from_numpy(control[:, :3] + moved).float()).double().numpy()
        control[:, 3] *= calibre[index % len(calibre)]
        if name == "arch":
            blend = np.linspace(1, 0, len(control)) ** 0.5
            control[:, 3] = blend * ascending_radius + (1 - blend) * control[:, 3]
            apex = torch.from_numpy(control[ARCH_APEX_POINT, :3]).float()
        tubes.append(tube(name, blood, control))
        row += len(course)
    return tubes, apex


def coronary_tubes(
    courses: dict[str, Tensor],
    starts: dict[str, tuple[Tensor, Tensor]],
    diameters_mm: dict[str, float],
    scale: float,
    right_dominant: bool,
) -> list[Tube]:
    """The patient's coronary arteries.

    Args:
        courses: template polylines (n, 3), already moved onto the patient's own surfaces.
        starts: for RCA and LM, the ostium on the lumen wall and the direction in which the vessel leaves (unit).
        diameters_mm: proximal lumen diameters, patient mm; vessels taper to half.
        scale: template mm per patient mm.
        right_dominant: the right coronary artery gives the posterior descending branch, else it is short and thin.
    """
    tubes = []
    ends: dict[str, NDArray[np.float64]] = {}
    for name in ("LM", "LAD", "LCx", "RCA", "PDA", "D1", "OM1", "AM"):
        line = courses[name].double().numpy()
        diameter = diameters_mm[name] * (0.75 if name == "RCA" and not right_dominant else 1.0)
        if name in starts:
            ostium, leave = (t.double().numpy() for t in starts[name])
            near = [ostium - 1.5 * leave, ostium + 2.0 * leave, ostium + 5.0 * leave]
            far = line[np.linalg.norm(line - near[-1], axis=1) > 6.0]
            far = far if len(far) > 1 else line[-2:]
            first = int(np.argmin(np.linalg.norm(far[: max(2, len(far) // 2)] - near[-1], axis=1)))
            line = np.concatenate([near, far[first:]])
        parent = {"LAD": "LM", "LCx": "LM"}.get(name)
        if parent:
            line[0] = ends[parent]
        line = np.concatenate([line[:1], line[1:-1:3] if len(line) > 8 else line[1:-1], line[-1:]])
        if name in starts:
            line = np.concatenate([near, line[3:]]) if len(line) > 4 else line
        ends[name] = line[-1]
        taper = np.linspace(1.0, 0.9 if name == "LM" else 0.5, len(line))
        radius = diameter * scale / 2 * taper
        tubes.append(tube(name, "coronary", np.concatenate([line, radius[:, None]], 1)))
    return tubes
