"""What of a report is unsure: points of low confidence, the values that rest on them, and how both are marked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

from cardiac_ct_fm.anatomy import HINGE_POINTS, LANDMARKS, structure
from cardiac_ct_fm.planning.catalogue import CATALOGUE
from cardiac_ct_fm.planning.measure import Plan
from cardiac_ct_fm.result import Measurement

STATUS_TEXT = {
    "ok": "ok",
    "low_confidence": "unsure",
    "not_found": "not measured",
    "truncated": "scan ends",
}

NAMED = 3
"""Up to so many values of a group are named in the banner; of more, the number is told (layout, a house choice)."""


def unsure_points(plan: Plan) -> dict[str, float]:
    """Name → confidence of the points below the confidence that values ask for, in the vocabulary's order."""
    known, limit = plan.points.confidence, plan.options.min_confidence
    return {name: known[name] for name in LANDMARKS if name in known and known[name] < limit}


def unsure_of(row: Measurement, unsure: Collection[str]) -> tuple[str, ...]:
    """The unsure points that a value rests on; none where there is no value."""
    return tuple(name for name in row.details.get("uses", ()) if name in unsure) if row.value is not None else ()


def tag(row: Measurement, unsure: Collection[str]) -> str:
    """The mark of a row: what is wrong with it, and of which points that comes; nothing where all is well."""
    return "" if row.status == "ok" else _chip(row.status, unsure_of(row, unsure))


def figure_tag(row: Measurement, unsure: Collection[str]) -> str:
    """The mark of a figure that shows a value: of doubt alone, for it is drawn even where the value has no number."""
    return tag(row, unsure) if row.status == "low_confidence" else ""


def unsure_tag(rows: Iterable[Measurement], unsure: Collection[str]) -> str:
    """The mark of what rests on several values, of which one at least is unsure."""
    return _chip("low_confidence", dict.fromkeys(name for row in rows for name in unsure_of(row, unsure)))


def _chip(status: str, points: Iterable[str]) -> str:
    whose = ", ".join(points)
    return f'<span class="chip {status}">{STATUS_TEXT[status]}{f": {whose}" if whose else ""}</span>'


def only_its_points(row: Measurement) -> bool:
    """Whether a value is unsure for no other reason than its points, which the banner explains."""
    return row.details.get("reason") == "low_landmark_confidence"


def point_mark(colour: str, unsure: bool, small: bool = False) -> str:
    """A point as the pictures draw it, on their dark ground."""
    radius = (3.6 if unsure else 3.0) if small else (5.4 if unsure else 4.6)
    paint = f'fill="none" stroke="{colour}" stroke-width="2"' if unsure else f'fill="{colour}"'
    return (
        '<svg class="point" viewBox="0 0 18 18" aria-hidden="true"><rect width="18" height="18" rx="4"/>'
        f'<circle cx="9" cy="9" r="{radius}" {paint}/></svg>'
    )


def banner(plan: Plan, measurements: Mapping[str, Measurement], sentences: Sequence[str]) -> str:
    """What a reader looks at before any number: unsure points and what rests on them, missing ones, findings.

    Args:
        plan: whose points.
        measurements: name → measurement.
        sentences: findings and warnings.

    Returns:
        HTML; nothing where there is nothing to say.
    """
    unsure = unsure_points(plan)
    missing = [name for name in LANDMARKS if _lost(plan, name)]
    parts = []
    if unsure:
        all_points = f"{len(unsure)} of {len(plan.points.ras)} points {'is' if len(unsure) == 1 else 'are'} unsure"
        parts.append(
            f"<p><strong>{all_points}</strong> (confidence below {plan.options.min_confidence:g}). Check them in the "
            "pictures, where they are open rings, before a value that rests on them is used; “Wrong point?” at the end "
            "says how to correct one.</p>"
            '<table class="unsure"><thead><tr><th><span class="named">Point<b>Confidence</b></span></th>'
            "<th>What rests on it</th></tr></thead>"
            f"<tbody>{''.join(_row(names, unsure, measurements) for names in _together(unsure))}</tbody></table>"
        )
    if missing:
        them = "it" if len(missing) == 1 else "them"
        parts.append(f"<p><strong>Not found: {', '.join(missing)}.</strong> What needs {them} is not measured.</p>")
    if sentences:
        parts.append(f"<ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>")
    return f'<section class="attention"><h2>Look at this first</h2>{"".join(parts)}</section>' if parts else ""


def legend(measurements: Mapping[str, Measurement]) -> str:
    """What the tags of these rows mean; nothing where there are none."""
    meaning = {
        "low_confidence": "The value rests on points of low confidence, which are named, or on something else that "
        "“All measurements” explains. Look there first.",
        "not_found": "No number; “All measurements” says why.",
        "truncated": "No number: the scan ends before it.",
    }
    seen = {row.status for row in measurements.values()}
    entries = [
        f'<span class="entry row"><span class="chip {status}">{STATUS_TEXT[status]}</span>{text}</span>'
        for status, text in meaning.items()
        if status in seen
    ]
    return f'<p class="small legend">{" ".join(entries)}</p>' if entries else ""


def _lost(plan: Plan, name: str) -> bool:
    problem = plan.points.problems.get(name)
    return problem is not None and problem.code == "landmark_not_found"


def _together(unsure: Collection[str]) -> list[tuple[str, ...]]:
    """Unsure points, those of the annulus in one group: they make one plane."""
    hinges = tuple(name for name in unsure if name in HINGE_POINTS)
    return [group for group in (hinges, *((name,) for name in unsure if name not in HINGE_POINTS)) if group]


def _row(names: tuple[str, ...], unsure: Mapping[str, float], measurements: Mapping[str, Measurement]) -> str:
    points = "".join(
        f'<span class="named">{point_mark(structure(n).colour, True)}<span><b>{n}</b> '
        f"{escape(structure(n).title)}</span><b>{unsure[n]:.2f}</b></span>"
        for n in names
    )
    return f'<tr><th scope="row">{points}</th><td>{_rests(names, measurements)}</td></tr>'


def _rests(names: tuple[str, ...], measurements: Mapping[str, Measurement]) -> str:
    """The values that rest on these points, by the headings of the list of all measurements."""
    groups: dict[str, list[Measurement]] = {}
    for name, row in measurements.items():
        if name in CATALOGUE and row.value is not None and row.details.get("uses"):
            groups.setdefault(CATALOGUE[name].group, []).append(row)
    whole, parts = [], []
    for group, rows in groups.items():
        titles = [CATALOGUE[row.name].title for row in rows if unsure_of(row, names)]
        if len(titles) == len(rows) > 1:
            whole.append(group)
        elif titles:
            few = len(titles) <= NAMED
            parts.append(f"{group}: {', '.join(titles) if few else f'{len(titles)} of {len(rows)} values'}")
    if not whole and not parts:
        return "Nothing that was measured."
    plane = ["the annulus plane"] if set(names) & set(HINGE_POINTS) else []
    text = "; ".join([*plane, *([f"all of {', '.join(whole)}"] if whole else []), *parts])
    return escape(text[0].upper() + text[1:]) + "."
