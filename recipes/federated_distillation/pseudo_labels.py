"""Teachers' labels of a site's unlabelled scans: answered several times, doubted, stored at the site.

A point is the mean of its answers and doubted by their spread in mm; a segmentation is the mean probability and doubted
by the disagreement of the answers. Files stay in the site's working folder: nothing but counts is reported.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.decode import decode_landmarks
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.label_resampling import resample_label_map
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import normalise
from recipes.federated_distillation.scans import Scan, spheres
from recipes.federated_distillation.settings import Settings

SHIFT_MM = 3.0
"""SD per axis of the moved windows: half the error with which a root window is aimed in training (6 mm)."""


UNKNOWN = 255
"""Voxels of a target that nothing is known of; no loss is taken there."""


@dataclass
class PseudoLabels:
    """What the teachers say of one scan.

    Attributes:
        weight: head → 0…1; heads that were dropped are not in it.
        points: landmark head → points in the scan's world mm.
        maps: segmentation head → label map.
        grid: of the label maps.
    """

    weight: dict[str, float] = field(default_factory=dict)
    points: dict[str, dict[str, Landmark]] = field(default_factory=dict)
    maps: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    grid: Grid | None = None

    def target(self, head: str, grid: Grid) -> Tensor | None:
        """The label map (X, Y, Z) uint8 of a head on a grid; None where there is no pseudo-label.

        A segmentation says nothing of what lies outside of the window that it was made on: :data:`UNKNOWN` there.
        """
        if head not in self.weight:
            return None
        if head in self.points:
            return spheres(self.points[head], HEADS[head].classes, grid)
        if self.grid is None:
            return None
        known = np.ascontiguousarray(resample_label_map(self.maps[head] + np.uint8(1), self.grid, grid))  # 0 outside
        return torch.from_numpy(known - np.uint8(1)) if known.any() else None

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: the file system refuses.
        """
        arrays: dict[str, Any] = {f"weight.{h}": np.float64(w) for h, w in self.weight.items()}
        for head, points in self.points.items():
            rows = [points[c].ras_mm or (math.nan,) * 3 for c in HEADS[head].classes]
            arrays[f"points.{head}"] = np.array(rows, dtype=np.float64)
        arrays |= {f"map.{h}": m for h, m in self.maps.items()}
        if self.grid is not None:
            arrays |= {"affine": self.grid.affine, "shape": np.array(self.grid.shape)}
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> PseudoLabels:
        """Read :meth:`save`; no pickles."""
        result = cls()
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                kind, _, head = name.partition(".")
                if kind == "weight":
                    result.weight[head] = float(file[name])
                elif kind == "points":
                    rows = zip(HEADS[head].classes, file[name], strict=True)
                    result.points[head] = {c: _landmark(c, row) for c, row in rows}
                elif kind == "map":
                    result.maps[head] = file[name]
            if "affine" in file.files:
                x, y, z = (int(n) for n in file["shape"])
                result.grid = Grid((x, y, z), file["affine"])
        return result


def pseudo_file(folder: Path, scan: Scan) -> Path:
    """Where a scan's pseudo-labels lie; names are hashed even in the site's own folder."""
    return folder / f"{hashlib.sha256(scan.key.encode()).hexdigest()[:20]}.npz"


@torch.inference_mode()
def doubt(
    scan: Scan, teachers: dict[str, CardiacCTModel], settings: Settings, rng: np.random.Generator
) -> PseudoLabels:
    """Ask each teacher several times for a label that the scan lacks, and keep what is certain enough.

    Args:
        scan: the scan.
        teachers: head → network, in evaluation mode.
        settings: how uncertainty is measured and what it decides.
        rng: of the moved windows.
    """
    result = PseudoLabels()
    for head, model in teachers.items():
        if head in scan.labels:
            continue
        look = model.config.look("root")
        if HEADS[head].kind == "landmarks":
            answers = [
                decode_landmarks(p.log(), g, HEADS[head].classes)
                for p, g in _answers(scan, head, model, look, settings, rng)
            ]
            points, spread = consensus(answers, HEADS[head].classes)
            weight = point_weight(points, spread, settings)
            if weight > 0:
                result.points[head], result.weight[head] = points, weight
        else:
            pairs = list(_answers(scan, head, model, look, settings, rng))
            result.grid = pairs[0][1]
            single = [resample_label_map(p.argmax(0).to(torch.uint8).cpu().numpy(), g, result.grid) for p, g in pairs]
            mean = (np.mean([s > 0 for s in single], axis=0) >= 0.5).astype(np.uint8)
            weight = map_weight(agreement(single, mean), settings)
            if weight > 0:
                result.maps[head], result.weight[head] = mean, weight
    return result


def _answers(
    scan: Scan, head: str, model: CardiacCTModel, look: LookConfig, settings: Settings, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Grid]]:
    """Probabilities (C, X, Y, Z) with their grids; the first is undisturbed."""
    device = next(model.parameters()).device
    centre = scan.root_centre + np.array([0, 0, ROOT_ABOVE_MM])
    noise = int(rng.integers(2**31))
    for number in range(settings.uncertainty_samples):
        moved = settings.uncertainty == "shifts" and number > 0
        grid = Grid.centred(centre + (rng.normal(0, SHIFT_MM, 3) if moved else 0), look.spacing_mm, (look.window,) * 3)
        hu, labels = scan.draw(grid, ["heart"] if model.config.condition_on_seg else [], noise)
        x = normalise(hu, model.config.intensity)[None, None].to(device)
        seg = None
        if model.config.condition_on_seg:
            seg = labels.get("heart", torch.zeros(grid.shape, dtype=torch.uint8))[None, None].to(device)
        axes = [2 + a for a in range(3) if settings.uncertainty == "flips" and number >> a & 1]
        logits = model(x.flip(axes), heads=[head], segmentation=None if seg is None else seg.flip(axes))[head]
        yield logits.flip(axes)[0].float().softmax(0).clamp_min(1e-7), grid


def consensus(
    answers: list[dict[str, Landmark]], names: tuple[str, ...]
) -> tuple[dict[str, Landmark], dict[str, float]]:
    """Mean position and spread (root mean square distance, mm) of every point; infinite where most answers lack it."""
    points, spread = {}, {}
    for name in names:
        found = [a[name].ras_mm for a in answers if a[name].found]
        if 2 * len(found) <= len(answers):
            points[name], spread[name] = Landmark.missing(name), math.inf
            continue
        places = np.array(found, dtype=np.float64)
        points[name] = _landmark(name, places.mean(0))
        spread[name] = float(np.sqrt(((places - places.mean(0)) ** 2).sum(1).mean()))
    return points, spread


def point_weight(points: dict[str, Landmark], spread: dict[str, float], settings: Settings) -> float:
    """Weight of a landmark head's pseudo-label; 0 drops it.

    A head is taken whole or not at all: a point that is left out would be taught as background. ``keep`` alone takes
    incomplete answers, as the research code does.
    """
    if settings.pseudo_labels == "keep":
        return 1.0 if any(p.found for p in points.values()) else 0.0
    worst = max(spread.values())
    if settings.pseudo_labels == "drop":
        return 1.0 if worst <= settings.max_spread_mm else 0.0
    return math.exp(-worst / (settings.max_spread_mm / 2)) if math.isfinite(worst) else 0.0


def map_weight(agreed: float, settings: Settings) -> float:
    """Weight of a segmentation's pseudo-label; 0 drops it."""
    if settings.pseudo_labels == "keep":
        return 1.0
    if settings.pseudo_labels == "drop":
        return 1.0 if agreed >= settings.min_agreement else 0.0
    return agreed


def agreement(single: list[npt.NDArray[np.uint8]], mean: npt.NDArray[np.uint8]) -> float:
    """Mean Dice (0…1) of the answers with their majority; 1 where all say that there is nothing."""
    scores = []
    for mask in single:
        size = int((mask > 0).sum() + (mean > 0).sum())
        scores.append(2 * int(((mask > 0) & (mean > 0)).sum()) / size if size else 1.0)
    return float(np.mean(scores))


def _landmark(name: str, place: npt.NDArray[np.float64]) -> Landmark:
    if not np.isfinite(place).all():
        return Landmark.missing(name)
    x, y, z = (float(v) for v in place)
    return Landmark(name, True, (x, y, z), 1.0)
