"""Where to look, and the network's answer there: windows over a scan, and logits stitched on one lattice.

A look is one window, or several that overlap and are averaged with weights that fall to their rims, where it has to
cover more than a window: the whole scan, the heart (at 2 mm, and at ``quality="full"`` at 1 mm too), or 80 mm around
the root. On the real scan the bundled weights take one window at 4 mm, two at 2 mm and eight at 1 mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.volume_io import Volume

OVERLAP = 0.25
"""Smallest overlap of neighbouring windows, as in the paper's sliding-window inference."""


@dataclass(frozen=True)
class Answer:
    """What the network says on one lattice: ``logits[head]`` is (C, X, Y, Z) float32."""

    grid: Grid
    logits: dict[str, torch.Tensor]


def window_grid(look: LookConfig, centre_ras: FloatArray, extent_mm: FloatArray | None = None) -> Grid:
    """The lattice of a look: one window around ``centre_ras``, longer along axes where ``extent_mm`` needs it."""
    size = [look.window] * 3
    if extent_mm is not None:
        size = [max(look.window, round(float(e) / look.spacing_mm)) for e in extent_mm]
    return Grid.centred(centre_ras, look.spacing_mm, (size[0], size[1], size[2]))


def starts(length: int, window: int) -> list[int]:
    """First voxels of the windows that cover ``length`` voxels with at least :data:`OVERLAP`."""
    if length <= window:
        return [0]
    count = int(np.ceil((length - window) / (window * (1 - OVERLAP)))) + 1
    return [round(float(s)) for s in np.linspace(0, length - window, count)]


@torch.inference_mode()
def answer(
    model: CardiacCTModel,
    volume: Volume,
    look: LookConfig,
    grid: Grid,
    heads: Sequence[str],
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Callable[[], None] | None = None,
) -> Answer:
    """Run the network over ``grid`` in windows of the look's size.

    Args:
        model: in evaluation mode.
        volume: the scan.
        look: window size and spacing; ``grid`` has its spacing.
        grid: at least one window large along every axis.
        heads: which heads to compute.
        autocast: makes the precision context of one forward pass.
        progress: called after every window.
    """
    device = next(model.parameters()).device
    corners = list(product(*(starts(n, look.window) for n in grid.shape)))
    taper = _taper(look.window) if len(corners) > 1 else None
    total: dict[str, torch.Tensor] = {}
    weights = torch.zeros(grid.shape)
    for corner in corners:
        window = grid.block((corner[0], corner[1], corner[2]), (look.window,) * 3)
        x = look_tensor(volume, window, model.config.intensity, device)
        with autocast():
            logits = model(x, heads=list(heads))
        place = tuple(slice(c, c + look.window) for c in corner)
        for head, values in logits.items():
            values = values[0].float().cpu()
            if taper is None:
                total[head] = values
                continue
            if head not in total:
                total[head] = torch.zeros((values.shape[0], *grid.shape))
            total[head][(slice(None), *place)] += values * taper
        if taper is not None:
            weights[place] += taper
        if progress is not None:
            progress()
    if taper is not None:
        total = {head: values / weights for head, values in total.items()}
    return Answer(grid, total)


def windows(grid: Grid, look: LookConfig) -> int:
    """How many windows :func:`answer` runs on ``grid``."""
    return int(np.prod([len(starts(n, look.window)) for n in grid.shape]))


def _taper(window: int) -> torch.Tensor:
    """Weights (window³) that fall linearly from the middle to a tenth at the rim."""
    ramp = 1 - (torch.arange(window) - (window - 1) / 2).abs() / (window / 2) * 0.9
    return ramp[:, None, None] * ramp[None, :, None] * ramp[None, None, :]
