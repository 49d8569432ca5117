"""The scanner: what a CT makes of ideal Hounsfield units — blur, slices, noise, streaks, bias, field of view.

Works on any look grid. In-plane and through-plane blur follow the native voxels of the scan, not the look, and
noise is averaged as the look's antialiasing filter would average it. The axes of the look are taken as the
patient's. What is too large to be a look is made by :mod:`cardiac_ct_fm.cohort.whole_scan` from the same steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from cardiac_ct_fm.cohort.noise import interpolation_matrix
from cardiac_ct_fm.cohort.scanner import ScannerParameters
from cardiac_ct_fm.cohort.streaks import dense_streaks
from cardiac_ct_fm.errors import ConfigError

BOX_SIGMA = 1 / math.sqrt(12)
"""SD of a one-voxel box: the averaging already in the rendered image."""
TRIANGLE_SIGMA = 1 / math.sqrt(6)
"""SD of the triangle of linear interpolation with antialiasing, in units of the coarser spacing."""
LOUD_CELL = 4
"""Edge in voxels of the blocks over which the attenuation is averaged that noise grows with."""


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
        image = ghost(image, spacing_mm, scanner, centre_mm)
    if scanner.streaks > 0:
        image = image + scanner.streaks * dense_streaks(image, spacing_mm, rng)
    image = blur(image, spacing_mm, scanner, centre_mm[2])
    image = image + _noise(image, spacing_mm, scanner, rng)
    return reading(image, spacing_mm, scanner, centre_mm)


def reading(image: Tensor, spacing: float, scanner: ScannerParameters, centre: tuple[float, float, float]) -> Tensor:
    """The HU that are stored of a noisy image: bias, contrast, drift of the scale, field of view."""
    body = ((image + 600) / 400).clamp(0, 1)
    if scanner.cupping_hu:
        x, y, _ = _positions(image, spacing, centre)
        image = image + scanner.cupping_hu * body * torch.exp(-(x**2 + y**2) / (2 * 90.0**2))
    if scanner.contrast[0]:
        image = _warp(image, scanner.contrast[0], scanner.contrast[1])
    image = (image + 1000) * scanner.scale - 1000 + scanner.offset_hu
    return field_of_view(image.clamp_(-1024, 3071), spacing, scanner, centre)


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


def blur(image: Tensor, spacing: float, scanner: ScannerParameters, centre_z: float) -> Tensor:
    """Kernel and resampling blur in plane; slices of their thickness, interpolated, along z."""
    sigma = _extra_sigma(scanner.fwhm_mm, scanner.pixel_mm, spacing)
    nx, ny, nz = image.shape
    mx, my = _gauss_matrix(nx, sigma).to(image.device), _gauss_matrix(ny, sigma).to(image.device)
    mz = _slice_matrix(nz, spacing, scanner, centre_z).to(image.device)
    image = torch.matmul(mx, image.flatten(1)).view(nx, ny, nz)
    return torch.matmul(torch.matmul(my, image), mz.T)


def blur_reach(spacing: float, scanner: ScannerParameters) -> int:
    """Slices of the look above and below that :func:`blur` mixes into one: four SD, and the way to the next slice."""
    step = scanner.slice_mm
    if step <= spacing:
        return math.ceil(4 * _extra_sigma(step * 0.9, step, spacing))
    return math.ceil((step + 4 * step / 2.355) / spacing)


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


def plane_power(fx: Tensor, fy: Tensor, spacing: float, scanner: ScannerParameters) -> tuple[Tensor, float]:
    """Noise power in plane after the look's filter (fx, fy), and the share of the native variance that is left."""
    sigma_xy = TRIANGLE_SIGMA * max(scanner.pixel_mm, spacing)
    peak, white_share = scanner.peak_per_mm, scanner.whiteness
    plane = _power((fx[:, None] ** 2 + fy[None, :] ** 2).sqrt(), peak, white_share)
    plane = plane * torch.exp(-((2 * math.pi * sigma_xy) ** 2) * (fx[:, None] ** 2 + fy[None, :] ** 2))
    # share of the native variance that survives the filter, by integration over the native band
    f = torch.linspace(1e-3, 0.5 / scanner.pixel_mm, 400)
    native = _power(f, peak, white_share) * f
    kept = float((native * torch.exp(-((2 * math.pi * sigma_xy) ** 2) * f**2)).sum() / native.sum())
    return plane, kept * float(along_power(torch.linspace(0, 0.5 / scanner.slice_mm, 200), spacing, scanner).mean())


def along_power(fz: Tensor, spacing: float, scanner: ScannerParameters) -> Tensor:
    """Noise power along z after the look's filter, at frequencies per mm."""
    sigma_z = TRIANGLE_SIGMA * max(scanner.slice_mm, spacing)
    return torch.exp(-((2 * math.pi * sigma_z) ** 2) * fz**2)


def _noise(image: Tensor, spacing: float, scanner: ScannerParameters, rng: torch.Generator) -> Tensor:
    """Noise with the grain of the kernel, averaged by the look's filter; louder where the body is dense."""
    shape = image.shape
    white = torch.randn(shape, generator=rng).to(image.device)
    fx, fy = (torch.fft.fftfreq(n, spacing, device=image.device) for n in shape[:2])
    plane, kept = plane_power(fx, fy, spacing, scanner)
    along = along_power(torch.fft.rfftfreq(shape[2], spacing, device=image.device), spacing, scanner)
    spectrum = (plane[:, :, None] * along[None, None, :]).sqrt()
    grain: Tensor = torch.fft.irfftn(torch.fft.rfftn(white) * spectrum, s=list(shape))
    grain = grain * (scanner.noise_hu * math.sqrt(kept) / grain.std().clamp_min(1e-6))
    if scanner.texture_hu > 0:
        grain = grain + scanner.texture_hu * torch.randn(shape, generator=rng).to(image.device)
    if scanner.photon_starvation > 0:
        rows = torch.randn((6, shape[1], shape[2]), generator=rng).to(image.device)
        rows = torch.einsum("xk,kyz->xyz", interpolation_matrix(shape[0], 6, "cubic").to(image.device), rows)
        grain = grain + scanner.photon_starvation * rows * math.sqrt(min(1.0, scanner.pixel_mm / spacing))
    return grain * loudness(image)


def loudness(image: Tensor) -> Tensor:
    """Factor on the noise: it grows with the attenuation around, little in lung and air, more inside the trunk."""
    few = image.clamp(-1000, 400)[None, None]
    blurred = functional.avg_pool3d(few, LOUD_CELL, ceil_mode=True, count_include_pad=False)
    local = functional.interpolate(blurred, size=list(image.shape), mode="trilinear", align_corners=False)[0, 0]
    return 0.75 + 0.25 * ((local + 1000) / 1000).clamp(0, 1.6)


def ghost(image: Tensor, spacing: float, scanner: ScannerParameters, centre: tuple[float, float, float]) -> Tensor:
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
