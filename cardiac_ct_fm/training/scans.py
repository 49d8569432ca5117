"""A scan with its reference: what evaluation measures against and fine-tuning learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.result import LabelMap
from cardiac_ct_fm.volume_io import Volume


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan and what is known of it.

    Attributes:
        volume: the scan.
        name: unique in its data set.
        patient: whose it is; scans of one patient are never in training and validation.
        site: where it was made, empty when unknown.
        landmarks: head → name → point; points that the scan does not show are there as not found.
        label_maps: head → (X, Y, Z) uint8 on the scan's grid.
        classes: head → names of the label map's values from 1 on.
        facts: anything else worth a column (sex, template, contrast, …).
    """

    volume: Volume
    name: str
    patient: str
    site: str = ""
    landmarks: Mapping[str, Mapping[str, Landmark]] = field(default_factory=dict)
    label_maps: Mapping[str, LabelMap] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
