"""One named point of the heart: found with a place and a confidence, or missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.errors import DataError, UnknownNameError

Point = tuple[float, float, float]

_DECIMALS = 3
"""Files give mm and voxels to 0.001, far below what any point is known to."""

SAME_PLACE_MM = 0.01
"""Two ways of writing one point agree within this: a few times the rounding."""


@dataclass(frozen=True)
class Landmark:
    """One expected point.

    Attributes:
        name: its name in :mod:`cardiac_ct_fm.anatomy`, or a user's own.
        found: whether it has a position.
        ras_mm: world position, RAS mm; ``None`` when it was not found.
        confidence: 0…1.
    """

    name: str
    found: bool
    ras_mm: Point | None
    confidence: float

    def __post_init__(self) -> None:
        if self.found != (self.ras_mm is not None):
            raise DataError(f"landmark {self.name}: found={self.found} does not fit position {self.ras_mm}.")
        if self.ras_mm is not None:
            x, y, z = (float(v) for v in self.ras_mm)
            if not all(map(math.isfinite, (x, y, z))):
                raise DataError(f"landmark {self.name} has position {self.ras_mm}; a missing point has none.")
            object.__setattr__(self, "ras_mm", (x, y, z))
        if not 0 <= self.confidence <= 1:
            raise DataError(f"landmark {self.name} has confidence {self.confidence}; it must lie in 0…1.")

    @classmethod
    def missing(cls, name: str, confidence: float = 0.0) -> Landmark:
        """The point that was expected and not found."""
        return cls(name, False, None, confidence)

    @property
    def lps_mm(self) -> Point | None:
        """World position, LPS mm (DICOM, ITK, MITK); ``None`` when it was not found."""
        return None if self.ras_mm is None else (-self.ras_mm[0], -self.ras_mm[1], self.ras_mm[2])


def named_point(name: str, ras: Sequence[float] | None, confidence: float) -> Landmark:
    """A point of a file, under the vocabulary's own name where it has one; missing without a position."""
    try:
        name = anatomy.canonical(name)
    except UnknownNameError:
        name = name.strip()
    if ras is None:
        return Landmark.missing(name, float(confidence))
    x, y, z = ras
    return Landmark(name, True, (float(x), float(y), float(z)), float(confidence))


def rounded(position: Sequence[float] | None) -> list[float] | None:
    """Coordinates for a file, without a negative zero."""
    return None if position is None else [round(float(v), _DECIMALS) + 0.0 for v in position]
