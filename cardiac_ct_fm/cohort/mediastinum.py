"""Fat and small things around the heart: strands, thymus, lymph nodes, pericardium and its fluid.

Densities: fat −120…−60 HU, pericoronary fat −79…−96 HU (domain facts); lymph nodes and thymus as soft tissue or, in the
old, fat [textbook values].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.canvas import Canvas
from cardiac_ct_fm.cohort.noise import chance, uniform
from cardiac_ct_fm.cohort.thorax import Trunk, TrunkParameters


@dataclass(frozen=True)
class MediastinumParameters:
    """Fat and small things around the heart; mm and HU.

    Attributes:
        fat: density of fat; strands: weight of soft tissue in it.
        margin_low, margin_high: range of the fat around the heart.
        pericardium: density of its line; effusion: mm of fluid inside it (0: none).
        thymus: density of the tissue in front of the great vessels.
        nodes: (place, radius, HU) of lymph nodes, some calcified.
        muscle: density of muscle; muscle_fat: how much fat runs through it; gland: threshold of the breasts' gland.
    """

    fat: float
    strands: float
    margin_low: float
    margin_high: float
    pericardium: float
    effusion: float
    thymus: float
    nodes: tuple[tuple[tuple[float, float, float], float, float], ...]
    muscle: float
    muscle_fat: float
    gland: float


def draw_mediastinum(rng: torch.Generator, trunk: TrunkParameters) -> MediastinumParameters:
    """Random contents of the mediastinum of this trunk."""
    low = uniform(rng, 1.5, 5)
    nodes = tuple(
        (
            (trunk.midline + uniform(rng, -45, 45), uniform(rng, trunk.spine_y + 20, 25), uniform(rng, 25, 120)),
            uniform(rng, 2.0, 5.5),
            uniform(rng, 30, 90) if chance(rng, 0.85) else uniform(rng, 400, 1000),
        )
        for _ in range(int(uniform(rng, 3, 14)))
    )
    return MediastinumParameters(
        fat=uniform(rng, -115, -75),
        strands=uniform(rng, 0.0, 0.6),
        margin_low=low,
        margin_high=low + uniform(rng, 2, 12),
        pericardium=uniform(rng, 0, 60),
        effusion=uniform(rng, 3, 14) if chance(rng, 0.08) else 0.0,
        thymus=uniform(rng, -100, 45),
        nodes=nodes,
        muscle=uniform(rng, 35, 75),
        muscle_fat=uniform(rng, 0.0, 1.0),
        gland=uniform(rng, -0.3, 1.5),
    )


def paint_mediastinum(
    canvas: Canvas,
    trunk: Trunk,
    cage: Tensor,
    margin: Tensor,
    heart_distance: Tensor,
    cells: tuple[Tensor, Tensor, Tensor],
    p: TrunkParameters,
    m: MediastinumParameters,
) -> None:
    """Paint the inside of the cage before lungs and abdomen take their parts.

    Args:
        canvas: where to paint.
        trunk: depths on the coarse points.
        cage: (X, Y, Z) depth in the cage, mm.
        margin: (x, y, z) thickness of the fat around the heart on the coarse points, mm.
        heart_distance: (X, Y, Z) signed mm, positive inside.
        cells: three (X, Y, Z) fields of smooth unit noise.
        p: the trunk.
        m: the mediastinum.
    """
    _, c1, c2 = cells
    canvas.paint(canvas.cover(cage), m.fat + m.strands * 60 * (c2 + 0.3).clamp_(0, 1.5))
    box = canvas.where((trunk.side < 20) & (trunk.depth > 0.62) & (canvas.coarse[..., 2] > 20) & (trunk.cage > 0))
    if box is not None:
        part = canvas.window(box)
        (depth,) = part.up(trunk.depth)
        x, _, z = part.points.unbind(-1)
        thymus = torch.minimum(14 - (x - p.midline).abs(), torch.minimum(cage[box] - 4, (depth - 0.68) * 100))
        part.paint(part.cover(torch.minimum(thymus, z - 25)), m.thymus + 20 * c1[box])
    for place, radius, value in m.nodes:
        hit = canvas.capsule(place, place, radius)
        if hit is not None:
            canvas.paint(canvas.cover(torch.minimum(hit[1], -1.5 - heart_distance[hit[0]])), value, hit[0])
    box = canvas.where((canvas.coarse[..., 2] < 45) & (canvas.down(heart_distance) > -20))
    if box is not None:
        part = canvas.window(box)
        (fat,) = part.up(margin)
        near = heart_distance[box]
        # the pericardium ends at the roots of the great vessels and in front of the descending aorta
        _, y, z = part.points.unbind(-1)
        below_vessels = ((45 - z) / 20).clamp_(0, 1) * ((y - p.spine_y - 30) / 5).clamp_(0, 1)
        part.paint(part.shell(-near - 0.55 * fat, 1.3) * below_vessels, m.pericardium)
        if m.effusion > 0:
            part.paint(part.cover(m.effusion + near) * below_vessels, 12.0)
