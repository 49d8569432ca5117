"""Figures of an evaluation as tables for people: points, structures, and tests between two models."""

from __future__ import annotations

from typing import Any

from cardiac_ct_fm.commands.results import airy_table


def score_tables(summary: dict[str, Any]) -> list[Any]:
    """Points and structures, one line each."""
    tables = []
    if summary["landmarks"]:
        points = airy_table("Landmark", ">Median mm", ">IQR", ">≤ 2 mm", ">≤ 4 mm", ">Found", ">Invented")
        for name, row in summary["landmarks"].items():
            success = row["success"]
            points.add_row(
                name,
                _number(row["median"], 2),
                f"{_number(row['q25'], 2)}–{_number(row['q75'], 2)}",
                _percent(success["2_mm"]["rate"]),
                _percent(success["4_mm"]["rate"]),
                f"{row['found']}/{row['asked']}",
                str(row["invented"]),
            )
        tables.append(points)
    if summary["segmentation"]:
        structures = airy_table("Structure", ">Dice", ">IQR", ">NSD", ">HD95 mm", ">Scans", ">Missed", ">Invented")
        for name, row in summary["segmentation"].items():
            dice = row["dice"]
            structures.add_row(
                name,
                _number(dice["median"], 3),
                f"{_number(dice['q25'], 3)}–{_number(dice['q75'], 3)}",
                _number(row["nsd"]["median"], 3) if "nsd" in row else "",
                _number(row["hd95_mm"]["median"], 1) if "hd95_mm" in row else "",
                str(dice["asked"]),
                str(dice["missed"]),
                str(dice["invented"]),
            )
        tables.append(structures)
    return tables


def comparison_table(comparison: dict[str, Any]) -> Any:
    """The comparison of two models, one line per test."""
    first, second = comparison["models"]
    tests = airy_table("Measure", f">{first}", f">{second}", ">Difference", ">95 %", ">p (Holm)", "Better")
    for row in comparison["tests"]:
        ends = row["interval"] or (None, None)
        tests.add_row(
            f"{row['structure']} {row['measure']}",
            *(_number(row[key], 3) for key in ("first_median", "second_median", "median_difference")),
            f"{_number(ends[0], 3)}…{_number(ends[1], 3)}",
            f"{row['p_holm']:.3g}",
            row["better"] or "no difference shown",
        )
    return tests


def _number(value: float | None, digits: int) -> str:
    """A figure; ``–`` where failures are so many that there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.0f} %"
