"""What a reader can choose about the measurements, and what each choice rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cardiac_ct_fm.errors import ConfigError

CalciumThreshold = Literal["fixed", "lumen", "label"]
CalciumExtent = Literal["half", "threshold"]
Valve = Literal["unknown", "tricuspid", "bicuspid"]

MAXWELL_MEDIAN = 1.538
"""Median length of a 3-D normal error, in units of its standard deviation along one axis (Maxwell distribution; its
quartiles are 1.101 and 2.027)."""

OBSERVER_SD_MM = 2.0 / MAXWELL_MEDIAN / 2.0**0.5
"""One person's point: two lie 2.0 [1.3–2.8] mm apart (Astudillo et al. 2020), which is √2 of what each is off. Its
quartiles, 0.83 and 0.98 mm by the same reckoning, agree with the median's 0.92: normal errors."""

NETWORK_SD_MM, NETWORK_CONFIDENCE = 1.95 / MAXWELL_MEDIAN, 0.86
"""A hinge point of ``cardiac_swin_tiny`` at 16 250 looks on digital patients that it never saw: median error 1.95
[1.30–3.44] mm (``recipes.benchmarks.heldout``: 12 patients, 34 points), median confidence 0.86 (the tables that the
same run leaves). At 22 000 looks it was 1.82 [1.30–2.37] mm; all by the first look alone.

From the median (1.27 mm), not from the upper quartile (1.70 mm): the tail is no normal error (three of the 34 points
lie 8–11 mm off), and the annulus is less off than it would be. 1.27 mm tells of a median tilt of 5.6° (found: 4.2°), an
offset of 0.5 mm (found: 0.8 mm) and a hinge circle 1.0 mm too wide or too narrow (found: 0.9 mm)."""


@dataclass(frozen=True)
class PlanningOptions:
    """Choices that change a number; all of them are written beside the numbers.

    Attributes:
        supine: whether the patient lies on the back; None reads DICOM's patient position from the scan. C-arm angles
            are withheld unless this is known to be so.
        valve: ``bicuspid`` withholds what is defined by three cusps.
        calcium_threshold: ``fixed`` (``calcium_hu``), ``lumen`` (median of the blood + ``calcium_above_lumen_hu``) or
            ``label`` (all that the calcium label map marks, whatever its HU).
        calcium_extent: how far a deposit that reaches the threshold goes: ``half`` (half-way between it and what lies
            around it, whatever the blur) or ``threshold`` (voxels at the threshold, as published volumes are counted,
            with which ``half`` is not comparable). ``half`` is the default because it is nearer to how much there is
            (digital patients, ``docs/planning.md``).
        calcium_hu: 850 HU, the fixed threshold for contrast CT (in common use, not traced to a page).
        calcium_above_lumen_hu: 100 HU, the adaptive one (the same).
        agatston_hu: 130 HU, Agatston's threshold in scans without contrast (Agatston et al. 1990).
        lvot_depth_mm: level of the outflow tract below the annulus; 3–5 mm is the convention.
        ascending_mm: level of the ascending aorta, along the centreline; 40 mm is where the crown of a
            self-expanding valve ends (textbook value, not traced to a page).
        lvot_calcium_mm: depth of the outflow tract in which calcium counts (textbook value, not traced to a page).
        annulus_band_mm: calcium within this distance of the annulus plane counts as the annulus's (house choice).
        min_confidence: values that rest on a landmark of lower confidence are ``low_confidence`` (house choice: a point
            that is more likely wrong than right).
        landmark_sd_mm: standard deviation, along each axis, of a landmark of confidence 1 and of confidence 0; linear
            in between. A point of confidence 1 is one that a person placed (:data:`OBSERVER_SD_MM`); confidence 0 is
            where the line through it and the network's own error (:data:`NETWORK_SD_MM`) ends. With the second
            look the line says several times too much (``docs/planning.md``), and was left as it is.
        samples: perturbed hinge points for which the annulus contour is traced again; 24 know a standard deviation to
            15 % (house choice).
        seed: of these perturbations.
    """

    supine: bool | None = None
    valve: Valve = "unknown"
    calcium_threshold: CalciumThreshold = "fixed"
    calcium_extent: CalciumExtent = "half"
    calcium_hu: float = 850.0
    calcium_above_lumen_hu: float = 100.0
    agatston_hu: float = 130.0
    lvot_depth_mm: float = 4.0
    ascending_mm: float = 40.0
    lvot_calcium_mm: float = 5.0
    annulus_band_mm: float = 2.0
    min_confidence: float = 0.5
    landmark_sd_mm: tuple[float, float] = (
        round(OBSERVER_SD_MM, 2),
        round(OBSERVER_SD_MM + (NETWORK_SD_MM - OBSERVER_SD_MM) / (1.0 - NETWORK_CONFIDENCE), 2),
    )
    samples: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if self.valve not in ("unknown", "tricuspid", "bicuspid"):
            raise ConfigError(f"valve is {self.valve!r}; choose unknown, tricuspid or bicuspid.")
        if self.calcium_threshold not in ("fixed", "lumen", "label"):
            raise ConfigError(f"calcium_threshold is {self.calcium_threshold!r}; choose fixed, lumen or label.")
        if self.calcium_extent not in ("half", "threshold"):
            raise ConfigError(f"calcium_extent is {self.calcium_extent!r}; choose half or threshold.")
        for name in (
            "calcium_hu",
            "calcium_above_lumen_hu",
            "agatston_hu",
            "lvot_depth_mm",
            "ascending_mm",
            "lvot_calcium_mm",
            "annulus_band_mm",
        ):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive and finite.")
        sds = tuple(self.landmark_sd_mm)
        if len(sds) != 2 or not all(0.0 < sd < float("inf") for sd in sds) or sds[1] < sds[0]:
            raise ConfigError(
                f"landmark_sd_mm is {sds}; give two positive numbers in mm, for confidence 1 and for confidence 0, the "
                "second not below the first."
            )
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ConfigError(f"min_confidence is {self.min_confidence}; it must lie in 0…1.")
        if self.samples < 8:
            raise ConfigError(f"samples is {self.samples}; a standard deviation needs at least 8.")

    def landmark_sd(self, confidence: float) -> float:
        """Standard deviation in mm, along each axis, of a landmark of this confidence."""
        sure, unsure = self.landmark_sd_mm
        return sure + (1.0 - confidence) * (unsure - sure)

    def recorded(self) -> dict[str, Any]:
        """Plain JSON types, for ``measurements.json``."""
        return {
            "supine": self.supine,
            "valve": self.valve,
            "calcium_threshold": self.calcium_threshold,
            "calcium_extent": self.calcium_extent,
            "calcium_hu": self.calcium_hu,
            "calcium_above_lumen_hu": self.calcium_above_lumen_hu,
            "agatston_hu": self.agatston_hu,
            "lvot_depth_mm": self.lvot_depth_mm,
            "ascending_mm": self.ascending_mm,
            "lvot_calcium_mm": self.lvot_calcium_mm,
            "annulus_band_mm": self.annulus_band_mm,
            "min_confidence": self.min_confidence,
            "landmark_sd_mm": list(self.landmark_sd_mm),
            "samples": self.samples,
            "seed": self.seed,
        }
