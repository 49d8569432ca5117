"""Bones of the chest: ribs with cartilage, sternum, spine, scapulae, clavicles and humeri, painted on a canvas.

Every bone is a cortical shell around marrow. Densities: cortex 300–1200 HU (domain facts, textbook value), adult
vertebral marrow about 80–250 HU [textbook value], costal cartilage about 80–140 HU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.canvas import Box, Canvas
from cardiac_ct_fm.cohort.noise import chance, uniform
from cardiac_ct_fm.cohort.thorax import TrunkParameters, elbow, shoulder, spine_axis


@dataclass(frozen=True)
class BoneParameters:
    """Numbers of the skeleton: sizes in mm, densities in HU.

    Attributes:
        cortex, marrow, disc: densities; wall: thickness of the cortex.
        rib_pitch, rib_phase: spacing of the ribs and z of the fifth rib at the back; rib_drop: fall towards the front.
        rib_half: half thickness and half height; cartilage: density, calcified in the old.
        vertebra_pitch, vertebra_phase, vertebra_radius: spacing, offset and half width of the vertebral bodies.
        sternum_half, sternum_top: half width, and z of the upper end; wires: wires of an earlier operation.
    """

    cortex: float
    marrow: float
    disc: float
    wall: float
    rib_pitch: float
    rib_phase: float
    rib_drop: float
    rib_half: tuple[float, float]
    cartilage: float
    vertebra_pitch: float
    vertebra_phase: float
    vertebra_radius: float
    sternum_half: float
    sternum_top: float
    wires: bool


JOINT = 0.70
"""Where rib becomes cartilage, as a share of the way from the spine to the breast bone."""


def draw_bones(rng: torch.Generator, sex: str, trunk: TrunkParameters) -> BoneParameters:
    """A random skeleton for this trunk."""
    size = 0.93 if sex == "F" else 1.03
    pitch = uniform(rng, 23, 28) * size
    return BoneParameters(
        cortex=uniform(rng, 550, 1300),
        marrow=uniform(rng, 60, 240),
        disc=uniform(rng, 60, 110),
        wall=uniform(rng, 0.9, 1.9),
        rib_pitch=uniform(rng, 24, 31) * size,
        rib_phase=uniform(rng, 55, 85),
        rib_drop=uniform(rng, 80, 150),
        rib_half=(uniform(rng, 3.4, 5.0) * size, uniform(rng, 5.5, 7.5) * size),
        cartilage=uniform(rng, 75, 150),
        vertebra_pitch=pitch,
        vertebra_phase=uniform(rng, 0, pitch),
        vertebra_radius=uniform(rng, 16.5, 21.5) * size,
        sternum_half=uniform(rng, 13, 20) * size,
        sternum_top=trunk.apex * uniform(rng, 0.66, 0.80),
        wires=chance(rng, 0.08),
    )


def _paint_bone(canvas: Canvas, depth: Tensor, b: BoneParameters, box: Box | None, grain: Tensor | float = 0.0) -> None:
    """Marrow with a cortical shell where ``depth`` (mm) is positive."""
    canvas.paint(canvas.cover(depth), b.marrow + grain, box)
    canvas.paint(canvas.shell(depth, b.wall), b.cortex, box)


def rib_fields(points: Tensor, turn: Tensor, wobble: Tensor, b: BoneParameters) -> Tensor:
    """The rib count on the coarse points: continuous, whole numbers are the middles of ribs, growing downwards.

    Args:
        points: (x, y, z, 3) coarse points.
        turn: the way round the cage, 0 at the spine, 1 at the breast bone.
        wobble: smooth unit noise.
        b: the bones.
    """
    z = points[..., 2]
    # bone falls from the spine to the costochondral joint, cartilage rises again, the more the lower the rib
    rise = ((70 - z) / 110).clamp(0.05, 0.8)
    drop = b.rib_drop * ((turn / JOINT).clamp(0, 1) - rise * ((turn - JOINT) / (1 - JOINT)).clamp(0, 1) ** 1.3)
    return 5 - (z + drop - b.rib_phase + 3 * wobble) / b.rib_pitch


def paint_ribs(canvas: Canvas, cage: Tensor, count: Tensor, turn: Tensor, b: BoneParameters) -> None:
    """Ribs between muscle and pleura; ``count`` as made by :func:`rib_fields`, all at full resolution."""
    number = count.round()
    height = (count - number) * (b.rib_pitch * 0.88)
    thick, tall = b.rib_half
    radius = ((height / tall) ** 2 + ((cage + thick + 1.5) / thick) ** 2).sqrt_()
    depth = (1 - radius) * thick
    # ribs 1–7 reach the sternum, 8–12 end earlier and earlier; none above the first or below the twelfth
    reach = (1.2 - (number - 7).clamp(0, 5) * 0.17) - turn
    depth = torch.minimum(depth, reach * 60)
    depth = torch.minimum(depth, (torch.minimum(number - 0.5, 12.5 - number)) * 100)
    front = ((turn - JOINT) * 25).clamp_(0, 1)
    share = canvas.cover(depth)
    canvas.paint(share, b.marrow + front * (b.cartilage - b.marrow))
    rim = canvas.shell(depth, b.wall)
    canvas.paint(rim * (1 - 0.85 * front), b.cortex)


def paint_spine(canvas: Canvas, grain: tuple[Tensor, Tensor], trunk: TrunkParameters, b: BoneParameters) -> None:
    """Vertebral bodies, discs, canal, arches and processes; ``grain`` are two full-resolution fields of unit noise."""
    lean = 0.5 * trunk.kyphosis * 160.0**2
    box = canvas.box(
        (trunk.spine_x - 56, trunk.spine_y - 85, -1e4), (trunk.spine_x + 56, trunk.spine_y + lean + 30, 1e4)
    )
    if box is None:
        return
    x, y, z = canvas.points[box].unbind(-1)
    sx, sy = spine_axis(z, trunk)
    u, v = x - sx, y - sy
    # vertebrae grow downwards: about 1 mm of height per level from the upper chest to the loin
    level = (z - 0.0006 * z * z.abs().clamp(max=250)) / b.vertebra_pitch + b.vertebra_phase / b.vertebra_pitch
    w = (level - level.round()) * b.vertebra_pitch
    half = 0.5 * b.vertebra_pitch - 2.2
    radius = b.vertebra_radius * (1 - 0.0006 * z.clamp(-200, 160))
    waist = 1.8 * (1 - (w / half) ** 2).clamp(0, 1)
    # kidney-shaped: broader than deep, hollow behind
    wide = (u**2 + (v * 1.18) ** 2).sqrt() + 5 * (1 - (u / 10) ** 2).clamp(min=0) * (-v / radius - 0.35).clamp(0, 1)
    side = radius - waist - wide
    body = torch.minimum(side, half - w.abs())
    disc = torch.minimum(radius - 0.5 - wide, w.abs() - half)
    # trabeculae and veins of the marrow, finer than the clouds that carry them
    first, second = grain[0][box], grain[1][box]
    noise = 0.5 * first + 0.6 * torch.sin(5 * first + 0.4 * z) * torch.sin(4 * second + 0.4 * u)
    canvas.paint(canvas.cover(disc), b.disc, box)
    rear = radius / 1.18
    canal = 8.5 - (u**2 + ((v + rear + 9) * 1.1) ** 2).sqrt()
    arch = torch.minimum(2.6 - (canal + 2.4).abs(), 8.0 - w.abs())
    arch = torch.minimum(arch, -(v + rear * 0.7))
    slant = w + 0.35 * (v + rear + 20).clamp(-40, 0) * -1 - 3
    spinous = torch.minimum(3.2 - u.abs(), 7.5 - slant.abs())
    spinous = torch.minimum(spinous, torch.minimum(-(v + rear + 15), v + rear + 46))
    wing = torch.minimum(4.6 - (v + rear + 8 + 0.35 * (u.abs() - 12)).abs(), 5.5 - (w - 3).abs())
    wing = torch.minimum(wing, torch.minimum(u.abs() - 8, 33 - u.abs()))
    rear_bone = torch.maximum(torch.maximum(arch, spinous), wing)
    canvas.paint(canvas.cover(body), b.marrow + 45 * noise, box)
    canvas.paint(canvas.shell(body, 0.9 * b.wall) * (0.7 + 0.3 * first).clamp_(0.2, 1), 0.5 * b.cortex, box)
    _paint_bone(canvas, rear_bone, b, box)
    canvas.paint(canvas.cover(canal), 25.0, box)


def paint_sternum(canvas: Canvas, cage: Tensor, trunk: TrunkParameters, b: BoneParameters) -> None:
    """The breast bone in front of the cage; ``cage`` is the full-resolution depth of the cavity."""
    bottom = -55.0
    box = canvas.box(
        (trunk.midline - 50, trunk.front - 90, bottom - 5), (trunk.midline + 50, trunk.front + 60, b.sternum_top + 5)
    )
    if box is None:
        return
    x, y, z = canvas.points[box].unbind(-1)
    half = b.sternum_half * (
        1 + ((z - b.sternum_top + 50) / 25).clamp(0, 1) * 0.9 - ((bottom + 30 - z) / 40).clamp(0, 1) * 0.6
    )
    thick = 5.0 + 0.8 * torch.cos(z * 0.11)
    # an oval plate: thinner towards its edges
    depth = (
        1 - (((x - trunk.midline) / half).abs() ** 3 + ((cage[box] + 7) / thick).abs() ** 2.5) ** (1 / 2.5)
    ) * thick
    depth = torch.minimum(depth, torch.minimum(z - bottom, b.sternum_top - z))
    joint = 1.5 - (z - (b.sternum_top - 48)).abs()
    depth = torch.minimum(depth, -joint)
    depth = torch.minimum(depth, (y - 0.5 * (trunk.front + trunk.back)))
    canvas.paint(canvas.cover(depth), 0.7 * b.marrow, box)
    canvas.paint(canvas.shell(depth, 0.9 * b.wall), 0.55 * b.cortex, box)
    if b.wires:
        wire = 0.7 - ((cage[box] + 13) ** 2 + (((z - bottom) / 19 - ((z - bottom) / 19).round()) * 19) ** 2).sqrt()
        wire = torch.minimum(wire, 9 - (x - trunk.midline).abs())
        canvas.paint(canvas.cover(wire), 2500.0, box)


def paint_shoulders(canvas: Canvas, trunk: TrunkParameters, b: BoneParameters) -> None:
    """Clavicles, scapulae and humeri on both sides, where the grid reaches them."""
    mid, yc = trunk.midline, 0.5 * (trunk.front + trunk.back)
    for sign in (-1.0, 1.0):
        joint = shoulder(trunk, sign)
        top_y = trunk.front - trunk.front_slope * b.sternum_top
        rods = [
            (joint, joint, 22.0),
            (joint, elbow(trunk, sign), 10.5),
            ((mid + sign * 24, top_y + 2, b.sternum_top + 4), (mid + sign * 90, top_y - 22, trunk.apex - 8), 6.0),
            ((mid + sign * 90, top_y - 22, trunk.apex - 8), (joint[0] - sign * 12, joint[1], joint[2] + 18), 6.0),
            (
                (joint[0] - sign * 20, joint[1] - 12, joint[2] - 4),
                (mid + sign * 82, trunk.back - 20, joint[2] - 18),
                5.0,
            ),
        ]
        for a, c, radius in rods:
            hit = canvas.capsule(a, c, radius)
            if hit is not None:
                _paint_bone(canvas, hit[1], b, hit[0])
        _paint_blade(canvas, trunk, b, sign, joint, yc)


def _paint_blade(
    canvas: Canvas, trunk: TrunkParameters, b: BoneParameters, sign: float, joint: tuple[float, float, float], yc: float
) -> None:
    """The thin triangular plate of a scapula, from the joint down to its lower angle."""
    glenoid = torch.tensor([joint[0] - sign * 24, joint[1] - 4, joint[2] - 4])
    medial = torch.tensor([trunk.midline + sign * 72, trunk.back - 14, joint[2] - 10])
    tip = torch.tensor([trunk.midline + sign * (0.72 * trunk.half_width), trunk.back + 4, joint[2] - 118])
    corners = torch.stack([glenoid, medial, tip])
    low, high = corners.amin(0) - 8, corners.amax(0) + 8
    box = canvas.box(low.tolist(), high.tolist())
    if box is None:
        return
    points = canvas.points[box]
    normal = torch.linalg.cross(medial - glenoid, tip - glenoid)
    normal = normal / normal.norm()
    inside = 2.2 - ((points - points.new_tensor(glenoid.tolist())) @ normal.to(points.device)).abs()
    for first, second, third in ((glenoid, medial, tip), (medial, tip, glenoid), (tip, glenoid, medial)):
        edge = torch.linalg.cross(normal, second - first)
        edge = edge / edge.norm()
        edge = edge if float((third - first) @ edge) > 0 else -edge
        inside = torch.minimum(inside, (points - points.new_tensor(first.tolist())) @ edge.to(points.device))
    canvas.paint(canvas.cover(inside), 0.55 * b.cortex + 0.45 * b.marrow, box)
    border = canvas.capsule(glenoid.tolist(), tip.tolist(), 4.0)
    if border is not None:
        _paint_bone(canvas, border[1], b, border[0])
