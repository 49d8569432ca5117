"""The calcium measurements: which threshold, which part of the root, how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.annulus import Annulus
from cardiac_ct_fm.planning.calcium import Deposits, agatston, find_deposits, root_box
from cardiac_ct_fm.planning.centreline import Centreline
from cardiac_ct_fm.planning.edges import MIN_CONTRAST_HU
from cardiac_ct_fm.planning.levels import RootLevels
from cardiac_ct_fm.planning.planes import Finding, Sampler
from cardiac_ct_fm.planning.sheet import Doubt, Sheet, Status
from cardiac_ct_fm.planning.values import CUSPS, SCAN_ENDS
from cardiac_ct_fm.volume_io import Volume

SINUS_HEIGHT_RATIO = 1.69
"""Height of the sinuses over the annulus radius (1.69 ± 0.18; Koshkelashvili et al., Monaldi Arch Chest Dis 2019): the
valve's upper end where the junction is not seen."""

CORE_NOISE = 4.0
"""Standard deviations of noise above the blood: one voxel in 30 000 of pure noise, about as many as a root has."""

SECTOR_DRAWS = 100
"""Drawn hinge points for the doubt of the volumes per cusp; it is then known to 7 % (house choice)."""


def calcium_values(
    sheet: Sheet,
    annulus: Annulus,
    doubt: Doubt,
    line: Centreline | None,
    levels: RootLevels | None,
    volume: Volume,
    labels: npt.NDArray[np.uint8] | None,
) -> tuple[Deposits | None, list[float] | None]:
    """Enter the calcium of the valve, its cusps, the annulus and the outflow tract.

    Returns:
        The calcium of the root at or above the threshold, and its mm³ per 30° around the annulus (see
        :meth:`Deposits.clock`); None when it was not measured.
    """
    found = None if line is None else root_box(line, volume.grid)
    if line is None or levels is None or found is None:
        why = Finding("no_centreline", "Without the lumen's contours it is unknown which calcium is the valve's.")
        sheet.miss_all("calcium_", "not_found", why)
        return None, None
    box, grid = found
    image = np.asarray(volume.data[box], dtype=np.float32)
    marked = None if labels is None else labels[box] > 0
    lumen_hu, noise = blood(Sampler(volume.data, volume.grid), line)
    contrast = lumen_hu >= MIN_CONTRAST_HU
    threshold, doubts = _threshold(sheet, lumen_hu, noise, contrast, marked is not None)
    if threshold is None:
        sheet.miss_all("calcium_", "not_found", doubts[0])
        return None, None
    kind = sheet.options.calcium_threshold if contrast else "agatston"
    half = contrast and np.isfinite(threshold) and sheet.options.calcium_extent == "half"
    facts: dict[str, Any] = {
        "threshold_hu": round(threshold, 1) if np.isfinite(threshold) else None,
        "threshold_kind": kind,
    }
    facts |= {"lumen_hu": round(lumen_hu, 1), "noise_hu": round(noise, 1), "from_labels": marked is not None}
    facts["extent"] = "half" if half else "threshold" if np.isfinite(threshold) else "label"
    core = core_hu(kind, threshold, lumen_hu, noise) if half else threshold
    if half:
        facts["core_hu"] = round(core, 1)
    if np.isfinite(threshold):
        sheet.put(
            "calcium_threshold_hu",
            threshold,
            noise if kind == "lumen" else None,
            uses=(),
            details={key: facts[key] for key in ("threshold_kind", "extent", "core_hu") if key in facts},
        )
    else:
        sheet.miss(
            "calcium_threshold_hu", "not_found", Finding("no_threshold", "The label map was used whatever the HU.")
        )
    around = lumen_hu if half else None
    deposits = find_deposits(image, grid, marked, core, line, blood_hu=around, margin_hu=noise)
    # Which deposits there are hangs on the noise as much as how far they reach: a peak at the threshold is all or none.
    others = [find_deposits(image, grid, marked, core + d, line, blood_hu=around) for d in (-noise, noise) if half]
    top = levels.stj.s_mm if levels.stj is not None else SINUS_HEIGHT_RATIO * annulus.circle_mm / 2.0
    _volumes(sheet, annulus, doubt, line, deposits, others, noise, top, doubts, facts)
    if contrast:
        why = Finding("contrast_enhanced", "Agatston's score is defined for scans without contrast.")
        sheet.miss("calcium_agatston", "not_found", why)
    else:
        index = np.round(grid.voxel(deposits.ras[(deposits.s_mm >= 0) & (deposits.s_mm <= top)])).astype(int)
        mask = np.zeros(grid.shape, bool)
        mask[tuple(index.T)] = True
        sheet.put(
            "calcium_agatston", agatston(mask & (image >= threshold), image, grid), None, doubts=doubts, details=facts
        )
    centre = annulus.plane.origin
    band, normal = sheet.options.annulus_band_mm, annulus.plane.normal
    return deposits.counted(), deposits.clock(band, centre, annulus.hinges[0], normal)


def core_hu(kind: str, threshold: float, lumen_hu: float, noise: float) -> float:
    """HU from which a voxel is a deposit's core: the threshold; the adaptive one clear of the blood's own noise.

    A voxel of noise that is taken for a core grows to half-way to the blood, so a few of them make a volume.
    """
    return max(threshold, lumen_hu + CORE_NOISE * noise) if kind == "lumen" else threshold


def blood(image: Sampler, line: Centreline) -> tuple[float, float]:
    """Median HU of the root's lumen and its noise: 1.4826 times the median absolute deviation within each section."""
    medians, spreads = [], []
    for section in line.sections[:: max(1, len(line.sections) // 12)]:
        contour = section.contour
        shares = np.array([0.1, 0.25, 0.4, 0.55])[:, None, None]
        # Voxels themselves: interpolation would average the noise away.
        values = image.voxels(contour.plane.world(shares * contour.xy))
        if values.size:
            middle = float(np.median(values))
            medians.append(middle)
            spreads.append(1.4826 * float(np.median(np.abs(values - middle))))
    return (float(np.median(medians)), float(np.median(spreads))) if medians else (float("nan"), float("nan"))


def _threshold(
    sheet: Sheet, lumen_hu: float, noise: float, contrast: bool, labelled: bool
) -> tuple[float | None, list[Finding]]:
    """The threshold in HU (−inf for the label map as it is) and what makes it doubtful; None with the reason."""
    options = sheet.options
    if not np.isfinite(lumen_hu):
        return None, [Finding("no_lumen_edge", "The blood of the root could not be sampled.")]
    if not contrast:
        return options.agatston_hu, []
    if options.calcium_threshold == "label":
        if not labelled:
            return None, [
                Finding("no_calcium_labels", "calcium_threshold is 'label' but there is no calcium label map.")
            ]
        return -float("inf"), []
    threshold = options.calcium_hu
    if options.calcium_threshold == "lumen":
        threshold = lumen_hu + options.calcium_above_lumen_hu
    clear = options.calcium_threshold == "lumen" and options.calcium_extent == "half"
    if threshold < lumen_hu + 3.0 * noise and not labelled and not clear:
        text = (
            f"The threshold of {threshold:.0f} HU is within three standard deviations of noise ({noise:.0f} HU) above "
            f"the blood ({lumen_hu:.0f} HU): contrast is counted as calcium."
        )
        return threshold, [Finding("threshold_in_contrast", text)]
    return threshold, []


def _volumes(
    sheet: Sheet,
    annulus: Annulus,
    doubt: Doubt,
    line: Centreline,
    deposits: Deposits,
    others: Sequence[Deposits],
    noise: float,
    top: float,
    doubts: Sequence[Finding],
    facts: Mapping[str, Any],
) -> None:
    """Volumes by zone and cusp; their doubt is what the noise does to levels and cores, and the points to the sectors.

    Args:
        sheet: where they are entered.
        annulus: its plane and hinge points.
        doubt: drawn hinge points.
        line: the centreline.
        deposits: calcium of the root.
        others: the same with the cores' threshold lower and higher by the noise; none where there are no cores.
        noise: one standard deviation, HU.
        top: upper end of the valve along the line, mm.
        doubts: reasons to mark the volumes.
        facts: told with every volume.
    """
    band, depth = sheet.options.annulus_band_mm, sheet.options.lvot_calcium_mm
    zones = {"valve": (0.0, top), "annulus": (-band, band), "lvot": (-depth, 0.0)}
    for zone, (low, high) in zones.items():
        cut = _cut(line, low, high)
        if cut is not None:
            sheet.miss(f"calcium_{zone}_mm3", *cut)
            continue
        by_level = [deposits.volume(shift, low, high) for shift in (-noise, noise)]
        by_core = [other.volume(0.0, low, high) for other in others]
        sheet.put(
            f"calcium_{zone}_mm3",
            deposits.volume(0.0, low, high),
            float(np.hypot(_half_range(by_level), _half_range(by_core))),
            doubts=doubts,
            details={**facts, "from_mm": low, "to_mm": round(high, 1)},
        )
    cut = _cut(line, 0.0, top)
    if cut is not None:
        for cusp in CUSPS:
            sheet.miss(f"calcium_{cusp}_mm3", *cut)
        return

    def shares(own: Deposits, shift: float, hinges: FloatArray, normal: FloatArray) -> FloatArray:
        return own.per_cusp(shift, 0.0, top, hinges.mean(axis=0), hinges, normal)

    here = annulus.hinges, annulus.plane.normal
    amounts = shares(deposits, 0.0, *here)
    levels_sd = _half_range([shares(deposits, shift, *here) for shift in (-noise, noise)])
    cores_sd = _half_range([shares(other, 0.0, *here) for other in others])
    drawn = zip(doubt.hinges[:SECTOR_DRAWS], doubt.normals[:SECTOR_DRAWS], strict=True)
    points_sd = np.std([shares(deposits, 0.0, hinges, normal) for hinges, normal in drawn], axis=0)
    sd = np.sqrt(levels_sd**2 + cores_sd**2 + points_sd**2)
    for i, cusp in enumerate(CUSPS):
        sheet.put(f"calcium_{cusp}_mm3", float(amounts[i]), float(sd[i]), doubts=doubts, details=facts)


def _half_range(amounts: Sequence[float] | Sequence[FloatArray]) -> FloatArray:
    """Half of what two amounts differ by: one standard deviation, as they are taken one below and one above; or 0."""
    low, high = amounts or (0.0, 0.0)
    result: FloatArray = np.abs(np.asarray(low) - np.asarray(high)) / 2.0
    return result


def _cut(line: Centreline, low: float, high: float) -> tuple[Status, Finding] | None:
    """Status and reason when the centreline does not cover a zone (one section of 1 mm may be missing)."""
    lost = Finding("lumen_lost", "The lumen could not be followed through the whole zone.")
    if line.levels.min() > low + 2.0:
        return ("truncated", SCAN_ENDS) if line.ended_below == "truncated" else ("not_found", lost)
    if line.levels.max() < high - 2.0:
        return ("truncated", SCAN_ENDS) if line.ended_above == "truncated" else ("not_found", lost)
    return None
