"""Every measurement by name: title, unit, group, definition, and what two human readers differ by. Pure data.

Human figures are between observers and carry their source; where no figure is given, none is known to us.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class HumanLimit:
    """How well people agree: ``text`` for the reader, ``source`` where it was read."""

    text: str
    source: str


@dataclass(frozen=True)
class Spec:
    """What a measurement is.

    Attributes:
        name: with its unit, as in the files.
        title: for people.
        unit: code in :data:`cardiac_ct_fm.anatomy.UNITS`.
        group: heading in the report.
        definition: one sentence.
        human: agreement between readers, where it is known.
    """

    name: str
    title: str
    unit: str
    group: str
    definition: str
    human: HumanLimit | None = None


_DEL_VALLE = "del Valle-Fernández et al., Eur Heart J 2010;31:2170 (3 raters, n = 75)"
_DIAMETER = HumanLimit("mean diameter: bias 0.2 mm, limits −1.4…+1.8 mm", "Tzikas et al., CCI 2011 (n = 70)")
_POINTS = HumanLimit("points 2.0 mm apart [1.3–2.8]", "Astudillo et al. 2020 (between observers)")
_ANGLE = HumanLimit("angle of aorta and LV: ICC 0.82", _DEL_VALLE)
_SINUS = HumanLimit("mean diameter: ICC 0.99", _DEL_VALLE)
_STJ = HumanLimit("mean diameter: ICC 0.95", _DEL_VALLE)
_AORTA = HumanLimit("mean diameter: ICC 0.94", _DEL_VALLE)
_LCA = HumanLimit("ICC 0.78", _DEL_VALLE)
_RCA = HumanLimit("ICC 0.61", _DEL_VALLE)

_Row = tuple[str, str, str, HumanLimit | None]
_MIN = "Shortest chord through the centroid."
_MAX = "Longest chord through the centroid."
_ARC = "Annulus contour nearest to this cusp's hinge point, by angle."
_RING = "Contour of the lumen in the annulus plane, drawn convex."
_SLICE = "Lumen perpendicular to the centreline"
_CIRCLE = "diameter of the circle of equal area."
_LVOT = (
    f"{_SLICE}, 4 mm below the annulus (3–5 mm by convention), drawn convex. On digital patients its area comes out "
    "about a tenth too small; the standard deviation covers that."
)
_CHORD = "Deepest point of the sinus through the centroid to the opposite wall."
_HEIGHT = "Signed distance of the landmark from the annulus plane, toward the aorta."
_CUSP = "Valve calcium nearest to this cusp's hinge point, by angle."
_MIDDLE = "Perpendicular to the annulus, right cusp in the middle."
_OVERLAP = "Perpendicular to the annulus, right over left cusp."

_GROUPS: dict[str, tuple[_Row, ...]] = {
    "Annulus": (
        ("annulus_area_mm2", "Area", _RING, _DIAMETER),
        ("annulus_perimeter_mm", "Perimeter", _RING, _DIAMETER),
        ("annulus_min_diameter_mm", "Minimum diameter", _MIN, _DIAMETER),
        ("annulus_max_diameter_mm", "Maximum diameter", _MAX, _DIAMETER),
        ("annulus_mean_diameter_mm", "Mean diameter", "(Minimum + maximum) / 2.", _DIAMETER),
        ("annulus_area_diameter_mm", "Area-derived diameter", "2√(A/π).", _DIAMETER),
        ("annulus_perimeter_diameter_mm", "Perimeter-derived diameter", "P/π.", _DIAMETER),
        ("annulus_eccentricity", "Eccentricity", "1 − minimum/maximum diameter.", None),
        ("annulus_ellipticity", "Ellipticity", "Maximum/minimum diameter.", None),
        ("hinge_circle_diameter_mm", "Hinge circle diameter", "Circle through the three hinge points.", _POINTS),
        ("annulus_arc_rcc_mm", "Arc of the right cusp", _ARC, _POINTS),
        ("annulus_arc_lcc_mm", "Arc of the left cusp", _ARC, _POINTS),
        ("annulus_arc_ncc_mm", "Arc of the non-coronary cusp", _ARC, _POINTS),
        (
            "aortic_angulation_deg",
            "Aortic angulation",
            "Annulus plane against the horizontal plane, in the coronal projection.",
            _ANGLE,
        ),
    ),
    "Outflow tract (LVOT)": (
        ("lvot_area_mm2", "Area", _LVOT, None),
        ("lvot_perimeter_mm", "Perimeter", _LVOT, None),
        ("lvot_min_diameter_mm", "Minimum diameter", _MIN, None),
        ("lvot_max_diameter_mm", "Maximum diameter", _MAX, None),
    ),
    "Sinuses of Valsalva": (
        ("sinus_mean_diameter_mm", "Mean diameter", f"{_SLICE} where the root is widest; {_CIRCLE}", _SINUS),
        ("sinus_area_mm2", "Area", f"{_SLICE} where the root is widest.", _SINUS),
        ("sinus_min_diameter_mm", "Minimum diameter", _MIN, _SINUS),
        ("sinus_max_diameter_mm", "Maximum diameter", _MAX, _SINUS),
        ("sinus_rcc_diameter_mm", "Right sinus to commissure", _CHORD, _SINUS),
        ("sinus_lcc_diameter_mm", "Left sinus to commissure", _CHORD, _SINUS),
        ("sinus_ncc_diameter_mm", "Non-coronary sinus to commissure", _CHORD, _SINUS),
        ("sinus_height_mm", "Height of the widest level", "Along the normal of the annulus plane.", None),
    ),
    "Sinotubular junction": (
        ("stj_height_mm", "Height", "Where the sinuses' taper ends, along the normal of the annulus plane.", None),
        ("stj_mean_diameter_mm", "Mean diameter", f"{_SLICE} where the sinuses' taper ends; {_CIRCLE}", _STJ),
        ("stj_area_mm2", "Area", f"{_SLICE} where the sinuses' taper ends.", _STJ),
        ("stj_min_diameter_mm", "Minimum diameter", _MIN, _STJ),
        ("stj_max_diameter_mm", "Maximum diameter", _MAX, _STJ),
    ),
    "Ascending aorta": (
        (
            "ascending_aorta_diameter_mm",
            "Mean diameter",
            f"{_SLICE}, 40 mm above the annulus along it; {_CIRCLE}",
            _AORTA,
        ),
        ("ascending_aorta_max_diameter_mm", "Maximum diameter", f"{_MAX[:-1]} at the same level.", _AORTA),
    ),
    "Coronary ostia": (
        ("lca_height_mm", "Height of the left ostium", _HEIGHT, _LCA),
        ("rca_height_mm", "Height of the right ostium", _HEIGHT, _RCA),
        ("lca_hinge_distance_mm", "Left ostium to its hinge point", "Straight line from LCC.", _POINTS),
        ("rca_hinge_distance_mm", "Right ostium to its hinge point", "Straight line from RCC.", _POINTS),
        ("lca_annulus_distance_mm", "Left ostium to the annulus", "Shortest line to the contour.", _POINTS),
        ("rca_annulus_distance_mm", "Right ostium to the annulus", "Shortest line to the contour.", _POINTS),
    ),
    "Membranous septum": (
        (
            "membranous_septum_length_mm",
            "Length",
            "Annulus plane to the crest of the muscular septum (MS2), along the plane's normal.",
            _POINTS,
        ),
        ("membranous_septum_line_mm", "MS1 to MS2", "Straight line between the two landmarks.", _POINTS),
    ),
    "C-arm angles": (
        ("carm_three_cusp_lao_deg", "Three-cusp view, LAO (+) / RAO (−)", _MIDDLE, None),
        ("carm_three_cusp_cran_deg", "Three-cusp view, CRAN (+) / CAUD (−)", _MIDDLE, None),
        ("carm_cusp_overlap_lao_deg", "Cusp-overlap view, LAO (+) / RAO (−)", _OVERLAP, None),
        ("carm_cusp_overlap_cran_deg", "Cusp-overlap view, CRAN (+) / CAUD (−)", _OVERLAP, None),
    ),
    "Calcium": (
        ("calcium_threshold_hu", "Threshold", "What reaches it is calcium; each volume tells how far that goes.", None),
        ("calcium_valve_mm3", "Valve", "Annulus plane to the junction, in the lumen and its wall.", None),
        ("calcium_rcc_mm3", "Right cusp", _CUSP, None),
        ("calcium_lcc_mm3", "Left cusp", _CUSP, None),
        ("calcium_ncc_mm3", "Non-coronary cusp", _CUSP, None),
        ("calcium_annulus_mm3", "Annulus", "Within 2 mm of its plane (shared with valve and outflow tract).", None),
        ("calcium_lvot_mm3", "Outflow tract", "To 5 mm below the annulus plane.", None),
        ("calcium_agatston", "Agatston score", "130 HU, 3 mm slices; only in scans without contrast.", None),
    ),
}


def _unit(name: str) -> str:
    """The unit that ends a name; ``ratio`` where there is none."""
    last = name.rsplit("_", 1)[-1]
    return {"mm": "mm", "mm2": "mm2", "mm3": "mm3", "deg": "deg", "hu": "HU"}.get(last, "ratio")


def _specs() -> Iterator[Spec]:
    for group, rows in _GROUPS.items():
        for name, title, definition, human in rows:
            yield Spec(name, title, _unit(name), group, definition, human)


CATALOGUE: dict[str, Spec] = {spec.name: spec for spec in _specs()}
"""All measurements, in the order of the files and the report."""

_BY_CUSP = ("carm_", "_rcc_", "_lcc_", "_ncc_", "_hinge_distance")
CUSP_MEASUREMENTS: frozenset[str] = frozenset(name for name in CATALOGUE if any(part in name for part in _BY_CUSP))
"""Values that are wrong when the names of the cusps are."""
