"""C-arm angles: the S-curve of views perpendicular to the annulus, the cusp-overlap and the three-cusp view.

The patient lies supine on the table and the world is LPS (x left, y posterior, z head). The detector looks from
d = (sinθ·cosφ, −cosθ·cosφ, sinφ) with θ LAO positive and φ cranial positive. A view shows the annulus as a line
when d lies in its plane. Published three-cusp views average LAO 8.9, CAUD 11.4 (n = 50; paper not traced), which
the tests use as plausibility.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cardiac_ct_fm.geometry import FloatArray, ras_to_lps

LAO_RANGE_DEG = (-90.0, 90.0)
"""Of the S-curve: every detector in front of the patient."""

SUPINE_CODES = ("HFS", "FFS")
"""DICOM (0018,5100) Patient Position of a patient on the back, head or feet first."""


@dataclass(frozen=True)
class View:
    """One direction of the detector.

    Attributes:
        lao_deg: left (+) or right (−) anterior oblique.
        cran_deg: cranial (+) or caudal (−).
    """

    lao_deg: float
    cran_deg: float

    @property
    def text(self) -> str:
        """As it is said in the laboratory: ``LAO 9 CAUD 11``."""
        side = "LAO" if self.lao_deg >= 0 else "RAO"
        tilt = "CRAN" if self.cran_deg >= 0 else "CAUD"
        return f"{side} {abs(self.lao_deg):.0f}° {tilt} {abs(self.cran_deg):.0f}°"


def supine(facts: Mapping[str, Any], given: bool | None) -> bool | None:
    """Whether the patient lies on the back: as given, else from the scan's header, else None (unknown)."""
    if given is not None:
        return given
    position = facts.get("patient_position")
    return None if position is None else str(position).upper() in SUPINE_CODES


def s_curve(normal_ras: FloatArray, lao_deg: FloatArray) -> FloatArray:
    """Cranial angles in degrees of the views perpendicular to the annulus.

    Args:
        normal_ras: (3,) normal of the annulus plane; either sign.
        lao_deg: (N,) LAO angles.

    Returns:
        (N,) φ(θ) = atan((n_y·cosθ − n_x·sinθ) / n_z) with n in LPS and n_z > 0; ±90° for a vertical plane.
    """
    n = ras_to_lps(normal_ras)
    n = -n if n[2] < 0 else n
    theta = np.radians(lao_deg)
    result: FloatArray = np.degrees(np.arctan2(n[1] * np.cos(theta) - n[0] * np.sin(theta), n[2]))
    return result


def view_along(direction_ras: FloatArray) -> View:
    """The view with the detector in a direction, or its opposite: whichever is in front of the patient."""
    d = ras_to_lps(direction_ras)
    d = d / np.linalg.norm(d)
    d = -d if d[1] > 0 else d
    return View(float(np.degrees(np.arctan2(d[0], -d[1]))), float(np.degrees(np.arcsin(np.clip(d[2], -1.0, 1.0)))))


def cusp_overlap(rcc: FloatArray, lcc: FloatArray) -> View:
    """Right over left cusp, the non-coronary cusp apart: the detector looks along the line through R and L."""
    return view_along(rcc - lcc)


def three_cusp(rcc: FloatArray, lcc: FloatArray, ncc: FloatArray) -> View:
    """The three cusps side by side, the right one in the middle: the detector looks along R − (L + N)/2."""
    return view_along(rcc - (lcc + ncc) / 2.0)
