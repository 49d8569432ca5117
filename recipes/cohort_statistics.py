"""Measures digital patients again, from their rendered label maps and landmarks, against the published distributions.

    python -m recipes.cohort_statistics --patients 500 --out docs/cohort

Writes ``statistics.json`` and ``statistics.png``. Nothing is read from the drawn parameters. ``--circles`` compares the
circles through hinge points and commissures with a hospital's instead, and writes ``circles.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.cohort.heart import DigitalHeart, build_heart
from cardiac_ct_fm.cohort.patient import BY_SEX, MYOCARDIAL_DENSITY, draw_patient
from cardiac_ct_fm.cohort.render import heart_labels

ROOT_MM, HEART_MM = 0.9, 2.5
RAY_MM = 0.1
HARMONICS = 8
"""Waves of an outline that are kept: two make an ellipse, three the sinuses, the rest is the grain of the voxels."""

MEASURES: dict[str, dict[str, tuple[float, float]]] = {
    name: {"F": women, "M": men} for name, (women, men) in BY_SEX.items()
} | {
    "annulus_area_mm2": {"F": (405.0, 75.0), "M": (512.0, 110.0)},
    "annulus_perimeter_mm": {"F": (71.8, 7.5), "M": (80.6, 8.5)},
    "annulus_ellipticity": {"F": (1.29, 0.1), "M": (1.29, 0.1)},
    "septum_height_mm": {"F": (6.6, 2.0), "M": (6.6, 2.0)},
}
"""Published mean and SD by sex; sources in :mod:`cardiac_ct_fm.cohort.patient` and Hamdan et al. for the annulus."""

QUANTILES = (5, 25, 50, 75, 95)
CIRCLES: dict[str, tuple[float, ...]] = {
    "hinge_circle_mm": (22.6, 26.8, 29.8, 32.7, 38.1),
    "commissure_circle_mm": (23.8, 28.4, 33.1, 37.0, 47.4),
    "commissure_height_mm": (15.5, 18.2, 20.8, 23.0, 28.9),
}
"""Quantiles in 170–193 of 203 patients of one hospital, who were not scanned for TAVI: diameters of the circles through
the three nadirs and through the three commissures, and the commissures' mean height above the nadirs' plane."""

Floats = NDArray[np.float64]


def grid(centre: Floats, spacing: float, count: int) -> torch.Tensor:
    """Points (count³, 3) of a cube around ``centre``."""
    axes = [torch.arange(count) * spacing + float(c) - (count - 1) * spacing / 2 for c in centre]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def measure(heart: DigitalHeart) -> dict[str, float]:
    """Anatomical measures of one patient from label maps at 0.9 mm (root) and 2.5 mm (chambers) and his landmarks."""
    chambers = heart_labels(heart, grid(np.zeros(3), HEART_MM, 80), HEART_MM).numpy()
    millilitres = {n: float((chambers == v).sum()) * HEART_MM**3 / 1000 for n, v in HEART_LABELS.items()}
    at = {k: v.double().numpy() for k, v in heart.landmarks.items()}
    hinge = np.stack([at["RCC"], at["LCC"], at["NCC"]])
    normal = np.cross(hinge[1] - hinge[0], hinge[2] - hinge[0])
    normal /= np.linalg.norm(normal) * np.sign(normal[2])
    centre = hinge.mean(0)
    count = 72
    root = heart_labels(heart, grid(centre + 8 * normal, ROOT_MM, count), ROOT_MM).numpy()
    lumen = np.isin(root, [HEART_LABELS["LV"], HEART_LABELS["Aorta"]]).astype(np.float32)
    corner = centre + 8 * normal - (count - 1) * ROOT_MM / 2
    section = {h: cross_section(lumen, corner, centre + h * normal, normal) for h in np.arange(-6.0, 27.0, 1.0)}
    annulus = section[0.0]
    heights = [h for h in section if 4 <= h <= 18]
    sinus = max(heights, key=lambda h: section[h]["mean_mm"])
    above = [h for h in section if sinus + 2 <= h <= 26]
    junction = min(above, key=lambda h: section[h]["mean_mm"])
    return {
        "annulus_mm": annulus["mean_mm"],
        "annulus_area_mm2": annulus["area"],
        "annulus_perimeter_mm": annulus["perimeter"],
        "annulus_ellipticity": annulus["ratio"],
        "lvot_area_mm2": section[-5.0]["area"],
        "sinus_mm": section[sinus]["mean_mm"],
        "stj_mm": section[junction]["mean_mm"],
        "lca_height_mm": float((at["LCA"] - centre) @ normal),
        "rca_height_mm": float((at["RCA"] - centre) @ normal),
        "septum_height_mm": float((centre - at["MS2"]) @ normal),
        "lv_ml": millilitres["LV"],
        "rv_ml": millilitres["RV"],
        "la_ml": millilitres["LA"],
        "lv_mass_g": millilitres["Myo"] * MYOCARDIAL_DENSITY,
        "hinge_circle_mm": 2 * circumradius(hinge),
    }


def cross_section(lumen: NDArray[np.float32], corner: Floats, centre: Floats, normal: Floats) -> dict[str, float]:
    """Area (mm²), perimeter (mm), axis ratio and mean of both diameters (mm) of the lumen in a plane.

    The outline is where rays from ``centre`` leave the lumen, smoothed to :data:`HARMONICS`: a label map's steps alone
    make outlines 1.5 % and diameters 0.3 mm too long. NaN where a ray starts outside or never leaves.
    """
    one = np.cross(normal, [0.0, 1.0, 0.0])
    one /= np.linalg.norm(one)
    two = np.cross(normal, one)
    angle = np.radians(np.arange(0, 360, 3))
    ray = np.cos(angle)[:, None] * one + np.sin(angle)[:, None] * two
    ticks = np.arange(0, 28, RAY_MM)
    points = centre + ray[:, None] * ticks[:, None]
    inside = ndi.map_coordinates(lumen, ((points - corner) / ROOT_MM).transpose(2, 0, 1), order=1) > 0.5
    if not inside[:, 0].all() or inside.all(1).any():
        return dict.fromkeys(("area", "perimeter", "ratio", "mean_mm"), float("nan"))
    wave = np.fft.rfft((np.argmin(inside, 1) - 0.5) * RAY_MM)
    wave[HARMONICS + 1 :] = 0
    radius = np.fft.irfft(wave, len(angle))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    nx, ny = np.roll(x, -1), np.roll(y, -1)
    width = np.array([np.ptp(x * np.cos(a) + y * np.sin(a)) for a in angle[: len(angle) // 2]])
    return {
        "area": float(np.sum(x * ny - nx * y) / 2),
        "perimeter": float(np.hypot(nx - x, ny - y).sum()),
        "ratio": float(width.max() / width.min()),
        "mean_mm": float((width.max() + width.min()) / 2),
    }


def circumradius(points: Floats) -> float:
    """Radius of the circle through three points (3, 3)."""
    a, b, c = (np.linalg.norm(points[i] - points[j]) for i, j in ((0, 1), (1, 2), (2, 0)))
    area = np.linalg.norm(np.cross(points[1] - points[0], points[2] - points[0])) / 2
    return float(a * b * c / (4 * area))


def circles(heart: DigitalHeart) -> dict[str, float]:
    """The circles through three hinge points and through three commissures, and the distance between their planes."""
    hinge = np.stack([heart.landmarks[k].double().numpy() for k in ("RCC", "NCC", "LCC")])
    root, shape = heart.patient.root, heart.shape
    angles = [root.cusp_deg[k] for k in ("RCC", "NCC", "LCC")]
    between = [a + ((b - a) % 360) / 2 for a, b in zip(angles, angles[1:] + angles[:1], strict=True)]
    tops = [shape.along(shape.attachment, torch.tensor([a])) for a in between]
    local = torch.stack([shape.wall_point(a, float(top)) for a, top in zip(between, tops, strict=True)])
    template = heart.template
    commissure = heart.warp.to_body(local @ template.root_axes + template.root_origin).double().numpy()
    normal = np.cross(hinge[1] - hinge[0], hinge[2] - hinge[0])
    height = (commissure.mean(0) - hinge.mean(0)) @ normal / np.linalg.norm(normal)
    return {
        "hinge_circle_mm": 2 * circumradius(hinge),
        "commissure_circle_mm": 2 * circumradius(commissure),
        "commissure_height_mm": abs(float(height)),
    }


def compare_circles(first: int, patients: int) -> dict[str, Any]:
    """Quantiles of the circles of patients with consecutive seeds beside the hospital's."""
    rows = [circles(build_heart(draw_patient(seed))) for seed in range(first, first + patients)]
    table = {
        name: {
            "digital": np.percentile([row[name] for row in rows], QUANTILES).round(1).tolist(),
            "hospital": list(hospital),
        }
        for name, hospital in CIRCLES.items()
    }
    return {"patients": patients, "quantiles": list(QUANTILES), "table": table}


def collect(first: int, patients: int) -> dict[str, dict[str, list[float]]]:
    """Measures by sex of patients with consecutive seeds."""
    rows: dict[str, dict[str, list[float]]] = {"F": {}, "M": {}}
    for seed in range(first, first + patients):
        patient = draw_patient(seed)
        for name, value in measure(build_heart(patient)).items():
            rows[patient.sex].setdefault(name, []).append(value)
    return rows


def compare(rows: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """One row per published measure and sex: ours, theirs, difference in their SD, ratio of SDs."""
    table = []
    for name, published in MEASURES.items():
        for sex, (mean, spread) in published.items():
            values = np.array(rows[sex][name])
            ours = float(np.nanmean(values))
            table.append(
                {
                    "measure": name,
                    "sex": sex,
                    "n": len(values),
                    "missing": int(np.isnan(values).sum()),
                    "mean": round(ours, 2),
                    "sd": round(float(np.nanstd(values)), 2),
                    "published_mean": mean,
                    "published_sd": spread,
                    "shift_in_sd": round((ours - mean) / spread, 2),
                    "sd_ratio": round(float(np.nanstd(values)) / spread, 2),
                }
            )
    return table


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--circles", action="store_true", help="compare circles of the root instead")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.circles:
        found = compare_circles(args.first, args.patients)
        print(json.dumps(found, indent=1))
        (args.out / "circles.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    rows = collect(args.first, args.patients)
    table = compare(rows)
    for row in table:
        print("{measure:24s} {sex} {mean:8.2f} ± {sd:6.2f}   published {published_mean:8.2f} ± {published_sd:6.2f}   "
              "shift {shift_in_sd:+.2f} SD   SD × {sd_ratio:.2f}".format(**row))  # fmt: skip
    (args.out / "statistics.json").write_text(json.dumps({"patients": args.patients, "table": table}, indent=1) + "\n")
    plot(rows, args.out / "statistics.png")


def plot(rows: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Histograms of the cohort with the published normal curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10), layout="constrained")
    for axes, (name, published) in zip(figure.subplots(3, 5).flat, MEASURES.items(), strict=False):
        for sex, colour in (("F", "#c2477f"), ("M", "#2f6fb5")):
            values = np.array(rows[sex][name])
            mean, spread = published[sex]
            axes.hist(values, 24, density=True, color=colour, alpha=0.35, label=f"digital {sex}")
            x = np.linspace(mean - 3.5 * spread, mean + 3.5 * spread, 200)
            curve = np.exp(-(((x - mean) / spread) ** 2) / 2) / spread / np.sqrt(2 * np.pi)
            axes.plot(x, curve, color=colour, linewidth=1.5, label=f"published {sex}")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    for unused in figure.axes[len(MEASURES) :]:
        unused.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
