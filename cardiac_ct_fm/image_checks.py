"""Is this a usable cardiac CT? Refuses wrong intensity scales, other modalities, noise and slices that are too thick.

Decided from robust facts about Hounsfield units on a sparse sample: every CT of a heart shows fat or air (negative) and
soft tissue (around zero), however tightly it is cropped. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import ImageError

if TYPE_CHECKING:
    from cardiac_ct_fm.volume_io import Volume

MAX_SPACING_MM = 12.0
"""Voxels of this size or more are refused: fewer than two cross an annulus (22.9 mm on average in women; Hamdan)."""

FINE_SPACING_MM = 2.0
"""Above this a warning is given: observers themselves differ by 2.0 mm in landmarks (Astudillo 2020)."""

COARSE_SPACING_MM = 3.0
"""Above this no measurement is sure, whatever its points' confidence: in voxels of 5 mm ostia of digital patients were
3.7 mm off (1.4 mm at 3 mm, 0.2 mm at 1 mm), and surer than in fine ones (``docs/robustness.md``)."""

MIN_EXTENT_MM = 22.9
"""Mean diameter of the annulus in women (Hamdan): what is smaller along any axis can't hold an aortic root."""

MAX_EXTENT_MM = 3000.0
"""Longer than any scanner's table travel (about 2 m; a generous choice of this project): the affine is
then not in mm."""

PADDING_HU = -1500.0
"""Scanners fill the corners outside of the reconstruction circle with −2000 or −3024; air itself is −1000 ± noise."""

DARK_HU = -30.0
"""Darker than this is fat (pericoronary −79…−96 HU), lung or air, even with 2 SD of noise (20–25 HU) beside 0."""

MIN_DARK_FRACTION = 1e-3
"""A heart cropped to its surface still holds tens of mL of fat in about 1 L; 1 ‰, a choice of this project, is
far below that."""

TISSUE_HU = (-200.0, 1500.0)
"""From fat to calcium: where the body is. 1500 is the upper end of valve calcium."""

MIN_TISSUE_FRACTION = 0.03
"""Less than this is an empty scan, or air and tissue were shifted together.

Measured on the two real scans of this repository, padding left out: 0.63 and 0.46; shifted by −1024: 0.010 and 0.001.
"""

OFFSET_TISSUE = (850.0, 1350.0)
"""Fat, muscle and half of the contrast, had 1024 been added to them: −174…326 HU."""

OFFSET_GAP = (300.0, 800.0)
"""Between lung and fat, had 1024 been added (−724…−224 HU): nearly empty in CT, well filled in MR."""

MIN_OFFSET_FRACTION = 0.1
"""In Hounsfield units only dense bone, metal and calcium reach that range, a few per cent of a chest; the limit is
a choice of this project."""

MIN_SPAN_HU = 150.0
"""From fat (−80) over muscle (80) to blood: the central 99 % of any heart in HU span more than fat to muscle."""

MIN_CORRELATION = 0.2
"""Neighbouring voxels of a body are alike along each axis; less than this is noise, or voxels in another order.

Measured on the real scan of this repository: 0.94; a heart cropped out of it, with noise of 250 HU added: 0.51; in
voxels of 9 mm: 0.68. White noise, or the scan with rows taken for slices: 0.00.
"""

_SAMPLES = 500_000
"""Voxels looked at; a fraction of 1 ‰ is then known to ±0.005 %."""


def check_volume(volume: Volume) -> None:
    """Refuse what cannot be a cardiac CT in Hounsfield units.

    Raises:
        ImageError: one line with what is wrong, the reason and the way out.
    """
    _check_geometry(volume)
    _check_finite(volume)
    sample = _sample(volume.data)
    if sample.min() == sample.max() and volume.data.min() == volume.data.max():
        value = f"{float(sample[0]):g}"
        raise ImageError(f"{volume.source} is empty: every voxel is {value}. Export the scan again.")
    reason = _wrong_scale(sample)
    if reason:
        raise ImageError(f"{volume.source} {reason}")
    alike = _least_correlation(volume.data)
    if alike < MIN_CORRELATION:
        raise ImageError(
            f"{volume.source} shows no body: neighbouring voxels have nothing to do with each other along one axis "
            f"(correlation {round(alike, 2) + 0.0:.2f}; CT has more than 0.6). It is noise, or its voxels are stored "
            "in another order of the axes. Export the scan again."
        )


def image_warnings(volume: Volume) -> list[str]:
    """What makes results less sure without being a reason to refuse, as sentences for the user."""
    warnings = []
    coarse = max(volume.grid.spacing)
    if coarse > FINE_SPACING_MM:
        warnings.append(
            f"Voxels are up to {coarse:.1f} mm apart; landmarks cannot be more exact than that "
            f"(observers differ by {FINE_SPACING_MM:.1f} mm, planning scans have 0.5–1.0 mm)."
        )
    if volume.facts.get("patient_position") not in (None, "HFS", "FFS"):
        warnings.append(
            f"The patient does not lie supine (position {volume.facts['patient_position']}); C-arm angles are withheld."
        )
    return warnings


def _check_geometry(volume: Volume) -> None:
    """Voxel sizes and extent that a heart can be seen in."""
    spacing, extent = volume.grid.spacing, volume.grid.extent_mm
    sizes = " × ".join(f"{s:.3g}" for s in spacing)
    if max(extent) > MAX_EXTENT_MM or min(extent) < MIN_EXTENT_MM / 10:
        edges = " × ".join(f"{e:.3g}" for e in extent)
        raise ImageError(
            f"{volume.source} measures {edges} mm, which no patient does: its affine is not in mm. Repair the header."
        )
    if max(spacing) >= MAX_SPACING_MM:
        raise ImageError(
            f"{volume.source} has voxels of {sizes} mm; at {MAX_SPACING_MM:g} mm or more fewer than two slices cross "
            f"an aortic annulus ({MIN_EXTENT_MM} mm). Reconstruct it with slices of 1 mm or less."
        )
    if min(extent) < MIN_EXTENT_MM:
        edges = " × ".join(f"{e:.3g}" for e in extent)
        raise ImageError(
            f"{volume.source} covers only {edges} mm; an aortic annulus alone is {MIN_EXTENT_MM} mm wide. "
            "Give the whole series."
        )


def _check_finite(volume: Volume) -> None:
    """No NaN and no infinity anywhere; looked for slice by slice."""
    if volume.data.dtype.kind != "f":
        return
    bad = sum(int(np.count_nonzero(~np.isfinite(volume.data[..., k]))) for k in range(volume.data.shape[2]))
    if bad:
        share = 100 * bad / volume.data.size
        what = "voxel that is not a number" if bad == 1 else f"voxels ({share:.2g} %) that are not numbers"
        raise ImageError(
            f"{volume.source} holds {bad} {what} (NaN or infinite). "
            "Replace them by -1024 (air), or export the scan again."
        )


def _least_correlation(data: npt.NDArray[Any]) -> float:
    """Correlation of neighbours along the axis where it is smallest, on an even lattice, padding left out."""
    step = max(1, int(np.ceil((data.size / _SAMPLES) ** (1 / 3))))
    least = 1.0
    for axis in range(3):
        rows = np.moveaxis(data, axis, 0)
        both = [rows[:-1:step, ::step, ::step].ravel(), rows[1::step, ::step, ::step].ravel()]
        pair = np.array(both, dtype=np.float32)
        pair = pair[:, (pair > PADDING_HU).all(axis=0)]
        if pair.shape[1] > 1 and (pair.std(axis=1) > 0).all():
            least = min(least, float(np.asarray(np.corrcoef(pair))[0, 1]))
    return least


def _sample(data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """About ``_SAMPLES`` values on an even lattice through the volume."""
    step = max(1, int(np.ceil((data.size / _SAMPLES) ** (1 / 3))))
    return np.asarray(data[::step, ::step, ::step], dtype=np.float32).ravel()


def _wrong_scale(sample: npt.NDArray[np.float32]) -> str | None:
    """Why the values cannot be Hounsfield units, or None."""
    values = sample[sample > PADDING_HU]
    if values.size < MIN_TISSUE_FRACTION * sample.size:
        return f"holds padding only (values up to {sample.max():g} HU). Export the scan again."
    low, high = float(values.min()), float(values.max())
    shown = f"(values {low:g}…{high:g})"
    if low >= 0 and high <= 1:
        return f"has intensities scaled to 0…1 {shown}, not Hounsfield units. Give the CT before normalisation."
    if low >= 0 and high <= 255:
        return f"has a picture's 0–255 grey values {shown}, not Hounsfield units. Give the CT, not a windowed export."
    shifted = _share(values, *OFFSET_TISSUE)
    no_air = _share(values, -np.inf, TISSUE_HU[0]) < MIN_DARK_FRACTION
    if no_air and shifted >= max(MIN_OFFSET_FRACTION, 2 * _share(values, *OFFSET_GAP)):
        return (
            f"looks like CT stored with an offset of 1024 {shown}: soft tissue lies near 1000 instead of 0. "
            "Subtract 1024 (or set the header's intercept, scl_inter, to -1024); an MR cannot be used."
        )
    central = np.percentile(values, (0.5, 99.5))
    if central[1] - central[0] < MIN_SPAN_HU:
        return (
            f"spans only {central[1] - central[0]:.3g} units {shown}; fat to blood in CT spans more than "
            f"{MIN_SPAN_HU:g} HU. It was normalised or windowed: give the CT in Hounsfield units."
        )
    if _share(values, -np.inf, DARK_HU) < MIN_DARK_FRACTION:
        return (
            f"has no fat, lung or air below {DARK_HU:g} HU {shown}, so it is not CT in Hounsfield units "
            "(an MR, or rescaled?). Give the original CT."
        )
    tissue = _share(values, *TISSUE_HU)
    if tissue < MIN_TISSUE_FRACTION:
        return (
            f"shows no soft tissue: {100 * tissue:.1g} % of it lies in {TISSUE_HU[0]:g}…{TISSUE_HU[1]:g} HU {shown}. "
            "The scan is empty, or 1024 was subtracted twice."
        )
    return None


def _share(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    """Fraction (0…1) of the values from ``low`` to ``high``."""
    return float(((values >= low) & (values <= high)).mean())
