"""Where along the centreline the sinuses, the sinotubular junction and the other named levels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.centreline import Centreline, Section
from cardiac_ct_fm.planning.contours import Contour

SMOOTH_MM = 1.0
MIN_BULGE_MM = 0.5
"""How much wider than what lies above them the sinuses have to be, to be told apart from noise (edge noise of a mean
diameter is 0.1–0.2 mm)."""

SINUS_RANGE_MM = (3.0, 30.0)
"""Where the widest level is looked for. Sinus height / annulus radius is 1.69 ± 0.18, so the junction lies 22 mm above
an annulus of 26 mm, and 30 mm above one of 34 mm."""

STJ_REACH_MM = 25.0
"""The sinuses' bulge is held against the narrowest level within this distance above the widest."""

STJ_BEYOND_MM = (2.0, 18.0)
"""The junction lies this far above the widest level: the height of a whole root above the annulus is 1.69 radii."""

STJ_RATIO, STJ_RATIO_SD = 1.69, 0.36
"""Height of the junction above the annulus in annulus radii, 1.69 ± 0.18 (Koshkelashvili et al., Monaldi Arch Chest Dis
2019), with twice the spread so that it only decides between kinks that are seen equally well."""

KINK_MM = 1.5
"""The diameters are smoothed by this before their bend is looked at: three sections."""

FINE_MM = 0.25
WAIST_MM = 3.0
"""A narrowest level this close to the kink is the junction: a kink is known to about twice :data:`KINK_MM`."""

VALLEY_REACH_MM = 3.0
VALLEY_MM = 0.25
"""A waist is one if the diameter rises by this beyond it; levels within it could be the waist as well."""


@dataclass(frozen=True, eq=False)
class RootLevels:
    """The named levels of an aortic root.

    Attributes:
        sinus: where it is widest, or None.
        stj: the section nearest to the sinotubular junction, or None.
        stj_mm: where along the line the junction is; NaN without one.
        stj_sd_mm: how far along the line the junction could be somewhere else.
        stj_kind: ``waist`` (a minimum) or ``kink`` (the end of the sinuses' taper; the aorta goes on otherwise).
        truncated: the scan ends before the junction could be seen.
    """

    sinus: Section | None
    stj: Section | None
    stj_mm: float
    stj_sd_mm: float
    stj_kind: str
    truncated: bool


def find_levels(line: Centreline) -> RootLevels:
    """The widest level above the annulus and the junction above it, from the diameters along the centreline."""
    above = line.levels >= 0.0
    s = line.levels[above]
    cut = line.ended_above == "truncated"
    nothing = RootLevels(None, None, float("nan"), 0.0, "", cut)
    if len(s) < 8:
        return nothing
    even = np.arange(s[0], s[-1] + FINE_MM / 2.0, FINE_MM)
    diameter = np.interp(even, s, line.values("area_diameter_mm")[above])
    peak = _widest(even, gaussian_filter1d(diameter, SMOOTH_MM / FINE_MM, mode="nearest"))
    if peak is None:
        return nothing
    sinus = line.nearest(float(even[peak]))
    expected = STJ_RATIO * float(np.interp(0.0, even, diameter)) / 2.0
    found = _junction(even, diameter, peak, expected, STJ_RATIO_SD / STJ_RATIO * expected)
    if found is None:
        return RootLevels(sinus, None, float("nan"), 0.0, "", cut)
    level, sd, kind = found
    return RootLevels(sinus, line.nearest(level), level, sd, kind, cut)


def _widest(s: FloatArray, smooth: FloatArray) -> int | None:
    """The most prominent widest level, or None when nothing bulges."""
    low, high = SINUS_RANGE_MM
    peaks, facts = find_peaks(smooth, prominence=0.0)
    inside = (s[peaks] >= low) & (s[peaks] <= high)
    order = np.argsort(-facts["prominences"][inside])
    for peak in peaks[inside][order]:
        window = (s > s[peak]) & (s <= s[peak] + STJ_REACH_MM)
        if window.any() and smooth[peak] - smooth[window].min() >= MIN_BULGE_MM:
            return int(peak)
    return None


def _junction(
    s: FloatArray, diameter: FloatArray, peak: int, expected_mm: float, expected_sd_mm: float
) -> tuple[float, float, str] | None:
    """Level of the junction, its standard deviation and its kind; None when the line ends while the root still tapers.

    The junction is where the sinuses' taper ends: the sharpest upward bend of the diameters. An aorta that is narrower
    farther up does not move it, as it would move the narrowest level.
    """
    smooth = gaussian_filter1d(diameter, KINK_MM / FINE_MM, mode="nearest")
    bend = np.gradient(np.gradient(smooth, s), s)
    near, far = STJ_BEYOND_MM
    # A bend is only seen from both sides.
    inside = (s >= s[peak] + near) & (s <= min(s[peak] + far, s[-1] - 2.0 * KINK_MM))
    if not inside.any() or bend[inside].max() <= 0.0:
        return None
    score = np.where(inside, np.maximum(bend, 0.0) * np.exp(-0.5 * ((s - expected_mm) / expected_sd_mm) ** 2), 0.0)
    kink = int(np.argmax(score))
    strong = s[score >= 0.5 * score[kink]]
    sd = max(float(np.ptp(strong)), 1.0) / float(np.sqrt(12.0))
    little = gaussian_filter1d(diameter, SMOOTH_MM / FINE_MM, mode="nearest")
    valleys, _ = find_peaks(-little)
    for valley in valleys[np.abs(s[valleys] - s[kink]) <= WAIST_MM]:
        if little[valley:].max() - little[valley] >= VALLEY_MM:
            # Both tell of one junction; smoothing moves the kink toward the sinuses, the waist away from them.
            spread = np.array([KINK_MM, _valley_sd(s, little, int(valley))])
            both = np.array([float(s[kink]), _vertex(s, diameter, float(s[valley]))])
            level = float(np.sum(both / spread**2) / np.sum(1.0 / spread**2))
            return level, max(sd, float(spread[1])), "waist"
    return float(s[kink]), sd, "kink"


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


def sinus_chord(contour: Contour, toward_hinge: FloatArray) -> FloatArray:
    """Ends (2, 3) in RAS mm of the line from a sinus's deepest point through the centroid to the opposite wall.

    Args:
        contour: the lumen at the widest level.
        toward_hinge: (3,) from the annulus centre to the hinge point of the sinus's cusp.
    """
    plane = contour.plane
    middle = float(np.arctan2(toward_hinge @ plane.v, toward_hinge @ plane.u))
    # Sinuses are 120° wide and their deepest point lies near the middle; ±40° keeps clear of the commissures.
    angles = middle + np.radians(np.arange(-40.0, 41.0, 2.0))
    reach = [float(np.linalg.norm(contour.at(a) - contour.centroid)) for a in angles]
    best = float(angles[int(np.argmax(reach))])
    return np.stack([contour.at(best), contour.at(best + np.pi)])
