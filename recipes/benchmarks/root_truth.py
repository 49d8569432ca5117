"""What a digital patient's aortic root truly measures: from its continuous shape, never from an image.

The lumen is the cohort's signed distance field, the axis joins the centres of its rings, the junction lies at the
height that was drawn; all is carried into the patient by his warp. Nothing is found by the package's own search for
contours, centrelines or levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import gaussian_filter1d

from cardiac_ct_fm.anatomy import HINGE_POINTS, OSTIA
from cardiac_ct_fm.cohort.chambers import AORTA, LV
from cardiac_ct_fm.cohort.heart import DigitalHeart
from cardiac_ct_fm.cohort.render import render
from cardiac_ct_fm.cohort.root import HEIGHTS, HIGH_MM, LOW_MM
from cardiac_ct_fm.cohort.valve import calcium
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAY_DIRECTIONS, RAYS, Contour
from cardiac_ct_fm.planning.planes import Plane

REACH_MM, RADIAL_MM = 30.0, 0.5
"""Rays reach beyond the widest sinus; between samples the distance field is close to linear."""

AXIS_MM = 0.5
SMOOTH_MM = 4.0
"""Step of the axis, and how far its direction is averaged: shorter than a root, longer than a sinus is deep."""

SINUS_FROM_MM = 3.0
LVOT_MM = 4.0
CHORD_DEG = 40.0
"""The sinuses are widest above 3 mm; the outflow tract is 4 mm below; a sinus is deepest within 40° of its middle."""

TRACT_MM, PAINT_MM = 24.0, 0.5
"""The outflow tract is painted this far around its axis, at this spacing."""

FINE_MM = 0.3
"""Calcium is counted at this step: 27 samples in 0.7 mm³."""


@dataclass(frozen=True)
class RootTruth:
    """True values of one patient.

    Attributes:
        values: name in the catalogue → value; calcium by a threshold follows from ``deposits``.
        tops: highest points of the structures, RAS mm, for asking whether the scan shows them.
        smooth_tract_mm2: area of the outflow tract's tube before muscle bundles and leaflets were drawn into it.
        deposits: (N, 3) cusp (0 RCC, 1 LCC, 2 NCC), HU and volume in mm³ of pieces of valve calcium.
    """

    values: dict[str, float]
    tops: dict[str, FloatArray]
    smooth_tract_mm2: float
    deposits: FloatArray

    def calcium_mm3(self, threshold_hu: float) -> dict[str, float]:
        """Valve calcium per cusp whose own density reaches a threshold."""
        counts = self.deposits[:, 1] >= threshold_hu
        cusp = self.deposits[counts, 0].astype(int)
        amounts = np.bincount(cusp, weights=self.deposits[counts, 2], minlength=3)
        return {f"calcium_{name.lower()}_mm3": float(v) for name, v in zip(HINGE_POINTS, amounts, strict=True)}


def root_truth(heart: DigitalHeart) -> RootTruth:
    """Measure a patient's continuous root."""
    at = {name: p.double().numpy() for name, p in heart.landmarks.items()}
    hinges = np.stack([at[name] for name in HINGE_POINTS])
    heights, axis, tangents = centre_line(heart)
    plane = Plane.through(hinges.mean(axis=0), _upward(hinges, tangents[int(np.argmin(np.abs(heights)))]))
    ring = contour(heart, plane)
    ring = contour(heart, plane.moved(ring.centroid))
    values = {
        "annulus_area_mm2": ring.area_mm2,
        "annulus_perimeter_mm": ring.perimeter_mm,
        "annulus_min_diameter_mm": ring.min_diameter_mm,
        "annulus_max_diameter_mm": ring.max_diameter_mm,
        "membranous_septum_length_mm": -float(plane.height(at["MS2"])),
    }
    values |= {f"{name.lower()}_height_mm": float(plane.height(at[name])) for name in OSTIA}
    levels = plane.height(axis)
    stj_mm = heart.patient.root.stj_height_mm

    def section(i: int) -> Contour:
        return contour(heart, Plane.through(axis[i], tangents[i], plane.u))

    stj = section(int(np.argmin(np.abs(heights - stj_mm))))
    between = np.flatnonzero((heights > SINUS_FROM_MM) & (heights < stj_mm))[::2]
    sinus = max((section(int(i)) for i in between), key=lambda c: c.area_mm2)
    tract = section(int(np.argmin(np.abs(levels + LVOT_MM))))
    values |= {
        "lvot_area_mm2": blood_outline(heart, tract).area_mm2,
        "stj_height_mm": float(plane.height(stj.centroid)),
        "stj_mean_diameter_mm": stj.area_diameter_mm,
        "sinus_mean_diameter_mm": sinus.area_diameter_mm,
        "sinus_max_diameter_mm": sinus.max_diameter_mm,
        "sinus_min_diameter_mm": sinus.min_diameter_mm,
    }
    for name, hinge in zip(HINGE_POINTS, hinges, strict=True):
        values[f"sinus_{name.lower()}_diameter_mm"] = deepest_chord(sinus, hinge - hinges.mean(axis=0))
    values |= carm_angles(hinges, plane.normal)
    tops = {"stj": axis[int(np.argmin(np.abs(heights - stj_mm - 6.0)))], "sinus": sinus.centroid}
    deposits = valve_calcium(heart, plane, hinges, float(plane.height(stj.centroid)))
    return RootTruth(values, tops, tract.area_mm2, deposits)


def _upward(hinges: FloatArray, along: FloatArray) -> FloatArray:
    normal = np.cross(hinges[1] - hinges[0], hinges[2] - hinges[0])
    result: FloatArray = normal * np.sign(normal @ along)
    return result


def depth(heart: DigitalHeart, points: FloatArray) -> FloatArray:
    """Signed distance, positive inside, of body points (…, 3) to the lumen of outflow tract, root and aorta."""
    body = torch.from_numpy(points.reshape(-1, 3)).float()
    fields = heart.fields(heart.warp.to_template(body))
    found = torch.maximum(fields.blood[LV], fields.blood[AORTA])
    found[fields.root] = fields.lumen
    result: FloatArray = found.double().numpy().reshape(points.shape[:-1])
    return result


def contour(heart: DigitalHeart, plane: Plane) -> Contour:
    """The lumen's outline around a plane's origin, where the distance field is zero."""
    radii = np.arange(0.0, REACH_MM, RADIAL_MM)
    inside = depth(heart, plane.world(radii[None, :, None] * RAY_DIRECTIONS[:, None, :]))
    out = np.maximum(np.argmax(inside <= 0.0, axis=1), 1)
    before, after = inside[np.arange(RAYS), out - 1], inside[np.arange(RAYS), out]
    edge = radii[out] - RADIAL_MM * after / (after - before)
    return Contour(plane, edge, "image", 1.0, 0.0, 0.0, 0.0)


def blood_outline(heart: DigitalHeart, tube: Contour) -> Contour:
    """The convex outline of the blood inside a section of the outflow tract, as it is painted before any scanner.

    The cohort draws trabeculae, papillary muscles and the edges of the neighbouring valves' leaflets into the left
    ventricle up to its outflow tract: what is left of the tube is what a reader, and the measurement, can outline.
    """
    steps = np.arange(-TRACT_MM, TRACT_MM + PAINT_MM / 2.0, PAINT_MM)
    flat = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
    layers = [tube.plane.world(flat, k * PAINT_MM) for k in (-1, 0, 1)]
    painted = render(heart, torch.from_numpy(np.stack(layers, axis=2)).float(), PAINT_MM).hu[:, :, 1].double().numpy()
    level = (heart.patient.blood["LV"] + heart.patient.tissue["myo"]) / 2.0
    reach = np.interp(np.arctan2(flat[..., 1], flat[..., 0]), RAY_ANGLES, tube.radii_mm, period=2.0 * np.pi)
    bright = (painted > level) & (np.hypot(flat[..., 0], flat[..., 1]) < reach)
    parts, count = ndimage.label(bright)
    if not count:
        raise ValueError("No blood is painted in the outflow tract's section.")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    edge = largest & ~ndimage.binary_erosion(largest)
    # A pixel's centre lies up to half a pixel inside of the blood that it stands for.
    at = flat[edge]
    outward = at - flat[largest].mean(axis=0)
    at = at + PAINT_MM / 2.0 * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    hull = tube.plane.moved(tube.plane.world(flat[largest].mean(axis=0)))
    none = Contour(hull, np.full(RAYS, RADIAL_MM), "image", 1.0, 0.0, 0.0, 0.0)
    return none.convex(hull.project(tube.plane.world(at)))


def centre_line(heart: DigitalHeart) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Heights over the drawn annulus in patient mm (N,), centres of the lumen's rings (N, 3), directions (N, 3)."""
    shape = heart.shape
    heights = np.arange(-10.0, min(HIGH_MM / shape.scale - 1.0, heart.patient.root.stj_height_mm + 16.0), AXIS_MM)
    z = heights * shape.scale
    turn = torch.linspace(0, 360, 73)[:-1].double().float()
    table = np.linspace(LOW_MM, HIGH_MM, HEIGHTS)
    rings = []
    for k, level in enumerate(z):
        radius = shape.lumen_radius(turn, torch.full_like(turn, float(level))).double().numpy()
        a = np.radians(turn.double().numpy())
        # Centre of gravity of a star-shaped area: the radii's third moments over their second.
        moments = np.stack([radius**3 * np.cos(a), radius**3 * np.sin(a)], axis=-1).sum(axis=0)
        middle = moments / (1.5 * (radius**2).sum())
        axis = [np.interp(level, table, shape.centre[:, i].double().numpy()) for i in range(2)]
        rings.append([axis[0] + middle[0], axis[1] + middle[1], z[k]])
    local = torch.tensor(np.array(rings)).float()
    points = heart.warp.to_body(local @ heart.template.root_axes + heart.template.root_origin).double().numpy()
    smooth = gaussian_filter1d(points, SMOOTH_MM / AXIS_MM, axis=0, mode="nearest")
    tangents = np.gradient(smooth, axis=0)
    return heights, points, tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def deepest_chord(section: Contour, toward: FloatArray) -> float:
    """Length in mm from a sinus's deepest point through the centroid to the opposite wall."""
    middle = np.degrees(np.arctan2(toward @ section.plane.v, toward @ section.plane.u))
    best = 0.0, 0.0
    for away in np.arange(-CHORD_DEG, CHORD_DEG + 1.0, 2.0):
        angle = np.radians(middle + away)
        ends = section.at(angle), section.at(angle + np.pi)
        reach = float(np.linalg.norm(ends[0] - section.centroid))
        best = max(best, (reach, float(np.linalg.norm(ends[0] - ends[1]))))
    return best[1]


def carm_angles(hinges: FloatArray, normal: FloatArray) -> dict[str, float]:
    """C-arm angles of the true points, by scanning the S-curve for the wanted view rather than by a formula for it."""
    flip = np.array([-1.0, -1.0, 1.0])
    r, left, n = hinges * flip
    up = normal * flip
    wanted = {"three_cusp": r - (left + n) / 2.0, "cusp_overlap": r - left}
    theta = np.radians(np.arange(-180.0, 180.0, 0.02))
    phi = np.arctan((up[1] * np.cos(theta) - up[0] * np.sin(theta)) / up[2])
    views = np.stack([np.sin(theta) * np.cos(phi), -np.cos(theta) * np.cos(phi), np.sin(phi)], axis=-1)
    found = {}
    for name, direction in wanted.items():
        along = views @ direction
        # Both ends of the line see the same; the detector is in front of the patient.
        i = int(np.argmax(np.where(views[:, 1] <= 0.0, np.abs(along), -np.inf)))
        found[f"carm_{name}_lao_deg"], found[f"carm_{name}_cran_deg"] = (
            float(np.degrees(theta[i])),
            float(np.degrees(phi[i])),
        )
    return found


def valve_calcium(heart: DigitalHeart, plane: Plane, hinges: FloatArray, top_mm: float) -> NDArray[np.float64]:
    """Pieces of calcium between annulus plane and junction: cusp by the nearest hinge point's angle, HU, mm³."""
    steps = np.arange(-21.0, 21.0 + FINE_MM, FINE_MM)
    flat = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    centre = plane.project(hinges.mean(axis=0))
    spokes = plane.project(hinges) - centre
    spokes /= np.linalg.norm(spokes, axis=1, keepdims=True)
    rows = []
    for height in np.arange(FINE_MM / 2.0, top_mm, FINE_MM):
        body = torch.from_numpy(plane.world(flat, float(height))).float()
        signed, hu = calcium(heart.shape, heart.local(heart.warp.to_template(body)))
        inside = (signed > 0).numpy()
        if inside.any():
            away = flat[inside] - centre
            cusp = np.argmax(away @ spokes.T, axis=1)
            rows.append(np.stack([cusp, hu.numpy()[inside], np.full(len(cusp), FINE_MM**3)], axis=-1))
    return np.concatenate(rows) if rows else np.zeros((0, 3))
