"""The vocabulary: heads, labels, landmarks, colours and units. Pure data, imports nothing heavy.

Everything else (networks, cohort, reports, command line) reads its names from here, so a structure is
spelled once. Label values and class orders follow the paper's label sets (Tölle et al.,
npj Digital Medicine 2025, 8:88); its "ACC" (the acoronary cusp) is an alias of ``NCC``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cardiac_ct_fm.errors import UnknownNameError

HeadKind = Literal["segmentation", "landmarks"]


@dataclass(frozen=True)
class Structure:
    """One named class of a head.

    Attributes:
        name: short name used in files and tables.
        title: the name written out for people.
        colour: sRGB hex colour used in previews and reports.
    """

    name: str
    title: str
    colour: str


@dataclass(frozen=True)
class HeadSpec:
    """What a head predicts: one background class and ``structures``, in the order of its output channels."""

    name: str
    kind: HeadKind
    title: str
    structures: tuple[Structure, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the structures, without the background; channel ``i + 1`` is ``classes[i]``."""
        return tuple(s.name for s in self.structures)

    @property
    def channels(self) -> int:
        """Output channels, background included."""
        return len(self.structures) + 1


HEADS: dict[str, HeadSpec] = {
    spec.name: spec
    for spec in (
        HeadSpec(
            "heart",
            "segmentation",
            "heart chambers and great vessels",
            (
                Structure("Myo", "left ventricular myocardium", "#c96b5a"),
                Structure("LA", "left atrium", "#f2a33a"),
                Structure("LV", "left ventricle", "#e8473f"),
                Structure("RA", "right atrium", "#5b8def"),
                Structure("RV", "right ventricle", "#3fb6c9"),
                Structure("Aorta", "aortic root and ascending aorta", "#f06fa7"),
                Structure("PA", "pulmonary artery", "#8a7be0"),
            ),
        ),
        HeadSpec(
            "hps",
            "landmarks",
            "hinge points and coronary ostia",
            (
                Structure("RCC", "hinge point of the right coronary cusp", "#ff5d5d"),
                Structure("LCC", "hinge point of the left coronary cusp", "#4dd06a"),
                Structure("NCC", "hinge point of the non-coronary cusp", "#ffd84d"),
                Structure("RCA", "ostium of the right coronary artery", "#ff9a3d"),
                Structure("LCA", "ostium of the left coronary artery", "#39c6f0"),
            ),
        ),
        HeadSpec(
            "ms",
            "landmarks",
            "membranous septum",
            (
                Structure("MS1", "membranous septum at the annulus", "#d58cff"),
                Structure("MS2", "crest of the muscular septum", "#9b59ff"),
            ),
        ),
        HeadSpec(
            "calc",
            "segmentation",
            "aortic valve calcification",
            (Structure("Calc", "calcium of the aortic valve and annulus", "#ffffff"),),
        ),
        HeadSpec(
            "coronaries",
            "segmentation",
            "coronary arteries",
            (Structure("Coronary", "coronary artery lumen", "#ffcc33"),),
        ),
    )
}

ALIASES: dict[str, str] = {"ACC": "NCC", "PT": "PA", "AO": "Aorta", "LM": "LCA", "LCO": "LCA", "RCO": "RCA"}
"""Other people's names for structures of this vocabulary."""

HINGE_POINTS: tuple[str, str, str] = ("RCC", "LCC", "NCC")
OSTIA: tuple[str, str] = ("RCA", "LCA")
SEPTUM: tuple[str, str] = ("MS1", "MS2")
LANDMARKS: tuple[str, ...] = HEADS["hps"].classes + HEADS["ms"].classes
FURTHEST_MM: dict[frozenset[str], float] = {
    frozenset(pair): mm
    for pair, mm in {
        ("RCC", "LCC"): 34.0, ("RCC", "NCC"): 37.0, ("LCC", "NCC"): 36.0, ("RCC", "RCA"): 35.0, ("LCC", "LCA"): 29.0,
        ("LCC", "RCA"): 51.0, ("NCC", "RCA"): 49.0, ("RCC", "LCA"): 45.0, ("NCC", "LCA"): 49.0, ("RCA", "LCA"): 54.0,
        ("MS1", "MS2"): 18.0,
    }.items()
}  # fmt: skip
"""Largest distance of two points of one root: the largest among 200 digital patients (seeds 0–199, strength 1, whose
sizes follow the published spreads) and a quarter more. Pairs that are not listed have no limit."""

FURTHEST_FROM_BOUNDARY_MM: dict[str, float] = {
    "RCC": 31.0, "LCC": 30.0, "NCC": 32.0, "RCA": 46.0, "LCA": 44.0, "MS1": 34.0, "MS2": 39.0,
}  # fmt: skip
"""Largest distance of a point of the root from the middle of the boundary between left ventricle and aorta at 2 mm: the
largest among the same 200 digital patients and a quarter more, and 10 mm for a boundary that is badly seen."""

HEART_LABELS: dict[str, int] = {name: i + 1 for i, name in enumerate(HEADS["heart"].classes)}
"""Voxel values of the heart label map (0 is background)."""

UNITS: dict[str, str] = {"mm": "mm", "mm2": "mm²", "mm3": "mm³", "mL": "mL", "deg": "°", "ratio": "", "HU": "HU"}
"""Unit codes used in files, and how they are printed."""


def canonical(name: str) -> str:
    """The vocabulary's own spelling of a structure name.

    Args:
        name: a structure name or one of :data:`ALIASES`, in any case.

    Raises:
        UnknownNameError: the name is neither a structure nor an alias.
    """
    table = {s.name.lower(): s.name for spec in HEADS.values() for s in spec.structures}
    table |= {alias.lower(): target for alias, target in ALIASES.items()}
    found = table.get(name.strip().lower())
    if found is None:
        raise UnknownNameError("structure", name, sorted({*table.values()}))
    return found


def head_spec(name: str) -> HeadSpec:
    """The built-in head called ``name``.

    Raises:
        UnknownNameError: no such built-in head.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, sorted(HEADS))
    return HEADS[name]


def structure(name: str) -> Structure:
    """The built-in structure called ``name`` (aliases allowed).

    Raises:
        UnknownNameError: no such structure.
    """
    wanted = canonical(name)
    return next(s for spec in HEADS.values() for s in spec.structures if s.name == wanted)


def heads_in_order(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` without repeats, built-in heads first in the vocabulary's order, then the user's own."""
    unique = list(dict.fromkeys(names))
    return tuple([h for h in HEADS if h in unique] + [h for h in unique if h not in HEADS])
