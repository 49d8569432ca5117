"""From rows of scores to one summary: quantiles, success and detection rates, intervals, per site and worst site."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cardiac_ct_fm.anatomy import HINGE_POINTS, OSTIA, SEPTUM
from cardiac_ct_fm.training.case_scores import Row
from cardiac_ct_fm.training.statistics import (
    RESAMPLES,
    SUCCESS_MM,
    FloatArray,
    Statistic,
    auroc,
    auroc_interval,
    bland_altman,
    interval,
    mean,
    median,
    quantile,
    success,
)

GROUPS: dict[str, tuple[str, ...]] = {"hinge points": HINGE_POINTS, "ostia": OSTIA, "septum": SEPTUM}
"""Points that are also pooled."""

WRONG_MM = 4.0
"""A point further than this from its reference is wrong where confidences are judged: the last success radius."""

HIGHER_IS_BETTER = ("dice", "nsd", "cldice")


def table(rows: Iterable[Row], structures: Sequence[str], measure: str) -> tuple[list[str], FloatArray]:
    """Values as (patients, points): NaN not asked, inf failed (shares such as Dice are 0 then, a value of their own).

    Lengths and angles count without their sign.

    Returns:
        Patients in the order of the rows, and the table; scans of one patient follow each other as columns.
    """
    by_patient: dict[str, list[float]] = {}
    for row in rows:
        score = row.score
        if score.structure in structures and score.measure == measure:
            value = (
                math.nan if score.value is None else abs(score.value) if score.unit in ("mm", "deg") else score.value
            )
            failures = ("missed",) if measure == "error_mm" else ("missed", "invented")
            if score.value is None and score.status in failures:
                value = math.inf
            by_patient.setdefault(row.patient, []).append(value)
    width = max((len(v) for v in by_patient.values()), default=0)
    values = [v + [math.nan] * (width - len(v)) for v in by_patient.values()]
    return list(by_patient), np.array(values, dtype=np.float64).reshape(len(values), width)


def summarise(rows: Sequence[Row], failed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The summary of an evaluation, plain JSON types.

    Args:
        rows: scores of all scans.
        failed: scan → why there was no prediction (their rows are misses already).

    Returns:
        ``landmarks``, ``plane``, ``segmentation``, ``volumes`` over all scans, and ``by_site`` / ``worst_site``
        where there are several sites.
    """
    sites = sorted({row.site for row in rows if row.site})
    result: dict[str, Any] = {
        "scans": len({row.case for row in rows}),
        "patients": len({row.patient for row in rows}),
        "failed": dict(failed or {}),
        **_all_measures(rows),
    }
    if len(sites) > 1:
        result["by_site"] = {s: _all_measures([r for r in rows if r.site == s], resamples=0) for s in sites}
        result["worst_site"] = _worst(result["by_site"])
    return result


def _all_measures(rows: Sequence[Row], resamples: int | None = None) -> dict[str, Any]:
    asked: dict[tuple[str, str, str], None] = {}
    for row in rows:
        asked.setdefault((row.score.head, row.score.structure, row.score.measure), None)
    points = [s for _, s, m in asked if m == "error_mm"]
    groups = {name: members for name, members in GROUPS.items() if set(members) <= set(points)}
    landmarks = {name: _point_figures(rows, (name,), resamples) for name in points}
    landmarks |= {name: _point_figures(rows, members, resamples) for name, members in groups.items()}
    plane = {m: _figures(rows, s, m, resamples) for _, s, m in asked if s == "annulus"}
    segmentation: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    for head, structure, measure in asked:
        if measure == "error_mm" or structure == "annulus":
            continue
        if measure == "volume_mm3":
            volumes[structure] = _volume_figures(rows, structure)
        elif measure != "reference_volume_mm3":
            own = segmentation.setdefault(structure, {"head": head})
            own[measure] = _figures(rows, structure, measure, resamples)
    return {"landmarks": landmarks, "plane": plane, "segmentation": segmentation, "volumes": volumes}


def _point_figures(rows: Sequence[Row], names: tuple[str, ...], resamples: int | None) -> dict[str, Any]:
    """Everything about one point or a group of points.

    Points that were not found are failures of every rate and quantile; they have no confidence, so ``wrong``, the
    AUROC and the share of swapped points are of those found.
    """
    own = [r for r in rows if r.score.structure in names and r.score.measure == "error_mm"]
    scores = [r.score for r in own]
    _, values = table(rows, names, "error_mm")
    asked = [s for s in scores if s.status in ("ok", "missed")]
    found = [s for s in asked if s.status == "ok"]
    whose = [r.patient for r in own if r.score.status == "ok"]
    errors = np.array([s.value for s in found], dtype=np.float64)
    sure = np.array([s.confidence or 0.0 for s in found])
    wrong = errors > WRONG_MM
    times = RESAMPLES if resamples is None else resamples
    ends = auroc_interval(sure, wrong, whose, resamples=times) if times else None
    return {
        **_spread(values, resamples),
        "asked": len(asked),
        "found": len(found),
        "detection_rate": _share(len(found), len(asked)),
        "invented": sum(s.status == "invented" for s in scores),
        "not_shown": sum(s.status in ("invented", "absent") for s in scores),
        "swap_rate": _share(sum(bool(s.swapped) for s in found), len(found)),
        "success": {
            f"{r:g}_mm": {
                "rate": _number(success(r)(values.reshape(-1))),
                "ci95": _interval(values, success(r), resamples),
            }
            for r in SUCCESS_MM
        },
        "wrong": int(wrong.sum()),
        "confidence_auroc": auroc(sure, wrong),
        "confidence_auroc_ci95": None if ends is None else list(ends),
    }


def _figures(rows: Sequence[Row], structure: str, measure: str, resamples: int | None) -> dict[str, Any]:
    """One measure of one structure."""
    scores = [r.score for r in rows if r.score.structure == structure and r.score.measure == measure]
    _, values = table(rows, (structure,), measure)
    counts = {s: sum(x.status == s for x in scores) for s in ("missed", "invented", "absent")}
    return {**_spread(values, resamples), "asked": sum(x.status != "absent" for x in scores), **counts}


def _spread(values: FloatArray, resamples: int | None) -> dict[str, Any]:
    """Median and quartiles with failures as the worst, mean and SD of those with a value."""
    flat = values.reshape(-1)
    measured = flat[np.isfinite(flat)]
    return {
        "median": _number(median(flat)) if len(flat) else None,
        "q25": _number(quantile(flat, 0.25)) if len(flat) else None,
        "q75": _number(quantile(flat, 0.75)) if len(flat) else None,
        "ci95": _interval(values, median, resamples),
        "mean_of_found": float(measured.mean()) if len(measured) else None,
        "sd_of_found": float(measured.std(ddof=1)) if len(measured) > 1 else None,
        "mean_ci95": _interval(values, mean, resamples),
    }


def _volume_figures(rows: Sequence[Row], structure: str) -> dict[str, Any]:
    """Bland–Altman of a structure's volume in mm³, scan by scan.

    Scans that have none of it and in which none was found are counted apart: agreement on nothing is no precision.
    """
    pairs: dict[str, dict[str, float]] = {}
    for row in rows:
        s = row.score
        if s.structure == structure and s.measure in ("volume_mm3", "reference_volume_mm3") and s.value is not None:
            pairs.setdefault(row.case, {})[s.measure] = s.value
    whole = [p for p in pairs.values() if len(p) == 2 and any(p.values())]
    empty = sum(len(p) == 2 and not any(p.values()) for p in pairs.values())
    reference, measured = (np.array([p[k] for p in whole]) for k in ("reference_volume_mm3", "volume_mm3"))
    return {**bland_altman(reference, measured), "none_and_none_found": empty}


def _worst(by_site: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Per median the site where it is worst."""
    worst: dict[str, Any] = {}
    for path in sorted({p for summary in by_site.values() for p in _medians(summary)}):
        values = {site: _medians(summary).get(path, math.nan) for site, summary in by_site.items()}
        asked = {site: v for site, v in values.items() if not math.isnan(v)}
        if asked:
            sign = -1.0 if path.rsplit(".", 1)[1] in HIGHER_IS_BETTER else 1.0
            site = max(asked, key=lambda s: sign * asked[s])
            worst[path] = {"site": site, "median": _number(asked[site])}
    return worst


def _medians(summary: Mapping[str, Any]) -> dict[str, float]:
    """``landmarks.RCC.error_mm`` → median, inf where more than half failed."""
    found = {f"landmarks.{n}.error_mm": v for n, v in summary["landmarks"].items()}
    found |= {f"plane.annulus.{m}": v for m, v in summary["plane"].items()}
    found |= {
        f"segmentation.{n}.{m}": v for n, own in summary["segmentation"].items() for m, v in own.items() if m != "head"
    }
    return {
        path: math.nan if not v["asked"] else math.inf if v["median"] is None else v["median"]
        for path, v in found.items()
    }


def _interval(values: FloatArray, statistic: Statistic, resamples: int | None) -> list[float | None] | None:
    """Ends of the bootstrap interval for a file; None for no interval, an end is None where failures reach it."""
    if resamples == 0 or not values.size:
        return None
    ends = interval(values, statistic) if resamples is None else interval(values, statistic, resamples=resamples)
    return None if ends is None else [_number(e) for e in ends]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _number(value: Any) -> float | None:
    """A finite number for JSON, else None."""
    number = float(value)
    return number if math.isfinite(number) else None
