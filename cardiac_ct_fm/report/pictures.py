"""All pictures of the report; those that follow the root as a whole: the stretched root and the valve's calcium."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from cardiac_ct_fm.anatomy import HINGE_POINTS, OSTIA, structure
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.landmark_pictures import draw_points
from cardiac_ct_fm.planning.calcium import nearest_cusp
from cardiac_ct_fm.planning.centreline import Section
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.planning.planes import Sampler, unit
from cardiac_ct_fm.render2d import INK, View, closed, draw_curve, draw_scale, outline, window_for
from cardiac_ct_fm.report.figures import LEVELS, RING, SIDE_IN, Picture, Scene, bare, blank, calcium_rule, jpeg
from cardiac_ct_fm.report.trust import unsure_points
from cardiac_ct_fm.volume_io import Volume

SPAN_MM = 60.0
"""Edge of the calcium picture: the widest sinuses fit (house choice)."""

BRIGHTEST_HU = 1100.0
"""White of the calcium picture, so that dense calcium keeps its shape (house choice)."""


def draw_pictures(volume: Volume, plan: Plan) -> list[Picture]:
    """All pictures that the plan has geometry for; none without an annulus plane."""
    annulus = plan.annulus
    if annulus is None:
        return []
    image = Sampler(volume.data, volume.grid)
    window = window_for(None if annulus.contour is None else annulus.contour.lumen_hu)
    centre = annulus.plane.origin if annulus.contour is None else annulus.contour.centroid
    scene = Scene(image, window, plan, annulus, centre)
    pictures = [scene.en_face(), *scene.long_axes(), *(scene.level(n, s) for n, s in plan.sections.items())]
    pictures += [scene.ostium(name) for name in OSTIA if name in plan.points.ras]
    if "MS2" in plan.points.ras:
        pictures.append(scene.septum())
    if plan.centreline is not None:
        pictures.append(stretched(scene))
    calcium = calcium_map(scene)
    return [*pictures, calcium] if calcium is not None else pictures


def stretched(scene: Scene) -> Picture:
    """The root straightened along its centreline, in two perpendicular cuts."""
    line = scene.plan.centreline
    assert line is not None
    toward = unit(scene.annulus.hinges[0] - scene.annulus.hinges.mean(axis=0))
    cuts = {"through the right cusp": toward, "across it": np.cross(scene.annulus.plane.normal, toward)}
    figure = blank(2.0 * SIDE_IN, 1.25 * SIDE_IN)
    for i, (title, direction) in enumerate(cuts.items()):
        ax = figure.add_axes((0.5 * i + 0.002, 0.0, 0.496, 1.0))
        side = direction - line.tangents * (line.tangents @ direction)[:, None]
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        offsets = np.arange(-28.0, 28.01, 0.25)
        fine = np.arange(line.s_mm[0], line.s_mm[-1] + 1e-6, 0.25)
        middle, across = (
            np.stack([np.interp(fine, line.s_mm, values[:, k]) for k in range(3)], axis=-1)
            for values in (line.ras, side)
        )
        pixels = scene.image(middle[:, None, :] + offsets[None, :, None] * across[:, None, :])
        extent = (offsets[0], offsets[-1], float(fine[0]), float(fine[-1]))
        low, high = scene.window
        ax.imshow(pixels, cmap="gray", vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto")
        for section in line.sections:
            across_section, along_section = _along(section, side, line.s_mm)
            angle = float(np.arctan2(across_section, along_section))
            ends = [section.contour.at_ray(angle), section.contour.at_ray(angle + np.pi)]
            ax.plot([ends[0], -ends[1]], [section.s_mm] * 2, ".", color=RING, markersize=2.2)
        levels = {"Annulus": (0.0, RING)} | {
            LEVELS[n][0]: (s.s_mm, LEVELS[n][1]) for n, s in scene.plan.sections.items()
        }
        for name, (s, colour) in levels.items():
            ax.axhline(s, color=colour, linewidth=1.0, linestyle=(0, (6, 4)))
            label = ax.text(
                offsets[0] + 0.6,
                s + 0.8,
                f"{name}  {s:+.0f} mm".replace("-", "\N{MINUS SIGN}"),
                color=colour,
                fontsize=10.5,
            )
            label.set(path_effects=outline(3.0), fontweight="bold")
        head = ax.text(0.98, 0.985, title, transform=ax.transAxes, ha="right", va="top", color=INK, fontsize=11)
        head.set(path_effects=outline(3.0), fontweight="bold")
        bare(ax)
        ax.set_xlim(offsets[0], offsets[-1])
        ax.set_ylim(fine[0], fine[-1])
        draw_scale(ax, 10.0)
    text = "Up is along the aorta. Dots are the measured lumen; heights are along the centreline, from the annulus."
    return Picture("stretched", "Stretched root", text, jpeg(figure), "sinus_mean_diameter_mm", wide=True)


def calcium_map(scene: Scene) -> Picture | None:
    """Brightest voxels of the valve seen along its axis, calcium in its cusp's colour; None where there is none."""
    row, deposits = scene.plan.measurements["calcium_valve_mm3"], scene.plan.deposits
    if not row.value or deposits is None:
        return None
    plane = scene.annulus.plane
    view = View.en_face(plane, scene.centre)
    low, high = float(row.details["from_mm"]), float(row.details["to_mm"])
    points = view.lattice(SPAN_MM, SPAN_MM, 0.3)
    peak = np.full(points.shape[:2], -np.inf, np.float32)
    for height in np.arange(low, high + 0.5, 1.0):
        peak = np.fmax(peak, scene.image(points + height * plane.normal))
    counted = deposits.ras[(deposits.s_mm >= low) & (deposits.s_mm <= high)]
    owner = nearest_cusp(counted, scene.annulus.hinges.mean(axis=0), scene.annulus.hinges, plane.normal)

    def draw(ax: Axes) -> None:
        half = SPAN_MM / 2.0
        top = max(scene.window[1], BRIGHTEST_HU)
        extent = (-half, half, -half, half)
        ax.imshow(peak, cmap="gray", vmin=scene.window[0], vmax=top, extent=extent, interpolation="bilinear")
        # One dot per voxel, as large as the voxel is on the picture.
        side = 72.0 * SIDE_IN * float(deposits.voxel_mm3 ** (1.0 / 3.0)) / SPAN_MM
        for i, name in enumerate(HINGE_POINTS):
            xy = view.project(counted[owner == i])
            ax.scatter(xy[:, 0], xy[:, 1], s=max(side, 1.0) ** 2, c=structure(name).colour, alpha=0.5, linewidths=0)
        if scene.annulus.contour is not None:
            draw_curve(ax, view, closed(scene.annulus.contour.ras), RING, 1.4, ":")
        hinges = {n: scene.plan.points.ras[n] for n in HINGE_POINTS}
        draw_points(ax, view, hinges, size=30.0, unsure=unsure_points(scene.plan))

    cusps = ", ".join(f"{c.upper()} {scene.said(f'calcium_{c}_mm3')}" for c in ("rcc", "lcc", "ncc"))
    rule = calcium_rule(row)
    text = f"Brightest voxels between annulus and junction; coloured by cusp: calcium of the root, {rule}. {cusps}."
    return Picture("calcium", "Valve calcium along the axis", text, scene.one(view, SPAN_MM, draw), row.name)


def _along(section: Section, side: FloatArray, levels: FloatArray) -> tuple[float, float]:
    """Components (v, u) of the cut's direction in a section's plane."""
    direction = side[int(np.argmin(np.abs(levels - section.s_mm)))]
    plane = section.contour.plane
    return float(direction @ plane.v), float(direction @ plane.u)
