"""Differential privacy as an option: clip a site's update, add Gaussian noise before it leaves, account for the rounds.

The noise is added at the site, so that nobody else has to be trusted. What is protected is everything that a site's
update rests on, hence also every single patient of it. Costs accuracy in proportion to the noise; off by default.
"""

from __future__ import annotations

import math

import numpy as np

from recipes.federated_distillation.messages import Arrays

ORDERS = tuple(1 + x / 10 for x in range(1, 100)) + tuple(range(11, 512))
"""Rényi orders that the accountant tries."""


def privatise(changes: Arrays, clip: float, noise: float, rng: np.random.Generator) -> Arrays:
    """A site's update, clipped to an L2 norm of ``clip`` in all, plus noise of SD ``noise * clip`` on every number.

    Args:
        changes: parameter → change.
        clip: largest norm.
        noise: noise multiplier.
        rng: of the noise; must not be reproducible by others.
    """
    norm = math.sqrt(sum(float((c.astype(np.float64) ** 2).sum()) for c in changes.values()))
    scale = min(1.0, clip / norm) if norm > 0 else 1.0
    return {
        name: (values * scale + rng.normal(0, noise * clip, values.shape)).astype(np.float32)
        for name, values in changes.items()
    }


def epsilon(noise: float, updates: int, delta: float) -> float:
    """The accountant's ε after a number of updates of one site.

    Rényi differential privacy of the Gaussian mechanism adds up over rounds (Mironov 2017): at order α, with noise
    multiplier σ and a sensitivity of 2·clip (any change of a site's data moves the clipped update by at most that),
    each update costs α·4/(2σ²). Turned into (ε, δ) with the bound of the same paper.

    Args:
        noise: σ in units of the clipping norm; 0 has no guarantee.
        updates: noisy updates that one site sends in the whole experiment, those of repeated rounds included.
        delta: δ.

    Returns:
        ε; infinite without noise.
    """
    if noise <= 0:
        return math.inf
    if updates == 0:
        return 0.0
    return min(updates * a * 4 / (2 * noise**2) + math.log(1 / delta) / (a - 1) for a in ORDERS)
