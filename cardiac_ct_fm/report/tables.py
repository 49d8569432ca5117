"""The tables of the report, published thresholds and all measurements, and how a value is written for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from cardiac_ct_fm.anatomy import UNITS
from cardiac_ct_fm.planning.catalogue import CATALOGUE, Spec
from cardiac_ct_fm.planning.flags import Flag, State
from cardiac_ct_fm.report.figures import calcium_rule
from cardiac_ct_fm.report.trust import legend, only_its_points, tag, unsure_tag
from cardiac_ct_fm.result import Measurement

FLAG_CHIPS: dict[State, str] = {
    "met": "flag-met",
    "borderline": "flag-borderline",
    "intermediate": "flag-borderline",
    "not met": "flag-not-met",
    "not judged": "flag-not-judged",
}
"""Colours: between two thresholds is as worth a look as close to one."""


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


def unit_of(row: Measurement) -> str:
    """The unit as it follows the number: degrees close up."""
    return UNITS[row.unit] if row.unit == "deg" else f" {UNITS[row.unit]}"


def reason(row: Measurement) -> str:
    """Why a value is missing or unsure, in a sentence."""
    return str(row.details.get("message") or "")


def flag_table(flags: Sequence[Flag], measurements: Mapping[str, Measurement], unsure: Collection[str]) -> str:
    """Published thresholds and what this scan says to them."""
    rows = "".join(
        f'<tr><th scope="row">{escape(f.title)}</th><td>{escape(f.rule)}</td><td>{_whole(f.values)}</td>'
        f'<td><span class="chip {FLAG_CHIPS[f.state]}">{f.state}</span>'
        f"{unsure_tag([measurements[n] for n in f.uses], unsure) if f.doubtful else ''}</td></tr>"
        for f in flags
    )
    sources = "".join(f"<li>{escape(s)}</li>" for s in dict.fromkeys(f.source for f in flags))
    return (
        "<section><h2>Published thresholds</h2>"
        '<div class="scroll"><table class="flags"><thead><tr><th>Question</th><th>Threshold</th><th>This scan</th>'
        f"<th>Result</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="small">“borderline”: within one standard deviation of a threshold; “intermediate”: between two. '
        "Without a known standard deviation nothing is called borderline. “not judged”: a value that could decide is "
        "missing or unsure; confirm or correct its points and run “cardiac-ct-fm measure”. Thresholds "
        f'come from groups of patients; they are no advice for one.</p><ul class="sources">{sources}</ul></section>'
    )


def _whole(values: str) -> str:
    """HTML of values that are broken between, never within: 32.5 ± 1.6 mm."""
    return escape(values).replace(" ± ", "&nbsp;±&nbsp;").replace(" mm", "&nbsp;mm")


def value_table(measurements: Mapping[str, Measurement], unsure: Collection[str]) -> str:
    """All measurements, by group, each with its doubt, its definition or what is wrong with it."""
    groups: dict[str, list[str]] = {}
    sources: dict[str, int] = {}
    for name, row in measurements.items():
        spec = CATALOGUE.get(name) or _other(row)
        human = row.details.get("human_limit")
        limit = ""
        if human:
            number = sources.setdefault(str(human["source"]), len(sources) + 1)
            limit = f"{escape(str(human['text']))}&nbsp;<sup>{number}</sup>"
        text = spec.definition if row.status == "ok" or only_its_points(row) else reason(row)
        if row.value is not None and row.unit == "mm3" and "extent" in row.details:
            text += f" Here {calcium_rule(row)}."
        unit = f'<span class="unit">{unit_of(row)}</span>' if row.value is not None else ""
        how = f"{tag(row, unsure)}{escape(text)}"
        groups.setdefault(spec.group, []).append(
            f'<tr><th scope="row">{escape(spec.title)}<code>{escape(name)}</code></th>'
            f'<td class="value">{shown(row)}{unit}</td><td class="sd">{doubt(row)}</td><td>{how}</td>'
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
    return f'<section><h2>All measurements</h2>{legend(measurements)}{table}<ol class="sources">{notes}</ol></section>'


def _other(row: Measurement) -> Spec:
    """A heading for a measurement that the catalogue does not know, such as a chamber's volume."""
    title = row.name.removesuffix("_volume_ml").replace("_", " ")
    return Spec(row.name, title, row.unit, "Volumes", "Voxels of the label map.")
