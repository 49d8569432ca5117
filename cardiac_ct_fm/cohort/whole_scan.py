"""The scanner on a whole scan, a few slices at a time and without seams: what one look of its size would give.

Blur and the loudness of noise look at some slices above and below. Streaks are worked out from all slices, coarsely.
Noise is one field of the scan, drawn slice by slice from one generator, so it does not depend on how many slices are
made at once. Everything runs on the CPU; beside the scan itself, memory holds only the slices in work.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cardiac_ct_fm.cohort.image import (
    LOUD_CELL,
    along_power,
    blur,
    blur_reach,
    ghost,
    loudness,
    plane_power,
    reading,
)
from cardiac_ct_fm.cohort.noise import interpolation_matrix
from cardiac_ct_fm.cohort.scanner import ScannerParameters
from cardiac_ct_fm.cohort.streaks import PLANE, condensed, draw_turns, falsified, spread

SLAB = 16
"""Slices that are made at once; at 512×512 and 0.4 mm, with those around, about 0.5 GB."""

GRAIN_REACH = 8
"""Slices above and below that make up the grain of one, at least; its filter has 0.41 slices SD or more."""


def acquire_scan(
    ideal: npt.NDArray[np.int16],
    spacing_mm: float,
    scanner: ScannerParameters,
    rng: torch.Generator,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.int16]:
    """What :func:`cardiac_ct_fm.cohort.image.acquire` makes of a look, of a scan of any size.

    Args:
        ideal: (X, Y, Z) HU before the scanner, within −1024…3500.
        spacing_mm: isotropic voxel size.
        scanner: the scan.
        rng: a CPU generator of the scan's streaks and noise.
        centre_mm: RAS position of the scan's middle from the heart's centre.
        progress: called with the number of slices that are done.

    Returns:
        (X, Y, Z) int16 HU in the memory order of ``ideal``.
    """
    scan = _Scan(ideal, spacing_mm, scanner, centre_mm)
    nx, ny, slices = scan.shape
    back = scan.streaks(rng) if scanner.streaks > 0 else None
    grain = _grain(nx, ny, spacing_mm, scanner, rng)
    # blocks of the loudness begin where those of the whole scan begin, and one more is interpolated with
    reach = blur_reach(spacing_mm, scanner) + 2 * LOUD_CELL
    out = np.empty_like(ideal)
    for first in range(0, slices, SLAB):
        end = min(first + SLAB, slices)
        low = max(0, (first - reach) // LOUD_CELL * LOUD_CELL)
        high = min(slices, -(-(end + reach) // LOUD_CELL) * LOUD_CELL)
        image = scan.beating(low, high)
        if back is not None:
            image = image + scanner.streaks * spread(back, scan.shape, slice(low, high))
        image = blur(image, spacing_mm, scanner, scan.place(low, high)[2])
        part = slice(first - low, end - low)
        noise = torch.stack([next(grain) for _ in range(first, end)], -1)
        image = image[..., part] + noise * loudness(image)[..., part]
        read = reading(image, spacing_mm, scanner, scan.place(first, end))
        out[..., first:end] = read.round().to(torch.int16).numpy()
        if progress is not None:
            progress(end)
    return out


class _Scan:
    """The ideal HU of a scan, of which some slices at a time are looked at."""

    def __init__(
        self,
        ideal: npt.NDArray[np.int16],
        spacing: float,
        scanner: ScannerParameters,
        centre: tuple[float, float, float],
    ) -> None:
        self.ideal, self.spacing, self.scanner, self.centre = ideal, spacing, scanner, centre
        self.shape: tuple[int, int, int] = (ideal.shape[0], ideal.shape[1], ideal.shape[2])

    def place(self, low: int, high: int) -> tuple[float, float, float]:
        """Middle of the slices ``low`` … ``high − 1``, mm from the heart's centre."""
        x, y, z = self.centre
        return x, y, z + 0.5 * (low + high - self.shape[2]) * self.spacing

    def beating(self, low: int, high: int) -> Tensor:
        """The slices ``low`` … ``high − 1`` with the ghost of a beating heart, float32."""
        if self.scanner.motion_share <= 0:
            return torch.from_numpy(np.ascontiguousarray(self.ideal[..., low:high])).float()
        reach = math.ceil(abs(self.scanner.motion_mm[2]) / self.spacing) + 1
        first, end = max(0, low - reach), min(self.shape[2], high + reach)
        image = torch.from_numpy(np.ascontiguousarray(self.ideal[..., first:end])).float()
        return ghost(image, self.spacing, self.scanner, self.place(first, end))[..., low - first : high - first]

    def streaks(self, rng: torch.Generator) -> Tensor:
        """The coarse error of dense objects in all slices, for :func:`streaks.spread`."""
        nx, ny, slices = self.shape
        turns = draw_turns(slices, rng)
        parts = [condensed(self.beating(k, min(k + SLAB, slices))) for k in range(0, slices, SLAB)]
        return falsified(torch.cat(parts, -1), turns, 0.05 * self.spacing * (nx + ny) / PLANE)


def _grain(nx: int, ny: int, spacing: float, scanner: ScannerParameters, rng: torch.Generator) -> Iterator[Tensor]:
    """Noise (X, Y) of one slice after the other, before it is louder where the body is dense.

    The spectrum is that of a look: in plane by FFT, along z by the filter that the look's spectrum is the square of.
    """
    fx, fy = torch.fft.fftfreq(nx, spacing), torch.fft.fftfreq(ny, spacing)
    plane, kept = plane_power(fx, fy, spacing, scanner)
    amplitude = (plane / plane.mean()).sqrt()[:, : ny // 2 + 1] * (scanner.noise_hu * math.sqrt(kept))
    reach = max(GRAIN_REACH, math.ceil(2 * scanner.slice_mm / spacing))
    taps = 2 * reach + 1
    along = along_power(torch.fft.rfftfreq(taps, spacing), spacing, scanner).sqrt()
    kernel = torch.fft.irfft(along.to(torch.complex64), n=taps).roll(reach)
    kernel = kernel / kernel.norm()
    share = scanner.photon_starvation * math.sqrt(min(1.0, scanner.pixel_mm / spacing))
    cubic = interpolation_matrix(nx, 6, "cubic")

    def white() -> Tensor:
        drawn = torch.randn((nx, ny), generator=rng)
        grain: Tensor = torch.fft.irfft2(torch.fft.rfft2(drawn) * amplitude, s=(nx, ny))
        return grain

    around = deque((white() for _ in range(taps - 1)), maxlen=taps)
    while True:
        around.append(white())
        noise = (kernel @ torch.stack(tuple(around)).flatten(1)).view(nx, ny)
        if scanner.texture_hu > 0:
            noise = noise + scanner.texture_hu * torch.randn((nx, ny), generator=rng)
        if share > 0:
            noise = noise + share * (cubic @ torch.randn((6, ny), generator=rng))
        yield noise
