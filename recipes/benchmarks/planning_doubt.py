"""Do the standard deviations hold? How often the truth lies within them, and the least that they have to be.

    python -m recipes.benchmarks.planning_doubt docs/planning/true.csv

The least is fitted on the patients with even seeds; rounded, it is what :mod:`cardiac_ct_fm.planning.measured` tells.
The patients with odd seeds say whether it holds.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cardiac_ct_fm.planning.measured import CALCIUM_MM3, LEAST_MM
from recipes.benchmarks.planning_cases import Row

LEAST_CALCIUM_MM3 = 10.0
"""Below this a share of the volume says nothing (three voxels of a planning scan); such cusps are counted apart, as
calcium where there is none."""

CUSPS = ("rcc", "lcc", "ncc")
DIAMETERS: dict[str, tuple[str, ...]] = {
    "Annulus, minimum and maximum diameter": ("annulus_min_diameter_mm", "annulus_max_diameter_mm"),
    "Sinuses, mean, minimum and maximum diameter": tuple(f"sinus_{q}_diameter_mm" for q in ("mean", "min", "max")),
    "Sinus to commissure (3)": tuple(f"sinus_{c}_diameter_mm" for c in CUSPS),
    "Junction, mean diameter": ("stj_mean_diameter_mm",),
}
CALCIUM: dict[str, tuple[str, tuple[str, str]]] = {
    "Calcium per cusp, label map": ("", ("label", "label")),
    "Calcium per cusp, from 850 HU": (" fixed", ("fixed", "half")),
    "Calcium per cusp, blood + 100 HU": (" lumen", ("lumen", "half")),
    "Voxels per cusp, from 850 HU": (" fixed counted", ("fixed", "threshold")),
    "Voxels per cusp, blood + 100 HU": (" lumen counted", ("lumen", "threshold")),
}
"""Title → how the benchmark's names end, threshold and extent."""


def per_cusp(kind: str) -> tuple[str, ...]:
    """Names of the calcium of the three cusps, found in one way."""
    return tuple(f"calcium_{c}_mm3{kind}" for c in CUSPS)


def asked(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """The rows of some names that the scan shows; of calcium, where there is some."""
    own = [row for row in rows if row["name"] in names and row["asked"]]
    return [row for row in own if not (row["name"].startswith("calcium") and row["truth"] < LEAST_CALCIUM_MM3)]


def off(row: Row) -> float:
    """Measured − true, NaN where the value is missing; angles the short way around."""
    if row["value"] is None:
        return float("nan")
    error = float(row["value"] - row["truth"])
    return (error + 180.0) % 360.0 - 180.0 if row["name"].endswith("_deg") else error


def coverage(rows: list[Row], names: tuple[str, ...], sd: str = "sd") -> tuple[float, float] | None:
    """Shares of the values made whose truth lies within one and within 1.96 standard deviations; None of none.

    A value of calcium without a standard deviation claims to be exact.
    """
    made = [row for row in asked(rows, names) if row["value"] is not None]
    if not made:
        return None
    error, doubt = np.array([(abs(off(row)), row[sd] or 0.0) for row in made]).T
    return float(np.mean(error <= doubt)), float(np.mean(error <= 1.96 * doubt))


def percent(shares: tuple[float, float] | None) -> str:
    """``87 %, 97 %``."""
    return "" if shares is None else ", ".join(f"{100.0 * share:.0f} %" for share in shares)


def read(path: Path) -> list[Row]:
    """The rows of a table that :mod:`recipes.benchmarks.planning` wrote."""
    numbers = ("seed", "truth", "value", "sd", "scan_sd", "slice_mm", "blood_hu")
    with path.open(encoding="utf-8", newline="") as stream:
        rows: list[Row] = list(csv.DictReader(stream))
    for row in rows:
        row |= {key: float(row[key]) if row[key] else None for key in numbers}
        row |= {"seed": int(row["seed"]), "blood_hu": int(row["blood_hu"])}
        row |= {"reason": row["reason"] or None, "asked": row["asked"] == "True"}
    return rows


def root_mean_square(rows: list[Row]) -> float:
    """Of the errors."""
    return float(np.sqrt(np.mean([off(row) ** 2 for row in rows])))


def amount_and_share(rows: list[Row]) -> tuple[float, float]:
    """mm³ and share of the volume, the sum of whose squares is the variance of a normal error: the most likely ones.

    One mm³, a voxel of the scans, is added: a cusp without calcium that got none says nothing about the others.
    """
    error, value = np.array([(off(row), row["value"]) for row in rows]).T

    def unlikely(guess: NDArray[np.float64]) -> float:
        variance = guess[0] ** 2 + (guess[1] * value) ** 2 + 1.0
        return float(np.sum(np.log(variance) + error**2 / variance))

    amount, share = np.abs(minimize(unlikely, np.array([20.0, 0.3]), method="Nelder-Mead").x)
    return float(amount), float(share)


def table(rows: list[Row]) -> list[str]:
    """What was fitted on even seeds, what is told, and how often the truth lies within it."""
    out = [
        "| Quantity | error, even seeds | told at least | within 1 and 1.96 SD, even seeds | odd seeds "
        "| odd seeds, by the scan alone |",
        "|---|---|---|---|---|---|",
    ]
    even, odd = ([row for row in rows if row["seed"] % 2 == half] for half in (0, 1))

    def add(title: str, names: tuple[str, ...], fitted: str, least: str) -> None:
        shares = coverage(even, names), coverage(odd, names), coverage(odd, names, "scan_sd")
        out.append("| " + " | ".join((title, fitted, least, *map(percent, shares))) + " |")

    for title, names in DIAMETERS.items():
        add(title, names, f"{root_mean_square(made(even, names)):.2f} mm", f"{LEAST_MM[names[0]]:.1f} mm")
    for title, (kind, rule) in CALCIUM.items():
        names = per_cusp(kind)
        pairs = amount_and_share(made(even, names)), CALCIUM_MM3[rule]
        add(title, names, *(f"{amount:.0f} mm³, {100.0 * share:.0f} %" for amount, share in pairs))
    return out


def made(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """The rows of some names with a value; of calcium also where there is none, as nobody knows beforehand."""
    return [row for row in rows if row["name"] in names and row["asked"] and row["value"] is not None]


def main() -> None:
    """Print the table; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="true.csv of recipes.benchmarks.planning")
    print("\n".join(table(read(parser.parse_args().rows))))


if __name__ == "__main__":
    main()
