"""Labelled windows of a site's scans, drawn as prediction will see them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.config import IntensityConfig, LookConfig, LookName
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.preprocess import normalise
from recipes.federated_distillation.pseudo_labels import PseudoLabels
from recipes.federated_distillation.scans import Scan

LOOK_SHARE: dict[LookName, float] = {"locate": 0.2, "heart": 0.4, "root": 0.4}
"""How often each look is drawn, as in plain training (``recipes.pretrain``)."""

SCALE_SD = 0.04
"""SD of the logarithm of a window's scale, as in plain training."""


@dataclass(frozen=True)
class View:
    """One window of a scan with all real labels that it has there.

    Attributes:
        image: (1, X, Y, Z) float32, normalised.
        labels: head → (X, Y, Z) uint8.
        grid: where it lies.
        look: which look it is.
    """

    image: Tensor
    labels: dict[str, Tensor]
    grid: Grid
    look: LookConfig


@dataclass(frozen=True)
class Example:
    """A window as one step trains on it.

    Attributes:
        image: (1, X, Y, Z) float32, normalised.
        targets: head → (X, Y, Z) uint8.
        weights: head → weight of its loss; 1 for real labels.
        real: heads whose target is a real label.
        heart: (X, Y, Z) uint8 heart segmentation, empty where there is none.
        heads: trained heads that this window serves, labelled or not.
    """

    image: Tensor
    targets: dict[str, Tensor]
    weights: dict[str, float]
    real: frozenset[str]
    heart: Tensor
    heads: tuple[str, ...]


def generator(*words: object) -> np.random.Generator:
    """A random generator that the words alone decide, on any machine."""
    return np.random.default_rng([zlib.crc32(str(word).encode()) for word in words])


def aim(scan: Scan, look: str, rng: np.random.Generator) -> FloatArray:
    """Where a training window is centred, RAS mm (3,): as far off as the look before may leave it.

    As in plain training (:func:`cardiac_ct_fm.training.looks.look_centre`) the locating look lies anywhere over the
    trunk, the heart look 12 mm off the middle, the root look 6 mm. Here no window lies off the heart or anywhere in
    it, which plain training mixes in, and the wide quarter of the root looks has 18 mm in place of 15.
    """
    if look == "locate":
        off = rng.uniform(np.array([-60, -60, -110]), np.array([60, 40, 110]))
    elif look == "heart":
        off = rng.normal(0, 12, 3)
    else:
        off = np.array([0, 0, ROOT_ABOVE_MM]) + rng.normal(0, 6.0 if rng.random() < 0.75 else 18.0, 3)
    centre: FloatArray = (scan.root_centre if look == "root" else scan.heart_centre) + off
    return centre


def draw_view(scan: Scan, look: LookConfig, edge: int, intensity: IntensityConfig, rng: np.random.Generator) -> View:
    """One window of a scan.

    Args:
        scan: the scan.
        look: spacing, and which heads are read from it.
        edge: of the window, in voxels.
        intensity: the network's normalisation.
        rng: decides place, scale and noise.
    """
    centre = aim(scan, look.name, rng)
    spacing = look.spacing_mm * float(np.exp(rng.normal(0, SCALE_SD)))
    grid = Grid.centred(centre, spacing, (edge, edge, edge))
    hu, labels = scan.draw(grid, {"heart", *look.heads}, int(rng.integers(2**31)))
    return View(normalise(hu, intensity)[None], labels, grid, look)


def example_of(view: View, heads: tuple[str, ...], pseudo: PseudoLabels | None = None) -> Example:
    """The labels of a window that a step trains; real labels always win over pseudo-labels."""
    wanted = tuple(h for h in heads if h in view.look.heads)
    targets = {h: view.labels[h] for h in wanted if h in view.labels}
    weights, real = dict.fromkeys(targets, 1.0), frozenset(targets)
    for head in wanted:
        if pseudo is not None and head not in targets:
            target = pseudo.target(head, view.grid)
            if target is not None:
                targets[head], weights[head] = target, pseudo.weight[head]
    heart = view.labels.get("heart", torch.zeros(view.grid.shape, dtype=torch.uint8))
    return Example(view.image, targets, weights, real, heart, wanted)


def choose_look(
    looks: Mapping[LookName, LookConfig], names: tuple[LookName, ...], rng: np.random.Generator
) -> LookConfig:
    """One of the looks, by :data:`LOOK_SHARE`."""
    odds = np.array([LOOK_SHARE[n] for n in names])
    return looks[names[int(rng.choice(len(names), p=odds / odds.sum()))]]
