"""Figures of a test: what one site reports, and what the server makes of all sites.

A point that should be there and is not found is a failure: it counts in every rate and has no distance, and quantiles
treat it as infinitely far. The Dice of two empty masks is 1, of an empty and a filled one 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.decode import decode_landmarks
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import normalise
from recipes.federated_distillation.examples import generator
from recipes.federated_distillation.scans import Scan

AIM_MM = 6.0
"""SD per axis with which the tested window misses the root, as in training."""

RATES_MM = (2.0, 2.5, 3.0, 4.0)
"""Success rates are given within these distances, the usual ones of landmark challenges."""

RESAMPLES = 1000
"""Bootstrap resamples of patients."""


@torch.inference_mode()
def score(model: CardiacCTModel, scan: Scan, heads: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Errors of a network on one scan.

    Args:
        model: in evaluation mode.
        scan: a scan that was never trained on.
        heads: heads to test; those that the scan has no label of are left out.
        seed: of the window's place; the same scan is always seen in the same window.

    Returns:
        ``points``: name → mm, None where it was not found; ``dice``: name → 0…1.
    """
    result: dict[str, dict[str, Any]] = {}
    look = model.config.look("root")
    rng = generator(seed, scan.patient, "test")
    centre = scan.root_centre + np.array([0, 0, 4.0]) + rng.normal(0, AIM_MM, 3)
    grid = Grid.centred(centre, look.spacing_mm, (look.window,) * 3)
    wanted = [h for h in heads if h in scan.labels and h in look.heads]
    if not wanted:
        return {}
    condition = model.config.condition_on_seg
    hu, truth = scan.draw(grid, {*wanted, *(["heart"] if condition else [])}, int(rng.integers(2**31)))
    device = next(model.parameters()).device
    x = normalise(hu, model.config.intensity)[None, None].to(device)
    heart = truth.get("heart", torch.zeros(grid.shape, dtype=torch.uint8))[None, None].to(device) if condition else None
    for head, logits in model(x, heads=wanted, segmentation=heart).items():
        if HEADS[head].kind == "landmarks":
            found = decode_landmarks(logits[0], grid, HEADS[head].classes)
            result[head] = {"points": distances(found, scan.points(head), grid)}
        else:
            result[head] = {"dice": dice(logits[0].argmax(0).cpu(), truth[head], HEADS[head].classes)}
    return result


def distances(found: Mapping[str, Landmark], truth: Mapping[str, Landmark], grid: Grid) -> dict[str, float | None]:
    """Error in mm of every point that the window shows; None where it was not found."""
    errors: dict[str, float | None] = {}
    for name, point in truth.items():
        if point.ras_mm is None or not bool(grid.contains(np.array(point.ras_mm))):
            continue
        answer = found[name].ras_mm
        errors[name] = None if answer is None else round(float(np.linalg.norm(np.subtract(answer, point.ras_mm))), 4)
    return errors


def dice(labels: Tensor, truth: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Dice per class of two label maps (X, Y, Z); 1 where both are empty, 0 where one is."""
    result = {}
    for value, name in enumerate(names, start=1):
        one, two = labels == value, truth == value
        size = int(one.sum() + two.sum())
        result[name] = round(2 * int((one & two).sum()) / size, 5) if size else 1.0
    return result


def pool(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """One site's scans together: head → kind → name → sorted list, so that no order tells of a patient."""
    result: dict[str, dict[str, Any]] = {}
    for one in scores:
        for head, kinds in one.items():
            for kind, figures in kinds.items():
                for name, value in figures.items():
                    result.setdefault(head, {}).setdefault(kind, {}).setdefault(name, []).append(value)
    for kinds in result.values():
        for figures in kinds.values():
            for values in figures.values():
                values.sort(key=lambda v: math.inf if v is None else v)
    return result


def summary(values: Sequence[float | None], kind: str, seed: int = 0) -> dict[str, float | int | None]:
    """Figures of one list, with a bootstrap interval of the median.

    Args:
        values: errors in mm or Dice; None is a point that was not found.
        kind: ``points`` or ``dice``.
        seed: of the resamples.

    Returns:
        ``n``, quartiles and the interval's ends (None: infinitely far), for points also success rates.
    """
    array = np.array([math.inf if v is None else v for v in values], dtype=np.float64)
    if not len(array):
        return {"n": 0}
    rng = np.random.default_rng(seed)
    medians = np.array([_quantile(rng.choice(array, len(array)), 0.5) for _ in range(RESAMPLES)])
    result: dict[str, float | int | None] = {"n": len(array)}
    for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        result[name] = _finite(_quantile(array, share))
    result["median_low"], result["median_high"] = (_finite(_quantile(medians, q)) for q in (0.025, 0.975))
    if kind == "points":
        result["missing"] = int(np.isinf(array).sum())
        for limit in RATES_MM:
            result[f"within_{limit:g}_mm"] = round(float((array <= limit).mean()), 4)
    return result


def flat(metrics: Mapping[str, Mapping[str, Any]], head: str, kind: str) -> list[float | None]:
    """All figures of a head's structures in one list."""
    return [v for values in metrics.get(head, {}).get(kind, {}).values() for v in values]


def _quantile(array: np.ndarray, share: float) -> float:
    """Quantile by the lower neighbour, which is defined for infinite values too."""
    return float(np.sort(array)[int(np.floor(share * (len(array) - 1)))])


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
