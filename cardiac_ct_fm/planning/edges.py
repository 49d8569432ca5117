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
from scipy.ndimage import gaussian_filter1d

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAY_DIRECTIONS, RAYS, Contour
from cardiac_ct_fm.planning.planes import Plane, Sampler
from cardiac_ct_fm.planning.prior import EDGE_WIDTH_MM, MIN_RADIUS_MM, Prior

RADIUS_STEP_MM = 0.25
SLAB_MM = 0.5
"""The image is averaged over the plane and this far on either side, to halve the noise of thin slices."""

MIN_CONTRAST_HU = 150.0
"""A lumen darker than this is not opacified: unenhanced blood has 30–60 HU, the blood pool of TAVI scans 350 ± 100."""

TISSUE_HU = 50.0
"""Darkest tissue that counts as "wall" when edges are looked for, just below myocardium's 80–105 HU, so that the
second edge from muscle to fat is not taken for the lumen's."""

POCKET_MM = (7.0, 10.0)
"""Blood outside of the path that ends within 7 mm, before tissue up to 10 mm, is the pocket of a sinus behind its
leaflet; blood that goes on is the next chamber. (Sinus radius minus annulus radius is about 4–5 mm: Hamdan.)"""

POCKET_WEIGHT = 0.15
"""Cost of 1 mm of such blood left outside."""

FOREIGN_WEIGHT = 0.3
"""Cost of 1 mm of another chamber of the label map inside of the path; soft, because labels can be wrong."""

BENDING_WEIGHT = 0.05
"""Cost of a change of radius between neighbouring rays, per (step of 0.25 mm)²."""

MAX_STEPS = 3
"""Largest change of radius between neighbouring rays, in radius steps: a slope of 45° at 14 mm."""

CLEAR_EDGE = 0.35
"""Share of the lumen's contrast that an edge needs to be counted as seen."""

MIN_CLEAR_FRACTION = 0.5
"""A contour seen on fewer rays than this is not trusted."""


def lumen_level(image: Sampler, plane: Plane, radius_mm: float) -> float:
    """Median HU in a disc of the plane around its origin; NaN when most of it lies outside of the scan."""
    r = np.linspace(0.0, radius_mm, 8)[:, None, None]
    values = image(plane.world(r * RAY_DIRECTIONS[::4]))
    seen = values[np.isfinite(values)]
    return float(np.median(seen)) if seen.size > values.size / 2 else float("nan")


def trace_image(
    image: Sampler, plane: Plane, prior: Prior, labels: Sampler | None, own: frozenset[int]
) -> Contour | None:
    """The lumen's contour in the image, or None where the blood is not opacified or no closed edge is seen.

    Args:
        image: HU.
        plane: its origin lies in the lumen.
        prior: what is expected.
        labels: heart label map, or None; parts of other chambers are kept out of the contour softly.
        own: label values that are this lumen's.
    """
    lumen = lumen_level(image, plane, 0.5 * float(prior.radius_mm.min()))
    if not lumen >= MIN_CONTRAST_HU:
        return None
    radii = np.arange(MIN_RADIUS_MM - EDGE_WIDTH_MM, prior.reach_mm + POCKET_MM[1], RADIUS_STEP_MM)
    where = radii[None, :, None] * RAY_DIRECTIONS[:, None, :]
    raw = np.mean([image(plane.world(where, height)) for height in (-SLAB_MM, 0.0, SLAB_MM)], axis=0)
    beyond = ~np.isfinite(raw)
    contrast = lumen - TISSUE_HU
    # Calcium and coronary contrast count as blood: only what is darker than the lumen makes an edge.
    profile = np.minimum(np.where(beyond, TISSUE_HU, raw), lumen)
    dark = np.clip((lumen - profile) / contrast, 0.0, 1.0)
    foreign = None
    if labels is not None:
        found = labels.nearest(plane.world(where))
        foreign = ~np.isin(found, [0, *own])
    path = _best_path(radii, dark, foreign, prior)
    edge, clear, blur = _refine(radii, profile, path, contrast)
    smooth, spread = _fourier(edge, clear, path, prior.harmonics)
    smooth = np.maximum(smooth, MIN_RADIUS_MM)
    seen = float((clear >= CLEAR_EDGE).mean())
    # An edge that falls together with the border of the scan is the border's, not the lumen's.
    outside = float(np.mean([beyond[k, radii <= smooth[k] + EDGE_WIDTH_MM / 2.0].any() for k in range(RAYS)]))
    sd = float(np.hypot(blur, spread / np.sqrt(2 * prior.harmonics + 1)))
    return Contour(plane, smooth, "image", seen, sd, lumen, outside)


def trace_labels(labels: Sampler, image: Sampler, plane: Plane, prior: Prior, own: frozenset[int]) -> Contour | None:
    """The contour of the label map's own region around the plane's origin, or None where it is not labelled."""
    radii = np.arange(0.0, prior.reach_mm + EDGE_WIDTH_MM, RADIUS_STEP_MM)
    where = radii[None, :, None] * RAY_DIRECTIONS[:, None, :]
    world = np.stack([plane.world(where, height) for height in (-SLAB_MM, 0.0, SLAB_MM)])
    inside = np.isin(labels.nearest(world), list(own)).mean(axis=0)
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
    smooth, spread = _fourier(edge, ends.astype(np.float64), prior.radius_mm, prior.harmonics)
    lumen = lumen_level(image, plane, 0.5 * float(prior.radius_mm.min()))
    outside = float(np.isnan(image(plane.world(smooth[:, None] * RAY_DIRECTIONS))).mean())
    # A label map's border is known to about half a voxel, and that error is shared by the whole contour.
    sd = float(np.hypot(0.5 * labels.voxel_mm, spread / np.sqrt(2 * prior.harmonics + 1)))
    return Contour(plane, np.maximum(smooth, MIN_RADIUS_MM), "labels", float(ends.mean()), sd, lumen, outside)


def _best_path(radii: FloatArray, dark: FloatArray, foreign: npt.NDArray[np.bool_] | None, prior: Prior) -> FloatArray:
    """(RAYS,) radius in mm of the cheapest closed path; ``dark`` is (RAYS, R), 0 in blood and 1 in tissue."""
    half = max(1, round(EDGE_WIDTH_MM / RADIUS_STEP_MM))
    total = np.concatenate([np.zeros((RAYS, 1)), np.cumsum(dark, axis=1)], axis=1)
    n = len(radii)
    index = np.arange(half, n - half)
    inner = (total[:, index] - total[:, index - half]) / half
    outer = (total[:, index + half] - total[:, index]) / half
    cost = 1.0 - np.clip(outer - inner, 0.0, 1.0)
    cost += prior.wall * RADIUS_STEP_MM * total[:, index]
    cost += POCKET_WEIGHT * _pocket(dark)[:, index]
    if foreign is not None:
        cost += FOREIGN_WEIGHT * RADIUS_STEP_MM * np.cumsum(foreign, axis=1)[:, index]
    # Index i stands for the border between samples i-1 and i.
    border = radii[index] - RADIUS_STEP_MM / 2.0
    cost += 0.25 * ((border[None, :] - prior.radius_mm[:, None]) / prior.sd_mm[:, None]) ** 2
    return border[_closed_path(cost)]


def _pocket(dark: FloatArray) -> FloatArray:
    """(RAYS, R) mm of blood just outside of each border that is closed off within :data:`POCKET_MM`."""
    near, far = (round(mm / RADIUS_STEP_MM) for mm in POCKET_MM)
    bright = np.pad(1.0 - dark, ((0, 0), (0, far)), constant_values=0.0)
    total = np.concatenate([np.zeros((RAYS, 1)), np.cumsum(bright, axis=1)], axis=1)
    start = np.arange(dark.shape[1])
    length = total[:, start + near] - total[:, start]
    open_end = (total[:, start + far] - total[:, start + near]) / (far - near)
    # Closed when at most a quarter of what follows is blood; in between it counts in part.
    result: FloatArray = length * RADIUS_STEP_MM * np.clip(1.5 - 2.0 * open_end, 0.0, 1.0)
    return result


def _closed_path(cost: FloatArray) -> npt.NDArray[np.intp]:
    """(RAYS,) column of the cheapest path through ``cost`` (RAYS, R), closed by going around one and a half times."""
    rays, columns = cost.shape
    turns = np.arange(-rays // 4, rays + rays // 4) % rays
    moves = np.arange(-MAX_STEPS, MAX_STEPS + 1)
    penalty = BENDING_WEIGHT * moves.astype(np.float64) ** 2
    source = np.clip(np.arange(columns)[None, :] + moves[:, None], 0, columns - 1)
    best = cost[turns[0]].copy()
    back = np.empty((len(turns), columns), dtype=np.intp)
    everywhere = np.arange(columns)
    for step, ray in enumerate(turns):
        options = best[source] + penalty[:, None]
        choice = np.argmin(options, axis=0)
        back[step] = source[choice, everywhere]
        best = options[choice, everywhere] + cost[ray]
    path = np.empty(len(turns), dtype=np.intp)
    path[-1] = int(np.argmin(best))
    for step in range(len(turns) - 1, 0, -1):
        path[step - 1] = back[step, path[step]]
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
    edge, height = path.copy(), np.zeros(RAYS)
    shifts = []
    near = round(1.0 / RADIUS_STEP_MM)
    far = round(2.5 / RADIUS_STEP_MM)
    for k in range(RAYS):
        middle = int(np.argmin(np.abs(radii - path[k])))
        low, high = max(middle - near, 1), min(middle + near + 1, len(radii) - 1)
        peak = low + int(np.argmax(fall[k, low:high]))
        steepest = fall[k, peak]
        if steepest <= 0.0:
            continue
        flat = fall[k] < 0.2 * steepest
        inner, outer = peak, peak
        while inner > max(peak - far, 0) and not flat[inner]:
            inner -= 1
        while outer < min(peak + far, len(radii) - 1) and not flat[outer]:
            outer += 1
        top, foot = smooth[k, inner], smooth[k, outer]
        height[k] = (top - foot) / contrast
        run = smooth[k, inner : outer + 1][::-1]
        at = [np.interp(foot + q * (top - foot), run, radii[inner : outer + 1][::-1]) for q in (0.4, 0.5, 0.6)]
        edge[k] = at[1]
        if height[k] >= CLEAR_EDGE:
            shifts.append(at[0] - at[2])
    blur = float(np.mean(shifts)) / 2.0 if shifts else 0.0
    return edge, np.clip(height, 0.0, 1.0), blur


def _fourier(edge: FloatArray, weight: FloatArray, path: FloatArray, harmonics: int) -> tuple[FloatArray, float]:
    """A short Fourier series through the radii, robust to single rays that follow a branch or calcium.

    Returns:
        (RAYS,) smooth radii, and the standard deviation in mm of the seen edges around them.
    """
    k = np.arange(1, harmonics + 1)
    basis = np.concatenate(
        [np.ones((RAYS, 1)), np.cos(RAY_ANGLES[:, None] * k), np.sin(RAY_ANGLES[:, None] * k)], axis=1
    )
    # A gentle price on high terms closes gaps smoothly; it moves an ellipse of 3:2 by less than 0.01 mm.
    price = 1e-4 * np.concatenate([[0.0], k**4, k**4]) / harmonics**2
    values = np.where(weight >= CLEAR_EDGE, edge, path)
    trust = np.where(weight >= CLEAR_EDGE, 1.0, 0.05)
    robust = np.ones(RAYS)
    fit = values
    scale = 0.0
    for _ in range(3):
        w = trust * robust
        fit = basis @ np.linalg.solve(basis.T @ (w[:, None] * basis) + np.diag(price), basis.T @ (w * values))
        residual = values - fit
        seen = weight >= CLEAR_EDGE
        scale = float(1.4826 * np.median(np.abs(residual[seen]))) if seen.any() else 0.0
        limit = max(3.0 * scale, RADIUS_STEP_MM)
        robust = np.clip(1.0 - (residual / limit) ** 2, 0.0, 1.0) ** 2 + 1e-3
    return fit, scale
