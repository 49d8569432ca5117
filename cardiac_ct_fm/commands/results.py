"""What ``predict`` and ``measure`` say on stdout: tables for people, one JSON object per scan and line for programs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cardiac_ct_fm.anatomy import HEADS, LANDMARKS, UNITS, Structure
from cardiac_ct_fm.progress import one_line

if TYPE_CHECKING:
    from cardiac_ct_fm.batch import Outcome
    from cardiac_ct_fm.result import Measurement, Prediction

NOTICE = "Research use only. Not a medical device: a person has to confirm every point and every number."

LOG_WIDTH = 110
"""Columns of a table that goes to a file or a pipe; a terminal has its own width."""

KEY_MEASUREMENTS = (
    "annulus_area_mm2",
    "annulus_perimeter_mm",
    "annulus_min_diameter_mm",
    "annulus_max_diameter_mm",
    "annulus_area_diameter_mm",
    "aortic_angulation_deg",
    "sinus_mean_diameter_mm",
    "stj_mean_diameter_mm",
    "stj_height_mm",
    "ascending_aorta_diameter_mm",
    "lca_height_mm",
    "rca_height_mm",
    "membranous_septum_length_mm",
    "carm_three_cusp_lao_deg",
    "carm_three_cusp_cran_deg",
    "calcium_valve_mm3",
)
"""The measurements of a first glance; ``measurements.json`` and the report have all."""

_STATUS = {
    "not_found": "not found",
    "low_confidence": "low confidence",
    "truncated": "cut off by the scan's edge",
}


def console() -> Console:
    """Stdout as a console; wide enough for the tables where it is no terminal."""
    plain = Console(highlight=False, soft_wrap=False)
    return plain if plain.is_terminal else Console(highlight=False, width=LOG_WIDTH)


def print_json(row: Any) -> None:
    """One object on one line, in ASCII, so that no terminal or pipe changes a name."""
    sys.stdout.write(json.dumps(row, allow_nan=False) + "\n")
    sys.stdout.flush()


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """An outcome in plain JSON types; without arrays, so that many can be kept."""
    row: dict[str, Any] = {
        "name": outcome.case.name,
        "source": str(outcome.case.source),
        "folder": str(outcome.folder),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 2),
        "error": None if outcome.error is None else one_line(outcome.error),
    }
    return row if outcome.prediction is None else {**row, **prediction_row(outcome.prediction)}


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """What was found in one scan, in plain JSON types."""
    return {
        "landmarks": [
            {
                "name": p.name,
                "found": p.found,
                "ras": None if p.ras_mm is None else [round(v, 3) for v in p.ras_mm],
                "confidence": round(p.confidence, 4),
            }
            for p in prediction.landmarks.values()
        ],
        "measurements": [
            {key: value for key, value in m.to_dict().items() if key != "details"}
            for m in prediction.measurements.values()
        ],
        "warnings": list(prediction.warnings),
    }


def print_outcome(outcome: Outcome) -> None:
    """One scan in full."""
    if outcome.prediction is None:
        text = f"{outcome.folder} holds complete results already; nothing was done."
        console().print(text, markup=False, soft_wrap=True)
        return
    print_prediction(outcome.prediction, outcome.folder)
    out = console()
    stages = outcome.prediction.run["seconds"]
    # run.json holds the stages but the last one, which writes it.
    stages = {**stages, "write": max(0.0, outcome.seconds - sum(stages.values()))}
    parts = ", ".join(f"{name} {value:.1f}" for name, value in stages.items())
    out.print(Text(f"  {outcome.seconds:.1f} s ({parts})", style="dim"))


def print_prediction(prediction: Prediction, folder: Path) -> None:
    """Landmarks, volumes, measurements and warnings of one scan, and where its files are."""
    out = console()
    out.print(_heading(prediction))
    volumes = {n: m for n, m in prediction.measurements.items() if n.endswith("_volume_ml")}
    key = {n: prediction.measurements[n] for n in KEY_MEASUREMENTS if n in prediction.measurements}
    values = {n: m for n, m in key.items() if m.value is not None}
    tables = (
        (_landmark_table(prediction), bool(prediction.landmarks)),
        (_volume_table(volumes), bool(volumes)),
        (_measurement_table(values), bool(values)),
        (_warning_table(prediction, [n for n in key if n not in values]), True),
    )
    for table, filled in tables:
        if filled and table.row_count:
            out.print(table)
            out.print()
    report = folder / "report.html"
    shown = report if report.exists() else folder / "preview.png"
    out.print(
        Text.assemble("  Results in ", (str(folder), "bold"), f"; open {shlex.quote(str(shown))}"), soft_wrap=True
    )
    out.print(Text(f"  {NOTICE}", style="dim"))


def print_summary(rows: Sequence[dict[str, Any]]) -> None:
    """Many scans, one line each."""
    listing = airy_table("Scan", "Status", ">Landmarks", ">Annulus mm²", ">Warnings", ">Seconds")
    for row in rows:
        points = row.get("landmarks", [])
        area = next((m for m in row.get("measurements", []) if m["name"] == "annulus_area_mm2"), None)
        listing.add_row(
            Text(row["name"]),
            Text(row["status"], style={"failed": "bold red", "skipped": "dim"}.get(row["status"], "green")),
            f"{sum(p['found'] for p in points)}/{len(points)}" if points else "",
            f"{area['value']:.0f}" if area and area["value"] is not None else "",
            str(len(row["warnings"])) if "warnings" in row else "",
            f"{row['seconds']:.1f}" if row["status"] != "skipped" else "",
        )
    out = console()
    out.print(listing)
    for row in rows:
        if row["error"]:
            out.print(Text.assemble((f"  {row['name']}: ", "bold red"), row["error"]), soft_wrap=True)
    out.print(Text(f"  {NOTICE}", style="dim"))


def _heading(prediction: Prediction) -> Text:
    """Which scan, which model."""
    run, grid = prediction.run, prediction.grid
    size = "×".join(map(str, grid.shape))
    spacing = "×".join(f"{s:.2g}" for s in grid.spacing)
    how = "".join(f" · {run[key]}" for key in ("model", "quality", "device") if key in run)
    return Text.assemble("\n  ", (prediction.volume.name, "bold"), f"  {size} voxels of {spacing} mm{how}\n")


def _landmark_table(prediction: Prediction) -> Table:
    """Points in the patient's coordinates."""
    listing = airy_table("Landmark", "", ">R mm", ">A mm", ">S mm", ">Confidence")
    known = {s.name: s for spec in HEADS.values() for s in spec.structures}
    order = [n for n in LANDMARKS if n in prediction.landmarks]
    for name in [*order, *(n for n in prediction.landmarks if n not in order)]:
        point = prediction.landmarks[name]
        title = known[name].title if name in known else ""
        if point.ras_mm is None:
            listing.add_row(_name(name, known), title, "", "", Text("not found", style="bold yellow"), "")
        else:
            listing.add_row(_name(name, known), title, *(f"{v:.1f}" for v in point.ras_mm), f"{point.confidence:.2f}")
    return listing


def _volume_table(volumes: dict[str, Measurement]) -> Table:
    """Volumes of segmented structures."""
    listing = airy_table("Structure", "", ">Volume mL", "")
    known = {s.name: s for spec in HEADS.values() for s in spec.structures}
    for key, row in volumes.items():
        name = key.removesuffix("_volume_ml")
        title = known[name].title if name in known else ""
        digits = 1 if row.value is None or row.value >= 1 else 3
        value = "" if row.value is None else f"{row.value:.{digits}f}"
        why = f": {_lower(row.details['message'])}" if row.value is None and "message" in row.details else ""
        listing.add_row(_name(name, known), title, value, _status(row).append(why))
    return listing


def _measurement_table(rows: dict[str, Measurement]) -> Table:
    """The measurements of a first glance."""
    from cardiac_ct_fm.planning.catalogue import CATALOGUE

    listing = airy_table("Measurement", "", ">Value", ">± SD", "", "")
    group = ""
    for name, row in rows.items():
        spec = CATALOGUE[name]
        digits = 0 if row.unit in ("mm2", "mm3") else 1
        value = "" if row.value is None else f"{row.value:.{digits}f}"
        sd = "" if row.uncertainty is None else f"{row.uncertainty:.{digits}f}"
        unit = UNITS[row.unit] if row.value is not None else ""
        listing.add_row(spec.group if spec.group != group else "", spec.title, value, sd, unit, _status(row))
        group = spec.group
    return listing


def _warning_table(prediction: Prediction, missing: Sequence[str]) -> Table:
    """What the reader has to know: warnings, and what could not be measured for which reason."""
    from cardiac_ct_fm.planning.annulus import HEAD_NOT_RUN

    listing = Table.grid(padding=(0, 1))
    reasons: dict[str, list[str]] = {}
    for name in missing:
        row = prediction.measurements[name]
        if row.details.get("reason") == HEAD_NOT_RUN:
            continue  # one warning says it
        reasons.setdefault(str(row.details.get("message", _STATUS.get(row.status, row.status))), []).append(name)
    missed = [f"Not measured: {_titles(names)}. {reason}" for reason, names in reasons.items()]
    for text in [w for w in prediction.warnings if w not in reasons] + missed:
        listing.add_row(Text(" !", style="bold yellow"), Text(text))
    return listing


def _titles(names: Sequence[str]) -> str:
    """``annulus (area, perimeter), sinuses of Valsalva (mean diameter)``."""
    from cardiac_ct_fm.planning.catalogue import CATALOGUE

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(CATALOGUE[name].group, []).append(_lower(CATALOGUE[name].title))
    parts = [f"{group} ({', '.join(titles)})" for group, titles in groups.items()]
    return ", ".join(parts)


def _lower(sentence: str) -> str:
    """A title or sentence as it goes on within another one."""
    return sentence[0].lower() + sentence[1:].removesuffix(".")


def _status(row: Measurement) -> Text:
    """Nothing when all is well; otherwise why a value is missing or doubtful."""
    return Text("" if row.status == "ok" else _STATUS.get(row.status, row.status), style="yellow")


def _name(name: str, known: dict[str, Structure]) -> Text:
    """A structure's name in its colour."""
    return Text(name, style=f"bold {known[name].colour}" if name in known else "bold")


def airy_table(*columns: str) -> Table:
    """An airy table; a column whose heading starts with ``>`` is aligned to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="dim", padding=(0, 1, 0, 1))
    for heading in columns:
        right = heading.startswith(">")
        first = not table.columns
        table.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=first)
    return table
