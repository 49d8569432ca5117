"""``report.html``: the measurements of one scan for people, in one file that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.report.page import DISCLAIMER, build_page
from cardiac_ct_fm.report.pictures import draw_pictures
from cardiac_ct_fm.result import Measurement
from cardiac_ct_fm.volume_io import Volume

__all__ = ["DISCLAIMER", "write_report"]


def write_report(
    path: str | Path,
    volume: Volume,
    plan: Plan,
    *,
    measurements: Mapping[str, Measurement] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write ``report.html``.

    Args:
        path: the file.
        volume: the scan in HU.
        plan: what :func:`cardiac_ct_fm.planning.measure` made of it.
        measurements: all measurements, when there are more than the plan's own (volumes of chambers).
        facts: rows of the box "How this was made", name → value: model, version, date.
        warnings: further sentences for the reader.

    Returns:
        ``path``.

    Raises:
        OutputError: the file system refuses.
    """
    rows = plan.measurements if measurements is None else measurements
    page = build_page(volume, plan, rows, draw_pictures(volume, plan), facts or {}, warnings)
    target = Path(path)
    with atomic_write(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target
