"""From a scan to a :class:`~cardiac_ct_fm.result.Prediction`: three looks, each where the one before points.

``locate`` (4 mm) finds the heart, ``heart`` (2 mm) its chambers and the root, ``root`` (1 mm) the points, the
septum and the calcium. Points whose head has a refiner are then looked at again (:mod:`cardiac_ct_fm.refinement`).
The cost hardly depends on the scan's resolution. A head for thin trees brings one look more, ``detail``: 1 mm over all
chambers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from cardiac_ct_fm import __version__
from cardiac_ct_fm.anatomy import HEART_LABELS, heads_in_order
from cardiac_ct_fm.config import LookConfig, LookName
from cardiac_ct_fm.decode import decode_landmarks, largest_components, within
from cardiac_ct_fm.errors import ImageError, UnknownNameError, UsageError
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.guidance import CHAMBERS, chambers_box, near_chambers, root_boundary, root_centre
from cardiac_ct_fm.image_checks import image_warnings
from cardiac_ct_fm.looks import Answer, answer, window_grid, windows
from cardiac_ct_fm.measurements import add_measurements
from cardiac_ct_fm.merging import label_map
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.readiness import cautions, ready
from cardiac_ct_fm.refinement import looks_again, refined
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.runtime import Clock, choose_device, full_float32
from cardiac_ct_fm.volume_io import Volume, load_volume
from cardiac_ct_fm.volumes import cut_off

Quality = Literal["fast", "standard", "full"]
"""``fast``: looks at 4 and 2 mm, and none again. ``standard``: and one at 1 mm around the root. ``full``: 1 mm over the
whole heart."""

MIN_HEART_ML = 40.0
"""Volume of chambers and muscle at 4 mm below which the scan is said to show no heart.

Digital patients without a heart in view stay below it, half a heart in view lies above (``tests/test_inference.py``).
"""

RIM_PERCENT = 0.5
"""Share of the located voxels, on each side of each axis, that may lie beyond the heart look: stray ones (a choice
of this project)."""

MARGIN_MM = 12.0
"""Room of the heart look beyond what was located: three voxels of the locating look."""

MAX_HEART_MM = 240.0
"""Longest heart look along any axis; heart, ascending aorta and pulmonary trunk of the largest digital patients fit."""

RECENTRE_MM = 8.0
"""A root look that finds hinge points further than this from its aim is taken again, once (chosen)."""

ROOT_MM = 80.0
"""Edge length of the lattice around the root. Windows of 64 mm are averaged over eight places in it; one of 96 mm holds
it.

With a single window of 64 mm, resampling a scan to 0.9×0.9×2 mm moved a hinge point of the first look by 4.4 mm; with
eight by at most 1.4 mm."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, windows done, windows in all)."""


class Predictor:
    """A model made ready to look at any number of scans.

    Args:
        model: a name, a folder, an ``org/repo`` or a loaded :class:`CardiacCTModel`, which is left as it is: where it
            is in training, in half precision or on another device, a copy predicts.
        device: ``auto`` (GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        WeightsError: the model cannot be loaded.
        UsageError: the device does not exist, or the model cannot find a heart in a whole scan.
    """

    def __init__(self, model: str | Path | CardiacCTModel, device: str = "auto") -> None:
        self.device = choose_device(device)
        if not isinstance(model, CardiacCTModel):
            model = CardiacCTModel.from_pretrained(model, device=str(self.device))
        self.model = ready(model, self.device)

    def __call__(
        self,
        source: str | Path | Volume | tuple[Any, Any],
        heads: Sequence[str] | None = None,
        quality: Quality = "standard",
        progress: Progress | None = None,
        series: str | None = None,
        measure: bool = True,
    ) -> Prediction:
        """Look at one scan.

        Args:
            source: NIfTI file, DICOM folder, ``(array, affine)`` in HU and RAS mm, or a volume.
            heads: which heads to report; all of the model's when None.
            quality: see :data:`Quality`.
            progress: called after every window.
            series: DICOM series UID where the folder holds several.
            measure: make the measurements too; without, the prediction has landmarks and label maps alone.

        Raises:
            ImageError: the scan cannot be used or shows no heart.
            UsageError: unknown head or quality.
        """
        if quality not in get_args(Quality):
            raise UsageError(f"quality is {quality!r}; choose {', '.join(get_args(Quality))}.")
        chosen = self._heads(heads)
        clock = Clock()
        volume = load_volume(source, series)
        clock.lap("load")
        looks = {look.name: look for look in self.model.config.looks}
        with full_float32():
            found = self._locate(volume, looks["locate"], progress)
            clock.lap("locate")
            answers = self._look_closer(volume, looks, found, chosen, quality, progress, clock)
        pred = Prediction(volume, run={"heads": list(chosen)}, warnings=image_warnings(volume))
        with full_float32():
            self._decode(pred, answers, chosen)
        pred.warnings += [*cautions(self.model, quality, pred.landmarks), *cut_off(pred)]
        clock.lap("decode")
        if measure:
            add_measurements(pred)
            clock.lap("measure")
        pred.run = self._run(quality, chosen, clock.laps, found, answers)
        return pred

    def embed(self, source: str | Path | Volume | tuple[Any, Any]) -> torch.Tensor:
        """One feature vector (D,) per scan: the trunk's deepest map around the heart at 2 mm, averaged.

        Raises:
            ImageError: the scan cannot be used or shows no heart.
        """
        volume = load_volume(source)
        config = self.model.config
        with full_float32(), torch.inference_mode():
            found = self._locate(volume, config.look("locate"), None)
            grid = window_grid(config.look("heart"), found.centre)
            x = look_tensor(volume, grid, config.intensity, self.device)
            deepest = self.model.forward_intermediates(x)[-1]
        return deepest[0].float().mean((1, 2, 3)).cpu()

    def _heads(self, heads: Sequence[str] | None) -> tuple[str, ...]:
        known = [h.name for h in self.model.config.heads]
        if heads is not None and not heads:
            raise UsageError(f"heads is empty; choose among {', '.join(known)}, or leave it out for all of them.")
        for name in heads or ():
            if name not in known:
                raise UnknownNameError("head in this model", name, known)
        return heads_in_order(known if heads is None else heads)

    def _locate(self, volume: Volume, look: LookConfig, progress: Progress | None) -> _Place:
        """Where chambers, muscle and great vessels are."""
        corners = volume.grid.corners()
        low, high = corners.min(0), corners.max(0)
        grid = window_grid(look, (low + high) / 2, high - low)
        labels = self._answer(volume, look, grid, ["heart"], progress).logits["heart"].argmax(0).numpy()
        heart = largest_components((labels > 0).astype(np.uint8)) > 0
        chambers = heart & np.isin(labels, [HEART_LABELS[c] for c in CHAMBERS])
        volume_ml = float(chambers.sum()) * grid.voxel_mm3 / 1000
        if volume_ml < MIN_HEART_ML:
            raise ImageError(
                f"{volume.source} shows no heart: {volume_ml:.0f} mL of it were found, at least {MIN_HEART_ML:.0f} mL "
                "are needed. Is this a contrast CT of the chest, in Hounsfield units, the right way up?"
            )
        where = grid.world(np.argwhere(heart))
        low, high = np.percentile(where, RIM_PERCENT, axis=0), np.percentile(where, 100 - RIM_PERCENT, axis=0)
        extent = np.minimum(high - low + 2 * MARGIN_MM, MAX_HEART_MM)
        return _Place((low + high) / 2, extent)

    def _look_closer(
        self,
        volume: Volume,
        looks: Mapping[LookName, LookConfig],
        found: _Place,
        heads: tuple[str, ...],
        quality: Quality,
        progress: Progress | None,
        clock: Clock,
    ) -> list[Answer]:
        """The answers of the heart look and, but for ``fast``, of the finer ones; coarse to fine."""
        guides = ["heart", *(h.name for h in self.model.config.heads if h.name == "hps")]
        look = looks["heart"]
        wanted = [h for h in heads if h in look.heads or quality == "fast"]
        grid = window_grid(look, found.centre, found.extent)
        answers = [self._answer(volume, look, grid, heads_in_order([*wanted, *guides]), progress)]
        clock.lap("heart")
        if quality == "fast":
            return answers
        look = looks["root"]
        if wanted := [h for h in heads if h in look.heads]:
            seen = heads_in_order([*wanted, *guides])
            if quality == "full":
                grid = window_grid(look, found.centre, found.extent)
                answers.append(self._answer(volume, look, grid, seen, progress))
            else:
                answers.append(self._at_root(volume, look, answers[0], seen, progress))
            clock.lap("full" if quality == "full" else "root")
        if wanted := [h for h in heads if "detail" in looks and h in looks["detail"].heads]:
            look = looks["detail"]
            grid = window_grid(look, *(chambers_box(answers[0]) or (found.centre, found.extent)))
            answers.append(self._answer(volume, look, grid, wanted, progress))
            clock.lap("detail")
        return answers

    def _at_root(
        self, volume: Volume, look: LookConfig, coarse: Answer, heads: Sequence[str], progress: Progress | None
    ) -> Answer:
        """The answer of the root look, taken again where it shows that it was aimed badly."""
        boundary = root_boundary(coarse)
        aim = root_centre(coarse, boundary)
        seen = self._answer(volume, look, window_grid(look, aim, np.full(3, ROOT_MM)), heads, progress)
        better = root_centre(seen, boundary)
        if np.linalg.norm(better - aim) > RECENTRE_MM:
            seen = self._answer(volume, look, window_grid(look, better, np.full(3, ROOT_MM)), heads, progress)
        return seen

    def _answer(
        self, volume: Volume, look: LookConfig, grid: Grid, heads: Sequence[str], progress: Progress | None
    ) -> Answer:
        total, done = windows(grid, look), 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(look.name, done, total)

        return answer(self.model, volume, look, grid, heads, self._autocast, step)

    def _autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; on a CPU full precision, so that every machine gives the same answer."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def _decode(self, pred: Prediction, answers: list[Answer], heads: tuple[str, ...]) -> None:
        """Points from the finest look that has them, label maps from all looks."""
        points = any(self.model.config.head(name).kind == "landmarks" for name in heads)
        boundary = root_boundary(answers[0]) if points else None
        for name in heads:
            head = self.model.config.head(name)
            own = [a for a in answers if name in a.logits]
            pred.classes[name] = head.classes
            if head.kind == "landmarks":
                finest = own[-1]
                decoded = decode_landmarks(finest.logits[name], finest.grid, head.classes, boundary)
                if looks_again(self.model, name, finest.grid):
                    decoded = refined(self.model, name, decoded, pred.volume, finest.grid)
                pred.landmarks |= within(decoded, pred.grid)
            else:
                labels = label_map(own, name, pred.grid)
                if any(look.name == "detail" and name in look.heads for look in self.model.config.looks):
                    labels = near_chambers(labels, pred.grid, answers[0])
                pred.label_maps[name] = largest_components(labels) if name == "heart" else labels

    def _run(
        self, quality: Quality, heads: tuple[str, ...], laps: dict[str, float], found: _Place, answers: list[Answer]
    ) -> dict[str, Any]:
        config, files = self.model.config, self.model.weight_files
        return {
            "package": {"cardiac_ct_fm": __version__, "torch": torch.__version__},
            "model": config.name,
            "weights_sha256": {**files.sha256, **files.heads} if files else None,
            "weights_verified": files.verified if files else None,
            "trunk_sha256": self.model.trunk_sha256(),
            "provenance": config.provenance,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "quality": quality,
            "heads": list(heads),
            "second_look": [h for h in heads for a in answers if h in a.logits and looks_again(self.model, h, a.grid)],
            "heart_centre_ras": [round(float(v), 2) for v in found.centre],
            "looks": [
                {
                    "centre_ras": a.grid.centre_ras.round(2).tolist(),
                    "spacing_mm": a.grid.spacing[0],
                    "shape": list(a.grid.shape),
                }
                for a in answers
            ],
            "seconds": {k: round(v, 3) for k, v in laps.items()},
        }


@dataclass(frozen=True)
class _Place:
    """Middle (RAS mm) and size (mm) of the box around the heart."""

    centre: FloatArray
    extent: FloatArray
