"""Pooling scores over patients: quantiles in which a failure is the worst value, bootstrap intervals, paired tests.

A table of values is (patients, points) float: NaN is "not asked", inf is "failed". Resampling draws patients, because
the points of one patient are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""From (…, values) to (…): NaN is ignored, inf is the worst value."""

RESAMPLES = 2000
"""Bootstrap resamples; at least 1000 are the convention."""

LEVEL = 0.95

SUCCESS_MM: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
"""Radii of the success rates: 2, 2.5, 3 and 4 mm are the convention for landmarks since the ISBI 2015 challenge."""

_FAR = 1e12
"""Stands for inf while interpolating between order statistics."""


def quantile(values: FloatArray, q: float) -> FloatArray:
    """Quantile along the last axis: NaN left out, inf the worst value, -inf the best; NaN where nothing was asked."""
    finite = np.clip(values, -_FAR, _FAR)
    empty = np.asarray(np.isnan(finite).all(-1))
    result = np.nanquantile(np.where(empty[..., None], 0.0, finite), q, axis=-1)
    result = np.where(np.abs(result) >= _FAR / 1e6, np.copysign(np.inf, result), result)
    return np.where(empty, np.nan, result)


def median(values: FloatArray) -> FloatArray:
    """Median along the last axis; see :func:`quantile`."""
    return quantile(values, 0.5)


def mean(values: FloatArray) -> FloatArray:
    """Mean along the last axis of what was asked; inf where one failed."""
    asked = ~np.isnan(values)
    count = asked.sum(-1)
    total = np.where(asked, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def success(radius: float) -> Statistic:
    """The share of what was asked that is at most ``radius``; failures are above any radius."""

    def share(values: FloatArray) -> FloatArray:
        return mean(np.where(np.isnan(values), np.nan, (values <= radius).astype(np.float64)))

    return share


def interval(
    table: FloatArray, statistic: Statistic, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic, resampling patients.

    Args:
        table: (patients, points).
        statistic: of all values of the drawn patients together.
        resamples: how often patients are drawn.
        level: coverage.
        seed: of the draws.

    Returns:
        Lower and upper end (inf where failures reach it), or None with fewer than two patients that were asked.
    """
    table = table[~np.isnan(table).all(1)]
    if len(table) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(table), size=(resamples, len(table)))
    values = statistic(table[drawn].reshape(resamples, -1))
    low, high = quantile(values, (1 - level) / 2), quantile(values, (1 + level) / 2)
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same patients, first minus second.

    Attributes:
        pairs: patients on which both were asked.
        difference: median of the patients' differences, ±inf where failures of one model decide it; None without
            patients, or where failures of one model and of the other share the middle.
        interval: bootstrap interval of that median; an end is ±inf where failures reach it.
        p: two-sided p of Wilcoxon's signed-rank test.
        p_holm: the same, corrected for all tests of the family.
        direction: 1 where the first model's values are larger, -1 where smaller: the sign of the rank sum that p
            belongs to; 0 where the median difference has not the same sign, so that nothing can be said.
    """

    pairs: int
    difference: float | None
    interval: tuple[float, float] | None
    p: float
    p_holm: float | None = None
    direction: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is infinite is None."""
        return {
            "pairs": self.pairs,
            "median_difference": _finite(self.difference),
            "interval": None if self.interval is None else [_finite(end) for end in self.interval],
            "p": self.p,
            "p_holm": self.p_holm,
        }


def paired_test(first: FloatArray, second: FloatArray, *, seed: int = 0) -> PairedTest:
    """Wilcoxon's signed-rank test on patients' values, larger is worse or better alike.

    Ranks take failures as they are: a patient in whom one model alone failed has the largest difference of all, one in
    whom both failed has none. Patients without a difference are ranked as well, and their ranks are split evenly
    between the two signs (scipy's ``zsplit``).

    Args:
        first: (patients,) values of one model; NaN not asked, inf failed.
        second: (patients,) of the other, the same patients.
        seed: of the interval's draws.
    """
    from scipy.stats import rankdata, wilcoxon

    asked = ~(np.isnan(first) | np.isnan(second))
    a, b = first[asked], second[asked]
    with np.errstate(invalid="ignore"):
        difference = np.where(np.isinf(a) & np.isinf(b), 0.0, a - b)
    finite = np.abs(difference[np.isfinite(difference)])
    beyond = 2 * float(finite.max(initial=0.0)) + 1.0
    ranked = np.where(np.isinf(difference), np.sign(difference) * beyond, difference)
    p = 1.0
    direction = 0
    if len(ranked) and np.any(ranked != 0):
        p = float(wilcoxon(ranked, zero_method="zsplit").pvalue)
        rank_sum = float((np.sign(ranked) * rankdata(np.abs(ranked))).sum())
        direction = int(np.sign(rank_sum)) if np.sign(rank_sum) == np.sign(np.median(ranked)) else 0
    if not len(ranked):
        return PairedTest(0, None, None, p)
    middle = float(_signed_median(difference))
    ends = _signed_interval(difference, seed)
    return PairedTest(len(ranked), None if np.isnan(middle) else middle, ends, p, direction=direction)


def _signed_median(difference: FloatArray) -> FloatArray:
    """Median along the last axis of differences that may be ±inf; NaN where -inf and inf share the middle."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.median(difference, axis=-1))


def _signed_interval(difference: FloatArray, seed: int) -> tuple[float, float] | None:
    """Bootstrap interval of the median difference; a resample whose median is NaN reaches to both sides."""
    if len(difference) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(difference), size=(RESAMPLES, len(difference)))
    medians = _signed_median(difference[drawn])
    low, high = (np.where(np.isnan(medians), far, medians) for far in (-np.inf, np.inf))
    return float(quantile(low, (1 - LEVEL) / 2)), float(quantile(high, (1 + LEVEL) / 2))


def _finite(value: float | None) -> float | None:
    return None if value is None or np.isinf(value) else value


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in the order given (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, float(values[index]) * (len(values) - rank)))
        corrected[index] = worst
    return [float(v) for v in corrected]


def bland_altman(reference: FloatArray, measured: FloatArray) -> dict[str, float | int | None]:
    """Agreement of two measurements of the same patients: bias and 95 % limits (Bland and Altman 1986).

    Args:
        reference: (patients,), finite.
        measured: (patients,), finite.

    Returns:
        ``n``, ``bias`` (measured minus reference), ``lower``, ``upper``; None where there are too few patients.
    """
    difference = measured - reference
    n = len(difference)
    bias = float(difference.mean()) if n else None
    if n < 2 or bias is None:
        return {"n": n, "bias": bias, "lower": None, "upper": None}
    spread = 1.96 * float(difference.std(ddof=1))
    return {"n": n, "bias": bias, "lower": bias - spread, "upper": bias + spread}


def auroc(scores: FloatArray, wrong: npt.NDArray[np.bool_]) -> float | None:
    """How well a confidence ranks errors: the chance that a wrong answer is less sure than a right one.

    Args:
        scores: (n,) confidences.
        wrong: (n,) which answers are wrong.

    Returns:
        0…1 (0.5 is chance, ties count half), or None where all are right or all are wrong.
    """
    from scipy.stats import rankdata

    bad = int(wrong.sum())
    good = len(wrong) - bad
    if not bad or not good:
        return None
    ranks = rankdata(scores)
    return float((ranks[~wrong].sum() - good * (good + 1) / 2) / (good * bad))


def auroc_interval(
    scores: FloatArray,
    wrong: npt.NDArray[np.bool_],
    patients: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of :func:`auroc`, resampling patients: a few wrong answers say little.

    Args:
        scores: (n,) confidences.
        wrong: (n,) which answers are wrong.
        patients: (n,) whose answers they are.
        resamples: how often patients are drawn; draws in which all or none are wrong rank nothing and are left out.
        seed: of the draws.

    Returns:
        Lower and upper end, or None where fewer than two patients have a wrong answer, or fewer than two a right one.
    """
    who = np.unique(np.asarray(patients), return_inverse=True)[1]
    if any(len(np.unique(who[some])) < 2 for some in (wrong, ~wrong)):
        return None
    _, rank = np.unique(scores, return_inverse=True)
    drawn = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        times = np.bincount(drawn.integers(who.max() + 1, size=who.max() + 1), minlength=who.max() + 1)[who]
        bad, good = (np.bincount(rank, times * some) for some in (wrong, ~wrong))
        if bad.sum() and good.sum():
            above = good.sum() - np.cumsum(good)
            values.append(float((bad * (above + good / 2)).sum() / (bad.sum() * good.sum())))
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
