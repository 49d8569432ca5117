"""From landmarks to the annulus: which points can be used, their plane, the way to the aorta, the contour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, OSTIA
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.planning.contours import RAY_DIRECTIONS, Contour
from cardiac_ct_fm.planning.edges import (
    MIN_CLEAR_FRACTION,
    TISSUE_HU,
    blood_level,
    label_border,
    trace_image,
    trace_labels,
)
from cardiac_ct_fm.planning.options import PlanningOptions
from cardiac_ct_fm.planning.planes import Finding, Plane, Sampler, hinge_circle, layout_findings, triangle_problem, unit
from cardiac_ct_fm.planning.prior import EDGE_WIDTH_MM, LABEL_SD_MM, Prior

FREE_SD_MM = 2.5
"""How far the annulus may lie from the hinge circle midway between two points: an ellipse of axis ratio 1.29 ± 0.1
departs from its circle by 1.6 ± 0.5 mm at a diameter of 26 mm; about two standard deviations (house choice)."""

OWN_LABELS = frozenset({HEART_LABELS["Aorta"], HEART_LABELS["LV"]})
"""The lumen at and below the annulus is labelled as one or the other."""


FROM_LABELS = Finding(
    "contour_from_labels", "The lumen's edge is not seen in the image; the label map's border was used."
)

HEAD_NOT_RUN = "head_not_run"
"""Code of the finding that nobody looked for a point."""


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks that can be used, and why the others cannot.

    Attributes:
        ras: name → (3,) RAS mm.
        sd_mm: name → standard deviation along each axis.
        confidence: name → 0…1.
        problems: name → why there is no usable point.
    """

    ras: dict[str, FloatArray] = field(default_factory=dict)
    sd_mm: dict[str, float] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    problems: dict[str, Finding] = field(default_factory=dict)

    @classmethod
    def usable(
        cls, landmarks: Mapping[str, Landmark], names: tuple[str, ...], grid: Grid, options: PlanningOptions
    ) -> Points:
        """Sort the expected landmarks into those inside the scan and those that are missing or outside."""
        points = cls()
        for name in names:
            mark = landmarks.get(name)
            if mark is None or mark.ras_mm is None:
                points.problems[name] = Finding(
                    "landmark_not_found", f"{name} was not found. Place it by hand and measure again."
                )
                continue
            ras = np.asarray(mark.ras_mm, dtype=np.float64)
            if not bool(grid.contains(ras)):
                where = ", ".join(f"{v:.1f}" for v in mark.ras_mm)
                points.problems[name] = Finding(
                    "landmark_outside_scan",
                    f"{name} at ({where}) RAS mm lies outside of the scan. Check the unit (mm) and the frame (RAS or "
                    "LPS) of the file it came from.",
                )
                continue
            points.ras[name] = ras
            points.sd_mm[name] = options.landmark_sd(mark.confidence)
            points.confidence[name] = mark.confidence
        return points

    def sampled(self, count: int, seed: int) -> dict[str, FloatArray]:
        """Name → (count, 3) positions drawn around each point."""
        rng = np.random.default_rng(seed)
        return {name: self.ras[name] + rng.normal(0.0, self.sd_mm[name], (count, 3)) for name in sorted(self.ras)}


@dataclass(frozen=True, eq=False)
class Annulus:
    """The annulus as the hinge points and the image give it.

    Attributes:
        plane: through the hinge points, origin at their mean, normal toward the aorta.
        hinges: (3, 3) RCC, LCC, NCC in RAS mm.
        circle_mm: diameter of the circle through them.
        contour: the lumen in the plane, or None.
        doubts: what makes every value that rests on this plane ``low_confidence``.
        names_doubt: why the names of the cusps cannot be right, or None.
        evidence: what told the way to the aorta.
    """

    plane: Plane
    hinges: FloatArray
    circle_mm: float
    contour: Contour | None
    doubts: tuple[Finding, ...]
    names_doubt: Finding | None
    evidence: str


class Lumen:
    """Finds the lumen in a plane: in the image where it can be seen, else in the label map.

    Args:
        image: HU.
        labels: heart label map on the same grid, or None.
    """

    def __init__(self, image: Sampler, labels: Sampler | None) -> None:
        self.image = image
        self.labels = labels
        self.blood_hu = float("nan")

    def look_at(self, plane: Plane, radius_mm: float) -> None:
        """Learn the blood's HU from the root above and below an annulus plane."""
        self.blood_hu = blood_level(self.image, plane, 0.6 * radius_mm)

    def trace(self, plane: Plane, prior: Prior) -> Contour | None:
        """The contour around the plane's origin, or None when neither image nor labels show one."""
        if self.labels is not None:
            border = label_border(self.labels, plane, prior.reach_mm + 2.0 * LABEL_SD_MM, OWN_LABELS)
            prior = prior if border is None else prior.with_labels(border[0], border[1] & self._ends(plane, border[0]))
        seen = trace_image(self.image, plane, prior, self.blood_hu, self.labels, OWN_LABELS)
        if seen is not None and (seen.clear_fraction >= MIN_CLEAR_FRACTION or self.labels is None):
            return seen
        if self.labels is None:
            return None
        return trace_labels(self.labels, self.image, plane, prior, self.blood_hu, OWN_LABELS) or seen

    def _ends(self, plane: Plane, border_mm: FloatArray) -> npt.NDArray[np.bool_]:
        """(RAYS,) whether a label's border can be right: not where blood goes on beyond it without a label."""
        assert self.labels is not None
        beyond = plane.world((border_mm + EDGE_WIDTH_MM)[:, None] * RAY_DIRECTIONS)
        blood = self.image(beyond) > (self.blood_hu + TISSUE_HU) / 2.0
        result: npt.NDArray[np.bool_] = ~(blood & (self.labels.nearest(beyond) == 0))
        return result

    def ring(self, plane: Plane, hinges: FloatArray, point_sd_mm: float) -> Contour | None:
        """The annulus contour: convex, near the hinge points (3, 3), around its own centre."""
        contour = self.trace(plane, Prior.ring(plane, hinges, point_sd_mm, FREE_SD_MM))
        if contour is None:
            return None
        centred = plane.moved(contour.centroid)
        contour = self.trace(centred, Prior.oval(contour, centred, hinges))
        if contour is None or contour.clear_fraction < MIN_CLEAR_FRACTION:
            return None
        # The ring goes through the hinge points. Muscle or a leaflet's base may hide the wall there, so a point that
        # lies farther out than its doubt draws the ring outward.
        xy = centred.project(hinges)
        reach = np.linalg.norm(xy, axis=1, keepdims=True)
        return contour.convex(xy * np.maximum(1.0 - point_sd_mm / reach, 0.0))


def find_annulus(points: Points, lumen: Lumen, options: PlanningOptions) -> Annulus | Finding:
    """The annulus, or why there is none."""
    missing = [name for name in HINGE_POINTS if name not in points.ras]
    if missing:
        return _missing(points, missing)
    named = {name: points.ras[name] for name in HINGE_POINTS}
    problem = triangle_problem(named)
    if problem is not None:
        return problem
    hinges = np.stack(list(named.values()))
    centre = hinges.mean(axis=0)
    winding = unit(np.cross(hinges[1] - hinges[0], hinges[2] - hinges[0]))
    normal, evidence = toward_aorta(winding, centre, points, lumen.labels)
    plane = Plane.through(centre, normal)
    diameter = hinge_circle(hinges)[1]
    lumen.look_at(plane, diameter / 2.0)
    doubts = layout_findings(hinges)
    if options.valve == "bicuspid":
        doubts.append(
            Finding("bicuspid_valve", "Given as bicuspid: three hinge points describe its annulus only roughly.")
        )
    sd = float(np.mean([points.sd_mm[name] for name in HINGE_POINTS]))
    contour = lumen.ring(plane, hinges, sd)
    if contour is not None and contour.method == "labels":
        doubts.append(FROM_LABELS)
    names = names_problem(hinges, plane, winding, points, options)
    return Annulus(plane, hinges, diameter, contour, tuple(doubts), names, evidence)


def _missing(points: Points, missing: list[str]) -> Finding:
    """Why three hinge points are not there."""
    unsought = [points.problems[name] for name in missing if points.problems[name].code == HEAD_NOT_RUN]
    if unsought:
        return unsought[0]
    outside = [name for name in missing if points.problems[name].code == "landmark_outside_scan"]
    if outside:
        return Finding("hinge_point_outside_scan", points.problems[outside[0]].message)
    if len(missing) == 1:
        return Finding(
            "two_hinge_points",
            f"{missing[0]} was not found, and two hinge points define no plane. Thick slices or little contrast hide a "
            "point, and a bicuspid valve may have two: place it by hand and measure again.",
        )
    return Finding(
        "hinge_points_not_found",
        f"{', '.join(missing)} were not found; the annulus plane needs all three hinge points. A scan that is mirrored "
        "or turned, because its header lost the orientation, looks like this (do R, L, A and P stand on their sides?), "
        "and one without contrast or without the aortic root.",
    )


def toward_aorta(
    winding: FloatArray, centre: FloatArray, points: Points, labels: Sampler | None
) -> tuple[FloatArray, str]:
    """The plane's normal on the aorta's side, and what told so.

    The label map decides where it shows both aorta and left ventricle near the plane; else the coronary ostia, which
    lie above it; else the head, toward which the aorta leaves the heart. The order of the cusps is not asked, so that
    it can be checked against this.
    """
    if labels is not None:
        steps = np.arange(-30.0, 31.0, 3.0)
        cube = centre + np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
        found = labels.nearest(cube)
        sides = [cube[found == HEART_LABELS[name]] for name in ("Aorta", "LV")]
        # 20 cells of 27 mm³: a few mm of a lumen of 26 mm diameter, enough for a side (house choice).
        if min(len(side) for side in sides) >= 20:
            upward = float((sides[0].mean(axis=0) - sides[1].mean(axis=0)) @ winding)
            return (winding if upward > 0 else -winding), "heart labels"
    ostia = [points.ras[name] for name in OSTIA if name in points.ras]
    heights = [float((p - centre) @ winding) for p in ostia]
    # Ostia lie 12–17 mm above the annulus (Hamdan); 3 mm is beyond the doubt of a point (house choice).
    if heights and abs(float(np.mean(heights))) > 3.0:
        return (winding if np.mean(heights) > 0 else -winding), "coronary ostia"
    return (winding if winding[2] > 0 else -winding), "head direction"


def names_problem(
    hinges: FloatArray, plane: Plane, winding: FloatArray, points: Points, options: PlanningOptions
) -> Finding | None:
    """Why the names of the three cusps cannot be right, or None.

    Seen from the aorta the order right, left, non-coronary runs counter-clockwise. Each coronary ostium lies over its
    own cusp (RCA about 12° toward the NCC, LCA in the middle), so ostia that both lie over another cusp tell that the
    names have moved around the ring.
    """
    if options.valve == "bicuspid":
        return Finding("bicuspid_valve", "Given as bicuspid: values per cusp and views by cusp are not defined.")
    if float(winding @ plane.normal) < 0:
        return Finding(
            "cusps_swapped",
            "The order of RCC, LCC and NCC around the annulus is that of a mirror image: two cusps have each other's "
            "name, or left and right of the scan are swapped. Correct the names and measure again.",
        )
    over = {}
    for ostium, own in (("RCA", 0), ("LCA", 1)):
        if ostium in points.ras:
            away = np.angle(np.exp(1j * (plane.azimuth(points.ras[ostium]) - plane.azimuth(hinges))))
            over[ostium] = (int(np.argmin(np.abs(away))), own)
    if len(over) == 2 and all(found != own for found, own in over.values()):
        turned = {(found - own) % 3 for found, own in over.values()}
        what = "moved around the ring" if len(turned) == 1 else "mixed up"
        return Finding(
            "cusps_misnamed",
            f"Neither coronary ostium lies over its own cusp: the names of the cusps or of the ostia are {what}. "
            "Correct them and measure again.",
        )
    return None


def perturbed_planes(
    points: Points, annulus: Annulus, options: PlanningOptions, count: int
) -> tuple[FloatArray, FloatArray]:
    """Hinge points (count, 3, 3) drawn around the true ones and their normals (count, 3), on the same side."""
    drawn = points.sampled(count, options.seed)
    hinges = np.stack([drawn[name] for name in HINGE_POINTS], axis=1)
    normals = np.cross(hinges[:, 1] - hinges[:, 0], hinges[:, 2] - hinges[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    sign = np.sign(normals @ annulus.plane.normal)
    return hinges, normals * np.where(sign == 0, 1.0, sign)[:, None]


def perturbed_contours(
    hinges: FloatArray, normals: FloatArray, lumen: Lumen, annulus: Annulus, point_sd_mm: float
) -> list[Contour]:
    """Annulus contours for drawn hinge points (count, 3, 3); draws that show none are left out."""
    found = []
    for triple, normal in zip(hinges, normals, strict=True):
        plane = Plane.through(triple.mean(axis=0), normal, annulus.plane.u)
        contour = lumen.ring(plane, triple, point_sd_mm)
        if contour is not None:
            found.append(contour)
    return found
