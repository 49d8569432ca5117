"""Turns the two real whole-heart label maps into the small template file that the digital cohort starts from.

For each template: a signed distance field per structure (mm, positive inside, clipped at ±25 mm, 2 mm grid),
the frame of the aortic root, the aortic centreline, and the courses of the coronary arteries found as
cheapest paths through the grooves between the chambers.

Run ``python -m recipes.heart_templates`` to make ``cardiac_ct_fm/assets/cohort/templates.npz`` again.
Source of the label maps: HeartDeformNets (Kong & Shadden, IEEE TMI 2022), Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray
from skimage.graph import route_through_array

from cardiac_ct_fm.anatomy import HEART_LABELS

HERE = Path(__file__).parent
SOURCE = HERE / "data" / "heart-templates"
TARGET = HERE.parent / "cardiac_ct_fm" / "assets" / "cohort" / "templates.npz"

SPACING_MM = 2.0
MARGIN_MM = 24.0
STEP_MM = 0.2
"""Quantisation of the stored distances; int8 × 0.2 mm reaches ±25.4 mm."""

Array = NDArray[np.float64]


def signed_distance(mask: NDArray[np.bool_], spacing: Array) -> Array:
    """Signed Euclidean distance in mm, positive inside ``mask``, zero on its surface."""
    inside = ndi.distance_transform_edt(mask, sampling=spacing)
    outside = ndi.distance_transform_edt(~mask, sampling=spacing)
    half = float(np.mean(spacing)) / 2
    return np.where(mask, inside - half, half - outside)


def fields_of(labels: NDArray[np.uint8], affine: Array) -> tuple[Array, Array]:
    """Distance fields (7, X, Y, Z) on a ``SPACING_MM`` grid around the heart, and the grid's affine (RAS mm)."""
    world = nib.affines.apply_affine(affine, np.argwhere(labels > 0))
    low, high = world.min(0) - MARGIN_MM, world.max(0) + MARGIN_MM
    shape = np.ceil((high - low) / SPACING_MM).astype(int) + 1
    grid_affine = np.diag([SPACING_MM] * 3 + [1.0])
    grid_affine[:3, 3] = low
    points = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * SPACING_MM + low
    voxel = nib.affines.apply_affine(np.linalg.inv(affine), points).transpose(3, 0, 1, 2)
    spacing = np.abs(np.diag(affine)[:3])
    first = np.maximum(np.floor(voxel.reshape(3, -1).min(1)).astype(int), 0)
    last = np.minimum(np.ceil(voxel.reshape(3, -1).max(1)).astype(int) + 1, labels.shape)
    block = labels[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    local = voxel - first[:, None, None, None]
    out = []
    for value in HEART_LABELS.values():
        distance = ndi.gaussian_filter(signed_distance(block == value, spacing), 0.6 / spacing)
        clipped = ndi.map_coordinates(distance, local, order=1, mode="nearest")
        beyond = np.linalg.norm(
            np.maximum(0, np.maximum(-local, local - (np.array(block.shape) - 1)[:, None, None, None]))
            * spacing[:, None, None, None],
            axis=0,
        )
        out.append(np.clip(clipped - beyond, -25.4, 25.4))
    return np.stack(out), grid_affine


def root_frame(labels: NDArray[np.uint8], affine: Array) -> tuple[Array, Array]:
    """Origin (mm) and axes (rows x to the patient's left, y anterior, z up the aorta) of the aortic root.

    The annulus plane is the plane of the interface between the labels LV and Aorta.
    """
    touching = ndi.binary_dilation(labels == HEART_LABELS["LV"]) & ndi.binary_dilation(labels == HEART_LABELS["Aorta"])
    points = nib.affines.apply_affine(affine, np.argwhere(touching))
    origin = points.mean(0)
    up = np.linalg.svd(points - origin, full_matrices=False)[2][2]
    up *= np.sign(up[2])
    left = np.array([-1.0, 0.0, 0.0])
    left -= up * (left @ up)
    left /= np.linalg.norm(left)
    anterior = np.cross(up, left)
    if anterior[1] < 0:
        anterior = -anterior
    return origin, np.stack([left, anterior, up])


def centreline(labels: NDArray[np.uint8], affine: Array, origin: Array, axes: Array) -> Array:
    """Centre of the aortic lumen in the root frame at heights 0, 2, … 30 mm above the annulus: (16, 2) mm."""
    local = (nib.affines.apply_affine(affine, np.argwhere(labels == HEART_LABELS["Aorta"])) - origin) @ axes.T
    rows = []
    for height in np.arange(0, 31, 2.0):
        slab = local[(np.abs(local[:, 2] - max(height, 4.0)) < 1) & (np.hypot(local[:, 0], local[:, 1]) < 30)]
        rows.append(slab[:, :2].mean(0))
    smooth = ndi.gaussian_filter1d(np.array(rows), 1.5, axis=0, mode="nearest")
    return smooth - smooth[0]


def coronary_courses(fields: Array, affine: Array, origin: Array, axes: Array) -> dict[str, Array]:
    """Courses of the coronary arteries as polylines (n, 3) in template mm, in the grooves of the heart.

    Each is the cheapest path whose cost grows with the difference from a small distance to the two structures
    that form the groove (interventricular: RV and left myocardium; atrioventricular: atrium and ventricle).
    """
    names = list(HEART_LABELS)
    outside = {name: -fields[names.index(name)] for name in names}
    nearest = np.min(np.stack(list(outside.values())), 0)
    inverse = np.linalg.inv(affine)

    def world(index: Array) -> Array:
        result: Array = nib.affines.apply_affine(affine, index)
        return result

    def voxel(point: Array) -> tuple[int, ...]:
        return tuple(int(v) for v in np.round(nib.affines.apply_affine(inverse, point)))

    def route(start: Array, end: Array, groove: dict[str, float], *, keep_off: float = 1.0) -> Array:
        cost = 0.3 + sum(np.abs(outside[s] - gap) for s, gap in groove.items()) ** 1.5 * 0.15
        cost = cost + 60.0 * np.maximum(0, keep_off - nearest) ** 2
        path, _ = route_through_array(cost, voxel(start), voxel(end), fully_connected=True, geometric=True)
        line = world(np.array(path, float))
        smooth = ndi.gaussian_filter1d(line, 2.0, axis=0, mode="nearest")
        smooth[0], smooth[-1] = line[0], line[-1]
        return smooth

    grid = np.stack(np.meshgrid(*[np.arange(n) for n in fields.shape[1:]], indexing="ij"), -1).reshape(-1, 3)
    points = world(grid.astype(float))
    local = (points - origin) @ axes.T

    def best(score: Array) -> Array:
        chosen: Array = points[np.argmin(score)]
        return chosen

    flat = {s: d.reshape(-1) for s, d in outside.items()}
    free = np.maximum(0, 2.5 - nearest.reshape(-1)) * 20

    def near_wall(angle: float, height: float) -> Array:
        turn = np.radians(angle)
        at = np.array([20 * np.cos(turn), 20 * np.sin(turn), height])
        return np.linalg.norm(local - at, axis=1)

    right_start = best(near_wall(97, 15) + free)
    left_start = best(near_wall(325, 13) + free)
    myo, rv, la, ra = flat["Myo"], flat["RV"], flat["LA"], flat["RA"]
    base_to_apex = points @ _apex_direction(fields, affine)
    apex = best(5 * (myo - 3) ** 2 + np.abs(rv - 8) * 0.5 - 0.6 * base_to_apex + free)
    fork = best(
        np.abs(np.linalg.norm(points - left_start, axis=1) - 12) + np.abs(myo - 6) + np.abs(la - 6) * 0.5 + free
    )
    crux = best((ra - 4) ** 2 + (rv - 5) ** 2 + (myo - 4) ** 2 + (la - 9) ** 2 + 0.3 * points[:, 2] + free)
    back = best(2 * (la - 4) ** 2 + 2 * (myo - 4) ** 2 + np.abs(np.linalg.norm(points - crux, axis=1) - 25) + free)
    lad = route(fork, apex, {"RV": 4, "Myo": 3})
    circumflex = route(fork, back, {"LA": 4, "Myo": 4})
    rca = route(right_start, crux, {"RA": 4, "RV": 4})
    middle = lad[len(lad) // 3]
    lateral = best(
        3 * (myo - 3) ** 2 + np.linalg.norm(points - (lad[2 * len(lad) // 3] + back) / 2, axis=1) * 0.5 + free
    )
    obtuse = best(3 * (myo - 3) ** 2 + np.linalg.norm(points - (apex + 2 * back) / 3, axis=1) * 0.5 + free)
    acute = best(3 * (rv - 3) ** 2 + np.linalg.norm(points - (apex + 2 * rca[len(rca) // 2]) / 3, axis=1) * 0.5 + free)
    return {
        "LM": route(left_start, fork, {"LA": 7}),
        "LAD": lad,
        "LCx": circumflex,
        "RCA": rca,
        "PDA": route(crux, apex, {"RV": 4, "Myo": 3}),
        "D1": route(middle, lateral, {"Myo": 3}),
        "OM1": route(circumflex[len(circumflex) // 3], obtuse, {"Myo": 3}),
        "AM": route(rca[len(rca) // 2], acute, {"RV": 3}),
    }


def _apex_direction(fields: Array, affine: Array) -> Array:
    """Unit vector from the centre of the left atrium to the centre of the left ventricle."""
    names = list(HEART_LABELS)
    centre = {
        n: nib.affines.apply_affine(affine, np.argwhere(fields[names.index(n)] > 0)).mean(0) for n in ("LA", "LV")
    }
    direction: Array = centre["LV"] - centre["LA"]
    return direction / np.linalg.norm(direction)


def main() -> None:
    """Write the template file and print what is in it."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in ("wh", "mmwhs"):
        image = nib.load(SOURCE / f"{name}.nii.gz")
        labels = np.asarray(image.dataobj).astype(np.uint8)
        fields, affine = fields_of(labels, image.affine)
        origin, axes = root_frame(labels, image.affine)
        arrays[f"{name}.fields"] = np.round(fields / STEP_MM).astype(np.int8)
        arrays[f"{name}.affine"] = affine
        arrays[f"{name}.root_origin"] = origin
        arrays[f"{name}.root_axes"] = axes
        arrays[f"{name}.centreline"] = centreline(labels, image.affine, origin, axes)
        for vessel, line in coronary_courses(fields, affine, origin, axes).items():
            arrays[f"{name}.coronary.{vessel}"] = line.astype(np.float32)
            print(name, vessel, len(line), "points", np.linalg.norm(np.diff(line, axis=0), axis=1).sum().round(), "mm")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(TARGET.name, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
