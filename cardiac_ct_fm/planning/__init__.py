"""TAVI planning: the measurements a heart team asks for, from one scan and its landmarks, without torch.

:func:`measure` makes a :class:`Plan`; :mod:`cardiac_ct_fm.planning.export` writes it for tables and for 3D Slicer;
:mod:`cardiac_ct_fm.preview` and :mod:`cardiac_ct_fm.report` show it to people.
"""

from __future__ import annotations

from cardiac_ct_fm.planning.export import export_slicer, measurements_to_csv, measurements_to_json, write_scene
from cardiac_ct_fm.planning.measure import Plan, measure
from cardiac_ct_fm.planning.options import PlanningOptions

__all__ = [
    "Plan",
    "PlanningOptions",
    "export_slicer",
    "measure",
    "measurements_to_csv",
    "measurements_to_json",
    "write_scene",
]
