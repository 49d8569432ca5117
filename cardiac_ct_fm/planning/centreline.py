"""The aortic centreline from the outflow tract to the ascending aorta, and the sections across it.

No library that installs everywhere traces a centreline through an unsegmented lumen (VMTK has no wheels for pip), and
the root's own measurements need the lumen's contour at every step anyway. So the line is tracked: plane by plane, the
centre of the lumen's contour is the next point and the last one's contour is what the next is expected to look like.
Through the sinuses it is tracked from above, where no leaflet lies in the lumen: seen from the annulus, the leaflets
look like the wall and the sinuses behind them like other vessels. A smoothing spline through the centres gives
tangents, and the sections are cut again, perpendicular to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import BSpline, make_smoothing_spline

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.clean import MAX_OUTSIDE, Contains, Trace, clean_section
from cardiac_ct_fm.planning.contours import Contour
from cardiac_ct_fm.planning.edges import MIN_CLEAR_FRACTION, SLAB_MM
from cardiac_ct_fm.planning.planes import Plane, unit
from cardiac_ct_fm.planning.prior import OUTWARD, Prior

TRACK_STEP_MM = 2.0
SECTION_STEP_MM = 1.0
"""Between the contours of the first pass, and between those across the smooth line: a voxel or two (house choice)."""

SMOOTHING = 60.0
"""Weight of curvature in the spline through the centres, 2 mm apart: ripples shorter than about 20 mm, such as the
three sinuses' own asymmetry, are damped to less than half; an arch of 40 mm radius is kept within 0.1 mm."""

TURN_MM = 10.0
"""The direction of the next step follows the centres of this stretch: longer than a sinus is deep (4–5 mm)."""

CONTOUR_SD_MM = 1.5
"""How much a radius may change in one step of 2 mm; the steepest part of a root, annulus to sinus, rises about 1:1."""

MAX_AREA_JUMP = 1.7
"""A contour that grows or shrinks by more than this factor in 2 mm has left the lumen. From an annulus of 26 mm to a
sinus of 36 mm (Hamdan) the area doubles, but over 8 mm; hinge points 2 mm too high cost a factor of 1.5 at once.
The limit is a house choice."""

END_POINTS = 8
"""Centres that decide how the line goes on beyond its end, and how far it is carried on (house choice)."""


@dataclass(frozen=True, eq=False)
class Section:
    """The lumen across the centreline.

    Attributes:
        s_mm: distance along the centreline from the annulus plane, positive toward the aorta.
        contour: the lumen; its plane is perpendicular to the centreline.
    """

    s_mm: float
    contour: Contour


@dataclass(frozen=True, eq=False)
class Centreline:
    """A smooth line through the lumen.

    Attributes:
        s_mm: (N,) distance along the line from where it crosses the annulus plane.
        ras: (N, 3) points in RAS mm.
        tangents: (N, 3) unit vectors, toward the aorta.
        sections: the lumen at every point where it was found, in order.
        ended_below: why tracking stopped in the outflow tract: ``reached``, ``truncated`` or ``lost``.
        ended_above: the same in the aorta.
    """

    s_mm: FloatArray
    ras: FloatArray
    tangents: FloatArray
    sections: tuple[Section, ...]
    ended_below: str
    ended_above: str

    @cached_property
    def levels(self) -> FloatArray:
        """(S,) ``s_mm`` of the sections."""
        return np.array([section.s_mm for section in self.sections])

    def values(self, quantity: str) -> FloatArray:
        """(S,) a quantity of the sections' contours, for example ``area_mm2``."""
        return np.array([getattr(section.contour, quantity) for section in self.sections], dtype=np.float64)

    def nearest(self, s_mm: float) -> Section | None:
        """The section within one step of a level, or None."""
        if not self.sections:
            return None
        i = int(np.argmin(np.abs(self.levels - s_mm)))
        return self.sections[i] if abs(self.levels[i] - s_mm) <= SECTION_STEP_MM else None


def track(annulus: Contour, trace: Trace, contains: Contains, down_mm: float, up_mm: float) -> Centreline | None:
    """The centreline through an annulus.

    Args:
        annulus: the contour in the annulus plane, whose normal points to the aorta.
        trace: finds the lumen in a plane, given what to expect.
        contains: whether world points (…, 3) lie inside of the scan.
        down_mm: how far to go into the outflow tract.
        up_mm: how far to go into the aorta, along the line.

    Returns:
        The line, or None when fewer than four contours were found.
    """
    below, ended_below = _march(annulus, trace, contains, -1.0, down_mm)
    clean = clean_section(annulus, trace, contains)
    if clean is None:
        above, ended_above = _march(annulus, trace, contains, 1.0, up_mm, OUTWARD)
    else:
        height = float(annulus.plane.height(clean.centroid))
        beyond, ended_above = _march(clean, trace, contains, 1.0, up_mm - height)
        above = [*_descend(clean, annulus, trace)[::-1], clean, *beyond]
    centres = [c.centroid for c in below[::-1]] + [annulus.centroid] + [c.centroid for c in above]
    if len(centres) < 5:
        return None
    points = np.asarray(centres)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    spline = make_smoothing_spline(*_continued(along, points), lam=SMOOTHING)
    s, ras, tangents = _by_length(spline, along, annulus.plane)
    guides = [*below[::-1], annulus, *above]
    guide_s = np.interp(along, _dense_parameter(along), _dense_length(spline, along, annulus.plane))
    sections = _sections(s, ras, tangents, guides, guide_s, trace, OUTWARD if clean is None else 1.0)
    return Centreline(s, ras, tangents, sections, ended_below, ended_above)


def _descend(top: Contour, annulus: Contour, trace: Trace) -> list[Contour]:
    """Contours every :data:`TRACK_STEP_MM` from a section above the valve down to the annulus, without both ends."""
    start, goal = top.centroid, annulus.centroid
    length = float(np.linalg.norm(start - goal))
    count = int(length / TRACK_STEP_MM)
    last, found = top, list[Contour]()
    for step in range(1, count):
        share = step / count
        normal = unit((1.0 - share) * top.plane.normal + share * annulus.plane.normal)
        # Between where the last centre points and the straight way to the annulus: the line may bend, not wander.
        ahead = last.centroid + (goal - last.centroid) / (count - step + 1)
        plane = Plane.through(ahead, normal, annulus.plane.u)
        contour = trace(plane, Prior.like(last, plane, CONTOUR_SD_MM, True))
        growth = 0.0 if contour is None else contour.area_mm2 / last.area_mm2
        if (
            contour is None
            or contour.clear_fraction < MIN_CLEAR_FRACTION
            or not 1 / MAX_AREA_JUMP <= growth <= MAX_AREA_JUMP
        ):
            continue
        found.append(contour)
        last = contour
    return found


def _march(
    start: Contour, trace: Trace, contains: Contains, sign: float, length_mm: float, outward: float = 1.0
) -> tuple[list[Contour], str]:
    """Contours every :data:`TRACK_STEP_MM` from a first one upward (sign 1) or downward (−1), and why they end."""
    direction = start.plane.normal
    path = [start.centroid]
    last, found = start, list[Contour]()
    for _ in range(int(np.ceil(length_mm / TRACK_STEP_MM))):
        plane = Plane.through(path[-1] + sign * TRACK_STEP_MM * direction, direction, start.plane.u)
        ahead = last.ras + sign * (TRACK_STEP_MM + SLAB_MM) * direction
        if 1.0 - float(contains(ahead).mean()) > MAX_OUTSIDE:
            return found, "truncated"
        contour = trace(plane, Prior.like(last, plane, CONTOUR_SD_MM, sign > 0.0, outward))
        if contour is None:
            return found, "lost"
        if contour.outside_scan > MAX_OUTSIDE:
            return found, "truncated"
        growth = contour.area_mm2 / last.area_mm2
        if contour.clear_fraction < MIN_CLEAR_FRACTION or not 1 / MAX_AREA_JUMP <= growth <= MAX_AREA_JUMP:
            return found, "lost"
        found.append(contour)
        path.append(contour.centroid)
        last = contour
        back = max(0, len(path) - 1 - round(TURN_MM / TRACK_STEP_MM))
        if len(path) - back > 3:
            # Half old, half new: the line turns, but one odd contour does not turn it.
            direction = unit(direction + unit(sign * (path[-1] - path[back])))
    return found, "reached"


def _continued(along: FloatArray, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The points with both ends carried on by a parabola.

    A smoothing spline straightens at its ends; this lets it happen where nobody measures.
    """
    count = min(END_POINTS, len(along))
    ahead = np.arange(1, END_POINTS + 1) * TRACK_STEP_MM
    before = np.polynomial.polynomial.polyfit(along[:count], points[:count], 2)
    after = np.polynomial.polynomial.polyfit(along[-count:] - along[-1], points[-count:], 2)
    low = np.polynomial.polynomial.polyval(-ahead[::-1] + along[0], before).T
    high = np.polynomial.polynomial.polyval(ahead, after).T
    return np.concatenate([along[0] - ahead[::-1], along, along[-1] + ahead]), np.concatenate([low, points, high])


def _dense_parameter(along: FloatArray) -> FloatArray:
    return np.linspace(along[0], along[-1], 20 * len(along))


def _dense_length(spline: BSpline, along: FloatArray, annulus: Plane) -> FloatArray:
    """Length along the spline at :func:`_dense_parameter`, 0 where it crosses the annulus plane."""
    points = spline(_dense_parameter(along))
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    heights = annulus.height(points)
    crossing = int(np.argmin(np.abs(heights)))
    result: FloatArray = length - length[crossing] + heights[crossing]
    return result


def _by_length(spline: BSpline, along: FloatArray, annulus: Plane) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The spline resampled every :data:`SECTION_STEP_MM` of its length, with unit tangents."""
    t, length = _dense_parameter(along), _dense_length(spline, along, annulus)
    s = np.arange(np.ceil(length[0] / SECTION_STEP_MM), np.floor(length[-1] / SECTION_STEP_MM) + 1.0) * SECTION_STEP_MM
    at = np.interp(s, length, t)
    tangents = spline.derivative()(at)
    return s, spline(at), tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def _sections(
    s: FloatArray,
    ras: FloatArray,
    tangents: FloatArray,
    guides: list[Contour],
    guide_s: FloatArray,
    trace: Trace,
    outward: float,
) -> tuple[Section, ...]:
    """Contours perpendicular to the line, each expected to look like the nearest one of the first pass."""
    result = []
    for level, point, tangent in zip(s, ras, tangents, strict=True):
        guide = guides[int(np.argmin(np.abs(guide_s - level)))]
        plane = Plane.through(point, tangent, guide.plane.u)
        contour = trace(plane, Prior.like(guide, plane, CONTOUR_SD_MM, level > 0.0, outward))
        if contour is not None and contour.outside_scan <= MAX_OUTSIDE and contour.clear_fraction >= MIN_CLEAR_FRACTION:
            # The outflow tract is drawn as the annulus is, over leaflets and muscle bundles that hang into it.
            result.append(Section(float(level), contour.convex() if level <= 0.0 else contour))
    return tuple(result)
