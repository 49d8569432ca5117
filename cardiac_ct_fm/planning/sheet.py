"""The table of results while it is filled: status, reason, doubt and origin of each value are decided here, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.annulus import Annulus, Lumen, Points, perturbed_contours, perturbed_planes
from cardiac_ct_fm.planning.catalogue import CATALOGUE, CUSP_MEASUREMENTS
from cardiac_ct_fm.planning.contours import Contour
from cardiac_ct_fm.planning.measured import least_sd
from cardiac_ct_fm.planning.options import PlanningOptions
from cardiac_ct_fm.planning.planes import Finding, Plane
from cardiac_ct_fm.result import Measurement

Status = Literal["ok", "not_found", "truncated", "low_confidence"]

DRAWS = 400
"""Drawn point sets for values that need no image; the standard deviation is then known to 3.5 %."""

FEWEST_CONTOURS = 8
"""Of fewer annuli that were traced again no standard deviation is told, and the annulus is doubted (house choice)."""


class Sheet:
    """Collects measurements; every name of the catalogue is there in the end.

    Args:
        points: the landmarks in use.
        options: the choices made.
    """

    def __init__(self, points: Points, options: PlanningOptions) -> None:
        self.points = points
        self.options = options
        self.doubts: tuple[Finding, ...] = ()
        self.names_doubt: Finding | None = None
        self._rows: dict[str, Measurement] = {}

    def put(
        self,
        name: str,
        value: float,
        sd: float | None,
        *,
        uses: Sequence[str] = HINGE_POINTS,
        plane: Plane | None = None,
        points: dict[str, FloatArray] | None = None,
        doubts: Iterable[Finding] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Enter a value.

        Args:
            name: in the catalogue.
            value: in the catalogue's unit.
            sd: one standard deviation as this scan tells it, or None where it is not known; what was measured on
                digital patients (:mod:`cardiac_ct_fm.planning.measured`) is told where it is larger, with this beside
                it as ``scan_sd``.
            uses: landmarks that it rests on.
            plane: where it was measured.
            points: named points (…, 3) in RAS mm that it was measured between.
            doubts: reasons to mark it ``low_confidence``.
            details: whatever else explains it, in plain JSON types.
        """
        if self.names_doubt is not None and name in CUSP_MEASUREMENTS:
            self.miss(name, "not_found", self.names_doubt)
            return
        reasons = [*doubts, *self.doubts]
        if self.names_doubt is not None and self.names_doubt.code != "bicuspid_valve":
            reasons.append(self.names_doubt)
        weak = [u for u in uses if self.points.confidence.get(u, 0.0) < self.options.min_confidence]
        if weak:
            reasons.append(
                Finding(
                    "low_landmark_confidence",
                    f"Confidence of {', '.join(f'{u} {self.points.confidence[u]:.2f}' for u in weak)} is below "
                    f"{self.options.min_confidence:g}; check and correct the points.",
                )
            )
        row: dict[str, Any] = dict(details or {})
        least = least_sd(name, value, row)
        if sd is not None and sd < least:
            sd, row["scan_sd"] = least, float(sd)
        row["uses"] = list(uses)
        if plane is not None:
            row["plane"] = {"origin_ras": _rounded(plane.origin, 3), "normal_ras": _rounded(plane.normal, 6)}
        if points is not None:
            row["points_ras"] = {key: _rounded(p, 3) for key, p in points.items()}
        if reasons:
            row["reason"], row["message"] = reasons[0].code, reasons[0].message
        self._enter(name, float(value), "low_confidence" if reasons else "ok", sd, row)

    def miss(self, name: str, status: Status, why: Finding) -> None:
        """Enter that a value could not be made, and why."""
        self._enter(name, None, status, None, {"reason": why.code, "message": why.message})

    def miss_all(self, prefix: str, status: Status, why: Finding) -> None:
        """The same for every name that begins with ``prefix`` and has no row yet."""
        for name in CATALOGUE:
            if name.startswith(prefix) and name not in self._rows:
                self.miss(name, status, why)

    def close(self, why: Finding) -> None:
        """Enter ``why`` for everything that has no row yet."""
        self.miss_all("", "not_found", why)

    def value(self, name: str) -> float | None:
        """A value that was entered, or None."""
        row = self._rows.get(name)
        return None if row is None else row.value

    def finished(self) -> dict[str, Measurement]:
        """All rows in the catalogue's order."""
        return {name: self._rows[name] for name in CATALOGUE}

    def _enter(self, name: str, value: float | None, status: Status, sd: float | None, details: dict[str, Any]) -> None:
        spec = CATALOGUE[name]
        if spec.human is not None:
            details["human_limit"] = {"text": spec.human.text, "source": spec.human.source}
        known = sd is not None and np.isfinite(sd)
        self._rows[name] = Measurement(name, value, spec.unit, status, float(sd) if known and sd else None, details)


def _rounded(values: FloatArray, digits: int) -> list[Any]:
    plain: list[Any] = np.round(np.asarray(values, dtype=np.float64), digits).tolist()
    return plain


@dataclass(frozen=True, eq=False)
class Doubt:
    """What the landmarks' doubt does to the annulus: point sets drawn around them.

    Attributes:
        points: name → (DRAWS, 3).
        hinges: (DRAWS, 3, 3) RCC, LCC, NCC.
        normals: (DRAWS, 3) of the planes through them.
        contours: annulus contours of the first draws.
        offset_sd_mm: standard deviation of the plane's height at the annulus centre.
    """

    points: dict[str, FloatArray]
    hinges: FloatArray
    normals: FloatArray
    contours: list[Contour]
    offset_sd_mm: float

    @classmethod
    def of(cls, points: Points, annulus: Annulus, lumen: Lumen, options: PlanningOptions) -> Doubt:
        """Draw point sets and trace the annulus again for ``options.samples`` of them."""
        hinges, normals = perturbed_planes(points, annulus, options, DRAWS)
        contours: list[Contour] = []
        if annulus.contour is not None:
            few = slice(0, options.samples)
            sd = float(np.mean([points.sd_mm[name] for name in HINGE_POINTS]))
            contours = perturbed_contours(hinges[few], normals[few], lumen, annulus, sd)
        offsets = (hinges.mean(axis=1) - annulus.plane.origin) @ annulus.plane.normal
        return cls(points.sampled(DRAWS, options.seed), hinges, normals, contours, float(np.std(offsets)))

    def heights(self, name: str) -> FloatArray:
        """(DRAWS,) heights of a landmark above the drawn planes."""
        result: FloatArray = np.einsum("ij,ij->i", self.points[name] - self.hinges.mean(axis=1), self.normals)
        return result

    def contour_sd(self, quantity: str, edge_sd: float) -> float | None:
        """Standard deviation of a quantity of the annulus contour, from points and edge together."""
        if len(self.contours) < FEWEST_CONTOURS:
            return None
        return float(np.hypot(np.std([getattr(c, quantity) for c in self.contours], ddof=1), edge_sd))


def edge_sd(contour: Contour, quantity: str) -> float:
    """What the doubt of the edge (one radius for the whole contour) does to one of its quantities."""
    r = contour.edge_sd_mm
    if quantity.endswith("area_mm2"):
        return contour.perimeter_mm * r
    if quantity.endswith("perimeter_mm"):
        return 2.0 * float(np.pi) * r
    return 2.0 * r
