"""Everything in a chest CT that is not the heart: trunk, lungs, bones, mediastinal fat, abdomen and table.

:func:`draw_surroundings` draws all random numbers of a patient on the CPU, :func:`background` turns them
into Hounsfield units at any regular grid of points. Frame: RAS mm with the origin at the heart's centre, so
the patient's right (liver) is at positive x and the left ventricle at negative x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort import abdomen, bones, lungs, thorax
from cardiac_ct_fm.cohort.canvas import Canvas
from cardiac_ct_fm.cohort.noise import chance, draw_control, refine, smooth_field, uniform
from cardiac_ct_fm.cohort.thorax import HeartExtent
from cardiac_ct_fm.errors import ConfigError

SHAPE_CELL_MM, SHAPE_NODES = 34.0, 17
"""Control grid of shapes: bends of organ borders about 7 cm long, over a cube of 54 cm."""
BOWEL_CELL_MM, BOWEL_NODES = 21.0, 17
"""Control grid of bowel loops 3–4 cm wide, mirrored outside its cube of 34 cm."""
DETAIL_CELL_MM, DETAIL_NODES = 11.0, 29
"""Control grid of detail (vessels, bowel, fat strands), mirrored without end outside its cube of 31 cm."""
SHAPE_CHANNELS, DETAIL_CHANNELS = 9, 5


@dataclass(frozen=True)
class MediastinumParameters:
    """Fat and small things around the heart; mm and HU.

    Attributes:
        fat: density of fat; strands: weight of soft tissue in it.
        margin_low, margin_high: range of the fat around the heart.
        pericardium: density of its line; effusion: mm of fluid inside it (0: none).
        thymus: density of the tissue in front of the great vessels.
        nodes: (place, radius, HU) of lymph nodes, some calcified.
        muscle: density of muscle; muscle_fat: how much fat runs through it.
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


@dataclass(frozen=True)
class SurroundingsParameters:
    """All random numbers of the surroundings of one heart.

    Attributes:
        trunk, bones, lungs, abdomen, mediastinum: numbers of the parts.
        shape: (9, n, n, n) refined control grid of organ borders; bowel: (2, k, k, k) of its loops; detail: (5, m, m, m) of fine structure; CPU.
    """

    trunk: thorax.TrunkParameters
    bones: bones.BoneParameters
    lungs: lungs.LungParameters
    abdomen: abdomen.AbdomenParameters
    mediastinum: MediastinumParameters
    shape: Tensor
    bowel: Tensor
    detail: Tensor


def _draw_mediastinum(rng: torch.Generator, trunk: thorax.TrunkParameters) -> MediastinumParameters:
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
    )


def draw_surroundings(rng: torch.Generator, sex: str, heart: HeartExtent | None = None) -> SurroundingsParameters:
    """Draw the surroundings of one patient.

    Args:
        rng: a CPU generator; the same state gives the same patient on every machine.
        sex: ``F`` or ``M``.
        heart: how far the heart reaches; the trunk is built around it.

    Returns:
        The parameters, tensors on the CPU.

    Raises:
        ConfigError: another sex.
    """
    if sex not in ("F", "M"):
        raise ConfigError(f"sex is {sex!r}; the published distributions are for F and M.")
    trunk = thorax.draw_trunk(rng, sex, heart or HeartExtent())
    return SurroundingsParameters(
        trunk=trunk,
        bones=bones.draw_bones(rng, sex, trunk),
        lungs=lungs.draw_lungs(rng, trunk),
        abdomen=abdomen.draw_abdomen(rng, trunk),
        mediastinum=_draw_mediastinum(rng, trunk),
        shape=_unit(refine(draw_control(rng, SHAPE_CHANNELS, SHAPE_NODES))),
        bowel=_unit(refine(draw_control(rng, 2, BOWEL_NODES), 3)),
        detail=_net(_unit(refine(draw_control(rng, DETAIL_CHANNELS, DETAIL_NODES)))),
    )


def _unit(control: Tensor) -> Tensor:
    """Scaled to unit SD per channel (B-splines damp the drawn values)."""
    return control / control.std(dim=(1, 2, 3), keepdim=True)


def _net(detail: Tensor) -> Tensor:
    """The first two channels turned into mm from their zero surfaces; where both are zero runs a net of vessels."""
    gradient = torch.stack(torch.gradient(detail[:2], spacing=0.5 * DETAIL_CELL_MM, dim=(1, 2, 3))).norm(dim=0)
    distance = (detail[:2] / gradient.clamp_min(0.25 * float(gradient.mean()))).clamp(-20, 20)
    return torch.cat([distance, detail[2:]])


def background(points: Tensor, heart_distance: Tensor, params: SurroundingsParameters) -> tuple[Tensor, Tensor]:
    """Hounsfield units of everything around the heart.

    Args:
        points: (X, Y, Z, 3) float32 RAS mm, a regular grid with the origin at the heart's centre.
        heart_distance: (X, Y, Z) signed mm, positive inside heart and great vessels, may saturate at ±25 mm.
        params: one patient.

    Returns:
        HU (X, Y, Z) float32, and the lung mask (X, Y, Z) bool.

    Raises:
        ConfigError: ``points`` is not a grid.
    """
    p = params.trunk
    m = params.mediastinum
    canvas = Canvas(points)
    coarse = canvas.coarse
    shape = smooth_field(coarse, params.shape, SHAPE_CELL_MM * (SHAPE_NODES - 1))
    detail = smooth_field(coarse, params.detail, DETAIL_CELL_MM * (DETAIL_NODES - 1), padding="reflection")
    near = canvas.down(heart_distance)
    trunk = thorax.build_trunk(coarse, near, shape[:4], p)
    margin = m.margin_low + (m.margin_high - m.margin_low) * (0.5 + 0.6 * shape[4]).clamp(0, 1.2)
    # thin fat over the free walls and along the vessels of the hila
    margin = 1.0 + margin * (1 - (trunk.side - 40) / 40).clamp(0.2, 1)
    lung = thorax.lung_depth(trunk, coarse, near, margin, shape[8], p)
    count = bones.rib_fields(coarse, trunk.turn, shape[6], params.bones)
    liver = abdomen.liver_depth(coarse, trunk, shape[7:9], p, params.abdomen)
    bowel = smooth_field(
        coarse, params.bowel, BOWEL_CELL_MM * (BOWEL_NODES - 1), (0.0, 0.0, -170.0), padding="reflection"
    )
    (cage, body, muscle, limbs, below, depth, side, lung, count, turn, liver, margin) = canvas.up(
        [trunk.cage, trunk.body, trunk.muscle, trunk.limbs, trunk.abdomen, trunk.depth, coarse[..., 0] - p.midline]
        + [lung, count, trunk.turn, liver, margin]
    )
    a, b, c0, c1, c2, loops, content = canvas.up([*detail, *bowel])
    net = -(a.square_() + b.square_()).sqrt_()
    cells = torch.stack([c0, c1, c2])

    _paint_table(canvas, p)
    canvas.paint(canvas.cover(body), m.fat + 8 * c2)
    flesh = torch.minimum(torch.maximum(muscle, limbs - 10 - 0.5 * p.fat), body - 3)
    streaky = ((c0.abs() - 0.10 * m.muscle_fat) * 8).clamp_(0, 1)
    canvas.paint(canvas.cover(flesh) * (0.6 + 0.4 * streaky), m.muscle + 6 * c1)
    canvas.paint(canvas.shell(body, 2.0), 15.0)

    canvas.paint(canvas.cover(cage), m.fat + m.strands * 60 * (c2 + 0.3).clamp_(0, 1.5))
    thymus = torch.minimum(14 - side.abs(), torch.minimum(cage - 4, (depth - 0.68) * 100))
    thymus = torch.minimum(thymus, points[..., 2] - 25)
    canvas.paint(canvas.cover(thymus), m.thymus + 20 * c1)
    for place, radius, value in m.nodes:
        hit = canvas.capsule(place, place, radius)
        if hit is not None:
            canvas.paint(canvas.cover(hit[1]), value, hit[0])
    line = -heart_distance - (0.55 * margin)
    level = points[..., 2]
    canvas.paint(canvas.shell(line, 1.3) * ((45 - level) / 20).clamp(0, 1), m.pericardium)
    if m.effusion > 0:
        canvas.paint(canvas.cover(m.effusion + heart_distance) * ((45 - level) / 20).clamp(0, 1), 12.0)
    lungs.paint_lungs(canvas, lung, net, cells, depth, side, params.lungs)
    abdomen.paint_abdomen(canvas, below, cage, liver, torch.stack([loops, content, c2]), net + 1.8, p, params.abdomen)
    axis = thorax.spine_axis(level, p)
    lungs.paint_tubes(canvas, heart_distance, axis, p, params.lungs)
    bones.paint_ribs(canvas, cage, count, turn, params.bones)
    bones.paint_sternum(canvas, cage, p, params.bones)
    bones.paint_shoulders(canvas, p, params.bones)
    bones.paint_spine(canvas, c2, p, params.bones)
    return canvas.hu, lung > 0


def _paint_table(canvas: Canvas, p: thorax.TrunkParameters) -> None:
    """A curved shell of the patient table with a light core, under the back."""
    x, y = canvas.points[..., 0], canvas.points[..., 1]
    depth = thorax.table_height(x, p) - p.table_gap - y
    canvas.paint(canvas.shell(depth, 45.0), -960.0)
    canvas.paint(canvas.shell(depth, p.table_shell) + canvas.shell(depth - 45, p.table_shell), -150.0)
