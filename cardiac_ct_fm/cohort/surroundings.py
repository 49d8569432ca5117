"""Everything in a chest CT that is not the heart: trunk, lungs, bones, mediastinal fat, abdomen and table.

:func:`draw_surroundings` draws all random numbers of a patient on the CPU, :func:`background` turns them
into Hounsfield units at any regular grid of points. Frame: RAS mm with the origin at the heart's centre, so
the patient's right (liver) is at positive x and the left ventricle at negative x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort import abdomen, bones, lungs, mediastinum, thorax
from cardiac_ct_fm.cohort.canvas import Canvas, ellipsoid_depth
from cardiac_ct_fm.cohort.noise import smooth_control, smooth_field
from cardiac_ct_fm.cohort.thorax import HeartExtent
from cardiac_ct_fm.errors import ConfigError

SHAPE_CELL_MM, SHAPE_NODES = 34.0, 17
"""Control grid of shapes: bends of organ borders about 7 cm long, over a cube of 54 cm."""
BOWEL_CELL_MM, BOWEL_NODES = 21.0, 17
"""Control grid of bowel loops 3–4 cm wide, mirrored outside its cube of 34 cm."""
DETAIL_CELL_MM, DETAIL_NODES = 11.0, 25
"""Control grid of clouds and fat strands, mirrored without end outside its cube of 26 cm."""
NET_CELL_MM, NET_NODES = 8.0, 33
"""Control grid of the net of small vessels, mirrored outside its cube of 26 cm."""


@dataclass(frozen=True)
class SurroundingsParameters:
    """All random numbers of the surroundings of one heart.

    Attributes:
        trunk, bones, lungs, abdomen, mediastinum: numbers of the parts.
        shape: (9, n, n, n) refined control grid of organ borders; bowel: (2, k, k, k) of its loops.
        detail: (3, m, m, m) of clouds and strands.
        net: (2, l, l, l) mm from the two families of surfaces that meet in small vessels. All on the CPU.
    """

    trunk: thorax.TrunkParameters
    bones: bones.BoneParameters
    lungs: lungs.LungParameters
    abdomen: abdomen.AbdomenParameters
    mediastinum: mediastinum.MediastinumParameters
    shape: Tensor
    bowel: Tensor
    detail: Tensor
    net: Tensor


def draw_surroundings(
    rng: torch.Generator, sex: str, heart: HeartExtent | None = None, lung_vessel_hu: float | None = None
) -> SurroundingsParameters:
    """Draw the surroundings of one patient.

    Args:
        rng: a CPU generator; the same state gives the same patient on every machine.
        sex: ``F`` or ``M``.
        heart: how far the heart reaches; the trunk is built around it.
        lung_vessel_hu: density of the blood in the lungs; drawn when None.

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
        lungs=lungs.draw_lungs(rng, trunk, lung_vessel_hu),
        abdomen=abdomen.draw_abdomen(rng, trunk),
        mediastinum=mediastinum.draw_mediastinum(rng, trunk),
        shape=smooth_control(rng, 9, SHAPE_NODES),
        bowel=smooth_control(rng, 2, BOWEL_NODES, 3),
        detail=smooth_control(rng, 3, DETAIL_NODES),
        net=_net(smooth_control(rng, 2, NET_NODES)),
    )


def _net(noise: Tensor) -> Tensor:
    """Two channels of noise turned into mm from their zero surfaces; where both are zero runs a net of vessels."""
    gx, gy, gz = torch.gradient(noise, spacing=0.5 * NET_CELL_MM, dim=(1, 2, 3))
    gradient = gx.square_().addcmul_(gy, gy).addcmul_(gz, gz).sqrt_()
    return (noise / gradient.clamp_min_(0.3 * float(gradient.mean()))).clamp_(-20, 20)


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
    canvas = Canvas(points)
    scene = _scene(canvas, heart_distance, params)
    _paint_wall(canvas, scene, params)
    mediastinum.paint_mediastinum(
        canvas, scene.trunk, scene.cage, scene.margin, heart_distance, scene.detail, p, params.mediastinum
    )
    _paint_lungs(canvas, scene, params)
    _paint_abdomen(canvas, scene, heart_distance, params)
    lungs.paint_tubes(canvas, heart_distance, p, params.lungs)
    bones.paint_sternum(canvas, scene.cage, p, params.bones)
    bones.paint_shoulders(canvas, p, params.bones)
    bones.paint_spine(canvas, scene.detail[1:], p, params.bones)
    return canvas.hu.clamp_(-1024, 3071), scene.lung > 0


@dataclass
class _Scene:
    """Fields that several parts share: on the coarse points (x, y, z), and three of them at full resolution.

    Attributes:
        trunk: depths of the trunk; margin: fat around the heart, mm; lung_coarse: depth in the lungs.
        shape: (9, x, y, z) smooth unit noise; bowel: (2, …); detail_coarse: (3, …); net: (2, …) mm.
        cage, lung: (X, Y, Z) depths, mm; detail: three (X, Y, Z) fields of unit noise.
    """

    trunk: thorax.Trunk
    margin: Tensor
    lung_coarse: Tensor
    shape: Tensor
    bowel: Tensor
    detail_coarse: Tensor
    net: Tensor
    cage: Tensor
    lung: Tensor
    detail: tuple[Tensor, Tensor, Tensor]


def _scene(canvas: Canvas, heart_distance: Tensor, params: SurroundingsParameters) -> _Scene:
    coarse, p, m = canvas.coarse, params.trunk, params.mediastinum
    shape = smooth_field(coarse, params.shape, SHAPE_CELL_MM * (SHAPE_NODES - 1))
    bowel = smooth_field(coarse, params.bowel, BOWEL_CELL_MM * (BOWEL_NODES - 1), (0.0, 0.0, -170.0), "reflection")
    detail = smooth_field(coarse, params.detail, DETAIL_CELL_MM * (DETAIL_NODES - 1), padding="reflection")
    net = smooth_field(coarse, params.net, NET_CELL_MM * (NET_NODES - 1), padding="reflection")
    near = canvas.down(heart_distance)
    trunk = thorax.build_trunk(coarse, near, shape[:4], p)
    margin = m.margin_low + (m.margin_high - m.margin_low) * (0.5 + 0.6 * shape[4]).clamp(0, 1.2)
    # thin fat over the free walls and along the vessels of the hila
    margin = 1.0 + margin * (1 - (trunk.side - 40) / 40).clamp(0.2, 1)
    lung_coarse = lungs.lung_depth(trunk, coarse, near, margin, 5 * shape[8] + 2 * detail[1], p)
    cage, lung, c0, c1, c2 = canvas.up(trunk.cage, lung_coarse, *detail)
    return _Scene(trunk, margin, lung_coarse, shape, bowel, detail, net, cage, lung, (c0, c1, c2))


def _paint_wall(canvas: Canvas, scene: _Scene, params: SurroundingsParameters) -> None:
    """Table, skin, fat, muscle, breasts and ribs; nothing of it when the grid lies inside the cage."""
    p, m, trunk = params.trunk, params.mediastinum, scene.trunk
    if float(trunk.cage.min()) > 12:
        canvas.hu.fill_(m.fat)
        return
    c0, c1, c2 = scene.detail
    if float(trunk.body.min()) < 12:
        _paint_table(canvas, p)
    body, flesh = canvas.up(
        trunk.body, torch.minimum(torch.maximum(trunk.muscle, trunk.limbs - 10 - 0.5 * p.fat), trunk.body - 3)
    )
    canvas.paint(canvas.cover(body), m.fat + 8 * c2)
    if p.breast > 0:
        for sign in (-1.0, 1.0):
            centre, radii = thorax.breast(p, sign)
            box = canvas.around(centre, radii)
            if box is not None:
                gland = torch.minimum(ellipsoid_depth(canvas.points[box], centre, radii) - 9, 9 * (c0[box] - m.gland))
                canvas.paint(canvas.cover(gland), 35.0, box)
    # fat planes between the layers of muscle, fat that runs through old muscle
    planes = ((scene.cage + 13 + 4 * c1).abs() * 0.5).clamp_(0.35, 1)
    marbled = 1 - 0.5 * m.muscle_fat * (0.4 - c0.abs()).clamp_(0, 0.4)
    canvas.paint(canvas.cover(flesh) * planes * marbled, m.muscle + 6 * c1)
    canvas.paint(canvas.shell(body, 2.0), 15.0)
    box = canvas.where((trunk.cage < 4) & (trunk.cage > -20))
    if box is not None:
        part = canvas.window(box)
        count, turn = part.up(bones.rib_fields(canvas.coarse, trunk.turn, scene.shape[6], params.bones), trunk.turn)
        bones.paint_ribs(part, scene.cage[box], count, turn, params.bones)


def _paint_lungs(canvas: Canvas, scene: _Scene, params: SurroundingsParameters) -> None:
    box = canvas.where(scene.lung_coarse > -canvas.spacing)
    if box is None:
        return
    part = canvas.window(box)
    fields = lungs.lung_fields(
        canvas.coarse, scene.lung_coarse, scene.trunk.depth, scene.detail_coarse, scene.bowel, params.lungs
    )
    a, b, tissue, radius, trunks = part.up(*scene.net, *fields)
    tubes = (a.square_().addcmul_(b, b)).sqrt_().neg_()
    lungs.paint_lungs(part, scene.lung[box], tubes, (tissue, radius, trunks), params.trunk, params.lungs)


def _paint_abdomen(canvas: Canvas, scene: _Scene, heart_distance: Tensor, params: SurroundingsParameters) -> None:
    box = canvas.where((scene.trunk.abdomen > -5) & (scene.trunk.cage > -5))
    if box is None:
        return
    part = canvas.window(box)
    liver = abdomen.liver_depth(canvas.coarse, scene.trunk, scene.shape[7:9], params.trunk, params.abdomen)
    below, liver, margin, a, b, loops, content = part.up(
        scene.trunk.abdomen, liver, scene.margin, *scene.net, *scene.bowel
    )
    below = torch.minimum(below, -heart_distance[box] - 0.3 * margin)
    tubes = -(a.square_().addcmul_(b, b)).sqrt_() + 1.8
    cells = (loops, content, scene.detail[2][box])
    abdomen.paint_abdomen(part, below, scene.cage[box], liver, cells, tubes, params.trunk, params.abdomen)


def _paint_table(canvas: Canvas, p: thorax.TrunkParameters) -> None:
    """A curved shell of the patient table with a light core, under the back."""
    x, y = canvas.points[..., 0], canvas.points[..., 1]
    depth = thorax.table_height(x, p) - p.table_gap - y
    canvas.paint(canvas.shell(depth, 45.0), -960.0)
    canvas.paint(canvas.shell(depth, p.table_shell) + canvas.shell(depth - 45, p.table_shell), -150.0)
