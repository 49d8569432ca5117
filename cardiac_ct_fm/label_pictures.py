"""Label maps in pictures: colours of classes, outlines in a plane, silhouettes, and planes that chambers give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from scipy.ndimage import gaussian_filter

from cardiac_ct_fm.anatomy import HEADS, HEART_LABELS, heads_in_order
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.planning.planes import Sampler, unit
from cardiac_ct_fm.render2d import FRONT, LEFT, View, bare_panel

OWN_COLOURS = ("#a6ff4d", "#4dfff3", "#ff4dd2", "#ffe9b0", "#b3c7ff", "#ff8f6b")
"""Colours of classes that the vocabulary does not know, in turn: bright, and none of the vocabulary's."""

COARSE_MM = 3.0
"""Step at which the centres and silhouettes of the chambers are counted."""

PIXEL_MM = 0.5
"""Pixel in which outlines are drawn."""

SILHOUETTE_MM = 0.75
"""Pixel of a silhouette; half a voxel of the coarsest scans that show coronary arteries."""

FEW_CELLS = 10
"""Cells of :data:`COARSE_MM` below which a label is no chamber: 0.3 mL."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One class of one label map.

    Attributes:
        head: whose label map it is.
        name: of the class.
        colour: sRGB hex.
        value: of the class in the map.
        labels: the map, at world points.
    """

    head: str
    name: str
    colour: str
    value: int
    labels: Sampler

    @property
    def key(self) -> str:
        """Head and class: a point may have the class' name too."""
        return f"{self.head}: {self.name}"

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(X, Y, Z), where the class is."""
        found: npt.NDArray[np.bool_] = self.labels.data == self.value
        return found


def layers_of(
    label_maps: Mapping[str, npt.NDArray[np.uint8]], classes: Mapping[str, Sequence[str]], grid: Grid
) -> list[Layer]:
    """One layer per class of every head, the vocabulary's heads first.

    Args:
        label_maps: head → (X, Y, Z); value ``i + 1`` is ``classes[head][i]``.
        classes: head → names; heads of the vocabulary may be left out.
        grid: of all maps.
    """
    built_in = {s.name: s.colour for spec in HEADS.values() for s in spec.structures}
    own = cycle(OWN_COLOURS)
    layers = []
    for head in heads_in_order(label_maps):
        names = classes[head] if head in classes else HEADS[head].classes
        sampler = Sampler(label_maps[head], grid)
        for value, name in enumerate(names, start=1):
            layers.append(Layer(head, name, built_in.get(name) or next(own), value, sampler))
    return layers


def show_layers(ax: Axes, layers: Iterable[Layer], view: View, width_mm: float, height_mm: float) -> None:
    """Outline classes in a plane, with a breath of fill; an outline's ``gid`` is the layer's key."""
    lattice = view.lattice(width_mm, height_mm, PIXEL_MM)
    extent = (-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    seen: dict[int, npt.NDArray[np.uint8]] = {}
    for layer in layers:
        found = seen.setdefault(id(layer.labels), layer.labels.nearest(lattice))
        # Label voxels are larger than pixels; half a voxel of smoothing takes their stairs away. Of what is a voxel or
        # two wide it would leave nothing, so what is not a chamber gets a third of that.
        share = 0.5 if layer.head == "heart" else 0.17
        sigma = max(share * layer.labels.voxel_mm / PIXEL_MM, 1.0 if layer.head == "heart" else 0.5)
        soft = gaussian_filter((found == layer.value).astype(np.float32), sigma)
        if soft.max() <= 0.5:
            continue
        fill, line = (0.07, 1.3) if layer.head == "heart" else (0.2, 1.5)
        ax.contourf(soft, levels=[0.5, 1.1], colors=[layer.colour], alpha=fill, origin="upper", extent=extent)
        ax.contour(soft, levels=[0.5], colors=[layer.colour], linewidths=line, origin="upper", extent=extent).set_gid(
            layer.key
        )


def show_silhouettes(ax: Axes, layers: Sequence[Layer], view: View, width_mm: float, height_mm: float) -> None:
    """Whole structures seen through: chambers of the heart as outlines, everything else filled, denser where deeper."""
    extent = (-width_mm / 2, width_mm / 2, -height_mm / 2, height_mm / 2)
    for layer in (k for k in layers if k.head == "heart"):
        shadow = _shadow(layer, view, width_mm, height_mm, COARSE_MM) > 0
        soft = gaussian_filter(shadow.astype(np.float32), 0.7)
        if soft.max() > 0.5:
            ax.contour(
                soft, levels=[0.5], colors=[layer.colour], linewidths=0.9, alpha=0.7, origin="upper", extent=extent
            ).set_gid(layer.key)
    for layer in (k for k in layers if k.head != "heart"):
        depth = _shadow(layer, view, width_mm, height_mm, SILHOUETTE_MM)
        if not depth.any():
            continue
        alpha = np.where(depth > 0, 0.65 + 0.35 * (1 - np.exp(-depth / 3.0)), 0.0)
        pixels = np.concatenate([np.broadcast_to(to_rgb(layer.colour), (*depth.shape, 3)), alpha[..., None]], axis=-1)
        ax.imshow(pixels, extent=extent, interpolation="nearest", zorder=3, gid=layer.key)
    bare_panel(ax, extent)


def _shadow(layer: Layer, view: View, width_mm: float, height_mm: float, pixel_mm: float) -> FloatArray:
    """(H, W) depth in mm of a class along the line of sight, top row first; chambers are counted coarsely."""
    grid = layer.labels.grid
    steps = [max(1, round(pixel_mm / s)) for s in grid.spacing]
    index = np.argwhere(layer.labels.data[:: steps[0], :: steps[1], :: steps[2]] == layer.value) * steps
    height, width = round(height_mm / pixel_mm), round(width_mm / pixel_mm)
    depth = np.zeros((height, width))
    if not len(index):
        return depth
    # A voxel larger than a pixel covers several: it is split into as many points as it takes to leave no gaps.
    cuts = [
        np.arange(n) / n - 0.5 + 0.5 / n
        for n in (max(1, round(s * k / pixel_mm)) for s, k in zip(grid.spacing, steps, strict=True))
    ]
    offsets = np.stack(np.meshgrid(*cuts, indexing="ij"), axis=-1).reshape(-1, 3) * steps
    xy = view.project(grid.world((index[:, None] + offsets).reshape(-1, 3)))
    column = np.floor((xy[:, 0] + width_mm / 2) / pixel_mm).astype(int)
    row = np.floor((height_mm / 2 - xy[:, 1]) / pixel_mm).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    part_mm3 = grid.voxel_mm3 * np.prod(steps) / len(offsets)
    np.add.at(depth, (row[inside], column[inside]), part_mm3 / pixel_mm**2)
    return depth


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
        if len(index) >= FEW_CELLS:
            found[name] = labels.grid.world(index.mean(axis=0) * steps)
    return found
