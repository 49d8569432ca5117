"""``preview.png``: one look tells whether a prediction is right. The annulus in three planes, and four chambers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cardiac_ct_fm.anatomy import HEADS, HEART_LABELS, LANDMARKS, structure
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.planning.planes import Sampler, unit
from cardiac_ct_fm.render2d import (
    FRONT,
    HEAD,
    INK,
    LEFT,
    View,
    closed,
    crossings,
    draw_caption,
    draw_curve,
    draw_letters,
    draw_points,
    draw_scale,
    show_labels,
    show_scan,
    window_for,
)
from cardiac_ct_fm.volume_io import Volume

DISCLAIMER = "Research use only. Not a medical device."
GROUND = "#0b0e13"
QUIET = "#8b96a5"
RING = "#7df0c8"
"""Colour of the annulus contour: none of the vocabulary's, so that it is not taken for a label."""

CHAMBERS = HEADS["heart"].classes
ROOT_LABELS = ("Aorta", "LV", "LA", "Myo")
COARSE_MM = 3.0
"""Step at which the centres of the chambers are counted."""


def write_preview(
    path: str | Path,
    volume: Volume,
    landmarks: Mapping[str, Landmark],
    heart_labels: npt.NDArray[np.uint8] | None = None,
    plan: Plan | None = None,
) -> Path:
    """Draw ``preview.png``.

    Args:
        path: the file.
        volume: the scan in HU.
        landmarks: name → point.
        heart_labels: (X, Y, Z) label map of the heart head on the scan's grid, or None.
        plan: the measurements of these landmarks, or None; without an annulus three standard planes are shown.

    Returns:
        ``path``.

    Raises:
        OutputError: the file system refuses.
    """
    figure = draw_preview(volume, landmarks, heart_labels, plan)
    target = Path(path)
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=100, facecolor=GROUND, metadata={"Description": DISCLAIMER})
    return target


def draw_preview(
    volume: Volume,
    landmarks: Mapping[str, Landmark],
    heart_labels: npt.NDArray[np.uint8] | None,
    plan: Plan | None,
) -> Figure:
    """The figure of :func:`write_preview`, 1600 × 1180 pixels."""
    figure = Figure(figsize=(16.0, 11.8), facecolor=GROUND)
    FigureCanvasAgg(figure)
    image = Sampler(volume.data, volume.grid)
    labels = None if heart_labels is None else Sampler(heart_labels, volume.grid)
    points = {n: np.asarray(m.ras_mm) for n, m in landmarks.items() if m.ras_mm is not None and n in LANDMARKS}
    axes = [
        figure.add_axes((x, y, 0.487, 0.435)) for x, y in ((0.008, 0.51), (0.505, 0.51), (0.008, 0.068), (0.505, 0.068))
    ]
    annulus = None if plan is None else plan.annulus
    blood = None if annulus is None or annulus.contour is None else annulus.contour.lumen_hu
    window = window_for(blood)
    if plan is None or annulus is None:
        _standard_planes(axes[:3], image, labels, _middle(volume, points, heart_labels), points, window)
    else:
        _annulus_planes(axes[:3], image, labels, plan, points, window)
    _chambers(axes[3], image, labels, _middle(volume, points, heart_labels), points, window)
    _frame(figure, volume, plan, labels, points)
    return figure


def _panel(
    ax: Axes,
    image: Sampler,
    labels: Sampler | None,
    view: View,
    height_mm: float,
    window: tuple[float, float],
    names: tuple[str, ...],
) -> None:
    """The scan, its labels, letters and a scale bar in one panel."""
    box = ax.get_position()
    figure = ax.get_figure(root=True)
    assert figure is not None
    shape = figure.get_size_inches()
    width_mm = height_mm * (box.width * shape[0]) / (box.height * shape[1])
    show_scan(ax, image, view, width_mm, height_mm, window, slab_mm=1.0, pixel_mm=height_mm / 480.0)
    if labels is not None and names:
        show_labels(ax, labels, view, width_mm, height_mm, names)
    draw_letters(ax, view)
    draw_scale(ax, 10.0 if height_mm < 60 else 20.0)


def _annulus_planes(
    axes: list[Axes],
    image: Sampler,
    labels: Sampler | None,
    plan: Plan,
    points: Mapping[str, FloatArray],
    window: tuple[float, float],
) -> None:
    """En face, and two long axes: through the right cusp, and across it."""
    annulus = plan.annulus
    assert annulus is not None
    contour, plane = annulus.contour, annulus.plane
    centre = plane.origin if contour is None else contour.centroid
    face = View.en_face(plane, centre)
    _panel(axes[0], image, labels, face, 52.0, window, ())
    if contour is not None:
        draw_curve(axes[0], face, closed(contour.ras), RING, 2.0)
        for longest in (True, False):
            draw_curve(axes[0], face, contour.chord_ras(longest), RING, 1.0, "--")
    draw_points(axes[0], face, points)
    draw_caption(axes[0], "Annulus, seen from the left ventricle", _ring_text(plan))
    toward = unit(annulus.hinges[0] - annulus.hinges.mean(axis=0))
    across = np.cross(plane.normal, toward)
    titles = ("Long axis through the right cusp", "Long axis across it")
    for ax, direction, title in zip(axes[1:], (toward, across), titles, strict=True):
        view = View.long_axis(plane, centre + 14.0 * plane.normal, direction)
        _panel(ax, image, labels, view, 84.0, window, ROOT_LABELS)
        ring = None if contour is None else crossings(view, contour.ras)
        if ring is not None and len(ring) == 2:
            draw_curve(ax, view, ring, RING, 2.2)
        if plan.centreline is not None:
            line = plan.centreline.ras
            near = np.abs(view.distance(line)) < 6.0
            draw_curve(ax, view, np.where(near[:, None], line, np.nan), INK, 0.9, ":")
        draw_points(ax, view, points)
        draw_caption(ax, title)


def _ring_text(plan: Plan) -> str:
    """Size of the annulus in one line, or why there is none."""
    area = plan.measurements["annulus_area_mm2"]
    if area.value is None:
        return f"no size: {area.details['reason'].replace('_', ' ')}"
    low = plan.measurements["annulus_min_diameter_mm"].value
    high = plan.measurements["annulus_max_diameter_mm"].value
    doubt = "" if area.uncertainty is None else f" ± {area.uncertainty:.0f}"
    mark = "" if area.status == "ok" else " (low confidence)"
    return f"{area.value:.0f}{doubt} mm²,  {high:.1f} × {low:.1f} mm{mark}"


def _standard_planes(
    axes: list[Axes],
    image: Sampler,
    labels: Sampler | None,
    middle: FloatArray,
    points: Mapping[str, FloatArray],
    window: tuple[float, float],
) -> None:
    """Axial, coronal and sagittal, where no annulus plane is known."""
    views = {
        "Axial": View.of(middle, LEFT, FRONT),
        "Coronal": View.of(middle, LEFT, HEAD),
        "Sagittal": View.of(middle, -FRONT, HEAD),
    }
    for ax, (title, view) in zip(axes, views.items(), strict=True):
        _panel(ax, image, labels, view, 150.0, window, CHAMBERS)
        draw_points(ax, view, points)
        draw_caption(ax, title)


def _chambers(
    ax: Axes,
    image: Sampler,
    labels: Sampler | None,
    middle: FloatArray,
    points: Mapping[str, FloatArray],
    window: tuple[float, float],
) -> None:
    """Four chambers where the label map shows them, else a coronal plane."""
    view = None if labels is None else four_chamber_view(labels)
    if view is None:
        view, title = View.of(middle, LEFT, HEAD), "Coronal"
        note = "no label map" if labels is None else "the label map does not show both ventricles and the left atrium"
    else:
        title, note = "Four chambers", ""
    _panel(ax, image, labels, view, 150.0, window, CHAMBERS)
    draw_points(ax, view, points, size=30.0)
    draw_caption(ax, title, note)


def four_chamber_view(labels: Sampler) -> View | None:
    """The plane through the left ventricle's long axis and the right ventricle; None where one of them is missing.

    Shown as an axial slice is: patient's left on the right, front up.
    """
    centres = chamber_centres(labels)
    if not {"LV", "LA", "RV"} <= centres.keys():
        return None
    axis = unit(centres["LV"] - centres["LA"])
    right_heart = np.mean([centres[n] for n in ("RV", "RA") if n in centres], axis=0)
    left_heart = (centres["LV"] + centres["LA"]) / 2.0
    normal = np.cross(axis, right_heart - left_heart)
    if float(np.linalg.norm(normal)) < 1.0:
        return None
    normal = unit(normal)
    right = unit(LEFT - normal * float(LEFT @ normal))
    up = np.cross(normal, right)
    return View((left_heart + right_heart) / 2.0, right, up if float(up @ FRONT) > 0 else -up)


def chamber_centres(labels: Sampler) -> dict[str, FloatArray]:
    """Name → (3,) centre of gravity in RAS mm, counted on every few voxels."""
    steps = [max(1, round(COARSE_MM / s)) for s in labels.grid.spacing]
    coarse = labels.data[:: steps[0], :: steps[1], :: steps[2]]
    found = {}
    for name, number in HEART_LABELS.items():
        index = np.argwhere(coarse == number)
        # Ten cells of 3 mm are 0.3 mL: less than that is no chamber.
        if len(index) >= 10:
            found[name] = labels.grid.world(index.mean(axis=0) * steps)
    return found


def _middle(volume: Volume, points: Mapping[str, FloatArray], heart_labels: npt.NDArray[np.uint8] | None) -> FloatArray:
    """Where to cut when there is no annulus: between the landmarks, else the heart's middle, else the scan's."""
    inside = [p for p in points.values() if bool(volume.grid.contains(p))]
    if inside:
        return np.asarray(np.mean(inside, axis=0), dtype=np.float64)
    if heart_labels is not None:
        centres = chamber_centres(Sampler(heart_labels, volume.grid))
        if centres:
            return np.asarray(np.mean(list(centres.values()), axis=0), dtype=np.float64)
    return volume.grid.centre_ras


def _frame(
    figure: Figure, volume: Volume, plan: Plan | None, labels: Sampler | None, points: Mapping[str, FloatArray]
) -> None:
    """Title, disclaimer and legend around the panels."""
    figure.text(0.008, 0.972, volume.name, color=INK, fontsize=15, fontweight="bold", va="center")
    spacing = " × ".join(f"{s:.2f}" for s in volume.grid.spacing)
    figure.text(0.992, 0.972, DISCLAIMER, color="#ffb86b", fontsize=12, fontweight="bold", va="center", ha="right")
    figure.text(0.008, 0.952, f"cardiac-ct-fm   voxels {spacing} mm", color=QUIET, fontsize=9.5, va="center")
    handles = [] if labels is None else [_line(structure(n).colour, n) for n in CHAMBERS]
    handles.append(_line(RING, "annulus contour"))
    handles += [_dot(structure(n).colour, n) for n in LANDMARKS if n in points]
    legend = figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.004, 0.022), ncol=len(handles), frameon=False
    )
    for text in legend.get_texts():
        text.set(color=INK, fontsize=10)
    missing = [n for n in LANDMARKS if n not in points]
    notes = [f"Not found: {', '.join(missing)}."] if missing else []
    notes += [] if plan is None else [f.message for f in plan.findings]
    figure.text(0.008, 0.014, _short(" ".join(notes), 230), color="#ffb86b", fontsize=9.5, va="center")


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"


def _line(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=2.5, label=label)


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", linestyle="none", markersize=7, label=label)
