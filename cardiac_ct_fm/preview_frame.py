"""What stands around the panels of ``preview.png``: scan, model, disclaimer, legend, and what a reader checks first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cardiac_ct_fm.landmark_pictures import legend_mark
from cardiac_ct_fm.render2d import INK
from cardiac_ct_fm.volume_io import Volume

DISCLAIMER = "Research use only. Not a medical device."
GROUND = "#0b0e13"
QUIET = "#8b96a5"
LOUD = "#ffb86b"
RING = "#7df0c8"
"""Colour of the annulus contour: none of the vocabulary's, so that it is not taken for a label."""

HASH_DIGITS = 8
"""Hexadecimal digits of a sha256 that tell files apart for people; ``run.json`` has all 64."""

FILES_NAMED = 3
"""So many files of weights are named by their digits; large models have more."""


def draw_frame(figure: Figure, volume: Volume, run: Mapping[str, Any]) -> None:
    """Title, disclaimer, and the line that says what was looked at with which weights."""
    high = figure.get_size_inches()[1]
    top, line = 1 - 0.27 / high, 1 - 0.51 / high
    figure.text(0.008, top, volume.name, color=INK, fontsize=15, fontweight="bold", va="center")
    figure.text(0.992, top, DISCLAIMER, color=LOUD, fontsize=12, fontweight="bold", va="center", ha="right")
    spacing = " × ".join(f"{s:.2f}" for s in volume.grid.spacing)
    facts = ["cardiac-ct-fm", f"voxels {spacing} mm", *_made_with(run)]
    figure.text(0.008, line, "   ".join(facts), color=QUIET, fontsize=9.5, va="center")


def _made_with(run: Mapping[str, Any]) -> list[str]:
    """Model, quality and weights, these by the first digits of their files' sha256; nothing without a model."""
    if not run.get("model"):
        return []
    digests = [str(digest)[:HASH_DIGITS] for digest in (run.get("weights_sha256") or {}).values()]
    more = len(digests) - FILES_NAMED
    named = digests[:FILES_NAMED] + ([f"{more} more"] if more > 0 else [])
    quality = [f"quality {run['quality']}"] if run.get("quality") else []
    return [str(run["model"]), *quality, f"weights {' + '.join(named)}" if named else "weights of no file"]


def draw_legend(
    figure: Figure,
    outlines: Mapping[str, tuple[str, str]],
    ring: bool,
    points: Mapping[str, str],
    unsure: Mapping[str, float],
    limit: float,
) -> None:
    """A legend of what the panels show, in as few rows as the picture's width allows.

    Args:
        figure: with its panels drawn: what is in none of them is left out.
        outlines: ``gid`` of what was drawn of a label → its colour and name.
        ring: whether the annulus contour was drawn.
        points: name → colour.
        unsure: confidence of the points that are drawn as rings.
        limit: confidence below which a point is unsure.
    """
    drawn = {artist.get_gid() for ax in figure.axes for artist in ax.get_children()}
    lines = [(colour, name) for key, (colour, name) in outlines.items() if key in drawn]
    lines += [(RING, "annulus contour")] if ring else []
    handles = [Line2D([], [], color=colour, linewidth=2.5, label=name) for colour, name in lines]
    handles += [legend_mark(colour, n in unsure, n) for n, colour in points.items() if n in drawn]
    if unsure.keys() & drawn:
        handles.append(legend_mark(QUIET, True, f"unsure (confidence below {limit:g})"))
    place = {"loc": "lower left", "bbox_to_anchor": (0.004, 0.26 / figure.get_size_inches()[1])}
    look = {"frameon": False, "columnspacing": 1.2, "borderpad": 0.2, "labelcolor": INK, "fontsize": 10}
    for rows in range(1, len(handles) + 1):
        legend = figure.legend(handles=handles, ncol=-(-len(handles) // rows), **place, **look)
        if legend.get_window_extent().x1 <= figure.bbox.x1 or rows == len(handles):
            break
        legend.remove()


def draw_notes(figure: Figure, missing: Sequence[str], unsure: Mapping[str, float], messages: Iterable[str]) -> None:
    """The last line: what was not found, what is unsure and how much, and what else a reader has to know."""
    notes = [f"Not found: {', '.join(missing)}."] if missing else []
    notes += [f"Unsure: {', '.join(f'{n} {c:.2f}' for n, c in unsure.items())}."] if unsure else []
    text = _short(" ".join([*notes, *messages]), 230)
    foot = 0.165 / figure.get_size_inches()[1]
    figure.text(0.008, foot, text, color=LOUD, fontsize=9.5, va="center")


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"
