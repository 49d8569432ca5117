"""How far values were off where the truth is known: no standard deviation is told below it.

Edge, level and noise explain a third of the error of the sinuses. The rest is a contour that follows a leaflet, a
branch or a streak, and nothing in one scan tells of it. So the least that is told was measured: on the digital
patients with even seeds of ``docs/planning/true.csv`` (true landmarks), by ``python -m
recipes.benchmarks.planning_doubt``, which holds it against those with odd seeds too (``docs/planning.md``). Real
patients were not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_EXTREMES, _SECTION = ("min_diameter_mm", "max_diameter_mm"), ("mean_diameter_mm", "area_mm2")
LEAST_MM: dict[str, float] = {
    **{f"annulus_{q}": 1.1 for q in _EXTREMES},
    **{f"sinus_{q}": 1.6 for q in (*_EXTREMES, *_SECTION)},
    **{f"sinus_{cusp}_diameter_mm": 2.0 for cusp in ("rcc", "lcc", "ncc")},
    **{f"stj_{q}": 1.7 for q in (*_EXTREMES, *_SECTION)},
}
"""Root mean square error of a diameter. Areas have that of their mean diameter; the junction's extremes were not
measured and have it too."""

LVOT_AREA_SHARE = 0.25
"""The same of the outflow tract's area, as a share of it; lengths, which go with its root, have half.

Root mean square of (true − measured) / measured in all 92 patients: 15 % against the blood that is painted, 25 %
against the tube without the muscle bundles in it; the larger, as a reader may mean either."""

CALCIUM_MM3: dict[tuple[str, str], tuple[float, float]] = {
    ("fixed", "half"): (15.0, 0.39),
    ("fixed", "threshold"): (31.0, 0.95),
    ("lumen", "half"): (0.0, 0.43),
    ("lumen", "threshold"): (1.5, 0.50),
    ("label", "label"): (0.0, 0.14),
}
"""(Threshold, extent) → mm³ and share of the volume, whose squares add up to the square of the error: most likely
values of a normal distribution. The label map was the true one; a network's own error is not in it."""


def least_sd(name: str, value: float, facts: Mapping[str, Any]) -> float:
    """The least standard deviation of a value, in its unit; 0 where none was measured.

    Args:
        name: in the catalogue.
        value: in the catalogue's unit.
        facts: of calcium, ``threshold_kind`` and ``extent``.
    """
    if name.startswith("lvot_"):
        return (LVOT_AREA_SHARE if name.endswith("_mm2") else LVOT_AREA_SHARE / 2.0) * value
    if name.startswith("calcium_") and name.endswith("_mm3"):
        amount, share = CALCIUM_MM3.get((str(facts.get("threshold_kind")), str(facts.get("extent"))), (0.0, 0.0))
        return float(np.hypot(amount, share * value))
    diameter_sd = LEAST_MM.get(name, 0.0)
    # A = πd²/4, so dA = πd/2 · dd, and πd/2 = √(πA).
    return float(np.sqrt(np.pi * value)) * diameter_sd if name.endswith("_mm2") else diameter_sd
