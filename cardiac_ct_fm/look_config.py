"""Looks: the windows in which a model sees a scan, coarse to fine, and those of the published models. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from cardiac_ct_fm.errors import ConfigError

LookName = Literal["locate", "heart", "root", "detail"]


@dataclass(frozen=True)
class LookConfig:
    """One look at the scan: a cubic window at one spacing.

    Attributes:
        name: ``locate`` (where is the heart), ``heart`` (chambers, where is the root), ``root``, or ``detail``: as fine
            as ``root`` over all chambers, for a head that needs it there; models have it only with such a head.
        spacing_mm: isotropic voxel size.
        window: edge length in voxels.
        heads: heads that are read from this look.
    """

    name: LookName
    spacing_mm: float
    window: int
    heads: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.name not in get_args(LookName):
            raise ConfigError(f"A look cannot be called {self.name!r}; choose {', '.join(get_args(LookName))}.")
        whole = isinstance(self.window, int) and not isinstance(self.window, bool)
        if not 0 < self.spacing_mm < math.inf or not whole or self.window < 1:
            raise ConfigError(
                f"look {self.name!r} has a window of {self.window} voxels of {self.spacing_mm} mm; give sizes above 0, "
                "in whole voxels."
            )

    @property
    def extent_mm(self) -> float:
        """Edge length of the window in mm."""
        return self.spacing_mm * self.window


DEFAULT_LOOKS: tuple[LookConfig, ...] = (
    LookConfig("locate", 4.0, 96, ("heart",)),
    LookConfig("heart", 2.0, 96, ("heart", "hps", "ms")),
    LookConfig("root", 1.0, 96, ("heart", "hps", "ms", "calc")),
)
"""Windows of 96³ voxels: 384, 192 and 96 mm; longer scans and hearts take more than one."""

COMPACT_LOOKS: tuple[LookConfig, ...] = (
    LookConfig("locate", 4.0, 64, ("heart",)),
    LookConfig("heart", 2.0, 80, ("heart", "hps", "ms")),
    LookConfig("root", 1.0, 64, ("heart", "hps", "ms", "calc")),
)
"""Smaller windows for training and predicting on two cores: 256, 160 and 64 mm; longer scans and hearts take more, and
the root's 80 mm eight."""
