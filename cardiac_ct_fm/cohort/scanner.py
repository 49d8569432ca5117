"""What a scanner is: the parameters of one scan's image formation, and how they are drawn.

Typical ranges: 0.3–0.7 mm in plane, 0.5–1 mm slices (domain facts), up to 5 mm in routine scans; noise 20–25 HU in the
aorta, more in heavy patients (domain facts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from cardiac_ct_fm.cohort.noise import chance, uniform
from cardiac_ct_fm.errors import ConfigError


@dataclass(frozen=True)
class ScannerParameters:
    """One scan's image formation.

    Attributes:
        pixel_mm: native in-plane voxel.
        slice_mm: slice thickness; slice_phase: position of the slices (0…1 of a slice).
        fwhm_mm: in-plane full width of the point spread function of the kernel.
        noise_hu: SD at native resolution in soft tissue; peak_per_mm: where the noise power spectrum peaks;
            whiteness: 0 a ramp as filtered back projection leaves it, 1 flat as in a scan resampled without a filter.
        texture_hu: SD of additional white noise per look voxel, whatever its size (beyond realism).
        photon_starvation: horizontal noise between dense objects, HU.
        streaks: strength of the streaks of dense objects (1: clearly visible).
        cupping_hu: bias in the middle of the body; scale, offset_hu: drift of the HU scale.
        contrast: (HU knots, HU values) of a monotone warp of soft tissue; empty: none.
        motion_mm: shift of the ghost that a beating heart leaves (x, y, z); motion_share: its weight.
        fov_shape: ``circle``, ``square`` or ``none``; fov_radius: half its width.
        fov_centre: its (x, y) from the heart's centre.
        z_range: lowest and highest slice, mm from the heart's centre.
        pad_hu: value outside of the field of view.
    """

    pixel_mm: float
    slice_mm: float
    slice_phase: float
    fwhm_mm: float
    noise_hu: float
    peak_per_mm: float
    whiteness: float
    texture_hu: float
    photon_starvation: float
    streaks: float
    cupping_hu: float
    scale: float
    offset_hu: float
    contrast: tuple[tuple[float, ...], tuple[float, ...]]
    motion_mm: tuple[float, float, float]
    motion_share: float
    fov_shape: str
    fov_radius: float
    fov_centre: tuple[float, float]
    z_range: tuple[float, float]
    pad_hu: float


def draw_scanner(rng: torch.Generator, strength: float = 1.0) -> ScannerParameters:
    """A random scanner.

    Args:
        rng: a CPU generator.
        strength: the dial of domain randomisation: 0 a good cardiac CT, 1 what hospitals have, 2 beyond realism.

    Raises:
        ConfigError: ``strength`` is outside 0…2.
    """
    if not 0 <= strength <= 2:
        raise ConfigError(f"scanner strength is {strength}; choose a value from 0 (clean) to 2 (beyond realism).")
    s = strength
    thick = chance(rng, 0.25 * s)
    slice_mm = uniform(rng, 1.5, 3 + s) if thick else uniform(rng, 0.5, 1.25)
    pixel_mm = uniform(rng, 0.3, 0.85)
    whiteness, peak = uniform(rng, 0.02, 0.3), uniform(rng, 0.12, 0.45)
    if chance(rng, 0.35 * s):
        # scans of public collections have often been resampled to 1–1.6 mm already, without an antialiasing filter
        pixel_mm = slice_mm = uniform(rng, 0.9, 1.6)
        whiteness, peak = 1.0, 0.6
    knots = (-150.0, 0.0, 60.0, 120.0, 250.0, 450.0, 900.0)
    values = [-150.0]
    for low, high in pairwise(knots):
        values.append(values[-1] + (high - low) * math.exp(uniform(rng, -0.28, 0.28) * s))
    shape = "none" if chance(rng, 0.4) else ("circle" if chance(rng, 0.6) else "square")
    low_cut = uniform(rng, -120, -45) if chance(rng, 0.35) else -400.0
    high_cut = uniform(rng, 55, 130) if chance(rng, 0.35) else 400.0
    if s > 0 and chance(rng, 0.08 * s):
        low_cut = uniform(rng, -45, 10)
    if s > 0 and chance(rng, 0.08 * s):
        high_cut = uniform(rng, 5, 55)
    return ScannerParameters(
        pixel_mm=pixel_mm,
        slice_mm=slice_mm,
        slice_phase=uniform(rng, 0, 1),
        fwhm_mm=uniform(rng, 0.6, 1.2 + 0.6 * s),
        noise_hu=uniform(rng, 8, 22 + 20 * s),
        peak_per_mm=peak,
        whiteness=whiteness,
        texture_hu=uniform(rng, 2, 18 * s) if s > 0 and chance(rng, 0.2 * s) else 0.0,
        photon_starvation=uniform(rng, 0, 8 * s) if chance(rng, 0.2) else 0.0,
        streaks=uniform(rng, 0, 1.2 * s) if chance(rng, 0.8) else uniform(rng, 0, 3 * s),
        cupping_hu=uniform(rng, -12, 12) * s,
        scale=1 + uniform(rng, -0.02, 0.02) * s,
        offset_hu=uniform(rng, -8, 8) * s,
        contrast=(knots, tuple(values)) if s > 0 and chance(rng, 0.35 * s) else ((), ()),
        motion_mm=(uniform(rng, -4, 4), uniform(rng, -4, 4), uniform(rng, -2, 2)),
        motion_share=uniform(rng, 0.15, 0.5) if chance(rng, 0.12 * s) else 0.0,
        fov_shape=shape,
        fov_radius=uniform(rng, 85, 130) if chance(rng, 0.6) else uniform(rng, 130, 200),
        fov_centre=(uniform(rng, -15, 25), uniform(rng, -25, 20)),
        z_range=(low_cut, high_cut),
        pad_hu=-1024.0 if chance(rng, 0.7) else -3024.0,
    )
