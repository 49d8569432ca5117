"""The plots of the report as SVG: sharp at any size, coloured by the page's own style sheet, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.report.figures import LEVELS

WIDTH, HEIGHT = 560, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 18, 46
"""Pixels of a plot and of its margins (layout, a house choice)."""

ROW = 15
"""Pixels from one name of a level to the next (layout, a house choice)."""

S_LAO, S_CRAN = 60.0, 50.0
"""Range of the S-curve's axes: what a C-arm can usually reach (house choice)."""

VIEW_TITLES = {"three_cusp": "three-cusp", "cusp_overlap": "cusp overlap"}


class Frame:
    """Axes of one plot: data to pixels, grid, labels.

    Args:
        x: lowest and highest value along the bottom.
        y: lowest and highest value up.
        top: pixels above the drawing.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], top: int = TOP) -> None:
        self.x, self.y, self.top = x, y, top
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        px = LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - (y - self.y[0]) / (self.y[1] - self.y[0]) * (HEIGHT - self.top - BOTTOM)
        return px, py

    def grid(self, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str) -> None:
        """Grid lines with numbers, and the names of the axes."""
        for x in xs:
            px, _ = self.at(x, 0.0)
            kind = "axis" if x == 0 else "grid"
            self.parts.append(
                f'<line class="{kind}" x1="{px:.1f}" x2="{px:.1f}" y1="{self.top}" y2="{HEIGHT - BOTTOM}"/>'
            )
            self.text(px, HEIGHT - BOTTOM + 16, f"{x:g}", "tick", "middle")
        for y in ys:
            _, py = self.at(0.0, y)
            kind = "axis" if y == 0 else "grid"
            self.parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
            self.text(LEFT - 7, py + 4, f"{y:g}", "tick", "end")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, "name", "middle")
        x, y = 14, (self.top + HEIGHT - BOTTOM) / 2
        turned = f'transform="rotate(-90 {x} {y:.0f})"'
        self.parts.append(
            f'<text class="name" text-anchor="middle" x="{x}" y="{y:.0f}" {turned}>{escape(y_title)}</text>'
        )

    def line(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        """A polyline of a style-sheet class."""
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.at(a, b) for a, b in zip(x, y, strict=True)))
        self.parts.append(f'<polyline class="{kind}" points="{points}"/>')

    def band(self, x: FloatArray, low: FloatArray, high: FloatArray, kind: str) -> None:
        """A filled strip between two curves."""
        outline = [*zip(x, low, strict=True), *zip(x[::-1], high[::-1], strict=True)]
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.at(a, b) for a, b in outline))
        self.parts.append(f'<polygon class="{kind}" points="{points}"/>')

    def text(self, px: float, py: float, text: str, kind: str, anchor: str = "start") -> None:
        """Text at a pixel."""
        self.parts.append(
            f'<text class="{kind}" text-anchor="{anchor}" x="{px:.1f}" y="{py:.1f}">{escape(text)}</text>'
        )

    def svg(self, title: str) -> str:
        """The whole drawing, named for screen readers."""
        head = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        return head + "".join(self.parts) + "</svg>"


def s_curve_plot(plan: Plan) -> str | None:
    """The views perpendicular to the annulus, with the two named ones and their doubt; None when withheld."""
    if plan.s_curve is None:
        return None
    frame = Frame((-S_LAO, S_LAO), (-S_CRAN, S_CRAN))
    frame.grid(range(-60, 61, 20), range(-40, 41, 20), "RAO  ←  degrees  →  LAO", "CAUD  ←  degrees  →  CRAN")
    lao, cran = plan.s_curve
    shown = (np.abs(lao) <= S_LAO) & (np.abs(cran) <= S_CRAN)
    frame.line(lao[shown], cran[shown], "curve")
    for name, view in plan.views.items():
        px, py = frame.at(view.lao_deg, view.cran_deg)
        if not (LEFT <= px <= WIDTH - RIGHT and TOP <= py <= HEIGHT - BOTTOM):
            continue
        sd = [plan.measurements[f"carm_{name}_{axis}_deg"].uncertainty or 0.0 for axis in ("lao", "cran")]
        right, up = frame.at(view.lao_deg + sd[0], view.cran_deg + sd[1])
        oval = f'<ellipse class="doubt" cx="{px:.1f}" cy="{py:.1f}" rx="{right - px:.1f}" ry="{py - up:.1f}"/>'
        frame.parts += [oval, f'<circle class="mark" cx="{px:.1f}" cy="{py:.1f}" r="5"/>']
        # The curve rises to the right or to the left; its lower side is free on the other.
        slope = float(np.interp(view.lao_deg + 5.0, lao, cran) - np.interp(view.lao_deg - 5.0, lao, cran))
        anchor, shift = ("start", 12) if slope > 0.0 else ("end", -12)
        above = py > HEIGHT - BOTTOM - 44
        anchor, shift = (("end", -12) if anchor == "start" else ("start", 12)) if above else (anchor, shift)
        frame.text(px + shift, py + (-24 if above else 22), VIEW_TITLES[name], "label", anchor)
        frame.text(px + shift, py + (-10 if above else 36), view.text, "value", anchor)
    return frame.svg("S-curve: C-arm views perpendicular to the annulus")


def profile_plot(plan: Plan) -> str | None:
    """Diameters along the centreline with the named levels; None without a centreline."""
    line = plan.centreline
    if line is None or len(line.sections) < 2:
        return None
    s, mean = line.levels, line.values("area_diameter_mm")
    low, high = line.values("min_diameter_mm"), line.values("max_diameter_mm")
    bottom, top = 5.0 * np.floor(low.min() / 5.0), 5.0 * np.ceil(high.max() / 5.0)
    marks = {"Annulus": 0.0} | {LEVELS[n][0]: section.s_mm for n, section in plan.sections.items()}
    frame = Frame((float(s[0]), float(s[-1])), (float(bottom), float(top)), top=TOP + ROW * len(marks))
    xs = [float(v) for v in np.arange(np.ceil(s[0] / 10.0) * 10.0, s[-1] + 0.1, 10.0)]
    ys = [float(v) for v in np.arange(bottom, top + 0.1, 5.0)]
    frame.grid(xs, ys, "mm along the centreline, from the annulus", "diameter in mm")
    frame.band(s, low, high, "band")
    frame.line(s, mean, "curve")
    # Stairs: each line ends below the names to its left, so that no name lies on a line.
    for row, (name, level) in enumerate(sorted(marks.items(), key=lambda item: item[1]), start=1):
        px, foot = frame.at(level, frame.y[0])
        frame.parts.append(f'<line class="level" x1="{px:.1f}" x2="{px:.1f}" y1="{ROW * row}" y2="{foot:.1f}"/>')
        anchor, shift = ("end", -5) if px > WIDTH * 0.8 else ("start", 5)
        frame.text(px + shift, ROW * row + 4, name, "label", anchor)
    return frame.svg("Diameters along the centreline")


def clock_plot(plan: Plan) -> str | None:
    """Calcium around the annulus, twelve sectors; None when there is none or it was not measured."""
    hours = plan.calcium_clock
    if hours is None or sum(hours) <= 0.0:
        return None
    across, middle, inner, outer = WIDTH / 2.0, 190.0, 78.0, 140.0
    parts = []
    for hour, amount in enumerate(hours):
        turn = [np.radians(30.0 * hour + edge) for edge in (-15.0, 15.0)]
        (xa, ya), (xb, yb) = ((np.sin(t), -np.cos(t)) for t in turn)
        path = (
            f"M{across + outer * xa:.1f} {middle + outer * ya:.1f} "
            f"A{outer:g} {outer:g} 0 0 1 {across + outer * xb:.1f} {middle + outer * yb:.1f} "
            f"L{across + inner * xb:.1f} {middle + inner * yb:.1f} "
            f"A{inner:g} {inner:g} 0 0 0 {across + inner * xa:.1f} {middle + inner * ya:.1f}Z"
        )
        parts.append(f'<path class="sector" style="fill-opacity:{amount / max(hours):.2f}" d="{path}"/>')
        x, y = across + 109.0 * np.sin(np.radians(30.0 * hour)), middle - 109.0 * np.cos(np.radians(30.0 * hour))
        if amount > 0.0:
            kind = "on-dark" if amount > 0.5 * max(hours) else "label"
            parts.append(f'<text class="{kind}" text-anchor="middle" x="{x:.1f}" y="{y + 4:.1f}">{amount:.0f}</text>')
    noon = f'<text class="label" text-anchor="middle" x="{across}" y="34">RCC hinge point</text>'
    unit = f'<text class="name" text-anchor="middle" x="{across}" y="{middle + 5}">mm³ per 30°</text>'
    head = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Calcium around the annulus">'
    return head + "".join([*parts, noon, unit]) + "</svg>"
