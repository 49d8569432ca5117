"""Figures of a test: what one site reports, and what the server makes of all sites.

A point that should be there and is not found is a failure: it counts in every rate and has no distance, and quantiles
treat it as infinitely far. The Dice of two empty masks is 1, of an empty and a filled one 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.decode import decode_landmarks
from cardiac_ct_fm.errors import CardiacCTError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import normalise
from cardiac_ct_fm.training.statistics import SUCCESS_MM, quantile
from recipes.federated_distillation.examples import generator
from recipes.federated_distillation.scans import Scan

logger = logging.getLogger("federated_distillation.site")

AIM_MM = 6.0
"""SD per axis with which the tested window misses the root: that of most training windows (:func:`.examples.aim`)."""


@dataclass(frozen=True)
class HeldOutWindow:
    """What a network is asked about a scan that was never trained on.

    Attributes:
        grid: where it looks.
        hu: image (X, Y, Z).
        maps: head → label map (X, Y, Z) uint8, also of the heart where it is known.
        points: landmark head → its points; those that the scan does not show are missing.
    """

    grid: Grid
    hu: Tensor
    maps: dict[str, Tensor]
    points: dict[str, dict[str, Landmark]]


def draw_held_out_window(scan: Scan, look: LookConfig, heads: Iterable[str], seed: int) -> HeldOutWindow:
    """The window of a scan; the same one for every network and round.

    Args:
        scan: the scan.
        look: spacing and size.
        heads: heads that are asked for, or needed as a second input; those without a label are left out.
        seed: of the window's place.
    """
    rng = generator(seed, scan.key, "test")
    centre = scan.root_centre + np.array([0, 0, ROOT_ABOVE_MM]) + rng.normal(0, AIM_MM, 3)
    grid = Grid.centred(centre, look.spacing_mm, (look.window,) * 3)
    known = scan.labels.intersection(heads)
    hu, maps = scan.draw(grid, known, int(rng.integers(2**31)))
    return HeldOutWindow(grid, hu, maps, {h: scan.points(h) for h in known if HEADS[h].kind == "landmarks"})


@torch.inference_mode()
def errors(model: CardiacCTModel, window: HeldOutWindow, heads: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Errors of a network in one window.

    Args:
        model: in evaluation mode.
        window: drawn with the model's root look.
        heads: heads to test; those without a label are left out.

    Returns:
        Head → ``points``: name → mm, None where it was not found; or ``dice``: name → 0…1.
    """
    wanted = [h for h in heads if h in window.maps and h in model.config.look("root").heads]
    if not wanted:
        return {}
    device = next(model.parameters()).device
    x = normalise(window.hu, model.config.intensity)[None, None].to(device)
    heart = None
    if model.config.condition_on_seg:
        empty = torch.zeros(window.grid.shape, dtype=torch.uint8)
        heart = window.maps.get("heart", empty)[None, None].to(device)
    result: dict[str, dict[str, Any]] = {}
    for head, logits in model(x, heads=wanted, segmentation=heart).items():
        if HEADS[head].kind == "landmarks":
            found = decode_landmarks(logits[0], window.grid, HEADS[head].classes)
            result[head] = {"points": distances(found, window.points[head], window.grid)}
        else:
            result[head] = {"dice": dice(logits[0].argmax(0).cpu(), window.maps[head], HEADS[head].classes)}
    return result


def score(model: CardiacCTModel, scan: Scan, heads: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Draw a scan's window and give the :func:`errors` of a network in it.

    In a scan that cannot be read or whose root is unknown nothing is found: it counts as failed, and the log says why.
    """
    look = model.config.look("root")
    wanted = [h for h in heads if h in scan.labels and h in look.heads]
    if not wanted:
        return {}
    needed = {*wanted, "heart"} if model.config.condition_on_seg else set(wanted)
    try:
        window = draw_held_out_window(scan, look, needed, seed)
    except CardiacCTError as error:
        logger.warning("A held-out scan counts as failed: %s", error)
        return _nothing_found(scan, wanted)
    return errors(model, window, wanted)


def _nothing_found(scan: Scan, heads: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The :func:`errors` of a scan in which no network can look: each labelled point missing, each Dice 0."""
    result: dict[str, dict[str, Any]] = {}
    for head in heads:
        if HEADS[head].kind == "landmarks":
            result[head] = {"points": {name: None for name, point in scan.points(head).items() if point.found}}
        else:
            result[head] = {"dice": dict.fromkeys(HEADS[head].classes, 0.0)}
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


def summary(values: Sequence[float | None], kind: str) -> dict[str, float | int | None]:
    """Figures of one list. Intervals need to know which values are of one patient, and that no site tells.

    Args:
        values: errors in mm or Dice; None is a point that was not found.
        kind: ``points`` or ``dice``.

    Returns:
        ``n`` and quartiles (None: infinitely far), for points also ``missing`` and success rates.
    """
    array = np.array([math.inf if v is None else v for v in values], dtype=np.float64)
    if not len(array):
        return {"n": 0}
    result: dict[str, float | int | None] = {"n": len(array)}
    for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        figure = float(quantile(array, share))
        result[name] = round(figure, 4) if math.isfinite(figure) else None
    if kind == "points":
        result["missing"] = int(np.isinf(array).sum())
        for limit in SUCCESS_MM:
            result[f"within_{limit:g}_mm"] = round(float((array <= limit).mean()), 4)
    return result


def flat(metrics: Mapping[str, Mapping[str, Any]], head: str, kind: str) -> list[float | None]:
    """All figures of a head's structures in one list."""
    return [v for values in metrics.get(head, {}).get(kind, {}).values() for v in values]
