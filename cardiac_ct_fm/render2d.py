"""Oblique pictures of a scan: how a plane lies on the screen, its pixels, and what is drawn over them.

Headless: figures are made with matplotlib's object interface and its Agg canvas, never through pyplot, so nothing
global changes and no display is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke, withStroke

from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.planning.planes import Plane, Sampler, unit

LEFT, FRONT, HEAD = np.array([-1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])

WINDOW_HU = (-150.0, 550.0)
"""Grey values of a contrast-enhanced scan: level 200, width 700, the usual window of CT angiography."""

BRIGHT_BLOOD = 1.6
"""Where blood is brighter than that window expects, the upper end moves to this multiple of it."""

LETTER_SHARE = 0.38
"""A second letter is shown when this much of the direction (sin 22°) points that way."""

INK = "#e8edf4"
SHADE = "#05070a"


@dataclass(frozen=True, eq=False)
class View:
    """How a plane lies on the screen.

    Attributes:
        origin: (3,) RAS mm, the middle of the picture.
        right: (3,) unit vector to the right of the screen.
        up: (3,) unit vector to its top.
    """

    origin: FloatArray
    right: FloatArray
    up: FloatArray

    @property
    def toward_viewer(self) -> FloatArray:
        """(3,) unit vector out of the screen."""
        return np.cross(self.right, self.up)

    @classmethod
    def of(cls, origin: FloatArray, right: FloatArray, up: FloatArray) -> View:
        """A view whose top is ``up`` as far as it is perpendicular to ``right``."""
        r = unit(np.asarray(right, dtype=np.float64))
        return cls(np.asarray(origin, dtype=np.float64), r, unit(up - r * float(up @ r)))

    @classmethod
    def en_face(cls, plane: Plane, origin: FloatArray) -> View:
        """A short axis seen from the ventricle, as axial slices are seen from the feet: patient's left on the right."""
        right = LEFT - plane.normal * float(LEFT @ plane.normal)
        right = unit(right)
        up = np.cross(-plane.normal, right)
        return cls(origin, right, up)

    @classmethod
    def long_axis(cls, plane: Plane, origin: FloatArray, across: FloatArray) -> View:
        """A plane along the normal, aorta up; ``across`` runs over the screen, toward patient's left or back."""
        side = unit(across - plane.normal * float(across @ plane.normal))
        # Coronal habit: left on the right. Sagittal habit: front on the left.
        weight = float(side @ LEFT) - float(side @ FRONT) * (1.0 if abs(side[1]) > abs(side[0]) else 0.0)
        return cls(origin, side if weight >= 0 else -side, plane.normal)

    def project(self, ras: npt.ArrayLike) -> FloatArray:
        """(…, 2) screen mm of world points (…, 3)."""
        d = np.asarray(ras, dtype=np.float64) - self.origin
        return np.stack([d @ self.right, d @ self.up], axis=-1)

    def distance(self, ras: npt.ArrayLike) -> FloatArray:
        """(…) signed distance in mm of world points (…, 3), toward the viewer."""
        result: FloatArray = (np.asarray(ras, dtype=np.float64) - self.origin) @ self.toward_viewer
        return result

    def lattice(self, width_mm: float, height_mm: float, pixel_mm: float) -> FloatArray:
        """(H, W, 3) RAS mm of the pixels, top row first."""
        x = np.arange(-width_mm / 2 + pixel_mm / 2, width_mm / 2, pixel_mm)
        y = np.arange(height_mm / 2 - pixel_mm / 2, -height_mm / 2, -pixel_mm)
        result: FloatArray = self.origin + x[None, :, None] * self.right + y[:, None, None] * self.up
        return result

    def letters(self) -> tuple[str, str, str, str]:
        """What lies to the left, right, top and bottom of the screen: R L A P H F, the main direction first."""
        return (
            direction_letters(-self.right),
            direction_letters(self.right),
            direction_letters(self.up),
            direction_letters(-self.up),
        )


def direction_letters(direction: FloatArray) -> str:
    """One or two letters of the patient directions that a RAS vector points to."""
    names = ("RL", "AP", "HF")
    order = np.argsort(-np.abs(direction))[:2]
    shown = [i for n, i in enumerate(order) if n == 0 or abs(direction[i]) >= LETTER_SHARE]
    return "".join(names[i][0 if direction[i] > 0 else 1] for i in shown)


def window_for(blood_hu: float | None) -> tuple[float, float]:
    """Lowest and highest HU shown, for blood of a given HU."""
    low, high = WINDOW_HU
    return (low, high) if blood_hu is None or not np.isfinite(blood_hu) else (low, max(high, BRIGHT_BLOOD * blood_hu))


def show_scan(
    ax: Axes,
    image: Sampler,
    view: View,
    width_mm: float,
    height_mm: float,
    window: tuple[float, float],
    slab_mm: float = 0.0,
    pixel_mm: float = 0.25,
) -> None:
    """Draw the scan in a plane, averaged over ``slab_mm``; outside of the scan the picture stays dark."""
    points = view.lattice(width_mm, height_mm, pixel_mm)
    steps = np.linspace(-slab_mm / 2, slab_mm / 2, 3) if slab_mm > 0 else np.zeros(1)
    pixels = np.mean([image(points + step * view.toward_viewer) for step in steps], axis=0)
    extent = (-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    ax.imshow(pixels, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, interpolation="bilinear")
    bare_panel(ax, extent)


def bare_panel(ax: Axes, extent: tuple[float, float, float, float]) -> None:
    """Make a panel a dark picture of ``extent`` (left, right, bottom, top in mm), without ticks and frame."""
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    ax.set_facecolor(SHADE)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def outline(effect_width: float = 2.6) -> list[Any]:
    """A dark rim that keeps a line or letters legible on bright blood."""
    return [withStroke(linewidth=effect_width, foreground=SHADE)]


def draw_curve(ax: Axes, view: View, ras: FloatArray, colour: str, width: float = 1.6, style: str = "-") -> None:
    """Draw a curve (N, 3) that lies in the plane."""
    xy = view.project(ras)
    line = Line2D(xy[:, 0], xy[:, 1], color=colour, linewidth=width, linestyle=style)
    line.set_path_effects([Stroke(linewidth=width + 1.6, foreground=SHADE, alpha=0.7), Normal()])
    ax.add_line(line)


def closed(ras: FloatArray) -> FloatArray:
    """A curve (N, 3) with its first point again at the end."""
    return np.concatenate([ras, ras[:1]])


def draw_letters(ax: Axes, view: View) -> None:
    """The patient's directions at the four borders of the picture."""
    left, right, top, bottom = view.letters()
    places = {(0.015, 0.5): (left, "left", "center"), (0.985, 0.5): (right, "right", "center")}
    places |= {(0.5, 0.985): (top, "center", "top"), (0.5, 0.015): (bottom, "center", "bottom")}
    for (x, y), (text, across, along) in places.items():
        mark = ax.text(x, y, text, transform=ax.transAxes, ha=across, va=along, color=INK, fontsize=11)
        mark.set(fontweight="bold", path_effects=outline(3.0), zorder=7)


def draw_scale(ax: Axes, length_mm: float) -> None:
    """A scale bar at the lower left, with its length."""
    x0, x1 = ax.get_xlim()
    y0, y1 = ax.get_ylim()
    x, y = x0 + 0.03 * (x1 - x0), y0 + 0.035 * (y1 - y0)
    bar = Line2D([x, x + length_mm], [y, y], color=INK, linewidth=2.4, solid_capstyle="butt", zorder=7)
    bar.set_path_effects([Stroke(linewidth=4.2, foreground=SHADE), Normal()])
    ax.add_line(bar)
    text = ax.text(x, y + 0.016 * (y1 - y0), f"{length_mm:g} mm", color=INK, fontsize=8.5, va="bottom", zorder=7)
    text.set_path_effects(outline())


def draw_caption(ax: Axes, title: str, subtitle: str = "") -> None:
    """Title and a smaller second line at the upper left."""
    text = ax.text(0.02, 0.98, title, transform=ax.transAxes, va="top", color=INK, fontsize=11, fontweight="bold")
    text.set(path_effects=outline(3.0), zorder=7)
    if subtitle:
        below = ax.text(0.02, 0.935, subtitle, transform=ax.transAxes, va="top", color=INK, fontsize=9)
        below.set(path_effects=outline(3.0), zorder=7)


def crossings(view: View, ras: FloatArray) -> FloatArray:
    """(K, 3) points where a closed curve (N, 3) goes through the plane of the picture."""
    ahead = np.roll(ras, -1, axis=0)
    a, b = view.distance(ras), view.distance(ahead)
    through = np.flatnonzero((a < 0) != (b < 0))
    share = (a[through] / (a[through] - b[through]))[:, None]
    result: FloatArray = ras[through] + share * (ahead[through] - ras[through])
    return result
