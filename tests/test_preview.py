"""The preview shows what it says, the right way round, whatever is missing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render, with_spheres
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, LANDMARKS
from cardiac_ct_fm.errors import OutputError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_pictures import chamber_centres, four_chamber_view, layers_of, show_silhouettes
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.landmark_pictures import draw_points, legend_mark
from cardiac_ct_fm.planning import PlanningOptions, measure
from cardiac_ct_fm.planning.planes import Plane, Sampler
from cardiac_ct_fm.preview import draw_preview, write_preview
from cardiac_ct_fm.render2d import (
    View,
    bare_panel,
    crossings,
    direction_letters,
    draw_curve,
    window_for,
)
from cardiac_ct_fm.volume_io import Volume

LEANING = np.array([0.55, 0.3, 0.78]) / np.linalg.norm([0.55, 0.3, 0.78])
ROOT = RootPhantom(lobes=1.5)


def pose() -> Pose:
    plane = Plane.through([0.0, 0.0, 0.0], LEANING, hint=[-1.0, 0.0, 0.0])
    return Pose(np.stack([plane.u, plane.v, plane.normal], axis=-1), np.array([5.0, -3.0, 9.0]))


@pytest.fixture(scope="module")
def scan() -> Volume:
    return render(ROOT.inside(), pose(), 1.5, half_extent=45, middle=(0, 0, 20), noise=15)


@pytest.fixture(scope="module")
def points() -> dict[str, Landmark]:
    at = hinge_points(pose(), ROOT.annulus, ROOT.annulus, start_deg=-80.0)
    return landmarks(at | {"LCA": pose().world([12.0, 8.0, 13.0])}) | {"RCA": Landmark.missing("RCA")}


def chambers(scan: Volume) -> np.ndarray:
    """A label map: four balls where the chambers of a heart are, and the aorta."""
    p = scan.grid.points() - scan.grid.centre_ras
    labels = np.zeros(scan.data.shape, np.uint8)
    middles = {"LV": (-20, 8, -12), "LA": (-4, -24, 6), "RV": (8, 26, -14), "RA": (26, 0, 4), "Aorta": (0, 0, 25)}
    for name, middle in middles.items():
        labels[np.linalg.norm(p - np.array(middle), axis=-1) < 12] = HEART_LABELS[name]
    return labels


def test_letters_name_the_patients_directions():
    assert direction_letters(np.array([-1.0, 0.0, 0.0])) == "L"
    assert direction_letters(np.array([0.0, -0.8, 0.6])) == "PH"
    assert direction_letters(np.array([0.98, 0.1, -0.2])) == "R"


def test_short_axis_is_shown_as_from_the_feet():
    view = View.en_face(Plane.through([0, 0, 0], LEANING), np.zeros(3))
    left, right, top, bottom = view.letters()
    assert "R" in left and "L" in right and "A" in top and "P" in bottom
    assert view.toward_viewer @ LEANING == pytest.approx(-1.0)


def test_long_axis_has_the_aorta_on_top_and_radiological_sides():
    plane = Plane.through([0, 0, 0], LEANING)
    for across in (np.array([1.0, 0.1, 0.0]), np.array([0.1, 1.0, 0.0]), np.array([-0.2, -1.0, 0.3])):
        view = View.long_axis(plane, np.zeros(3), across)
        assert view.up @ LEANING == pytest.approx(1.0)
        left, right, _, _ = view.letters()
        assert "R" in left[0] or "A" in left[0] or "A" in left
        assert right[0] in "LPHF"


def test_pixels_lie_where_the_view_says():
    view = View.of(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0, 0]), np.array([0.0, 1, 0]))
    lattice = view.lattice(40.0, 20.0, 0.5)
    assert lattice.shape == (40, 80, 3)
    assert np.allclose(view.project(lattice[0, 0]), [-19.75, 9.75])  # top left first
    assert np.allclose(view.distance(lattice), 0.0)


def test_curve_is_cut_where_it_crosses_the_picture():
    turn = np.radians(np.arange(0, 360, 3.0))
    ring = np.stack([10 * np.cos(turn), 10 * np.sin(turn), np.zeros_like(turn)], axis=-1)
    view = View.of(np.array([0.0, 1.7, 0.0]), np.array([-1.0, 0, 0]), np.array([0.0, 0, 1]))
    found = crossings(view, ring)
    assert len(found) == 2
    assert np.allclose(sorted(found[:, 0]), [-np.sqrt(100 - 1.7**2), np.sqrt(100 - 1.7**2)], atol=0.02)


def named_points(points: dict[str, tuple[float, float]], *lines: tuple) -> tuple[Axes, list[Annotation]]:
    """Names of points (x, y in mm) in a picture of 60 mm over lines ((x, y), (x, y))."""
    figure = Figure(figsize=(5, 5))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    bare_panel(ax, (-30.0, 30.0, -30.0, 30.0))
    view = View.of(np.zeros(3), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]))
    for line in lines:
        draw_curve(ax, view, np.array([(*end, 0.0) for end in line]), "#7df0c8")
    draw_points(ax, view, {name: np.array([*xy, 4.0]) for name, xy in points.items()})
    return ax, [text for text in ax.texts if isinstance(text, Annotation)]


def test_names_stand_beside_lines_and_not_on_each_other():
    line = ((-25.0, 1.5), (25.0, 1.5))
    ax, names = named_points({"MS2": (-8.0, 0.0), "MS1": (-6.5, -0.5), "RCC": (28.5, 0.5)}, line)
    assert [name.get_text() for name in names] == ["MS2, 4 mm off", "MS1, 4 mm off", "RCC, 4 mm off"]
    boxes = [name.get_window_extent() for name in names]
    (curve,) = ax.lines
    path = curve.get_path().transformed(curve.get_transform())
    assert not any(path.intersects_bbox(box, filled=False) for box in boxes)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_no_name_covers_a_ring():
    figure = Figure(figsize=(7.79, 5.13))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    bare_panel(ax, (-39.5, 39.5, -26.0, 26.0))
    view = View.of(np.zeros(3), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]))
    at = {"MS1": np.array([-6.5, 8.0, 0.0]), "MS2": np.array([-6.0, 6.8, 0.0])}
    draw_points(ax, view, at, unsure=at)
    for ring in ax.collections:
        x, y = ax.transData.transform(ring.get_offsets()[0])
        reach = float(np.sqrt(ring.get_sizes()[0])) / 2.0 * figure.dpi / 72.0
        for name in ax.texts:
            box = name.get_window_extent()
            beside = box.x0 > x + reach or box.x1 < x - reach or box.y0 > y + reach or box.y1 < y - reach
            assert beside, f"{name.get_text()} covers the ring of {ring.get_gid()}"


def test_names_are_light_letters_on_a_dark_rim():
    _, names = named_points({name: (0.0, 12.0 * i - 26) for i, name in enumerate(("RCC", "LCC", "RCA", "MS1", "MS2"))})
    for name in names:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name.get_color())]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))  # WCAG 2.2
        assert (luminance + 0.05) / 0.053 > 7.0, f"{name.get_text()} is too dark for its rim (WCAG: 7 to 1)"
        assert name.get_path_effects() and name.get_fontsize() >= 9


def test_a_sure_point_is_a_dot_and_an_unsure_one_an_open_ring_with_a_question_mark():
    figure = Figure(figsize=(5, 5))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    bare_panel(ax, (-30.0, 30.0, -30.0, 30.0))
    view = View.of(np.zeros(3), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]))
    at = {"RCC": (-15.0, -15.0, 0.0), "LCA": (15.0, -15.0, 0.0), "NCC": (-15.0, 15.0, 4.0), "MS1": (15.0, 15.0, 4.0)}
    draw_points(ax, view, {name: np.array(p) for name, p in at.items()}, unsure={"LCA", "MS1"})
    marks = {mark.get_gid(): mark for mark in ax.collections}
    filled = {name: len(mark.get_facecolors()) == 1 for name, mark in marks.items()}
    assert filled == {"RCC": True, "LCA": False, "NCC": True, "MS1": False}
    rings = {name: to_rgb(mark.get_edgecolors()[0][:3]) for name, mark in marks.items() if not filled[name]}
    assert rings == {"LCA": to_rgb("#39c6f0"), "MS1": to_rgb("#d58cff")}
    size = {name: float(mark.get_sizes()[0]) for name, mark in marks.items()}
    assert size["NCC"] < size["RCC"] and size["MS1"] < size["LCA"], "what is off the plane is smaller, sure or not"
    assert [text.get_text() for text in ax.texts] == ["RCC", "LCA?", "NCC, 4 mm off", "MS1?, 4 mm off"]
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    x, y = (round(float(v)) for v in ax.transData.transform((15.0, -15.0)))
    assert colour_count(picture[-y - 1 : -y + 1, x - 1 : x + 1], "#39c6f0") == 0, "the middle of a ring shows the scan"


def test_a_legend_shows_points_as_they_are_drawn():
    sure, unsure = legend_mark("#39c6f0", False, "LCA"), legend_mark("#39c6f0", True, "LCA")
    assert (sure.get_markerfacecolor(), unsure.get_markerfacecolor()) == ("#39c6f0", "none")
    assert unsure.get_markeredgecolor() == "#39c6f0" and unsure.get_markeredgewidth() > 0


def test_window_follows_bright_blood():
    assert window_for(300.0) == (-150.0, 550.0)
    assert window_for(700.0) == (-150.0, 1120.0)
    assert window_for(None) == window_for(float("nan")) == (-150.0, 550.0)


def test_four_chamber_view_holds_the_chambers_with_left_on_the_right(scan):
    labels = Sampler(chambers(scan), scan.grid)
    centres = chamber_centres(labels)
    view = four_chamber_view(labels)
    assert all(abs(view.distance(centres[n])) < 8.0 for n in ("LV", "LA", "RV", "RA"))
    on_screen = {n: view.project(c) for n, c in centres.items()}
    assert on_screen["LV"][0] > on_screen["RA"][0]
    assert on_screen["RV"][1] > on_screen["LA"][1]
    assert four_chamber_view(Sampler(np.zeros(scan.data.shape, np.uint8), scan.grid)) is None


def test_preview_of_everything(scan, points, tmp_path):
    labels = chambers(scan)
    plan = measure(scan, points, labels, options=PlanningOptions(samples=8))
    picture = pixels(write_preview(tmp_path / "preview.png", scan, points, {"heart": labels}, plan))
    assert picture.shape[:2] == (1180, 1600)
    for x in (400, 1200):
        for y in (300, 800):
            panel = picture[y - 200 : y + 200, x - 300 : x + 300]
            assert panel.std() > 15, "every panel shows something"
    assert colour_count(picture, "#7df0c8") > 400, "the annulus contour is drawn"
    assert colour_count(picture, "#4dd06a") > 40, "the hinge point LCC is drawn"


def words_of(figure: Figure) -> list[str]:
    """All texts around the panels."""
    return [text.get_text() for text in figure.texts]


def test_the_picture_names_the_model_and_the_first_digits_of_its_weights(scan):
    def caption(run: dict) -> str:
        return words_of(draw_preview(scan, {}, {}, None, {}, run))[2]

    digest = {name: 8 * first + 56 * "0" for name, first in zip("vwxyz", "abcde", strict=True)}
    one = {"model": "cardiac_swin_tiny", "weights_sha256": {"model.safetensors": digest["v"]}}
    assert caption(one | {"quality": "fast"}).split("   ")[-3:-1] == ["cardiac_swin_tiny", "quality fast"]
    assert caption(one).endswith("cardiac_swin_tiny   weights aaaaaaaa")
    with_head = one | {"weights_sha256": {"model.safetensors": digest["v"], "mine": digest["w"]}}
    assert caption(with_head).endswith("weights aaaaaaaa + bbbbbbbb")
    assert caption(one | {"weights_sha256": digest}).endswith("weights aaaaaaaa + bbbbbbbb + cccccccc + 2 more")
    assert caption(one | {"weights_sha256": None}).endswith("cardiac_swin_tiny   weights of no file")
    assert "weights" not in caption({}), "points that a person placed come from no model"


def test_unsure_points_are_named_with_their_confidence_and_explained_in_the_legend(scan, points):
    marks = points | {"NCC": replace(points["NCC"], confidence=0.13), "LCC": replace(points["LCC"], confidence=0.5)}
    plan = measure(scan, marks, options=PlanningOptions(samples=8))
    figure = draw_preview(scan, marks, {}, plan, {}, {})
    assert any("Unsure: NCC 0.13." in words for words in words_of(figure)), "0.5 itself is sure"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "unsure (confidence below 0.5)"
    handles = dict(zip(legend, figure.legends[0].legend_handles, strict=True))
    assert [handles[n].get_markerfacecolor() == "none" for n in ("RCC", "LCC", "NCC")] == [False, False, True]
    assert any(text.get_text().endswith("unsure") for text in figure.axes[0].texts), "the annulus' size is marked"
    certain = draw_preview(scan, points, {}, measure(scan, points, options=PlanningOptions(samples=8)), {}, {})
    assert not any("nsure" in text.get_text() for text in [*certain.texts, *certain.legends[0].get_texts()])


def test_the_longest_legend_lies_within_the_picture_and_below_its_panels(scan, points):
    inside = dict(zip(LANDMARKS, pose().world(np.array([[2.0 * i, 0.0, 0.0] for i in range(7)])), strict=True))
    marks = {name: Landmark(name, True, tuple(at), 0.2) for name, at in inside.items()}
    marks |= {name: replace(points[name], confidence=0.2) for name in HINGE_POINTS}
    heart, (x, y, z) = chambers(scan), (n // 2 for n in scan.data.shape)
    heart[x - 4 : x + 4, y - 4 : y + 4, z - 20 : z], heart[x - 4 : x + 4, y - 4 : y + 4, z : z + 20] = 1, 7
    calcium = np.roll(tree(scan), 6, axis=1)
    maps = {"heart": heart, "calc": calcium, "coronaries": tree(scan), "fat": np.roll(tree(scan), 3, axis=0)}
    plan = measure(scan, marks, heart, options=PlanningOptions(samples=8))
    figure = draw_preview(scan, marks, maps, plan, {"fat": ("Epicardial fat",)}, {})
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 7 + 3 + 1 + 7 + 1, "all that there is, the contour and the mark of what is unsure"
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    assert box.y1 <= min(ax.bbox.y0 for ax in figure.axes)


@pytest.mark.parametrize("what", ["no plan", "no labels", "nothing", "no annulus"])
def test_preview_of_what_is_there(scan, points, tmp_path, what):
    marks = {} if what == "nothing" else points
    plan = None
    if what == "no annulus":
        marks = {k: v for k, v in points.items() if k != "NCC"}
        plan = measure(scan, marks, options=PlanningOptions(samples=8))
    labels = None if what in ("no labels", "nothing") else {"heart": chambers(scan)}
    picture = pixels(write_preview(tmp_path / "preview.png", scan, marks, labels, plan))
    assert picture.std() > 15


def tree(scan: Volume) -> np.ndarray:
    """A label map: one vessel of two voxels (3 mm) that runs down in front of the middle of the scan."""
    labels = np.zeros(scan.data.shape, np.uint8)
    x, y, z = (n // 2 for n in labels.shape)
    labels[x : x + 2, y + 14 : y + 16, z - 16 : z + 16] = 1
    return labels


def test_every_head_is_drawn_in_a_colour_of_its_own(scan, points, tmp_path):
    maps = {"heart": chambers(scan), "coronaries": tree(scan), "fat": np.roll(tree(scan), 12, axis=0) * 2}
    classes = {"fat": ("Pericardial", "Epicardial")}
    plan = measure(scan, points, maps["heart"], options=PlanningOptions(samples=8))
    picture = pixels(write_preview(tmp_path / "preview.png", scan, points, maps, plan, classes))
    assert picture.shape[0] > 1180, "a row of silhouettes is added"
    layers = {k.name: k.colour for k in layers_of(maps, classes, scan.grid)}
    assert len(set(layers.values())) == len(layers) == 10
    above, silhouettes = picture[:1180], picture[1180:1600]
    for name in ("Coronary", "Epicardial"):
        assert colour_count(above, layers[name]) > 20, f"{name} is outlined"
        assert colour_count(silhouettes, layers[name], 45) > 150, f"{name} is filled"
    assert colour_count(silhouettes, layers["Pericardial"]) == 0
    figure = draw_preview(scan, points, maps, plan, classes, {})
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"Coronary", "Epicardial", "annulus contour", "RCC", "LCC", "NCC"} <= named
    assert not {"Pericardial", "Myo", "PA"} & named, "what is in no panel is not in the legend"
    assert any("Not found: RCA, Pericardial." in text.get_text() for text in figure.texts)


def test_points_that_were_not_asked_for_are_not_said_to_be_missing(scan):
    maps = {"heart": chambers(scan), "coronaries": tree(scan)}
    figure = draw_preview(scan, {}, maps, measure(scan, {}, maps["heart"], options=PlanningOptions(samples=8)), {}, {})
    words = " ".join(text.get_text() for text in figure.texts)
    assert "Not found" not in words and "RCC" not in words
    assert "annulus contour" not in {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_valve_without_calcium_is_no_failure(scan, points):
    maps = {"heart": chambers(scan), "calc": np.zeros(scan.data.shape, np.uint8), "coronaries": tree(scan) * 0}
    figure = draw_preview(scan, points, maps, None, {}, {})
    assert any("Not found: RCA, Coronary." in text.get_text() for text in figure.texts)


def test_points_of_ones_own_are_drawn_and_listed(scan, tmp_path):
    apex = {"Apex": Landmark("Apex", True, tuple(scan.grid.centre_ras), 0.9), "Base": Landmark.missing("Base")}
    figure = draw_preview(scan, apex, {}, None, {}, {})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Apex"]
    assert any("Not found: Base." in text.get_text() for text in figure.texts)
    picture = pixels(write_preview(tmp_path / "preview.png", scan, apex))
    assert colour_count(picture, "#a6ff4d") > 100


def test_a_silhouette_has_no_gaps_and_lies_where_the_structure_is():
    grid = Grid.centred((0, 0, 0), 1.5, (40, 40, 40))
    labels = np.zeros(grid.shape, np.uint8)
    labels[4:8, 18:20, 10:30] = 1  # on the patient's left, 6 mm wide and 30 mm long
    figure = Figure(figsize=(3, 3))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    layers = layers_of({"coronaries": labels}, {}, grid)
    show_silhouettes(ax, layers, View.of(np.zeros(3), np.array([-1.0, 0, 0]), np.array([0.0, 0, 1])), 60.0, 60.0)
    filled = np.asarray(ax.images[0].get_array())[..., 3] > 0
    rows, columns = np.nonzero(filled)
    pixel = 60.0 / filled.shape[0]
    assert filled.sum() * pixel**2 == pytest.approx(6 * 30, rel=0.15)
    assert filled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert columns.mean() * pixel - 30 == pytest.approx(-float(grid.world((5.5, 0, 0))[0]), abs=1.0)


def test_what_is_on_the_patients_left_is_on_the_right_of_the_picture(tmp_path):
    grid = Grid.centred((0, 0, 0), 2.0, (60, 60, 60))
    plain = Volume(np.full(grid.shape, -50, np.int16), grid.affine, "scan")
    marked = with_spheres(plain, np.array([[-25.0, 0.0, 0.0]]), 12.0, 900.0)
    picture = pixels(write_preview(tmp_path / "preview.png", marked, {}, None, None)).mean(axis=-1)
    axial = picture[80:540, 20:780]
    assert axial[:, 380:].mean() > axial[:, :380].mean() + 5


def test_preview_is_written_whole_or_not_at_all(scan, points, tmp_path):
    (tmp_path / "preview.png").mkdir()
    with pytest.raises(OutputError):
        write_preview(tmp_path / "preview.png", scan, points)
    assert [p.name for p in tmp_path.iterdir()] == ["preview.png"]


def test_drawing_leaves_matplotlib_alone():
    code = "import sys, cardiac_ct_fm.preview; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent.parent).returncode == 0


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colour_count(picture: np.ndarray, colour: str, off: int = 14) -> int:
    """Pixels that are nearly of a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - rgb).max(axis=-1) < off).sum())
