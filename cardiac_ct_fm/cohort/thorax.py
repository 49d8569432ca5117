"""The shape of the trunk: rib-cage cavity, chest wall, shoulders and arms, diaphragm.

All of it as signed depths (mm, positive inside) on the coarse points of a canvas. Sizes are those of an adult
chest, 300–380 mm wide and 200–260 mm deep over the skin [textbook values, overridable].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.canvas import capsule_depth, ellipsoid_depth, smooth_max
from cardiac_ct_fm.cohort.noise import chance, uniform


@dataclass(frozen=True)
class HeartExtent:
    """Where the heart (without great vessels) reaches, in mm from its centre; the trunk is built around it.

    Attributes:
        front: largest y of the right ventricle.
        back: smallest y of the left atrium.
        left: smallest x of the left ventricle.
        floor: smallest z.
        aorta: points (x, y, z) on the middle of the descending aorta, from the arch to the abdomen; the spine is put
            behind and to the right of it. Empty: unknown.
    """

    front: float = 55.0
    back: float = -55.0
    floor: float = -52.0
    aorta: tuple[tuple[float, float, float], ...] = ()
    left: float = -78.0


@dataclass(frozen=True)
class TrunkParameters:
    """Numbers of the trunk, mm and RAS relative to the heart's centre.

    Attributes:
        midline: x of the body's middle (the heart lies left of it, so positive).
        spine_x, spine_y: x and y of the vertebral body centre at z = 0.
        kyphosis: bend of the spine, 1/mm; scoliosis: sideways amplitude.
        half_width: of the cavity; front, back: y of its walls at z = 0; exponent: squareness of its section.
        front_slope: how fast the front wall recedes upwards, mm/mm; belly: how far it bulges below.
        apex: z where the cavity ends above.
        muscle, fat: thickness of the two layers; belly_fat: additional fat in front below.
        breast: radius of the breasts (0: none).
        dome_right, dome_middle, dome_left: z of the diaphragm; recess: depth of the costal recess behind.
        heart_gap: least distance of the cage from the heart.
        mediastinum: half width of the fat between the lungs; junction: its share in front of the heart.
        tilt: fall of the diaphragm towards the back, mm/mm.
        arms_up: arms above the head, as in most cardiac CT.
        table_gap, table_radius, table_shell: of the patient table below the back.
    """

    midline: float
    spine_x: float
    spine_y: float
    kyphosis: float
    scoliosis: float
    half_width: float
    front: float
    back: float
    exponent: float
    front_slope: float
    belly: float
    apex: float
    muscle: float
    fat: float
    belly_fat: float
    breast: float
    dome_right: float
    dome_middle: float
    dome_left: float
    recess: float
    heart_gap: float
    mediastinum: float
    junction: float
    tilt: float
    arms_up: bool
    table_gap: float
    table_radius: float
    table_shell: float


def draw_trunk(rng: torch.Generator, sex: str, heart: HeartExtent) -> TrunkParameters:
    """A random trunk that has room for this heart."""
    female = sex == "F"
    size = uniform(rng, 0.90, 1.05) * (0.95 if female else 1.03)
    midline, spine_y = uniform(rng, 12, 28), heart.back - uniform(rng, 23, 40)
    apart, turn = uniform(rng, 27, 34), uniform(rng, 0.35, 1.15)
    spine_x = midline
    beside = [(x, y) for x, y, z in heart.aorta if -140 < z < 30]
    if beside:
        # the vertebrae touch the aorta from behind and from the right
        spine_x = sum(x for x, _ in beside) / len(beside) + apart * math.cos(turn)
        spine_y = min(sum(y for _, y in beside) / len(beside) - apart * math.sin(turn), heart.back - 21)
        midline = min(max(spine_x, 8.0), 30.0)
        spine_x = min(max(spine_x, midline - 12), midline + 12)
    front = heart.front + uniform(rng, 4, 18)
    fat = uniform(rng, 4, 18) if chance(rng, 0.6) else uniform(rng, 18, 45)
    floor = heart.floor
    return TrunkParameters(
        midline=midline,
        spine_x=spine_x,
        spine_y=spine_y,
        kyphosis=uniform(rng, 1e-4, 8e-4),
        scoliosis=uniform(rng, -6, 6),
        half_width=max(uniform(rng, 122, 148) * size, midline - heart.left + 10),
        front=front,
        back=spine_y - uniform(rng, 22, 38),
        exponent=uniform(rng, 2.1, 2.8),
        front_slope=uniform(rng, 0.12, 0.38),
        belly=uniform(rng, -5, 30),
        apex=uniform(rng, 140, 185) * size,
        muscle=uniform(rng, 9, 17) * (0.9 if female else 1.05),
        fat=fat,
        belly_fat=uniform(rng, 0, 0.8) * fat,
        breast=uniform(rng, 35, 68) if female else (uniform(rng, 10, 28) if chance(rng, 0.3) else 0.0),
        dome_right=floor + uniform(rng, 8, 50),
        dome_middle=floor + uniform(rng, 3, 28),
        dome_left=floor + uniform(rng, -12, 30),
        recess=uniform(rng, 60, 120),
        heart_gap=uniform(rng, 3, 9),
        mediastinum=uniform(rng, 12, 24),
        junction=uniform(rng, 0.2, 1.8),
        tilt=uniform(rng, -0.1, 0.35),
        arms_up=chance(rng, 0.85),
        table_gap=uniform(rng, -2, 4),
        table_radius=uniform(rng, 350, 900),
        table_shell=uniform(rng, 1.0, 3.0),
    )


def profile(z: Tensor, knots: list[tuple[float, float]]) -> Tensor:
    """Piecewise linear function of z through (z, value) knots, constant beyond the ends."""
    out = torch.full_like(z, knots[0][1])
    for (z0, v0), (z1, v1) in pairwise(knots):
        out += ((z - z0) * (1 / (z1 - z0))).clamp_(0, 1) * (v1 - v0)
    return out


def spine_axis(z: Tensor, trunk: TrunkParameters) -> tuple[Tensor, Tensor]:
    """The x and y of the middle of the vertebral bodies at height z."""
    x = trunk.spine_x + trunk.scoliosis * torch.sin(z * 0.02)
    # the chest curve is most posterior near T7, about 20 mm above the heart's centre
    y = trunk.spine_y + 0.5 * trunk.kyphosis * ((z - 20) ** 2).clamp(max=160.0**2)
    return x, y


@dataclass
class Trunk:
    """Signed depths (mm, positive inside) and coordinates on the coarse points, each (x, y, z).

    Attributes:
        cage: inside of the rib cage and abdominal wall; body: inside of the skin; muscle: inside of the muscle layer.
        abdomen: below the diaphragm (not limited to the cage).
        side: |x − midline|; depth: 0 at the back wall, 1 at the front wall.
        turn: the way round the cage, 0 at the spine, 1 at the breast bone.
        spine: distance outside of the vertebral column.
        limbs: shoulders, neck and arms.
    """

    cage: Tensor
    body: Tensor
    muscle: Tensor
    abdomen: Tensor
    side: Tensor
    depth: Tensor
    turn: Tensor
    spine: Tensor
    limbs: Tensor


def build_trunk(points: Tensor, heart_distance: Tensor, wobble: Tensor, p: TrunkParameters) -> Trunk:
    """All depths of the trunk.

    Args:
        points: (x, y, z, 3) coarse points.
        heart_distance: (x, y, z) signed mm, positive inside heart and great vessels.
        wobble: (4, x, y, z) smooth random fields of unit size.
        p: the trunk.
    """
    x, y, z = points.unbind(-1)
    sx, sy = spine_axis(z, p)
    middle = sx * 0.5 + p.midline * 0.5
    side = (x - middle).abs()
    top = p.apex
    width = p.half_width * profile(
        z,
        [
            (-260, 0.92),
            (-110, 1.0),
            (-30, 1.0),
            (0.35 * top, 0.88),
            (0.65 * top, 0.70),
            (0.88 * top, 0.45),
            (top, 0.22),
            (top + 15, 0.05),
        ],
    )
    front = p.front - p.front_slope * z.clamp(min=-30) + p.belly * ((-40 - z) / 120).clamp(0, 1)
    back = p.back + (sy - p.spine_y)
    shrink = profile(z, [(0.5 * top, 1.0), (0.85 * top, 0.75), (top, 0.4), (top + 15, 0.1)])
    centre, half = 0.5 * (front + back), 0.5 * (front - back) * shrink
    e = p.exponent
    u, v = (side / width).clamp(min=1e-3), ((y - centre).abs() / half).clamp(min=1e-3)
    radius = (u**e + v**e) ** (1 / e)
    slope = ((u ** (e - 1) / width) ** 2 + (v ** (e - 1) / half) ** 2).sqrt() * radius ** (1 - e)
    cage = ((1 - radius) / slope.clamp(min=1e-3)).clamp(-150, 80) + 2.5 * wobble[0]
    depth = ((y - back) / (front - back)).clamp(-0.5, 1.5)
    # the front wall gives way to the heart; far from it the distance is saturated and says nothing, and behind
    # there are only vessels, which do not push ribs
    push = heart_distance + p.heart_gap - 20 * (-18 - heart_distance).clamp(min=0)
    cage = torch.maximum(cage, push - 200 * (0.45 - depth).clamp(min=0))
    turn = torch.atan2(side / width, (centre - y) / half) / math.pi

    posterior = (0.35 - depth).clamp(0, 1) * 2.5
    anterior = (depth - 0.6).clamp(0, 0.4) * 2.5
    paraspinal = (1 - (side - 26).clamp(min=0) / 34).clamp(0, 1) * posterior.clamp(max=1)
    pectoral = (
        (1 - (side - 75).abs() / 65).clamp(0, 1) * anterior * profile(z, [(-50, 0.0), (20, 0.6), (90, 1.6), (150, 1.0)])
    )
    flank = (1 - (depth - 0.35).abs() / 0.35).clamp(0, 1) * profile(
        z, [(-200, 0.6), (-60, 0.3), (30, 0.8), (90, 1.8), (150, 2.0)]
    )
    muscle_mm = p.muscle * (1 + 1.9 * paraspinal + 0.9 * pectoral + 0.9 * flank + 0.12 * wobble[1])
    groove = (1 - (side - 6) / 18).clamp(0, 1) * anterior
    fat_mm = p.fat * (1 + 0.12 * wobble[2] - 0.45 * groove).clamp(min=0.25) + 1.5 * wobble[2].clamp(-1, 1)
    fat_mm = fat_mm + p.belly_fat * (depth - 0.3).clamp(0, 0.5) * 2 * ((-z - 40) / 80).clamp(0, 1)
    muscle = cage + muscle_mm
    body = muscle + fat_mm

    # lying on the back flattens it: fat fills the space between the ribs and the table
    table = table_height(x, p) + 1.0
    edge = torch.minimum(0.92 * p.half_width - side, (0.30 - depth) * 160)
    flat = -smooth_max(table - y, -edge, 70.0)
    body = smooth_max(body, torch.minimum(flat, (top - 15 - z) * 0.7), 15.0)
    if p.breast > 0:
        for sign in (-1.0, 1.0):
            body = torch.maximum(body, ellipsoid_depth(points, *breast(p, sign)))
    limbs = _limbs(points, p)
    body = torch.minimum(torch.maximum(body, limbs), y - table)

    lower = profile(x - p.midline, [(-75, p.dome_left), (-20, p.dome_middle), (15, p.dome_middle), (75, p.dome_right)])
    inward = cage.clamp(min=0)
    fall = (p.recess * (1.1 - depth).clamp(0.15, 1.0)) * torch.exp(-inward / 22) * ((side - 12) / 30).clamp(0, 1)
    abdomen = (lower - fall + p.tilt * y + 4 * wobble[3] - z) * 0.8

    spine = ((x - sx) ** 2 + ((y - sy) * 1.1) ** 2).sqrt() - 21
    return Trunk(cage, body, muscle, abdomen, side, depth, turn, spine, limbs)


def table_height(x: Tensor, p: TrunkParameters) -> Tensor:
    """The y of the back that lies on the table."""
    return p.back - 1.7 * p.muscle - 0.7 * p.fat - 4 + (x - p.midline) ** 2 / (2 * p.table_radius)


def breast(p: TrunkParameters, sign: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Centre and radii of a breast, spread flat as in a patient who lies on the back; +1 is the patient's right."""
    r = p.breast
    return (p.midline + sign * (38 + 0.75 * r), p.front - 2 - 0.12 * r, 8.0 - 0.4 * r), (1.05 * r, 0.62 * r, 1.05 * r)


def _limbs(points: Tensor, p: TrunkParameters) -> Tensor:
    """Signed depth of neck, shoulders and arms."""
    top, mid, yc = p.apex, p.midline, 0.5 * (p.front + p.back)
    out = capsule_depth(points, (mid, yc - 10, top - 10), (mid, yc + 15, top + 150), 52 + 0.5 * p.fat)
    for sign in (-1.0, 1.0):
        thick = 40 + 0.5 * p.fat + 0.5 * p.muscle
        inner, joint = (mid + sign * 55, yc - 12, top - 28), shoulder(p, sign)
        out = torch.maximum(out, capsule_depth(points, inner, joint, thick + 8))
        out = torch.maximum(out, capsule_depth(points, joint, elbow(p, sign), thick))
    return out


def shoulder(p: TrunkParameters, sign: float) -> tuple[float, float, float]:
    """Centre of the head of the humerus; ``sign`` +1 is the patient's right."""
    height = p.apex - (5 if p.arms_up else 35)
    return p.midline + sign * (p.half_width + (8 if p.arms_up else 22)), 0.5 * (p.front + p.back) - 15, height


def elbow(p: TrunkParameters, sign: float) -> tuple[float, float, float]:
    """Lower end of the humerus."""
    x, y, z = shoulder(p, sign)
    if p.arms_up:
        return x + sign * 25, y + 25, z + 300
    return x + sign * (p.fat * 0.8 + 30), y - 15, z - 310
