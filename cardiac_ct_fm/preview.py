"""``preview.png``: one look tells whether a prediction is right. Annulus in three planes, four chambers, all heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cardiac_ct_fm.anatomy import HINGE_POINTS, LANDMARKS, structure
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.label_pictures import (
    OWN_COLOURS,
    Layer,
    chamber_centres,
    four_chamber_view,
    layers_of,
    show_layers,
    show_silhouettes,
)
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.landmark_pictures import draw_points
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.planning.options import PlanningOptions
from cardiac_ct_fm.planning.planes import Sampler, unit
from cardiac_ct_fm.preview_frame import DISCLAIMER, GROUND, RING, draw_frame, draw_legend, draw_notes
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
    draw_scale,
    show_scan,
    window_for,
)
from cardiac_ct_fm.volume_io import Volume

WIDTH_IN, PANEL_IN = 16.0, (7.79, 5.13)
"""Width of the picture, and a panel's width and height, in inches of 100 pixels."""

SILHOUETTE_IN = (5.25, 5.0)
"""A panel of the row of silhouettes, which is there where a head other than the core's was computed."""


@dataclass(frozen=True)
class _Content:
    """What all panels show: the scan, its layers, points, their colours and which are unsure, and grey values."""

    image: Sampler
    layers: tuple[Layer, ...]
    points: Mapping[str, FloatArray]
    colours: Mapping[str, str]
    unsure: Collection[str]
    window: tuple[float, float]

    @property
    def heart(self) -> Sampler | None:
        """The heart label map."""
        return next((k.labels for k in self.layers if k.head == "heart"), None)


def write_preview(
    path: str | Path,
    volume: Volume,
    landmarks: Mapping[str, Landmark],
    label_maps: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    plan: Plan | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Draw ``preview.png``.

    Args:
        path: the file.
        volume: the scan in HU.
        landmarks: name → point, those that were asked for: one that was not found is listed so, others are not.
        label_maps: head → (X, Y, Z) label map on the scan's grid; all are drawn.
        plan: the measurements of these landmarks, or None; without an annulus three standard planes are shown.
        classes: head → names of its classes; those of the vocabulary's heads are known.
        run: how the prediction was made; ``model`` and ``weights_sha256`` are named in the picture.

    Returns:
        ``path``.

    Raises:
        OutputError: the file system refuses.
    """
    figure = draw_preview(volume, landmarks, label_maps or {}, plan, classes or {}, run or {})
    target = Path(path)
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=100, facecolor=GROUND, metadata={"Description": DISCLAIMER})
    return target


def draw_preview(
    volume: Volume,
    landmarks: Mapping[str, Landmark],
    label_maps: Mapping[str, npt.NDArray[np.uint8]],
    plan: Plan | None,
    classes: Mapping[str, Sequence[str]],
    run: Mapping[str, Any],
) -> Figure:
    """The figure of :func:`write_preview`, 1600 × 1180 pixels, and 520 higher where silhouettes are shown."""
    layers = tuple(layers_of(label_maps, classes, volume.grid))
    deep = [k for k in layers if k.head not in ("heart", "calc")]
    below = SILHOUETTE_IN[1] + 0.2 if deep else 0.0
    height = 11.8 + below
    figure = Figure(figsize=(WIDTH_IN, height), facecolor=GROUND)
    FigureCanvasAgg(figure)

    def panel(x: float, y: float, size: tuple[float, float]) -> Axes:
        return figure.add_axes((x / WIDTH_IN, y / height, size[0] / WIDTH_IN, size[1] / height))

    annulus = None if plan is None else plan.annulus
    blood = None if annulus is None or annulus.contour is None else annulus.contour.lumen_hu
    points = {n: np.asarray(m.ras_mm) for n, m in landmarks.items() if m.ras_mm is not None}
    own = dict(zip((n for n in landmarks if n not in LANDMARKS), cycle(OWN_COLOURS), strict=False))
    colours = {n: own[n] if n in own else structure(n).colour for n in landmarks}
    limit = (PlanningOptions() if plan is None else plan.options).min_confidence
    unsure = {n: m.confidence for n, m in landmarks.items() if n in points and m.confidence < limit}
    shown = _Content(Sampler(volume.data, volume.grid), layers, points, colours, unsure, window_for(blood))
    axes = [panel(x, y + below, PANEL_IN) for x, y in ((0.13, 6.02), (8.08, 6.02), (0.13, 0.8), (8.08, 0.8))]
    if plan is None or annulus is None:
        _standard_planes(axes[:3], shown, _middle(volume, shown))
    else:
        _annulus_planes(axes[:3], shown, plan)
    _chambers(axes[3], shown, _middle(volume, shown))
    if deep:
        _silhouettes([panel(0.13 + i * SILHOUETTE_IN[0], 0.8, SILHOUETTE_IN) for i in range(3)], volume, shown)
    outlines = {k.key: (k.colour, k.name) for k in layers}
    ring = plan is not None and annulus is not None and annulus.contour is not None
    missing = [n for n, m in landmarks.items() if m.ras_mm is None]
    # The heart's own findings say what of it is missing; a valve without calcium is healthy.
    missing += [k.name for k in layers if k.head not in ("heart", "calc") and not k.mask.any()]
    draw_frame(figure, volume, run)
    draw_legend(figure, outlines, ring, {n: colours[n] for n in points}, unsure, limit)
    told = [] if plan is None or not set(HINGE_POINTS) & landmarks.keys() else plan.findings
    draw_notes(figure, missing, unsure, [f.message for f in told])
    return figure


def _panel(ax: Axes, shown: _Content, view: View, height_mm: float, heart: bool = True) -> None:
    """The scan, its labels (the heart's where wanted), letters and a scale bar."""
    width_mm = height_mm * PANEL_IN[0] / PANEL_IN[1]
    show_scan(ax, shown.image, view, width_mm, height_mm, shown.window, slab_mm=1.0, pixel_mm=height_mm / 480.0)
    chosen = [k for k in shown.layers if heart or k.head != "heart"]
    show_layers(ax, chosen, view, width_mm, height_mm)
    draw_letters(ax, view)
    draw_scale(ax, 10.0 if height_mm < 60 else 20.0)


def _annulus_planes(axes: list[Axes], shown: _Content, plan: Plan) -> None:
    """En face, and two long axes: through the right cusp, and across it."""
    annulus = plan.annulus
    assert annulus is not None
    contour, plane = annulus.contour, annulus.plane
    centre = plane.origin if contour is None else contour.centroid
    face = View.en_face(plane, centre)
    _panel(axes[0], shown, face, 52.0, heart=False)
    if contour is not None:
        draw_curve(axes[0], face, closed(contour.ras), RING, 2.0)
        for longest in (True, False):
            draw_curve(axes[0], face, contour.chord_ras(longest), RING, 1.0, "--")
    draw_caption(axes[0], "Annulus, seen from the left ventricle", _ring_text(plan))
    draw_points(axes[0], face, shown.points, colours=shown.colours, unsure=shown.unsure)
    toward = unit(annulus.hinges[0] - annulus.hinges.mean(axis=0))
    across = np.cross(plane.normal, toward)
    titles = ("Long axis through the right cusp", "Long axis across it")
    for ax, direction, title in zip(axes[1:], (toward, across), titles, strict=True):
        view = View.long_axis(plane, centre + 14.0 * plane.normal, direction)
        _panel(ax, shown, view, 84.0)
        ring = None if contour is None else crossings(view, contour.ras)
        if ring is not None and len(ring) == 2:
            draw_curve(ax, view, ring, RING, 2.2)
        if plan.centreline is not None:
            line = plan.centreline.ras
            near = np.abs(view.distance(line)) < 6.0
            draw_curve(ax, view, np.where(near[:, None], line, np.nan), INK, 0.9, ":")
        draw_caption(ax, title)
        draw_points(ax, view, shown.points, colours=shown.colours, unsure=shown.unsure)


def _ring_text(plan: Plan) -> str:
    """Size of the annulus in one line, or why there is none."""
    area = plan.measurements["annulus_area_mm2"]
    if area.value is None:
        return f"no size: {area.details['reason'].replace('_', ' ')}"
    low = plan.measurements["annulus_min_diameter_mm"].value
    high = plan.measurements["annulus_max_diameter_mm"].value
    doubt = "" if area.uncertainty is None else f" ± {area.uncertainty:.0f}"
    mark = "" if area.status == "ok" else "  ·  unsure"
    return f"{area.value:.0f}{doubt} mm²,  longest diameter {high:.1f}, shortest {low:.1f} mm{mark}"


def _standard_planes(axes: list[Axes], shown: _Content, middle: FloatArray) -> None:
    """Axial, coronal and sagittal, where no annulus plane is known."""
    views = {
        "Axial": View.of(middle, LEFT, FRONT),
        "Coronal": View.of(middle, LEFT, HEAD),
        "Sagittal": View.of(middle, -FRONT, HEAD),
    }
    for ax, (title, view) in zip(axes, views.items(), strict=True):
        _panel(ax, shown, view, 150.0)
        draw_caption(ax, title)
        draw_points(ax, view, shown.points, colours=shown.colours, unsure=shown.unsure)


def _chambers(ax: Axes, shown: _Content, middle: FloatArray) -> None:
    """Four chambers where the label map shows them, else a coronal plane."""
    view = None if shown.heart is None else four_chamber_view(shown.heart)
    if view is None:
        view, title = View.of(middle, LEFT, HEAD), "Coronal"
        missing = "the label map does not show both ventricles and the left atrium"
        note = "no label map" if shown.heart is None else missing
    else:
        title, note = "Four chambers", ""
    _panel(ax, shown, view, 150.0)
    draw_caption(ax, title, note)
    draw_points(ax, view, shown.points, size=30.0, colours=shown.colours, unsure=shown.unsure)


def _silhouettes(axes: list[Axes], volume: Volume, shown: _Content) -> None:
    """Trees and other structures that one plane does not show, seen through from three sides."""
    layers = [k for k in shown.layers if k.head != "calc"]
    labelled = [k.labels.grid.world(np.argwhere(k.mask[::2, ::2, ::2]) * 2.0) for k in layers if k.head == "heart"]
    places = [p for p in labelled if len(p)] or [volume.grid.corners()]
    middle = (np.concatenate(places).min(axis=0) + np.concatenate(places).max(axis=0)) / 2.0
    views = {
        "From the front": View.of(middle, LEFT, HEAD),
        "From the left and front": View.of(middle, unit(LEFT - FRONT), HEAD),
        "From the feet": View.of(middle, LEFT, FRONT),
    }
    height_mm = 170.0
    for ax, (title, view) in zip(axes, views.items(), strict=True):
        show_silhouettes(ax, layers, view, height_mm * SILHOUETTE_IN[0] / SILHOUETTE_IN[1], height_mm)
        draw_letters(ax, view)
        draw_scale(ax, 20.0)
        draw_caption(ax, title)


def _middle(volume: Volume, shown: _Content) -> FloatArray:
    """Where to cut when there is no annulus: between the landmarks, else the heart's middle, else the scan's."""
    inside = [p for p in shown.points.values() if bool(volume.grid.contains(p))]
    if inside:
        return np.asarray(np.mean(inside, axis=0), dtype=np.float64)
    centres = {} if shown.heart is None else chamber_centres(shown.heart)
    if centres:
        return np.asarray(np.mean(list(centres.values()), axis=0), dtype=np.float64)
    return volume.grid.centre_ras
