"""From scores under every condition to figures: errors and confidences per setting, calibration, selective error.

A point that was not found is infinitely far and has said so with confidence 0. One that was given and that the scan
does not show (invented) has no error, but was given wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.training.case_scores import Row
from cardiac_ct_fm.training.statistics import auroc, mean, median, success
from cardiac_ct_fm.training.summary import GROUPS, WRONG_MM, table
from recipes.benchmarks.robustness_cases import Setting

EDGES = tuple(round(0.1 * i, 1) for i in range(11))
"""Bins of confidence."""

SUREST = 0.8
"""Share of the points that is kept when the least sure ones are left out."""

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
"""Shares of the curve of selective error."""

POINTS = tuple(name for members in GROUPS.values() for name in members)

SHOWN: dict[str, tuple[str, ...]] = {
    "chambers": ("Myo", "LA", "LV", "RA", "RV"),
    "aorta and pulmonary artery": ("Aorta", "PA"),
    "valve calcium": ("Calc",),
}
"""Structures whose Dice is also pooled."""

STRUCTURES = (*HEADS["heart"].classes, *HEADS["calc"].classes)


def setting_figures(setting: Setting, rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of one setting over all patients; None where nothing was asked, or where failures reach a median."""
    return {
        "name": setting.name,
        "condition": setting.condition,
        "level": setting.level,
        "patients": len({row.patient for row in rows}),
        "points": {group: _point_figures(rows, names) for group, names in GROUPS.items()},
        "plane_angle_deg": _finite(median(_values(rows, ("annulus",), "plane_angle_deg"))),
        "dice": {name: _finite(median(_values(rows, (name,), "dice"))) for name in STRUCTURES},
        "dice_pooled": {group: _finite(median(_values(rows, names, "dice"))) for group, names in SHOWN.items()},
    }


def _point_figures(rows: Sequence[Row], names: tuple[str, ...]) -> dict[str, Any]:
    scores = _scores(rows, names)
    asked = [s for s in scores if s.status in ("ok", "missed")]
    errors = _values(rows, names, "error_mm")
    return {
        "asked": len(asked),
        "found": sum(s.status == "ok" for s in asked),
        "invented": sum(s.status == "invented" for s in scores),
        "median_mm": _finite(median(errors)),
        "within": _finite(success(WRONG_MM)(errors)),
        "confidence": _finite(mean(np.array([s.confidence or 0.0 for s in asked]))),
    }


def _scores(rows: Sequence[Row], names: Sequence[str]) -> list[Any]:
    return [row.score for row in rows if row.score.measure == "error_mm" and row.score.structure in names]


def _values(rows: Sequence[Row], names: Sequence[str], measure: str) -> npt.NDArray[np.float64]:
    """(N,) values of some structures, N at least 1: NaN not asked, inf failed."""
    values = table(rows, names, measure)[1].reshape(-1)
    return values if len(values) else np.array([math.nan])


def calibration(rows: Sequence[Row], names: Sequence[str] = POINTS) -> list[dict[str, Any]]:
    """Per bin of confidence: how many points were given with it, and the share of them that is right.

    Right is within :data:`WRONG_MM`; a point that the scan does not show cannot be. Bins without points are left out.
    """
    given = [s for s in _scores(rows, names) if s.status in ("ok", "invented")]
    sure = np.array([s.confidence or 0.0 for s in given])
    right = np.array([s.status == "ok" and s.value <= WRONG_MM for s in given], dtype=bool)
    place = np.clip(np.searchsorted(EDGES, sure, side="right") - 1, 0, len(EDGES) - 2)
    bins = []
    for i in np.unique(place):
        own = place == i
        share = float(right[own].mean())
        bins.append(
            {
                "from": EDGES[i],
                "to": EDGES[i + 1],
                "points": int(own.sum()),
                "confidence": float(sure[own].mean()),
                "within": share,
            }
        )
    return bins


def selective(rows: Sequence[Row], names: Sequence[str], share: float = SUREST) -> dict[str, Any]:
    """Errors of all points that were asked, and of the surest share of them; missed points are the least sure."""
    asked = [s for s in _scores(rows, names) if s.status in ("ok", "missed")]
    errors = np.array([math.inf if s.value is None else s.value for s in asked])
    sure = np.array([s.confidence or 0.0 for s in asked])
    kept = np.argsort(-sure, kind="stable")[: math.ceil(round(share * len(asked), 6))]
    return {"share": share, "points": len(asked), "all": _spread(errors), "kept": _spread(errors[kept])}


def _spread(errors: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Median, mean of what was found, and share within :data:`WRONG_MM`."""
    found = errors[np.isfinite(errors)]
    return {
        "median_mm": _finite(median(errors)) if len(errors) else None,
        "mean_mm": _finite(mean(found)) if len(found) else None,
        "within": _finite(success(WRONG_MM)(errors)) if len(errors) else None,
    }


def ranking(rows: Sequence[Row], names: Sequence[str]) -> float | None:
    """The chance that a point that is wrong or not found is less sure than a right one; None where all are alike."""
    asked = [s for s in _scores(rows, names) if s.status in ("ok", "missed")]
    wrong = np.array([s.value is None or s.value > WRONG_MM for s in asked], dtype=bool)
    return auroc(np.array([s.confidence or 0.0 for s in asked]), wrong)


def tracking(figures: Sequence[Mapping[str, Any]], group: str) -> dict[str, Any]:
    """Spearman's correlation over settings of mean confidence with median error, and with the share of failures.

    Negative where confidence falls as errors rise; None where one of both is the same in all settings.
    """
    own = [f["points"][group] for f in figures if f["points"][group]["asked"]]
    sure = [p["confidence"] for p in own]
    errors = [math.inf if p["median_mm"] is None else p["median_mm"] for p in own]
    failed = [1 - p["within"] for p in own]
    return {"settings": len(own), "median_error": spearman(sure, errors), "failures": spearman(sure, failed)}


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation; inf is the largest value, and None where there is no spread."""
    from scipy.stats import rankdata

    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def summarised(rows: Mapping[Setting, Sequence[Row]]) -> dict[str, Any]:
    """All figures, plain JSON types."""
    figures = [setting_figures(setting, own) for setting, own in rows.items()]
    everything = [row for own in rows.values() for row in own]
    groups = {**GROUPS, "all points": POINTS}
    return {
        "settings": figures,
        "calibration": {name: calibration(everything, members) for name, members in groups.items()},
        "selective": {name: selective(everything, members) for name, members in groups.items()},
        "selective_curve": {n: [selective(everything, m, share) for share in SHARES] for n, m in groups.items()},
        "auroc": {name: ranking(everything, members) for name, members in groups.items()},
        "spearman": {name: tracking(figures, name) for name in GROUPS},
    }


def flat(rows: Mapping[Setting, Sequence[Row]]) -> list[dict[str, Any]]:
    """Every score that the figures rest on, one small dict each."""
    wanted = ("error_mm", "plane_angle_deg", "dice")
    return [
        {
            "patient": row.patient,
            "setting": setting.name,
            "structure": row.score.structure,
            "measure": row.score.measure,
            "value": None if row.score.value is None else round(row.score.value, 4),
            "status": row.score.status,
            "confidence": None if row.score.confidence is None else round(row.score.confidence, 4),
        }
        for setting, own in rows.items()
        for row in own
        if row.score.measure in wanted
    ]


def _finite(value: Any) -> float | None:
    """A finite number for JSON, else None."""
    number = float(value)
    return number if math.isfinite(number) else None
