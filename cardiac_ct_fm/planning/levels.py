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
"""How much wider than the waist above them the sinuses have to be, to be told apart from noise (edge noise of a mean
diameter is 0.1–0.2 mm)."""

SINUS_RANGE_MM = (3.0, 30.0)
"""Where the widest level is looked for. Sinus height / annulus radius is 1.69 ± 0.18, so the junction lies 22 mm above
an annulus of 26 mm, and 30 mm above one of 34 mm."""

STJ_REACH_MM = 25.0
"""The waist lies at most this far above the widest level."""

VALLEY_MM = 0.25
"""Levels whose diameter is within this of the waist's could be the waist as well."""


@dataclass(frozen=True, eq=False)
class RootLevels:
    """The named levels of an aortic root.

    Attributes:
        sinus: where it is widest, or None.
        stj: the sinotubular junction, or None.
        stj_sd_mm: how far along the line the junction could be somewhere else.
        stj_kind: ``waist`` (a minimum) or ``end of taper`` (the tube goes on as wide as the junction).
        truncated: the scan ends before the junction could be seen.
    """

    sinus: Section | None
    stj: Section | None
    stj_sd_mm: float
    stj_kind: str
    truncated: bool


def find_levels(line: Centreline) -> RootLevels:
    """The widest level above the annulus and the waist above it, from the diameters along the centreline."""
    above = line.levels >= 0.0
    s = line.levels[above]
    cut = line.ended_above == "truncated"
    if len(s) < 8:
        return RootLevels(None, None, 0.0, "", cut)
    even = np.arange(s[0], s[-1] + 0.5)
    diameter = np.interp(even, s, line.values("area_diameter_mm")[above])
    smooth = gaussian_filter1d(diameter, SMOOTH_MM, mode="nearest")
    peaks, _ = find_peaks(smooth)
    low, high = SINUS_RANGE_MM
    for peak in peaks[(even[peaks] >= low) & (even[peaks] <= high)]:
        window = (even > even[peak]) & (even <= even[peak] + STJ_REACH_MM)
        if not window.any() or smooth[peak] - smooth[window].min() < MIN_BULGE_MM:
            continue
        sinus = line.nearest(float(even[peak]))
        found = _waist(even, smooth, int(peak), window)
        if found is None:
            return RootLevels(sinus, None, 0.0, "", cut)
        level, sd, kind = found
        return RootLevels(sinus, line.nearest(level), sd, kind, cut)
    return RootLevels(None, None, 0.0, "", cut)


def _waist(
    s: FloatArray, diameter: FloatArray, peak: int, window: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[float, float, str] | None:
    """Level, its standard deviation and its kind; None when the line ends while the root still tapers."""
    inside = np.flatnonzero(window)
    valleys, _ = find_peaks(-diameter)
    for valley in valleys[(valleys > peak) & np.isin(valleys, inside)]:
        deep = diameter[peak] - diameter[valley] >= MIN_BULGE_MM
        rise = diameter[valley:].max() - diameter[valley]
        if deep and rise >= VALLEY_MM:
            at = _vertex(s, diameter, int(valley))
            return at, _valley_sd(s, diameter, int(valley)), "waist"
    slope = np.gradient(diameter, s)
    steepest = inside[int(np.argmin(slope[inside]))]
    flat = np.flatnonzero((np.arange(len(s)) > steepest) & (slope > 0.2 * slope[steepest]))
    if not len(flat) or s[-1] - s[flat[0]] < 3.0:
        return None
    at = int(flat[0])
    return float(s[at]), max(1.0, abs(float(s[at] - s[steepest])) / 2.0), "end of taper"


def _vertex(s: FloatArray, diameter: FloatArray, valley: int) -> float:
    """Lowest point of the parabola through a valley and its neighbours."""
    if not 0 < valley < len(s) - 1:
        return float(s[valley])
    before, here, after = diameter[valley - 1 : valley + 2]
    bend = before - 2.0 * here + after
    return float(s[valley] + (0.5 * (before - after) / bend if bend > 1e-9 else 0.0))


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
