"""Where along the centreline the sinuses, the sinotubular junction and the other named levels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.centreline import Centreline, Section
from cardiac_ct_fm.planning.contours import Contour
from cardiac_ct_fm.planning.junction import FINE_MM, SMOOTH_MM, find_junction

MIN_BULGE_MM = 0.5
"""How much wider than what lies above them the sinuses have to be, to be told apart from noise (edge noise of a mean
diameter is 0.1–0.2 mm; house choice)."""

SINUS_RANGE_MM = (3.0, 30.0)
"""Where the widest level is looked for. Sinus height / annulus radius is 1.69 ± 0.18, so the junction lies 22 mm above
an annulus of 26 mm, and 30 mm above one of 34 mm (published ratio; the limits are a
house choice)."""

STJ_REACH_MM = 25.0
"""The sinuses' bulge is held against the narrowest level within this distance above the widest (house choice)."""


@dataclass(frozen=True, eq=False)
class RootLevels:
    """The named levels of an aortic root.

    Attributes:
        sinus: where it is widest, or None.
        stj: the section nearest to the sinotubular junction, or None.
        stj_mm: where along the line the junction is; NaN without one.
        stj_sd_mm: how far along the line the junction could be somewhere else.
        stj_kind: ``waist`` (a minimum) or ``kink`` (the end of the sinuses' taper; the aorta goes on otherwise).
        stj_lean_deg: how far the ring of the junction leans against the section.
        truncated: the scan ends before the junction could be seen.
    """

    sinus: Section | None
    stj: Section | None
    stj_mm: float
    stj_sd_mm: float
    stj_kind: str
    stj_lean_deg: float
    truncated: bool


def find_levels(line: Centreline) -> RootLevels:
    """The widest level above the annulus and the junction above it, from the diameters along the centreline."""
    above = line.levels >= 0.0
    s = line.levels[above]
    cut = line.ended_above == "truncated"
    nothing = RootLevels(None, None, float("nan"), 0.0, "", 0.0, cut)
    if len(s) < 8:
        return nothing
    even = np.arange(s[0], s[-1] + FINE_MM / 2.0, FINE_MM)
    diameter = np.interp(even, s, line.values("area_diameter_mm")[above])
    peak = _widest(even, gaussian_filter1d(diameter, SMOOTH_MM / FINE_MM, mode="nearest"))
    if peak is None:
        return nothing
    sinus = line.nearest(float(even[peak]))
    radii = np.stack([section.contour.radii_mm for section in line.sections])[above]
    found = find_junction(s, radii, line.values("area_diameter_mm")[above], float(even[peak]))
    if found is None:
        return RootLevels(sinus, None, float("nan"), 0.0, "", 0.0, cut)
    stj = line.nearest(found.s_mm)
    radius = np.inf if stj is None else stj.contour.area_diameter_mm / 2.0
    lean = float(np.degrees(np.arctan2(found.lean_mm, radius)))
    return RootLevels(sinus, stj, found.s_mm, found.sd_mm, found.kind, lean, cut)


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
