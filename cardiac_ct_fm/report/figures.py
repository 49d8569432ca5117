"""The planes of the report: annulus, long axes, levels, ostia with their heights, membranous septum."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cardiac_ct_fm.anatomy import structure
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.landmark_pictures import draw_points
from cardiac_ct_fm.planning.annulus import Annulus
from cardiac_ct_fm.planning.centreline import Section
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.planning.planes import Sampler, unit
from cardiac_ct_fm.render2d import (
    INK,
    SHADE,
    View,
    closed,
    crossings,
    draw_curve,
    draw_letters,
    draw_scale,
    outline,
    show_scan,
)
from cardiac_ct_fm.report.trust import unsure_points
from cardiac_ct_fm.result import Measurement

RING = "#7df0c8"
LEVELS = {
    "lvot": ("Outflow tract", "#ff8a80"),
    "sinus": ("Sinuses of Valsalva", "#f06fa7"),
    "stj": ("Sinotubular junction", "#b39dff"),
    "ascending": ("Ascending aorta", "#82b1ff"),
}
"""Named levels: title and colour, lighter kin of the vocabulary's colours so that lines read on grey."""

MEASURED = {
    "lvot": "lvot_area_mm2",
    "sinus": "sinus_mean_diameter_mm",
    "stj": "stj_mean_diameter_mm",
    "ascending": "ascending_aorta_diameter_mm",
}
"""Named level → the measurement that its picture shows."""

JPEG = {"quality": 88, "subsampling": 0}
SIDE_IN, DPI = 4.0, 150
"""Size of the pictures, so that a report stays below 4 MB (house choice, as are the fields of view, in mm, below)."""


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Attributes:
        key: its name in the document.
        title: heading.
        caption: what it shows and what was measured on it.
        data: JPEG file.
        measured: the measurement that it shows; what is unsure of that is said beside the heading.
        wide: whether it takes two columns.
    """

    key: str
    title: str
    caption: str
    data: bytes
    measured: str
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Scene:
    """What all pictures of one plan share."""

    image: Sampler
    window: tuple[float, float]
    plan: Plan
    annulus: Annulus
    centre: FloatArray

    def en_face(self) -> Picture:
        """The annulus plane with contour, diameters and hinge points."""
        view = View.en_face(self.annulus.plane, self.centre)

        def draw(ax: Axes) -> None:
            contour = self.annulus.contour
            if contour is not None:
                draw_curve(ax, view, closed(contour.ras), RING, 2.0)
                for longest in (True, False):
                    draw_curve(ax, view, contour.chord_ras(longest), RING, 1.0, "--")
            self.points(ax, view)

        area, low, high = (self.said(f"annulus_{q}") for q in ("area_mm2", "min_diameter_mm", "max_diameter_mm"))
        text = (
            f"Seen from the left ventricle. Area {area}. Dashed: longest diameter {high} and shortest {low}, both "
            "through the centroid and not always perpendicular."
        )
        return Picture("annulus", "Annulus plane", text, self.one(view, 50.0, draw), "annulus_area_mm2")

    def long_axes(self) -> list[Picture]:
        """Two planes along the normal of the annulus."""
        plane = self.annulus.plane
        toward = unit(self.annulus.hinges[0] - self.annulus.hinges.mean(axis=0))
        found = []
        for key, direction, title in (
            ("long_axis_1", toward, "Long axis through the right cusp"),
            ("long_axis_2", np.cross(plane.normal, toward), "Long axis across it"),
        ):
            view = View.long_axis(plane, self.centre + 14.0 * plane.normal, direction)

            def draw(ax: Axes, view: View = view) -> None:
                self._ring_trace(ax, view)
                for name, section in self.plan.sections.items():
                    cut = crossings(view, section.contour.ras)
                    if len(cut) == 2:
                        draw_curve(ax, view, cut, LEVELS[name][1], 2.0)
                self.points(ax, view)

            text = "Annulus in green; the other lines are the levels that were measured."
            found.append(Picture(key, title, text, self.one(view, 84.0, draw), "annulus_area_mm2"))
        return found

    def level(self, name: str, section: Section) -> Picture:
        """One section across the centreline with its contour."""
        title, colour = LEVELS[name]
        contour = section.contour
        view = View.en_face(contour.plane, contour.centroid)
        rows = [self.plan.measurements[f"sinus_{c}_diameter_mm"] for c in ("rcc", "lcc", "ncc")]
        cusps = [np.array(r.details["points_ras"]["ends"]) for r in rows if r.value is not None]
        by_cusp = name == "sinus" and bool(cusps)

        def draw(ax: Axes) -> None:
            draw_curve(ax, view, closed(contour.ras), colour, 2.0)
            for chord in cusps if by_cusp else [contour.chord_ras(True), contour.chord_ras(False)]:
                draw_curve(ax, view, chord, colour, 1.0, "--")

        size = f"Area {contour.area_mm2:.0f} mm², mean diameter {contour.area_diameter_mm:.1f} mm"
        place = f"{section.s_mm:+.0f} mm along the centreline".replace("-", "\N{MINUS SIGN}")
        ends = f"longest diameter {contour.max_diameter_mm:.1f} and shortest {contour.min_diameter_mm:.1f} mm"
        dashed = "each sinus to the opposite commissure" if by_cusp else ends
        return Picture(name, title, f"{size}, {place}. Dashed: {dashed}.", self.one(view, 60.0, draw), MEASURED[name])

    def ostium(self, name: str) -> Picture:
        """The plane through an ostium along the normal, with its height."""
        text = f"Height above the annulus plane {self.said(f'{name.lower()}_height_mm')}."
        return self._height(name, structure(name).title.capitalize(), text, f"{name.lower()}_height_mm")

    def septum(self) -> Picture:
        """The plane through the muscular crest along the normal, with its depth."""
        text = f"Annulus plane to the crest of the muscular septum {self.said('membranous_septum_length_mm')}."
        return self._height("MS2", "Membranous septum", text, "membranous_septum_length_mm")

    def _height(self, name: str, title: str, text: str, measured: str) -> Picture:
        plane, at = self.annulus.plane, self.plan.points.ras[name]
        height = float(plane.height(at))
        foot = at - height * plane.normal
        # Between the axis and the point, so that both are well inside of the picture.
        middle = self.centre + (foot - self.centre) / 2.0 + height / 2.0 * plane.normal
        view = View.long_axis(plane, middle, foot - self.centre)

        def draw(ax: Axes) -> None:
            self._ring_trace(ax, view, extend=True)
            draw_curve(ax, view, np.stack([foot, at]), structure(name).colour, 2.0)
            x, y = view.project((foot + at) / 2.0)
            # Names stand to the right of their points, so the figure stands to the left.
            mark = ax.text(x - 1.2, y, f"{abs(height):.1f} mm", color=INK, fontsize=11, va="center", zorder=7)
            mark.set(path_effects=outline(3.0), fontweight="bold", ha="right")
            self.points(ax, view)

        return Picture(name.lower(), title, text, self.one(view, 60.0, draw), measured)

    def _ring_trace(self, ax: Axes, view: View, extend: bool = False) -> None:
        """The annulus plane where the picture cuts it."""
        contour = self.annulus.contour
        if extend:
            reach = np.array([-30.0, 30.0])
            along = self.centre + reach[:, None] * view.right
            draw_curve(ax, view, along, RING, 0.8, "--")
        ring = np.zeros((0, 3)) if contour is None else crossings(view, contour.ras)
        if len(ring) == 2:
            draw_curve(ax, view, ring, RING, 2.2)

    def points(self, ax: Axes, view: View) -> None:
        """All points near the plane, the unsure ones as rings."""
        draw_points(ax, view, self.plan.points.ras, unsure=unsure_points(self.plan))

    def one(self, view: View, size_mm: float, draw: Callable[[Axes], None]) -> bytes:
        """One square picture."""
        figure = blank(SIDE_IN, SIDE_IN)
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        show_scan(ax, self.image, view, size_mm, size_mm, self.window, slab_mm=1.0, pixel_mm=size_mm / 420.0)
        draw_letters(ax, view)
        draw_scale(ax, 10.0 if size_mm <= 60.0 else 20.0)
        draw(ax)
        return jpeg(figure)

    def said(self, name: str) -> str:
        """A value with its doubt and unit, or why there is none."""
        row = self.plan.measurements[name]
        if row.value is None:
            return f"not measured ({row.details['reason'].replace('_', ' ')})"
        unit_text = {"mm2": " mm²", "mm3": " mm³", "mm": " mm"}.get(row.unit, "")
        digits = 0 if row.unit in ("mm2", "mm3") else 1
        doubt = "" if row.uncertainty is None else f" ± {row.uncertainty:.{digits}f}"
        return f"{row.value:.{digits}f}{doubt}{unit_text}"


def blank(width: float, height: float) -> Figure:
    """A dark figure of a size in inches, with its own canvas."""
    figure = Figure(figsize=(width, height), facecolor=SHADE, dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def bare(ax: Axes) -> None:
    """Take ticks and frame away."""
    ax.set_facecolor(SHADE)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def jpeg(figure: Figure) -> bytes:
    """The figure as a JPEG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", facecolor=SHADE, pil_kwargs=JPEG)
    return stream.getvalue()


def calcium_rule(row: Measurement) -> str:
    """What was counted as calcium, in the words that stand beside its volume."""
    facts = row.details
    if facts["extent"] == "label":
        return "all of the label map"
    if facts["extent"] == "threshold":
        return f"voxels from {facts['threshold_hu']:.0f} HU"
    return f"deposits from {facts['core_hu']:.0f} HU, to half-way"
