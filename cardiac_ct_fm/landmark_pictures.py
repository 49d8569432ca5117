"""Landmarks in pictures: a dot where a point is sure, an open ring where it is not, and its name beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from cardiac_ct_fm.anatomy import structure
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.render2d import SHADE, View, outline

NEAR_MM = 3.0
"""A point this close to the plane is drawn in full size; farther ones are smaller, and their name says how far."""

FAR_MM = 6.0
"""Points farther away are not drawn: they would be mistaken for points of the plane."""

PLACES_PT = tuple((8.0 * x, y) for up in (4.0, 12.0, 22.0, 34.0) for x in (1, -1) for y in (up, -up))
"""Where a point's name may stand, in points from it, the usual place first (layout, a house choice)."""

DOT = 52.0
"""Area of a dot in square points, as matplotlib counts it (layout, a house choice, as are the factors below)."""

RING_SHARE, OFF_SHARE = 1.9, 0.5
"""A ring is larger than a dot, so that what lies in it can be seen; what is off the plane is smaller."""

RING_PT, RIM_PT = 1.8, 0.9
"""Width of a ring, and of the dark rim that keeps dots and rings legible on bright blood, in points."""


def draw_points(
    ax: Axes,
    view: View,
    points: Mapping[str, FloatArray],
    size: float = DOT,
    colours: Mapping[str, str] | None = None,
    unsure: Collection[str] = (),
) -> None:
    """Draw landmarks: small when farther than :data:`NEAR_MM` from the plane, none beyond :data:`FAR_MM`.

    A point that is sure is filled; one that is not is an open ring, and a question mark follows its name. Names
    keep clear of the lines and texts that are there: draw those first. Each mark has its point's name as ``gid``.

    Args:
        ax: where.
        view: the plane.
        points: name → (3,) RAS mm.
        size: of a dot.
        colours: of points that the vocabulary does not know, and of any that are to look otherwise.
        unsure: names of points of low confidence.
    """
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    shown: dict[str, tuple[float, float]] = {}
    for name, ras in points.items():
        away = abs(float(view.distance(ras)))
        x, y = (float(v) for v in view.project(ras))
        if away > FAR_MM or not (x0 < x < x1 and y0 < y < y1):
            continue
        shown[name] = (x, y)
        scale = size if away <= NEAR_MM else OFF_SHARE * size
        colour, ring = _colour(name, colours), name in unsure
        area, face, rim = (RING_SHARE * scale, "none", colour) if ring else (scale, colour, colour)
        mark = ax.scatter([x], [y], s=area, facecolors=face, edgecolors=rim, linewidths=RING_PT * ring, gid=name)
        wide = 2.0 * RIM_PT + RING_PT * ring
        mark.set(zorder=5, path_effects=[Stroke(linewidth=wide, foreground=SHADE), Normal()])
    for name, at in shown.items():
        away = abs(float(view.distance(points[name])))
        near = away <= NEAR_MM
        label = f"{name}?" if name in unsure else name
        label = label if near else f"{label}, {away:.0f} mm off"
        text = ax.annotate(label, at, xytext=PLACES_PT[0], textcoords="offset points", zorder=6, fontweight="bold")
        text.set(color=lighter(_colour(name, colours)), fontsize=11 if near else 9.5, path_effects=outline(3.2))
        _step_aside(ax, text, np.array(list(shown.values())), float(np.sqrt(RING_SHARE * size)) / 2.0)


def legend_mark(colour: str, unsure: bool, label: str) -> Line2D:
    """A point for a legend, as :func:`draw_points` draws it."""
    side = float(np.sqrt(DOT * RING_SHARE if unsure else DOT))
    face, width = ("none", RING_PT) if unsure else (colour, 0.0)
    mark = Line2D([], [], marker="o", markersize=side, markerfacecolor=face, markeredgecolor=colour, label=label)
    mark.set(linestyle="none", markeredgewidth=width)
    return mark


def lighter(colour: str) -> tuple[float, float, float]:
    """A colour half-way to white (sRGB 0…1): letters of it can be read on grey and on black."""
    red, green, blue = ((1.0 + part) / 2.0 for part in to_rgb(colour))
    return red, green, blue


def _colour(name: str, colours: Mapping[str, str] | None) -> str:
    return colours[name] if colours and name in colours else str(structure(name).colour)


def _step_aside(ax: Axes, text: Annotation, dots: FloatArray, radius_pt: float) -> None:
    """Put a point's name where it stays in the picture and covers no other name, no mark and no line, if it can.

    Args:
        ax: whose lines and texts are there already.
        text: the name.
        dots: (N, 2) places of all points in data coordinates.
        radius_pt: radius of the largest mark, in points.
    """
    reach = radius_pt * float(ax.figure.dpi) / 72.0
    marks = [Bbox([xy - reach, xy + reach]) for xy in ax.transData.transform(dots)]
    others = [other.get_window_extent() for other in ax.texts if other is not text]
    lines = [line.get_path().transformed(line.get_transform()) for line in ax.lines]

    def put(place: tuple[float, float]) -> None:
        text.set(ha="left" if place[0] > 0 else "right", va="bottom" if place[1] > 0 else "top")
        text.set_position(place)

    def covered(place: tuple[float, float]) -> tuple[bool, int, int]:
        put(place)
        box = text.get_window_extent().padded(2.0)
        outside = box.x0 < ax.bbox.x0 or box.x1 > ax.bbox.x1 or box.y0 < ax.bbox.y0 or box.y1 > ax.bbox.y1
        things = sum(bool(box.overlaps(other)) for other in [*others, *marks])
        return outside, things, sum(bool(line.intersects_bbox(box, filled=False)) for line in lines)

    costs = []
    for place in PLACES_PT:
        costs.append(covered(place))
        if not any(costs[-1]):
            break  # nothing is better, and every try lays the text out anew
    put(PLACES_PT[costs.index(min(costs))])
