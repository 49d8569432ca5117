"""Pictures of the robustness benchmark: error, confidence and Dice by condition, and what a confidence is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.training.summary import GROUPS, WRONG_MM
from recipes.benchmarks.robustness_cases import CONDITIONS, UNCHANGED
from recipes.benchmarks.robustness_numbers import SHOWN, SUREST

LIMIT_MM = 10.0
"""Upper end of the axes of errors; what lies beyond, or was missed by more than half, is drawn there as a triangle."""

COLUMNS = 4
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#333333")
"""Blue, vermilion and green that all common kinds of colour vision tell apart (Okabe and Ito), and a dark grey."""
DICE_COLOURS = ("#7b3294", "#b07d00", "#555555")
FAINT = "#9a9a9a"
DPI = 110

Figures = Mapping[str, Any]
Reading = Callable[[Figures, str], float | None]


def draw_robustness(result: Mapping[str, Any], path: Path) -> None:
    """Small multiples: a column per condition; below each other median error, mean confidence and median Dice.

    Args:
        result: ``about`` and ``settings``.
        path: the PNG.
    """
    figures: list[Figures] = result["settings"]
    base = next(f for f in figures if f["condition"] == UNCHANGED.condition)
    present = dict.fromkeys(f["condition"] for f in figures if f is not base)
    graded = [name for name in present if CONDITIONS[name].axis]
    plain = [name for name in present if not CONDITIONS[name].axis]
    own = {name: " (own: each patient's)" if CONDITIONS[name].unchanged is None else "" for name in graded}
    panels = [(CONDITIONS[n].title, CONDITIONS[n].axis + own[n], _graded(figures, base, n)) for n in graded]
    if plain:
        named = [(CONDITIONS[n].title.replace(" ", "\n", 1), f) for n in plain for f in figures if f["condition"] == n]
        panels.append(
            ("Implants and valve", "", [("unchanged", 0.0, base), *((t, i, f) for i, (t, f) in enumerate(named, 1))])
        )
    columns = max(1, min(COLUMNS, len(panels)))
    blocks = max(1, math.ceil(len(panels) / columns))
    picture = Figure(figsize=(1.2 + 2.9 * columns, 0.9 + 6.0 * blocks), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots(3 * blocks, columns, squeeze=False, sharey="row")
    for number, (title, axis, points) in enumerate(panels):
        column = axes[3 * (number // columns) : 3 * (number // columns) + 3, number % columns]
        joined = bool(axis)
        _curves(column[0], points, GROUPS, _error, joined)
        _curves(column[1], points, GROUPS, _confidence, joined)
        _curves(column[2], points, SHOWN, _dice, joined)
        column[0].axhline(WRONG_MM, color=FAINT, linewidth=0.8, linestyle=":")
        column[0].set_ylim(0, LIMIT_MM * 1.04)
        column[1].set_ylim(0, 1.02)
        column[2].set_ylim(0, 1.02)
        column[0].set_title(title, fontsize=10)
        column[2].set_xlabel(axis, fontsize=9)
        for row, label in enumerate(
            (f"median error, mm\n(▲: {LIMIT_MM:g} and more, or missed)", "mean confidence", "median Dice")
        ):
            _tidy(column[row], points, row == 2)
            if number % columns == 0:
                column[row].set_ylabel(label, fontsize=9)
    for place in axes.flat:
        if not place.has_data():
            place.set_visible(False)
    _legend(picture, axes[0, 0], axes[2, 0])
    about = result["about"]
    picture.suptitle(
        f"{about['model']}: held-out digital patients (n = {about['patients']}) under one changed condition "
        f"at a time (dotted: {WRONG_MM:g} mm)",
        fontsize=12,
    )
    _save(picture, path)


Point = tuple[str, float, Figures]
"""Label of the tick, place along the axis, figures."""


def _graded(figures: Sequence[Figures], base: Figures, name: str) -> list[Point]:
    """The levels of a condition in order; the unchanged scan comes first, as ``own``, where it has no level."""
    own = CONDITIONS[name].unchanged
    levels = [(f"{f['level']:g}", float(f["level"]), f) for f in figures if f["condition"] == name]
    if own is not None:
        return sorted([*levels, (f"{own:g}", float(own), base)], key=lambda point: point[1])
    return [("own", 0.0, base), *sorted(levels, key=lambda point: point[1])]


def _error(figures: Figures, group: str) -> float | None:
    points = figures["points"][group]
    if not points["asked"]:
        return None
    return math.inf if points["median_mm"] is None else float(points["median_mm"])


def _confidence(figures: Figures, group: str) -> float | None:
    value: float | None = figures["points"][group]["confidence"]
    return value


def _dice(figures: Figures, group: str) -> float | None:
    value: float | None = figures["dice_pooled"][group]
    return value


def _curves(axes: Axes, points: Sequence[Point], groups: Mapping[str, Any], read: Reading, joined: bool) -> None:
    """One curve per group; a level of which nothing can be said is left out."""
    colours, marker = (DICE_COLOURS, "s") if groups is SHOWN else (COLOURS, "o")
    for number, group in enumerate(groups):
        known = [(label, at, read(figures, group)) for label, at, figures in points]
        shift = 0.0 if joined else 0.12 * (number - 1)
        places = [(at + shift, value, label) for label, at, value in known if value is not None]
        colour = colours[number]
        line = [(at, min(value, LIMIT_MM)) for at, value, label in places if label != "own"]
        if joined:
            axes.plot(*zip(*line, strict=True) if line else ([], []), color=colour, linewidth=1.4)
        for at, value, label in places:
            beyond = value > LIMIT_MM
            face = "white" if label == "own" else colour
            axes.plot(
                at, min(value, LIMIT_MM), "^" if beyond else marker, color=colour, markerfacecolor=face,
                markersize=7 if beyond else 4.5, clip_on=False,
            )  # fmt: skip


def _tidy(axes: Axes, points: Sequence[Point], bottom: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xticks([at for _, at, _ in points], [label if bottom else "" for label, _, _ in points])
    places = [at for _, at, _ in points]
    room = 0.5 if points[0][0] == UNCHANGED.condition else 0.08 * (max(places) - min(places))
    axes.set_xlim(min(places) - room, max(places) + room)


def _legend(picture: Figure, errors: Axes, overlaps: Axes) -> None:
    """Names of the curves below the picture: points first, then structures."""
    for axes, groups, colours, marker, what in (
        (errors, GROUPS, COLOURS, "o", ""),
        (overlaps, SHOWN, DICE_COLOURS, "s", "Dice: "),
    ):
        for number, group in enumerate(groups):
            axes.plot([], [], marker=marker, color=colours[number], markersize=4.5, label=f"{what}{group}")
    handles = [h for axes in (errors, overlaps) for h in axes.get_legend_handles_labels()[0]]
    picture.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=9, frameon=False)


def draw_calibration(result: Mapping[str, Any], path: Path) -> None:
    """Three panels: share of right points by confidence, failures among the surest, confidence against error.

    Args:
        result: ``calibration``, ``selective_curve``, ``settings`` and ``spearman``.
        path: the PNG.
    """
    picture = Figure(figsize=(13.0, 4.4), layout="constrained")
    FigureCanvasAgg(picture)
    bins, kept, moved = picture.subplots(1, 3)
    _reliability(bins, result["calibration"]["all points"])
    _surest(kept, result["selective_curve"])
    _together(moved, result["settings"], result["spearman"])
    for axes in (bins, kept, moved):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    _save(picture, path)


def _reliability(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    axes.plot([b["confidence"] for b in rows], [b["within"] for b in rows], "o-", color=COLOURS[0], markersize=5)
    for b in rows:
        axes.annotate(
            str(b["points"]), (b["confidence"], b["within"]), (8, -4), textcoords="offset points",
            ha="left", fontsize=8, color=COLOURS[3],
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    axes.set_xlabel("confidence of a point", fontsize=9)
    axes.set_ylabel(f"share within {WRONG_MM:g} mm", fontsize=9)
    axes.set_title(
        "How often a point is right, by its confidence\n(numbers: points; dotted: confidence and share alike)",
        fontsize=10,
    )


def _surest(axes: Axes, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    names = [*GROUPS, "all points"]
    for number, group in enumerate(names):
        known = [(c["share"], 1 - c["kept"]["within"]) for c in curves[group] if c["kept"]["within"] is not None]
        if known:
            width = 2.0 if group == "all points" else 1.4
            shares, failures = ([100 * pair[i] for pair in known] for i in range(2))
            axes.plot(shares, failures, label=group, linewidth=width, color=COLOURS[number])
    axes.axvline(100 * SUREST, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlim(100, 50)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the points that is kept, the surest, %", fontsize=9)
    axes.set_ylabel(f"of these beyond {WRONG_MM:g} mm or missed, %", fontsize=9)
    axes.set_title(f"Leaving out the least sure\n(dotted: the surest {SUREST:.0%} are kept)", fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _together(axes: Axes, figures: Sequence[Figures], ranks: Mapping[str, Mapping[str, Any]]) -> None:
    for number, group in enumerate(GROUPS):
        known = [(_confidence(f, group), _error(f, group)) for f in figures]
        places = [(sure, min(error, LIMIT_MM)) for sure, error in known if sure is not None and error is not None]
        rho = ranks[group]["median_error"]
        label = group if rho is None else f"{group}: rank correlation {rho:+.2f}"
        axes.plot(
            *zip(*places, strict=True) if places else ([], []),
            "o",
            color=COLOURS[number],
            markersize=5,
            alpha=0.75,
            label=label,
        )
    axes.set(xlim=(0, 1), ylim=(0, LIMIT_MM * 1.04))
    axes.set_xlabel("mean confidence under a condition", fontsize=9)
    axes.set_ylabel(f"median error, mm (top: {LIMIT_MM:g} and more, or missed)", fontsize=9)
    axes.set_title("Is it less sure where it is worse?\n(one dot per condition and level)", fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _save(picture: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        picture.savefig(temporary, format="png", dpi=DPI)
