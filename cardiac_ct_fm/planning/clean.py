"""The first section above the valve, where no leaflet lies in the lumen: where tracking through the sinuses starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import Contour
from cardiac_ct_fm.planning.edges import MIN_CLEAR_FRACTION
from cardiac_ct_fm.planning.planes import Plane, unit
from cardiac_ct_fm.planning.prior import Prior

MAX_OUTSIDE = 0.02
"""Share of a contour's rays that may leave the scan: two of 120 (house choice)."""

CLEAN_RATIO = (1.3, 2.7)
"""Where a lumen without leaflets is looked for, in annulus radii above the annulus: sinuses end at 1.69 ± 0.18 radii
(Koshkelashvili et al. 2019), and the leaflets' free edges lie below that."""

CLEAN_STEP_MM = 3.0
"""Between the levels that are tried (house choice)."""

CLEAN_SD_MM = 3.5
"""Radius of that section against the annulus's: the junction is 1.15 times as wide (29.8 to 25.7 mm in men, Hamdan) and
its standard deviation is 2 mm of radius; doubled."""

JUNCTION_TO_ANNULUS = 1.15

CENTRINGS, CENTRED_MM = 6, 0.5
"""The aorta leans, so the first centre lies beside its middle: the section is centred until it moves less than this
(both house choices)."""

Trace = Callable[[Plane, Prior], Contour | None]
Contains = Callable[[FloatArray], npt.NDArray[np.bool_]]


def clean_section(annulus: Contour, trace: Trace, contains: Contains) -> Contour | None:
    """The lumen above the valve: of the levels where it is looked for, the one that is seen best."""
    normal, radius = annulus.plane.normal, annulus.area_diameter_mm / 2.0
    low, high = CLEAN_RATIO
    expected = Prior.circle(JUNCTION_TO_ANNULUS * radius, CLEAN_SD_MM, 12)
    ahead, found = annulus.centroid + low * radius * normal, list[Contour]()
    for _ in range(int((high - low) * radius / CLEAN_STEP_MM) + 1):
        contour: Contour | None = None
        for _ in range(CENTRINGS):
            if not bool(contains(ahead)):
                return _cleanest(found, annulus, trace, expected)
            contour = trace(Plane.through(ahead, ahead - annulus.centroid, annulus.plane.u), expected)
            if contour is None or contour.clear_fraction < MIN_CLEAR_FRACTION or contour.outside_scan > MAX_OUTSIDE:
                contour = None
                break
            moved = float(np.linalg.norm(contour.centroid - ahead))
            ahead = contour.centroid
            if moved < CENTRED_MM:
                break
        if contour is not None:
            found.append(contour)
        ahead = ahead + CLEAN_STEP_MM * unit(ahead - annulus.centroid)
    return _cleanest(found, annulus, trace, expected)


def _cleanest(found: list[Contour], annulus: Contour, trace: Trace, expected: Prior) -> Contour | None:
    """The contour with the clearest edge and the least tissue, cut again perpendicular to the line; None of none.

    A path through open blood holds no tissue either, so the edge has to be seen as well.
    """
    if not found:
        return None
    best = max(found, key=lambda contour: contour.clear_fraction - contour.tissue_fraction)
    below = best.centroid - annulus.centroid
    # As far above it as the annulus is below: the mean of both chords is an arc's tangent.
    above = found[
        int(np.argmin([abs(np.linalg.norm(c.centroid - best.centroid) - np.linalg.norm(below)) for c in found]))
    ]
    direction = unit(below)
    if above.plane.height(best.centroid) < -CLEAN_STEP_MM / 2.0:
        direction = unit(direction + unit(above.centroid - best.centroid))
    again = trace(Plane.through(best.centroid, direction, annulus.plane.u), expected)
    return best if again is None or again.clear_fraction < MIN_CLEAR_FRACTION else again
