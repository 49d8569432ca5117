"""Two models on the same scans: paired tests with Holm's correction and bootstrap intervals, structure by structure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.training.case_scores import Row
from cardiac_ct_fm.training.statistics import holm, median, paired_test
from cardiac_ct_fm.training.summary import HIGHER_IS_BETTER, table

COMPARED = ("error_mm", "plane_angle_deg", "dice", "nsd", "cldice")
"""Measures that are compared; the others follow from these or are no quality."""


def compare(first: Iterable[Row], second: Iterable[Row], names: tuple[str, str]) -> dict[str, Any]:
    """Which of two models is better, and is it more than chance?

    Every patient counts once (the mean over the patient's scans). A failure is worse than any error; all tests of one
    comparison are one family.

    Args:
        first: scores of one model.
        second: of the other, on the same scans.
        names: of the models; two that are equal are told apart as ``(first)`` and ``(second)``.

    Returns:
        ``models`` and ``tests``: head, structure, measure, both medians (None where more than half failed), the
        median of the patients' differences (first minus second) with its 95 % interval, p and p after Holm, and
        ``better``: the model that the ranks of the differences speak for, None where p after Holm is above 0.05 or
        the median difference does not point the same way (many small wins against fewer large ones).

    Raises:
        DataError: they share no scored patient.
    """
    ours, theirs = list(first), list(second)
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    asked = dict.fromkeys((r.score.head, r.score.structure, r.score.measure) for r in ours)
    tests: list[dict[str, Any]] = []
    for head, structure, measure in asked:
        if measure not in COMPARED:
            continue
        mine, other = _by_patient(ours, structure, measure), _by_patient(theirs, structure, measure)
        shared = [p for p in mine if p in other]
        a, b = np.array([mine[p] for p in shared]), np.array([other[p] for p in shared])
        result = paired_test(a, b)
        if result.pairs:
            medians = {"first_median": _finite(median(a)), "second_median": _finite(median(b))}
            about = {"head": head, "structure": structure, "measure": measure}
            ahead = result.direction if measure in HIGHER_IS_BETTER else -result.direction
            tests.append({**about, **medians, **result.to_dict(), "ahead": ahead})
    if not tests:
        raise DataError(f"{names[0]} and {names[1]} share no scored patient; evaluate both on the same scans.")
    for test, p in zip(tests, holm([t["p"] for t in tests]), strict=True):
        ahead = test.pop("ahead")
        test["p_holm"] = p
        test["better"] = None if p > 0.05 or ahead == 0 else names[0] if ahead > 0 else names[1]
    return {"models": list(names), "tests": tests}


def _by_patient(rows: list[Row], structure: str, measure: str) -> dict[str, float]:
    """Patient → mean over the scans in which the structure was asked for; inf where it failed in one, NaN in none."""
    patients, values = table(rows, (structure,), measure)
    means = [float(v[~np.isnan(v)].mean()) if not np.isnan(v).all() else float("nan") for v in values]
    return dict(zip(patients, means, strict=True))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
