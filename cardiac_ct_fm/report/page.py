"""The report as one HTML page: style, pictures and plots inside, nothing fetched, readable on paper and on a phone."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from cardiac_ct_fm.landmark_pictures import FAR_MM, NEAR_MM
from cardiac_ct_fm.planning.flags import find_flags
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.report.figures import Picture, calcium_rule
from cardiac_ct_fm.report.plots import clock_plot, profile_plot, s_curve_plot
from cardiac_ct_fm.report.tables import doubt, flag_table, reason, shown, unit_of, value_table
from cardiac_ct_fm.report.trust import banner, figure_tag, legend, point_mark, tag, unsure_points
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

NOTES = (
    ("± is one standard deviation.", "It carries the doubt of the landmarks, from their confidence, and of the lumen's "
     "edge, from noise and blur. Of outflow tract, smallest and largest annulus diameter, sinuses, junction and "
     "calcium it is at least as large as the errors on digital patients were; real patients were not measured. Errors "
     "have longer tails than a normal distribution: there, up to one value in ten lay beyond twice the ±, of calcium "
     "from 850 HU one in seven. It does not cover a point that was placed on the wrong structure."),
    ("Tags.", "“unsure” is a number that a person has to look at first (“low_confidence” in the files); the points of "
     "low confidence that it rests on follow. “not measured” and “scan ends” have no number, and the reason stands "
     "beside them. Nothing is filled in."),
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
    unsure = unsure_points(plan)
    body = [
        # A table whose foot is repeated on every printed page by every browser.
        '<table class="sheet"><tbody><tr><td>',
        _header(volume, plan, facts),
        "<main>",
        banner(plan, measurements, list(dict.fromkeys([*(f.message for f in plan.findings), *warnings]))),
        _cards(measurements, unsure),
        flag_table(find_flags(measurements), measurements, unsure),
        _pictures(pictures, plan),
        _plots(plan),
        value_table(measurements, unsure),
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


def _header(volume: Volume, plan: Plan, facts: Mapping[str, Any]) -> str:
    spacing = " × ".join(f"{s:.2f}" for s in volume.grid.spacing)
    given = {True: "supine (given)", False: "not supine (given)"}
    position = volume.facts.get("patient_position", "position unknown")
    position = position if plan.options.supine is None else given[plan.options.supine]
    made = "".join(f" · {head}{facts[key]}" for head, key in (("", "model"), ("quality ", "quality")) if key in facts)
    return (
        f'<header><p class="brand">cardiac-ct-fm · aortic root</p><h1>{escape(volume.name)}</h1>'
        f'<p class="facts">voxels {spacing} mm · {escape(str(position) + made)}</p>'
        f'<p class="notice"><strong>{DISCLAIMER}</strong> {CONFIRM}</p></header>'
    )


def _cards(measurements: Mapping[str, Measurement], unsure: Collection[str]) -> str:
    cards = []
    seen = {}
    for name, title in HEADLINES:
        row = measurements.get(name)
        if row is None:
            continue
        seen[name] = row
        title += f", {calcium_rule(row)}" if row.value is not None and "extent" in row.details else ""
        number = f'<span class="number">{shown(row)}</span>'
        number += f'<span class="unit">{unit_of(row)}</span>' if row.value is not None else ""
        cards.append(
            f'<div class="card"><span class="title">{escape(title)}</span><span class="figure">{number}</span>'
            f'<span class="doubt">{doubt(row)}</span>{tag(row, unsure)}</div>'
        )
    return f'<section aria-label="Key figures"><div class="cards">{"".join(cards)}</div>{legend(seen)}</section>'


def _pictures(pictures: Sequence[Picture], plan: Plan) -> str:
    if not pictures:
        return ""
    unsure = unsure_points(plan)
    figures = "".join(
        f'<figure{" class=wide" if p.wide else ""}><img alt="{escape(p.title)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(p.data).decode("ascii")}">'
        f"<figcaption><strong>{escape(p.title)} {figure_tag(plan.measurements[p.measured], unsure)}</strong> "
        f"{escape(p.caption)}</figcaption></figure>"
        for p in pictures
    )
    grey = "#e8edf4"
    marks = (
        f"{point_mark(grey, False)}a point, in the plane or up to {NEAR_MM:g} mm from it",
        f"{point_mark(grey, False, small=True)}up to {FAR_MM:g} mm from it, as its name says",
        f"{point_mark(grey, True)}open, with “?”: unsure, confidence below {plan.options.min_confidence:g}",
    )
    entries = " ".join(f'<span class="entry">{mark}</span>' for mark in marks)
    return (
        f'<section><h2>Planes</h2><p class="small legend">{entries}</p><div class="gallery">{figures}</div></section>'
    )


def _plots(plan: Plan) -> str:
    plots = (
        ("C-arm: S-curve", "Every point of the curve sees the annulus as a line; ovals are one standard deviation. "
         "For a patient who lies supine.", s_curve_plot(plan), "carm_three_cusp_lao_deg"),
        ("Diameters along the root", "Line: circle of equal area. Strip: smallest to largest diameter.",
         profile_plot(plan), "sinus_mean_diameter_mm"),
        ("Calcium around the annulus", "Within 2 mm of the plane, seen from the left ventricle.", clock_plot(plan),
         "calcium_annulus_mm3"),
    )  # fmt: skip
    unsure = unsure_points(plan)
    figures = "".join(
        f"<figure>{svg}<figcaption><strong>{title} {figure_tag(plan.measurements[name], unsure)}</strong> {text}"
        "</figcaption></figure>"
        for title, text, svg, name in plots
        if svg is not None
    )
    withheld = "" if plan.s_curve is not None else _withheld(plan)
    return f'<section><h2>Curves</h2>{withheld}<div class="gallery plots">{figures}</div></section>'


def _withheld(plan: Plan) -> str:
    row = plan.measurements["carm_three_cusp_lao_deg"]
    return f'<p class="small">C-arm angles are withheld. {escape(reason(row))}</p>'


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
