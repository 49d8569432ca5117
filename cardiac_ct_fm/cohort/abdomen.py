"""The upper abdomen: liver, stomach, spleen, kidneys, bowel and fat under the diaphragm.

Densities of organs in contrast CT, by timing: liver 50–140 HU, spleen 60–180 HU, renal cortex 80–280 HU,
oral contrast 150–450 HU [textbook values]; a network for the heart has to know all of these bright things.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.canvas import Canvas, ellipsoid_depth
from cardiac_ct_fm.cohort.noise import chance, uniform
from cardiac_ct_fm.cohort.thorax import Trunk, TrunkParameters

Triple = tuple[float, float, float]
Triplet = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class AbdomenParameters:
    """Numbers of the abdomen; places in RAS mm from the heart's centre, densities in HU.

    Attributes:
        liver, liver_vessel, spleen, cortex, medulla, bowel: densities.
        liver_left, liver_low: where the liver ends to the left and below.
        stomach, stomach_radii: place and size; stomach_content: density; gas_level: share of its depth filled with gas.
        spleen_place, spleen_radii; kidney_places, kidney_radii: places and sizes.
        bowel_share: threshold of the bowel's noise; bowel_content: density of its lumen; gas: threshold of gas.
        ascites: fluid instead of fat around the organs.
    """

    liver: float
    liver_vessel: float
    spleen: float
    cortex: float
    medulla: float
    bowel: float
    liver_left: float
    liver_low: float
    stomach: Triple
    stomach_radii: Triple
    stomach_content: float
    gas_level: float
    spleen_place: Triple
    spleen_radii: Triple
    kidney_places: tuple[Triple, Triple]
    kidney_radii: Triple
    bowel_share: float
    bowel_content: float
    gas: float
    ascites: bool


def draw_abdomen(rng: torch.Generator, trunk: TrunkParameters) -> AbdomenParameters:
    """A random abdomen for this trunk."""
    liver = uniform(rng, 45, 125)
    content = uniform(rng, -20, 70) if chance(rng, 0.75) else uniform(rng, 120, 450)
    x0, left = trunk.midline, trunk.dome_left
    kidney_z = trunk.dome_right - uniform(rng, 95, 150)
    kidney_y = trunk.spine_y + uniform(rng, -6, 16)
    return AbdomenParameters(
        liver=liver,
        liver_vessel=liver + uniform(rng, -25, 90),
        spleen=uniform(rng, 50, 180),
        cortex=uniform(rng, 80, 280),
        medulla=uniform(rng, 40, 130),
        bowel=uniform(rng, 20, 100),
        liver_left=x0 - uniform(rng, 15, 85),
        liver_low=trunk.dome_right - uniform(rng, 120, 200),
        stomach=(x0 - uniform(rng, 50, 85), uniform(rng, -15, 35), left - uniform(rng, 35, 60)),
        stomach_radii=(uniform(rng, 22, 46), uniform(rng, 28, 55), uniform(rng, 28, 60)),
        stomach_content=content,
        gas_level=uniform(rng, -0.8, 1.3),
        spleen_place=(x0 - uniform(rng, 85, 112), trunk.spine_y + uniform(rng, 0, 35), left - uniform(rng, 30, 60)),
        spleen_radii=(uniform(rng, 22, 38), uniform(rng, 32, 52), uniform(rng, 38, 60)),
        kidney_places=(
            (x0 + uniform(rng, 52, 70), kidney_y, kidney_z),
            (x0 - uniform(rng, 52, 70), kidney_y, kidney_z + 12),
        ),
        kidney_radii=(uniform(rng, 23, 30), uniform(rng, 21, 27), uniform(rng, 45, 60)),
        bowel_share=uniform(rng, -0.25, 0.25),
        bowel_content=uniform(rng, -30, 60) if chance(rng, 0.7) else uniform(rng, 100, 400),
        gas=uniform(rng, 0.1, 0.9),
        ascites=chance(rng, 0.06),
    )


def liver_depth(points: Tensor, trunk: Trunk, wobble: Tensor, p: TrunkParameters, a: AbdomenParameters) -> Tensor:
    """Signed depth (mm, positive inside) of the liver on the coarse points; ``wobble`` (2, x, y, z) unit noise."""
    x, y, z = points.unbind(-1)
    front = (y - p.spine_y - 10) / (p.front - p.spine_y)
    front = 1.25 * front.clamp(min=0) - 0.35 * front.clamp(min=0) ** 2
    left_border = p.midline + 20 + (a.liver_left - p.midline - 20) * front + 0.35 * (p.dome_right - z).clamp(min=-20)
    low_border = a.liver_low + 0.9 * (p.midline + 60 - x).clamp(min=0)
    depth = torch.minimum(trunk.abdomen - 2.0, trunk.cage - 2.5)
    depth = torch.minimum(depth, (x - left_border) * 0.9 + 18 * wobble[0])
    depth = torch.minimum(depth, z - low_border + 18 * wobble[1])
    return torch.minimum(depth, trunk.spine - 9)


def paint_abdomen(
    canvas: Canvas,
    below: Tensor,
    inside: Tensor,
    liver: Tensor,
    cells: Triplet,
    tubes: Tensor,
    p: TrunkParameters,
    a: AbdomenParameters,
) -> None:
    """Everything under the diaphragm, on the full grid.

    Args:
        canvas: where to paint.
        below: (X, Y, Z) depth below the diaphragm, mm.
        inside: (X, Y, Z) depth in the cage, mm.
        liver: (X, Y, Z) depth in the liver, mm.
        cells: three (X, Y, Z) fields of smooth unit noise for bowel, its content and fat strands.
        tubes: (X, Y, Z) depth (mm) in a net of random vessels.
        p: the trunk.
        a: the abdomen.
    """
    inner = canvas.layer((5.0 if a.ascites else -102.0) + 12 * cells[2])
    folds = (cells[0] - a.bowel_share) * 14
    folds = torch.minimum(folds, torch.minimum(below - 6, inside - 3))
    inner.paint(inner.cover(folds), a.bowel + 10 * cells[2])
    lumen = inner.cover(folds - 3.5)
    content = torch.lerp(
        a.bowel_content + 25 * cells[2], folds.new_tensor(-950.0), inner.cover((cells[1] - a.gas) * 15)
    )
    inner.paint(lumen, content)
    for sign in (-1.0, 1.0):
        psoas = inner.capsule(
            (p.spine_x + sign * 26, p.spine_y, p.dome_middle - 85),
            (p.spine_x + sign * 55, p.spine_y + 12, p.dome_middle - 250),
            17,
        )
        if psoas is not None:
            inner.paint(inner.cover(psoas[1]), 55.0, psoas[0])
    for place in a.kidney_places:
        _organ(inner, place, a.kidney_radii, [(0.0, a.cortex), (7.0, a.medulla), (15.0, -90.0)], cells)
    _organ(inner, a.spleen_place, a.spleen_radii, [(0.0, a.spleen)], cells)
    _stomach(inner, cells, a)
    inner.paint(inner.cover(liver), a.liver + 5 * cells[2])
    inner.paint(inner.cover(torch.minimum(tubes, liver - 6)), a.liver_vessel)
    # the diaphragm: 2–4 mm of muscle over fat and gas
    inner.paint(inner.cover(1.5 - (below - 1.0).abs()), 55.0)
    canvas.paint(canvas.cover(torch.minimum(below, inside)), inner.hu)


def _organ(canvas: Canvas, place: Triple, radii: Triple, layers: list[tuple[float, float]], cells: Triplet) -> None:
    """A wobbly ellipsoid of layers (depth mm, HU)."""
    box = canvas.around(place, [r * 1.3 for r in radii])
    if box is None:
        return
    depth = ellipsoid_depth(canvas.points[box], place, radii) + 4 * cells[0][box]
    for start, value in layers:
        canvas.paint(canvas.cover(depth - start), value, box)


def _stomach(canvas: Canvas, cells: Triplet, a: AbdomenParameters) -> None:
    """Wall, content and a gas level; the patient lies on the back, so gas collects in front."""
    box = canvas.around(a.stomach, [r * 1.3 for r in a.stomach_radii])
    if box is None:
        return
    points = canvas.points[box]
    depth = ellipsoid_depth(points, a.stomach, a.stomach_radii) + 5 * cells[1][box]
    canvas.paint(canvas.cover(depth), 75.0, box)
    inner = canvas.cover(depth - 4.5)
    canvas.paint(inner, a.stomach_content + 20 * cells[2][box], box)
    level = points[..., 1] - (a.stomach[1] + a.gas_level * a.stomach_radii[1])
    canvas.paint(inner * canvas.cover(level), -980.0, box)
