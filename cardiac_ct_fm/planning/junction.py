"""Where the sinuses end: the ring along which the wall of the root bends outward most, as it may lean.

The sinotubular junction is a ring on the wall, and it leans against the centreline. In sections perpendicular to the
line it is therefore spread over several millimetres: the diameters bend late and gently, far above the ring's middle.
So the bend is looked for on the wall itself, ray by ray, along all rings that lean by a plausible angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAYS

FINE_MM = 0.25
"""Levels are interpolated this finely: a quarter of a section (house choice)."""

BEND_MM = 1.0
"""Radii along the line are smoothed by this before their bend is looked at: one section (house choice)."""

MAX_BEND = 0.5
"""Bends per mm that count for more than this are an ostium's, a leaflet's or calcium's; a sinus of 5 mm depth and 20 mm
height that ends in a tube turns by less than 1 mm per mm within a smoothing of 1 mm (house choice)."""

STJ_BEYOND_MM = (3.0, 18.0)
"""The junction lies this far above the widest level: the height of a whole root above the annulus is 1.69 radii."""

STJ_RATIO, STJ_RATIO_SD = 1.69, 0.36
"""Height of the junction above the annulus in annulus radii, 1.69 ± 0.18 (Koshkelashvili et al., Monaldi Arch Chest Dis
2019), with twice the spread so that it only decides between bends that are seen equally well."""

LEAN_MM, LEAN_SD_MM, LEAN_STEP_MM = 7.0, 3.5, 1.4
"""How far the ring's edge may lie above or below its middle, at most and as a standard deviation, and the step of the
search: 27° and 14° at a radius of 14 mm. Tuned, with :data:`STJ_BEYOND_MM`, on 40 digital patients (seeds 2000–2039)
that are not among the reported ones."""

RAY_STEP = 5
"""Every fifth ray, 15° apart: half a commissure's width (house choice)."""

END_MM = 3.0
"""The junction lies this far below the line's end at least: a bend is only seen from both sides (house choice)."""

BEND_ENDS_MM = 2.0 * BEND_MM
"""Bends this close to an end of the line are the smoothing's: what lies beyond the end is not known."""

MIN_SEEN = 0.85
"""Share of the rays on which a ring has to lie within what is known of the line; the others, of a ring that leans over
its end, are left out (house choice)."""

SURE = 3.0
"""Standard errors by which the bends of a ring near the line's end have to lie above zero: below the end of the
sinuses the largest of many rings' means is up to two, by noise alone."""

SMOOTH_MM = 1.0
"""Diameters are smoothed by this before a widest or narrowest level is sought: one section (house choice)."""

WAIST_MM = 3.0
"""A narrowest level this close to the bend is the junction: a bend is known to about three times :data:`BEND_MM` (house
choice)."""

WAIST_LEAN_MM = 2.0
"""The narrowest level tells of the junction only where the ring lies flat; a leaning one's is too high (house
choice)."""

VALLEY_REACH_MM = 3.0
"""A waist's sides are fitted this far (house choice)."""

VALLEY_MM = 0.25
"""A waist is one if the diameter rises by this beyond it; levels within it could be the waist as well (house
choice)."""

BEND_SD_MM = 1.5
"""Doubt of the bend's level against the waist's, where both are seen (house choice)."""


@dataclass(frozen=True)
class Junction:
    """The sinotubular junction along a centreline.

    Attributes:
        s_mm: level of the ring's middle.
        sd_mm: how far along the line it could be somewhere else.
        kind: ``waist`` (a minimum of the diameters) or ``kink`` (the end of the sinuses' taper).
        lean_mm: how far the ring's edge lies above its middle.
    """

    s_mm: float
    sd_mm: float
    kind: str
    lean_mm: float


def find_junction(s: FloatArray, radii: FloatArray, diameter: FloatArray, widest_mm: float) -> Junction | None:
    """The junction above the widest level; None when the line ends before the ring is surely seen.

    An aorta that is narrower farther up does not move it, as it would move the narrowest level.

    Args:
        s: (S,) levels of the sections, ascending from the annulus.
        radii: (S, RAYS) radii of the sections' contours in mm.
        diameter: (S,) their diameters in mm.
        widest_mm: level where the root is widest.
    """
    even = np.arange(s[0], s[-1] + FINE_MM / 2.0, FINE_MM)
    near, far = STJ_BEYOND_MM
    last = even[-1] - END_MM
    level = even[(even >= widest_mm + near) & (even <= min(widest_mm + far, last))]
    if not len(level):
        return None
    rays = np.arange(0, RAYS, RAY_STEP)
    wall = np.stack([np.interp(even, s, radii[:, k]) for k in rays])
    smooth = gaussian_filter1d(wall, BEND_MM / FINE_MM, axis=1, mode="nearest")
    bend = np.clip(np.gradient(np.gradient(smooth, even, axis=1), even, axis=1), -MAX_BEND, MAX_BEND)
    across = np.arange(-LEAN_MM, LEAN_MM + LEAN_STEP_MM / 2.0, LEAN_STEP_MM)
    lean = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
    lean = lean[np.hypot(lean[:, 0], lean[:, 1]) <= LEAN_MM]
    edge = lean @ np.stack([np.cos(RAY_ANGLES[rays]), np.sin(RAY_ANGLES[rays])])
    start = np.round((level - even[0]) / FINE_MM).astype(int)
    index = start[None, None, :] + np.round(edge / FINE_MM).astype(int)[:, :, None]
    ends = round(BEND_ENDS_MM / FINE_MM)
    known = (index >= ends) & (index < len(even) - ends)
    bends = np.where(known, bend[np.arange(len(rays))[None, :, None], np.clip(index, 0, len(even) - 1)], 0.0)
    count = known.sum(axis=1)
    seen = np.where(count >= MIN_SEEN * len(rays), bends.sum(axis=1) / np.maximum(count, 1), 0.0)
    radius = float(np.interp(0.0, s, diameter)) / 2.0
    likely = np.exp(-0.5 * ((level - STJ_RATIO * radius) / (STJ_RATIO_SD * radius)) ** 2)
    flat = np.exp(-0.5 * (np.hypot(lean[:, 0], lean[:, 1]) / LEAN_SD_MM) ** 2)
    score = np.maximum(seen, 0.0) * flat[:, None] * likely
    if score.max() <= 0.0:
        return None
    best, at = np.unravel_index(int(np.argmax(score)), score.shape)
    kink, leans = float(level[at]), float(np.hypot(*lean[best]))
    if kink > last - LEAN_MM:
        own = bends[best, :, at][known[best, :, at]]
        # At the last level the bend still grows: there is one farther up, beyond what the line shows.
        if kink > last - FINE_MM or own.mean() < SURE * own.std() / np.sqrt(len(own)):
            return None
    strong = level[score.max(axis=0) >= 0.5 * score.max()]
    sd = max(float(np.ptp(strong)), 1.0) / float(np.sqrt(12.0))
    if leans > WAIST_LEAN_MM:
        return Junction(kink, sd, "kink", leans)
    return _with_waist(s, diameter, kink, sd, leans)


def _with_waist(s: FloatArray, diameter: FloatArray, kink: float, sd: float, leans: float) -> Junction:
    """The bend and a narrowest level beside it, weighted by their doubts; the bend alone where there is none."""
    even = np.arange(s[0], s[-1] + FINE_MM / 2.0, FINE_MM)
    fine = np.interp(even, s, diameter)
    little = gaussian_filter1d(fine, SMOOTH_MM / FINE_MM, mode="nearest")
    valleys, _ = find_peaks(-little)
    for valley in valleys[np.abs(even[valleys] - kink) <= WAIST_MM]:
        if little[valley:].max() - little[valley] >= VALLEY_MM:
            spread = np.array([BEND_SD_MM, _valley_sd(even, little, int(valley))])
            both = np.array([kink, _vertex(even, fine, float(even[valley]))])
            level = float(np.sum(both / spread**2) / np.sum(1.0 / spread**2))
            return Junction(level, max(sd, float(spread[1])), "waist", leans)
    return Junction(kink, sd, "kink", leans)


def _vertex(s: FloatArray, diameter: FloatArray, about_mm: float) -> float:
    """Lowest point of a valley whose sides are two parabolas; smoothing alone would move it toward the gentler side."""
    near = np.abs(s - about_mm) <= VALLEY_REACH_MM
    x, y = s[near], diameter[near]
    candidates = np.arange(about_mm - WAIST_MM / 2.0, about_mm + WAIST_MM / 2.0 + 0.05, 0.1)

    def misfit(at: float) -> float:
        away = x - at
        terms = np.stack([np.ones_like(x), np.minimum(away, 0.0) ** 2, np.maximum(away, 0.0) ** 2], axis=-1)
        return float(np.sum((terms @ np.linalg.lstsq(terms, y, rcond=None)[0] - y) ** 2))

    return float(min(candidates, key=misfit))


def _valley_sd(s: FloatArray, diameter: FloatArray, valley: int) -> float:
    """Standard deviation of an even distribution over the valley's bottom."""
    left = right = valley
    while left > 0 and diameter[left - 1] - diameter[valley] <= VALLEY_MM:
        left -= 1
    while right < len(s) - 1 and diameter[right + 1] - diameter[valley] <= VALLEY_MM:
        right += 1
    return float(max(s[right] - s[left], 1.0) / np.sqrt(12.0))
