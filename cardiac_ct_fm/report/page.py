"""The report as one HTML page: style, pictures and plots inside, nothing fetched, readable on paper and on a phone."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from cardiac_ct_fm.anatomy import UNITS
from cardiac_ct_fm.planning.catalogue import CATALOGUE, Spec
from cardiac_ct_fm.planning.flags import Flag, State, find_flags
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.report.figures import Picture, calcium_rule
from cardiac_ct_fm.report.plots import clock_plot, profile_plot, s_curve_plot
from cardiac_ct_fm.result import Measurement
from cardiac_ct_fm.volume_io import Volume

DISCLAIMER = "Research use only. Not a medical device."
CONFIRM = "Every plane, contour and point has to be confirmed by a qualified person before a number is used."

HEADLINES = (
    ("annulus_area_mm2", "Annulus area"),
    ("annulus_perimeter_mm", "Annulus perimeter"),
    ("annulus_max_diameter_mm", "Annulus maximum"),
    ("annulus_min_diameter_mm", "Annulus minimum"),
    ("lca_height_mm", "Left ostium height"),
    ("rca_height_mm", "Right ostium height"),
    ("sinus_mean_diameter_mm", "Sinuses, mean"),
    ("stj_mean_diameter_mm", "Junction, mean"),
    ("membranous_septum_length_mm", "Membranous septum"),
    ("calcium_valve_mm3", "Valve calcium"),
)

STATUS_TEXT = {
    "ok": "ok",
    "low_confidence": "low confidence",
    "not_found": "not measured",
    "truncated": "scan ends",
}

FLAG_CHIPS: dict[State, str] = {
    "met": "flag-met",
    "borderline": "flag-borderline",
    "intermediate": "flag-borderline",
    "not met": "flag-not-met",
    "not judged": "flag-not-judged",
}
"""Colours: between two thresholds is as worth a look as close to one."""

NOTES = (
    ("± is one standard deviation.", "It carries the doubt of the landmarks, from their confidence, and of the lumen's "
     "edge, from noise and blur. Of outflow tract, smallest and largest annulus diameter, sinuses, junction and "
     "calcium it is at least as large as the errors on digital patients were; real patients were not measured. Errors "
     "have longer tails than a normal distribution: there, up to one value in ten lay beyond twice the ±, of calcium "
     "from 850 HU one in seven. It does not cover a point that was placed on the wrong structure."),
    ("Status.", "“low confidence” is a number that a person has to look at first; “not measured” and “scan ends” have "
     "no number, and the reason stands beside them. Nothing is filled in."),
    ("Calcium “to half-way”", "means from deposits that reach the threshold to half-way to what lies around them. "
     "That is nearer to how much there is. Published volumes count voxels above a threshold and are smaller at 850 HU: "
     "run with “--calcium-extent threshold” to compare with them. ± is against how much there is, either way."),
    ("Between readers", "is how far two people differ on the same measurement, with its source below the table."),
    ("Wrong point?", "Correct it in 3D Slicer (landmarks.mrk.json) or in a text editor (landmarks.json) and run "
     "“cardiac-ct-fm measure SCAN --landmarks EDITED -o OUT”: every number is made again, without the network."),
)  # fmt: skip


def build_page(
    volume: Volume,
    plan: Plan,
    measurements: Mapping[str, Measurement],
    pictures: Sequence[Picture],
    facts: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    """The whole document.

    Args:
        volume: the scan.
        plan: the measurements' geometry and findings.
        measurements: name → measurement; names that the catalogue does not know come last.
        pictures: what :func:`cardiac_ct_fm.report.pictures.draw_pictures` made.
        facts: rows of the box "How this was made", name → value.
        warnings: further sentences for the reader, beside the plan's findings.
    """
    body = [
        # A table whose foot is repeated on every printed page by every browser.
        '<table class="sheet"><tbody><tr><td>',
        _header(volume, plan),
        "<main>",
        _cards(measurements),
        _attention(plan, warnings),
        _flags(find_flags(measurements)),
        _pictures(pictures),
        _plots(plan),
        _table(measurements),
        _notes(plan, facts),
        "</main>",
        f'</td></tr></tbody><tfoot><tr><td class="running">{DISCLAIMER}</td></tr></tfoot></table>',
    ]
    style = resources.files("cardiac_ct_fm").joinpath("assets/report.css").read_text(encoding="utf-8")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(volume.name)} – aortic root report</title><style>{style}</style></head><body>"
    )
    return head + "\n".join(part for part in body if part) + "</body></html>\n"


def _header(volume: Volume, plan: Plan) -> str:
    spacing = " × ".join(f"{s:.2f}" for s in volume.grid.spacing)
    given = {True: "supine (given)", False: "not supine (given)"}
    position = volume.facts.get("patient_position", "position unknown")
    position = position if plan.options.supine is None else given[plan.options.supine]
    return (
        f'<header><p class="brand">cardiac-ct-fm · aortic root</p><h1>{escape(volume.name)}</h1>'
        f'<p class="facts">voxels {spacing} mm · {escape(str(position))}</p>'
        f'<p class="notice"><strong>{DISCLAIMER}</strong> {CONFIRM}</p></header>'
    )


def shown(row: Measurement) -> str:
    """The number as people write it, without its unit; a dash where there is none."""
    if row.value is None:
        return "–"
    return f"{row.value:.{digits(row)}f}".replace("-", "\N{MINUS SIGN}")


def digits(row: Measurement) -> int:
    """Decimals that a value is worth."""
    small = row.unit == "mL" and row.value is not None and row.value < 10.0
    return 2 if small else {"mm": 1, "deg": 0, "ratio": 2}.get(row.unit, 0)


def doubt(row: Measurement) -> str:
    """`` ± 0.4`` where the doubt is known."""
    known = row.value is not None and row.uncertainty is not None
    return f"± {row.uncertainty:.{digits(row)}f}" if known else ""


def _unit(row: Measurement) -> str:
    """The unit as it follows the number: degrees close up."""
    return UNITS[row.unit] if row.unit == "deg" else f" {UNITS[row.unit]}"


def _reason(row: Measurement) -> str:
    return str(row.details.get("message") or "")


def _cards(measurements: Mapping[str, Measurement]) -> str:
    cards = []
    for name, title in HEADLINES:
        row = measurements.get(name)
        if row is None:
            continue
        note = "" if row.status == "ok" else f'<span class="chip {row.status}">{STATUS_TEXT[row.status]}</span>'
        title += f", {calcium_rule(row)}" if row.value is not None and "extent" in row.details else ""
        number = f'<span class="number">{shown(row)}</span>'
        number += f'<span class="unit">{_unit(row)}</span>' if row.value is not None else ""
        cards.append(
            f'<div class="card"><span class="title">{escape(title)}</span><span class="figure">{number}</span>'
            f'<span class="doubt">{doubt(row)}</span>{note}</div>'
        )
    return f'<section class="cards" aria-label="Key figures">{"".join(cards)}</section>'


def _attention(plan: Plan, warnings: Sequence[str]) -> str:
    sentences = list(dict.fromkeys([*(f.message for f in plan.findings), *warnings]))
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(s)}</li>" for s in sentences)
    return f'<section class="attention"><h2>Look at this first</h2><ul>{items}</ul></section>'


def _flags(flags: Sequence[Flag]) -> str:
    weak = f'<span class="chip low_confidence">{STATUS_TEXT["low_confidence"]}</span>'
    rows = "".join(
        f'<tr><th scope="row">{escape(f.title)}</th><td>{escape(f.rule)}</td><td>{escape(f.values)}</td>'
        f'<td><span class="chip {FLAG_CHIPS[f.state]}{" weak" if f.doubtful else ""}">{f.state}</span>'
        f"{weak if f.doubtful else ''}</td></tr>"
        for f in flags
    )
    sources = "".join(f"<li>{escape(s)}</li>" for s in dict.fromkeys(f.source for f in flags))
    return (
        "<section><h2>Published thresholds</h2>"
        '<div class="scroll"><table class="flags"><thead><tr><th>Question</th><th>Threshold</th><th>This scan</th>'
        f"<th>Result</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="small">“borderline”: within one standard deviation of a threshold; “intermediate”: between two. '
        "Without a known standard deviation nothing is called borderline. Thresholds come from groups of patients; "
        f'they are no advice for one.</p><ul class="sources">{sources}</ul></section>'
    )


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure{" class=wide" if p.wide else ""}><img alt="{escape(p.title)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(p.data).decode("ascii")}">'
        f"<figcaption><strong>{escape(p.title)}</strong> {escape(p.caption)}</figcaption></figure>"
        for p in pictures
    )
    return f'<section><h2>Planes</h2><div class="gallery">{figures}</div></section>'


def _plots(plan: Plan) -> str:
    plots = (
        ("C-arm: S-curve", "Every point of the curve sees the annulus as a line; ovals are one standard deviation. "
         "For a patient who lies supine.", s_curve_plot(plan)),
        ("Diameters along the root", "Line: circle of equal area. Strip: smallest to largest diameter.",
         profile_plot(plan)),
        ("Calcium around the annulus", "Within 2 mm of the plane, seen from the left ventricle.", clock_plot(plan)),
    )  # fmt: skip
    figures = "".join(
        f"<figure>{svg}<figcaption><strong>{title}</strong> {text}</figcaption></figure>"
        for title, text, svg in plots
        if svg is not None
    )
    withheld = "" if plan.s_curve is not None else _withheld(plan)
    return f'<section><h2>Curves</h2>{withheld}<div class="gallery plots">{figures}</div></section>'


def _withheld(plan: Plan) -> str:
    row = plan.measurements["carm_three_cusp_lao_deg"]
    return f'<p class="small">C-arm angles are withheld. {escape(_reason(row))}</p>'


def _table(measurements: Mapping[str, Measurement]) -> str:
    groups: dict[str, list[str]] = {}
    sources: dict[str, int] = {}
    for name, row in measurements.items():
        spec = CATALOGUE.get(name) or _other(row)
        human = row.details.get("human_limit")
        limit = ""
        if human:
            number = sources.setdefault(str(human["source"]), len(sources) + 1)
            limit = f"{escape(str(human['text']))}&nbsp;<sup>{number}</sup>"
        text = _reason(row) if row.status != "ok" else spec.definition
        if row.value is not None and row.unit == "mm3" and "extent" in row.details:
            text += f" Here {calcium_rule(row)}."
        chip = "" if row.status == "ok" else f'<span class="chip {row.status}">{STATUS_TEXT[row.status]}</span>'
        unit = f'<span class="unit">{_unit(row)}</span>' if row.value is not None else ""
        groups.setdefault(spec.group, []).append(
            f'<tr><th scope="row">{escape(spec.title)}<code>{escape(name)}</code></th>'
            f'<td class="value">{shown(row)}{unit}</td><td class="sd">{doubt(row)}</td><td>{chip}{escape(text)}</td>'
            f'<td class="human">{limit}</td></tr>'
        )
    head = (
        "<thead><tr><th>Measurement</th><th class=value>Value</th><th class=sd>1 SD</th><th>How, or why not</th>"
        "<th class=human>Between readers</th></tr></thead>"
    )
    bodies = "".join(
        f'<tbody><tr class="group"><th colspan="5" scope="rowgroup">{escape(group)}</th></tr>{"".join(rows)}</tbody>'
        for group, rows in groups.items()
    )
    notes = "".join(f"<li>{escape(source)}</li>" for source in sources)
    table = f'<table class="values">{head}{bodies}</table>'
    return f'<section><h2>All measurements</h2>{table}<ol class="sources">{notes}</ol></section>'


def _other(row: Measurement) -> Spec:
    """A heading for a measurement that the catalogue does not know, such as a chamber's volume."""
    title = row.name.removesuffix("_volume_ml").replace("_", " ")
    return Spec(row.name, title, row.unit, "Volumes", "Voxels of the label map.")


def _notes(plan: Plan, facts: Mapping[str, Any]) -> str:
    notes = "".join(f"<li><strong>{escape(head)}</strong> {escape(text)}</li>" for head, text in NOTES)
    rows = {**facts, **{f"option {k}": v for k, v in plan.options.recorded().items()}}
    cells = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in rows.items())
    return (
        f'<section class="notes"><h2>How to read this</h2><ul>{notes}</ul></section>'
        f'<section class="made"><h2>How this was made</h2><dl>{cells}</dl></section>'
    )


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return "not given" if value is None else str(value)
