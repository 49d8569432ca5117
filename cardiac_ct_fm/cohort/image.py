"""The scanner: what a CT makes of ideal Hounsfield units — blur, slices, noise, streaks, bias, field of view.

Works on any look grid. In-plane and through-plane blur follow the native voxels of the scan, not the look, and
noise is averaged as the look's antialiasing filter would average it. The axes of the look are taken as the
patient's. Typical ranges: 0.3–0.7 mm in plane, 0.5–1 mm slices (domain facts), up to 5 mm in routine scans; noise
20–25 HU in the aorta, more in heavy patients (domain facts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from cardiac_ct_fm.cohort.noise import chance, interpolation_matrix, uniform
from cardiac_ct_fm.cohort.streaks import dense_streaks
from cardiac_ct_fm.errors import ConfigError

BOX_SIGMA = 1 / math.sqrt(12)
"""SD of a one-voxel box: the averaging already in the rendered image."""
TRIANGLE_SIGMA = 1 / math.sqrt(6)
"""SD of the triangle of linear interpolation with antialiasing, in units of the coarser spacing."""


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


def acquire(
    hu: Tensor,
    spacing_mm: float,
    scanner: ScannerParameters,
    rng: torch.Generator,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """The image that a scanner and the resampling to this look would make of ideal HU.

    Args:
        hu: (X, Y, Z) HU, each voxel the mean over its volume.
        spacing_mm: isotropic voxel size of the look.
        scanner: the scan.
        rng: a CPU generator for the noise, one per look.
        centre_mm: RAS position of the look's middle from the heart's centre, so that field of view and slices
            stay where they are in the body.

    Returns:
        (X, Y, Z) HU on the device of ``hu``; at least −1024 inside, ``pad_hu`` outside of the field of view.

    Raises:
        ConfigError: ``hu`` has not three axes or the spacing is not positive.
    """
    if hu.ndim != 3 or spacing_mm <= 0:
        raise ConfigError(
            f"acquire got HU of shape {tuple(hu.shape)} at {spacing_mm} mm; expected (X, Y, Z) at > 0 mm."
        )
    image = hu.clamp(-1024, 3500)
    if scanner.motion_share > 0:
        image = _ghost(image, spacing_mm, scanner, centre_mm)
    if scanner.streaks > 0:
        image = image + scanner.streaks * dense_streaks(image, spacing_mm, rng)
    image = _blur(image, spacing_mm, scanner, centre_mm[2])
    image = image + _noise(image, spacing_mm, scanner, rng)
    body = ((image + 600) / 400).clamp(0, 1)
    if scanner.cupping_hu:
        x, y, _ = _positions(hu, spacing_mm, centre_mm)
        image = image + scanner.cupping_hu * body * torch.exp(-(x**2 + y**2) / (2 * 90.0**2))
    if scanner.contrast[0]:
        image = _warp(image, scanner.contrast[0], scanner.contrast[1])
    image = (image + 1000) * scanner.scale - 1000 + scanner.offset_hu
    return field_of_view(image.clamp_(-1024, 3071), spacing_mm, scanner, centre_mm)


def _positions(hu: Tensor, spacing: float, centre: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """The x (X, 1, 1), y (1, Y, 1), z (1, 1, Z) in mm from the heart's centre."""
    axes = [
        (torch.arange(n, device=hu.device) - 0.5 * (n - 1)) * spacing + c for n, c in zip(hu.shape, centre, strict=True)
    ]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]


def _gauss_matrix(n: int, sigma: float) -> Tensor:
    """(n, n) Gaussian blur of ``sigma`` samples; rows sum to one, the ends see their own side only."""
    i = torch.arange(n, dtype=torch.float32)
    matrix = torch.exp(-0.5 * ((i[:, None] - i[None, :]) / max(sigma, 1e-3)) ** 2)
    return matrix / matrix.sum(1, keepdim=True)


def _extra_sigma(fwhm: float, native: float, spacing: float) -> float:
    """SD (in look voxels) of the blur still missing from an image rendered with one-voxel boxes."""
    wanted = (fwhm / 2.355) ** 2 + (TRIANGLE_SIGMA * max(native, spacing)) ** 2
    return math.sqrt(max(wanted - (BOX_SIGMA * spacing) ** 2, 0.0)) / spacing


def _blur(image: Tensor, spacing: float, scanner: ScannerParameters, centre_z: float) -> Tensor:
    """Kernel and resampling blur in plane; slices of their thickness, interpolated, along z."""
    sigma = _extra_sigma(scanner.fwhm_mm, scanner.pixel_mm, spacing)
    nx, ny, nz = image.shape
    mx, my = _gauss_matrix(nx, sigma).to(image.device), _gauss_matrix(ny, sigma).to(image.device)
    mz = _slice_matrix(nz, spacing, scanner, centre_z).to(image.device)
    image = torch.matmul(mx, image.flatten(1)).view(nx, ny, nz)
    return torch.matmul(torch.matmul(my, image), mz.T)


def _slice_matrix(n: int, spacing: float, scanner: ScannerParameters, centre_z: float) -> Tensor:
    """(n, n) along z: average over the slice thickness at the slice positions, then linear interpolation back."""
    step = scanner.slice_mm
    if step <= spacing:
        return _gauss_matrix(n, _extra_sigma(step * 0.9, step, spacing))
    z = (torch.arange(n) - 0.5 * (n - 1)) * spacing + centre_z
    first = math.floor(float(z[0]) / step - scanner.slice_phase) - 1
    last = math.ceil(float(z[-1]) / step - scanner.slice_phase) + 1
    slices = (torch.arange(first, last + 1) + scanner.slice_phase) * step
    # a slice profile of full width `step`, less what the voxels average already
    sigma = math.sqrt(max((step / 2.355) ** 2 - (BOX_SIGMA * spacing) ** 2, (0.3 * spacing) ** 2))
    average = torch.exp(-0.5 * ((slices[:, None] - z[None, :]) / sigma) ** 2) + 1e-12
    nearest = (slices[:, None] - z[None, :]).abs() == (slices[:, None] - z[None, :]).abs().amin(1, keepdim=True)
    average = average + 1e-6 * nearest
    average = average / average.sum(1, keepdim=True)
    back = (1 - ((z[:, None] - slices[None, :]) / step).abs()).clamp(min=0)
    return (back / back.sum(1, keepdim=True)) @ average


def _power(radius: Tensor, peak: float, whiteness: float) -> Tensor:
    """In-plane noise power at a frequency per mm: a ramp rolled off to peak at ``peak``, mixed with a flat floor."""
    return (whiteness + (1 - whiteness) * radius / peak) * torch.exp(-0.5 * (radius / peak) ** 2)


def _noise(image: Tensor, spacing: float, scanner: ScannerParameters, rng: torch.Generator) -> Tensor:
    """Noise with the grain of the kernel, averaged by the look's filter; louder where the body is dense."""
    shape = image.shape
    white = torch.randn(shape, generator=rng).to(image.device)
    fx, fy = (torch.fft.fftfreq(n, spacing, device=image.device) for n in shape[:2])
    fz = torch.fft.rfftfreq(shape[2], spacing, device=image.device)
    sigma_xy = TRIANGLE_SIGMA * max(scanner.pixel_mm, spacing)
    sigma_z = TRIANGLE_SIGMA * max(scanner.slice_mm, spacing)
    peak, white_share = scanner.peak_per_mm, scanner.whiteness
    plane = _power((fx[:, None] ** 2 + fy[None, :] ** 2).sqrt(), peak, white_share)
    plane = plane * torch.exp(-((2 * math.pi * sigma_xy) ** 2) * (fx[:, None] ** 2 + fy[None, :] ** 2))
    along = torch.exp(-((2 * math.pi * sigma_z) ** 2) * fz**2)
    # share of the native variance that survives the filter, by integration over the native band
    f = torch.linspace(1e-3, 0.5 / scanner.pixel_mm, 400)
    native = _power(f, peak, white_share) * f
    kept = float((native * torch.exp(-((2 * math.pi * sigma_xy) ** 2) * f**2)).sum() / native.sum())
    g = torch.linspace(0, 0.5 / scanner.slice_mm, 200)
    kept *= float(torch.exp(-((2 * math.pi * sigma_z) ** 2) * g**2).mean())
    spectrum = (plane[:, :, None] * along[None, None, :]).sqrt()
    grain: Tensor = torch.fft.irfftn(torch.fft.rfftn(white) * spectrum, s=list(shape))
    grain = grain * (scanner.noise_hu * math.sqrt(kept) / grain.std().clamp_min(1e-6))
    if scanner.texture_hu > 0:
        grain = grain + scanner.texture_hu * torch.randn(shape, generator=rng).to(image.device)
    if scanner.photon_starvation > 0:
        rows = torch.randn((6, shape[1], shape[2]), generator=rng).to(image.device)
        rows = torch.einsum("xk,kyz->xyz", interpolation_matrix(shape[0], 6, "cubic").to(image.device), rows)
        grain = grain + scanner.photon_starvation * rows * math.sqrt(min(1.0, scanner.pixel_mm / spacing))
    # quantum noise grows with the attenuation around: little in lung and air, more inside the trunk
    blurred = functional.avg_pool3d(image.clamp(-1000, 400)[None, None], 4, ceil_mode=True, count_include_pad=False)
    local = functional.interpolate(blurred, size=list(shape), mode="trilinear", align_corners=False)[0, 0]
    louder = 0.75 + 0.25 * ((local + 1000) / 1000).clamp(0, 1.6)
    return grain * louder


def _ghost(image: Tensor, spacing: float, scanner: ScannerParameters, centre: tuple[float, float, float]) -> Tensor:
    """A second, shifted contour around the heart: the beat during the turn of the gantry."""
    x, y, z = _positions(image, spacing, centre)
    place = torch.exp(-((x + 5) ** 2 + (y - 15) ** 2 + z**2) / (2 * 45.0**2)) * scanner.motion_share
    shifted = image
    for axis, mm in enumerate(scanner.motion_mm):
        n, voxels = image.shape[axis], mm / spacing
        whole, part = math.floor(voxels), voxels - math.floor(voxels)
        index = torch.arange(n, device=image.device)
        near = shifted.index_select(axis, (index + whole).clamp(0, n - 1))
        far = shifted.index_select(axis, (index + whole + 1).clamp(0, n - 1))
        shifted = near + part * (far - near)
    return image + place * (shifted - image)


def _warp(image: Tensor, knots: tuple[float, ...], values: tuple[float, ...]) -> Tensor:
    """Monotone piecewise linear map of HU; below the first knot unchanged, above the last one shifted."""
    out = image.clone()
    for k0, k1, v0, v1 in zip(knots, knots[1:], values, values[1:], strict=False):
        out += (image - k0).clamp(0, k1 - k0) * ((v1 - v0) / (k1 - k0) - 1)
    return out


def field_of_view(
    image: Tensor, spacing: float, scanner: ScannerParameters, centre: tuple[float, float, float]
) -> Tensor:
    """Padding outside the reconstructed circle or square and beyond the first and last slice."""
    x, y, z = _positions(image, spacing, centre)
    seen = (z >= scanner.z_range[0]) & (z <= scanner.z_range[1])
    dx, dy = x - scanner.fov_centre[0], y - scanner.fov_centre[1]
    if scanner.fov_shape == "circle":
        seen = seen & (dx**2 + dy**2 <= scanner.fov_radius**2)
    elif scanner.fov_shape == "square":
        seen = seen & (dx.abs() <= scanner.fov_radius) & (dy.abs() <= scanner.fov_radius)
    return torch.where(seen, image, image.new_tensor(scanner.pad_hu))
