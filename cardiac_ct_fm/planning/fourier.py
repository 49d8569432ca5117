"""A closed contour as a short Fourier series of radii, robust to rays that follow something else."""

from __future__ import annotations

import numpy as np

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.contours import RAY_ANGLES, RAYS


def fourier(
    edge: FloatArray, weight: FloatArray, path: FloatArray, harmonics: int, clear: float, step_mm: float
) -> tuple[FloatArray, float]:
    """A short Fourier series through the radii, robust to single rays that follow a branch or calcium.

    Its prices, weights and limits are house choices.

    Args:
        edge: (RAYS,) radius in mm of the edge on every ray.
        weight: (RAYS,) height of that edge as a share of the contrast.
        path: (RAYS,) radius in mm where no edge is clear.
        harmonics: terms of the series.
        clear: height from which an edge counts as seen.
        step_mm: sampling of the radii; residuals below it are not outliers.

    Returns:
        (RAYS,) smooth radii, and the standard deviation in mm of the seen edges around them.
    """
    k = np.arange(1, harmonics + 1)
    basis = np.concatenate(
        [np.ones((RAYS, 1)), np.cos(RAY_ANGLES[:, None] * k), np.sin(RAY_ANGLES[:, None] * k)], axis=1
    )
    # A gentle price on high terms closes gaps smoothly; it moves an ellipse of 3:2 by less than 0.01 mm.
    price = 1e-4 * np.concatenate([[0.0], k**4, k**4]) / harmonics**2
    values = np.where(weight >= clear, edge, path)
    trust = np.where(weight >= clear, 1.0, 0.05)
    robust = np.ones(RAYS)
    fit = values
    scale = 0.0
    for _ in range(3):
        w = trust * robust
        fit = basis @ np.linalg.solve(basis.T @ (w[:, None] * basis) + np.diag(price), basis.T @ (w * values))
        residual = values - fit
        seen = weight >= clear
        scale = float(1.4826 * np.median(np.abs(residual[seen]))) if seen.any() else 0.0
        limit = max(3.0 * scale, step_mm)
        robust = np.clip(1.0 - (residual / limit) ** 2, 0.0, 1.0) ** 2 + 1e-3
    return fit, scale
