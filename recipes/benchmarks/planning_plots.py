"""Bland–Altman plots of the root's measurements."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from recipes.benchmarks.planning_cases import Row

PANELS = (
    ("annulus_area_mm2", "Annulus area", "mm²"),
    ("annulus_perimeter_mm", "Annulus perimeter", "mm"),
    ("annulus_min_diameter_mm", "Annulus minimum diameter", "mm"),
    ("annulus_max_diameter_mm", "Annulus maximum diameter", "mm"),
    ("lca_height_mm", "Height of the left ostium", "mm"),
    ("rca_height_mm", "Height of the right ostium", "mm"),
    ("membranous_septum_length_mm", "Membranous septum", "mm"),
    ("stj_height_mm", "Height of the junction", "mm"),
    ("stj_mean_diameter_mm", "Junction, mean diameter", "mm"),
    ("sinus_mean_diameter_mm", "Sinuses, mean diameter", "mm"),
    ("calcium_ncc_mm3", "Calcium, non-coronary", "mm³"),
    ("carm_three_cusp_lao_deg", "C-arm, three-cusp LAO", "°"),
)


def bland_altman(rows: list[Row], title: str, path: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Difference from the truth over the mean of both, with bias and limits of agreement; misses are counted.

    Args:
        rows: the measurements of all patients.
        title: heading of the figure.
        path: the PNG.
        leave_out: beginnings of the names that get no panel.
    """
    panels = [panel for panel in PANELS if not panel[0].startswith(leave_out)]
    figure = Figure(figsize=(15, 10 * math.ceil(len(panels) / 4) / 3), layout="constrained")
    for axes, (name, heading, unit) in zip(figure.subplots(math.ceil(len(panels) / 4), 4).flat, panels, strict=True):
        own = [row for row in rows if row["name"] == name and row["asked"]]
        made = np.array([(row["truth"], row["value"]) for row in own if row["value"] is not None])
        axes.set_title(f"{heading}, n = {len(made)}, missed {len(own) - len(made)}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"mean of both, {unit}", fontsize=8)
        axes.set_ylabel(f"measured − true, {unit}", fontsize=8)
        axes.tick_params(labelsize=8)
        if not len(made):
            continue
        difference = made[:, 1] - made[:, 0]
        if unit == "°":
            difference = (difference + 180.0) % 360.0 - 180.0
        axes.plot(made.mean(axis=1), difference, "o", color="#0f6b66", markersize=4, alpha=0.6)
        bias, spread = float(difference.mean()), 1.96 * float(difference.std())
        axes.axhline(0.0, color="#9aa7b5", linewidth=0.8)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            axes.axhline(level, color="#a4262c", linewidth=1.1, linestyle=style)
            axes.text(1.0, level, f" {level:+.1f}", transform=axes.get_yaxis_transform(), fontsize=8, va="center")
        room = max(1.3 * float(np.abs(difference).max()), 1.5 * abs(spread), 0.1)
        axes.set_ylim(-room, room)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=100)
