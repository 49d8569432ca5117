"""Figures of a model card, each group with what it was measured on and the command that measures it again."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.training.digital import SCAN_SHAPE, SCAN_SPACING_MM, held_out_seeds

Group = dict[str, dict[str, Any]]
"""Title of a group → measure → value."""

POINTS = ("hinge points", "ostia", "septum")

DECIDED = {0: 200, **dict.fromkeys(range(1, 9), 25)}
"""Site (0: none) → how many of its first held-out patients had a say in what is published: they judged trainings
(``docs/weights.md``), gave limits of decoding (``anatomy.FURTHEST_MM``) and uncertainties (``planning/options.py``)."""


def merged(old: Group, new: Group) -> Group:
    """Old figures, and new ones instead of all that the same module measured; titles also hold numbers of patients."""
    again = {_module(group) for group in new.values()}
    return {**{title: group for title, group in old.items() if _module(group) not in again}, **new}


def _module(group: Any) -> str | None:
    """The module that a group's command runs; None where no command is told, which nothing replaces."""
    command = group.get("command") if isinstance(group, Mapping) else None
    found = re.search(r"python -m ([\w.]+)", str(command))
    return found[1] if found else None


def held_out_figures(file: Path, model: str) -> Group:
    """Medians with quartiles; a miss counts as infinitely far.

    Args:
        file: ``summary.json`` of ``recipes.benchmarks.heldout``, with its ``scores.csv`` beside it.
        model: name of the published weights, for the command.
    """
    summary = json.loads(file.read_text(encoding="utf-8"))
    data, every = summary["data"], [head["name"] for head in summary["config"]["heads"]]
    figures, option, whose = _of_patients(file, summary)
    figures["command"] = _command(
        f"heldout --model {model} {option}",
        strength=_unless(None, data["strength"]),
        spacing=_unless(SCAN_SPACING_MM, data["spacing_mm"]),
        shape=_unless([*SCAN_SHAPE], data["shape"]),
        heads=_unless(every, summary["heads"]),
        quality=_unless("standard", summary["quality"]),
    )
    return {f"{summary['scans']} held-out digital patients {whose}, misses counted as failures": figures}


def root_look_figures(file: Path, model: str) -> Group:
    """The same of the look at 1 mm alone, and at which site it is worst.

    Args:
        file: ``summary.json`` of ``recipes.benchmarks.root_look``, with its ``scores.csv`` beside it.
        model: name of the published weights, for the command.
    """
    summary = json.loads(file.read_text(encoding="utf-8"))
    figures, option, whose = _of_patients(file, summary)
    for name in POINTS:
        by_site = {site: own["landmarks"][name] for site, own in summary.get("by_site", {}).items()}
        if by_site:
            site = max(by_site, key=lambda s: math.inf if by_site[s]["median"] is None else by_site[s]["median"])
            figures[f"{name}, worst site"] = f"{site}: {_spread(by_site[site], 'mm')}"
    figures["command"] = _command(f"root_look --model {model} {option}")
    title = f"{summary['scans']} held-out digital patients {whose} in one window at 1 mm, misses counted as failures"
    return {title: figures}


def _of_patients(file: Path, summary: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """Figures of digital patients, the option that means these, and whose they are in words.

    Raises:
        UsageError: the summary lacks a figure, because an older version wrote it.
    """
    try:
        figures = _medians(summary)
    except KeyError as error:
        raise UsageError(f"{file} has no {error}: an older version wrote it; run its benchmark again.") from error
    with file.with_name("scores.csv").open(newline="", encoding="utf-8") as stream:
        cases = {row["case"] for row in csv.DictReader(stream)}
    option, whose = patients(cases)
    figures["these patients"] = role(cases)
    return figures, option, whose


def _medians(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Points, plane, structures and calcium, a line each."""
    figures: dict[str, Any] = {}
    for name in POINTS:
        v = summary["landmarks"][name]
        figures[name] = (
            f"{_spread(v, 'mm')}, {_rate(v['success']['4_mm']['rate'])} within 4 mm, {v['found']} of {v['asked']} found"
        )
        if v["swap_rate"]:
            figures[name] += f", {round(v['swap_rate'] * v['found'])} of these swapped"
        if v["confidence_auroc"] is not None:
            ends = v["confidence_auroc_ci95"]
            spread = "" if ends is None else f" [{ends[0]:.2f}–{ends[1]:.2f}]"
            figures[name] += (
                f", AUROC of the confidence of those found {v['confidence_auroc']:.2f}{spread} ({v['wrong']} wrong)"
            )
    angle = summary["plane"]["plane_angle_deg"]
    figures["annulus plane"] = f"{_spread(angle, '°', 1)}, {angle['asked'] - angle['missed']} of {angle['asked']} found"
    for title, measure, digits in (("Dice", "dice", 2), ("NSD", "nsd", 2), ("HD95, mm", "hd95_mm", 1)):
        figures[title] = _row(summary["segmentation"], measure, digits)
    calcium = summary["volumes"].get("Calc", {}).get("bias")
    if calcium is not None:
        v = summary["volumes"]["Calc"]
        limits = f"{v['lower']:.0f}…{v['upper']:.0f} mm³" if v["lower"] is not None else "not determined"
        figures["calcium volume"] = (
            f"bias {calcium:.0f} mm³, limits of agreement {limits}, in {v['n']} scans that have any or show any; in "
            f"{v['none_and_none_found']} that have none, none was found"
        )
    return figures


def _spread(figures: dict[str, Any], unit: str, digits: int = 2) -> str:
    """Median and quartiles; a quartile that failures reach is infinite."""
    median, q25, q75 = ("∞" if figures[k] is None else f"{figures[k]:.{digits}f}" for k in ("median", "q25", "q75"))
    space = "" if unit == "°" else " "
    return f"{median}{space}{unit} [{q25}–{q75}]"


def _row(structures: dict[str, Any], measure: str, digits: int) -> str:
    """Medians of all structures in one line."""
    found = {name: v[measure]["median"] for name, v in structures.items()}
    return ", ".join(f"{name} {'∞' if v is None else f'{v:.{digits}f}'}" for name, v in found.items())


def patients(cases: Iterable[str]) -> tuple[str, str]:
    """The option of ``heldout`` that means these patients, and whose they are in words.

    Args:
        cases: names of scans, ``digital-7`` or ``site3-3050007``.
    """
    indices: dict[int, list[int]] = {}
    for site, seed in map(_site_and_seed, cases):
        indices.setdefault(site, []).append(seed - held_out_seeds(site).start)
    runs = [(site, run) for site in sorted(indices) for run in _runs(sorted(indices[site]))]
    if len(runs) == 1 and runs[0][0] == 0 and runs[0][1][0] == 0:
        return f"--n {runs[0][1][1] + 1}", "of no site"
    parts = []
    for run in dict.fromkeys(run for _, run in runs):
        parts += [f"{_span(sites)}/{_span(run)}" for sites in _runs([site for site, own in runs if own == run])]
    numbers = sorted(set(indices) - {0})
    named = ", ".join(_span(run).replace("-", " to ") for run in _runs(numbers))
    whose = ["of no site"] if 0 in indices else []
    whose += [f"of {'site' if len(numbers) == 1 else 'sites'} {named}"] if numbers else []
    return f"--cohort {','.join(parts)}", " and ".join(whose)


def role(cases: Iterable[str]) -> str:
    """Whether patients, named as for :func:`patients`, had a say in what is published, or are new to it."""
    known = sum(seed - held_out_seeds(site).start < DECIDED[site] for site, seed in map(_site_and_seed, cases))
    if known:
        return "validation: trainings were judged by patients among them, so that figures are too good by some"
    return "test: no training that is published and no constant was decided by them"


def _site_and_seed(case: str) -> tuple[int, int]:
    kind, _, seed = case.partition("-")
    return (0 if kind == "digital" else int(kind.removeprefix("site"))), int(seed)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of neighbours."""
    groups = [[n for _, n in group] for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return [(group[0], group[-1]) for group in groups]


def _span(run: tuple[int, int]) -> str:
    return f"{run[0]}" if run[0] == run[1] else f"{run[0]}-{run[1]}"


def real_scan_figures(file: Path, model: str) -> Group:
    """Agreement on the demonstration scan.

    Args:
        file: what ``recipes.benchmarks.real_scan`` printed.
        model: name of the published weights, for the command.
    """
    found = json.loads(file.read_text(encoding="utf-8"))
    centre, angle = found["circle_centre_mm"], found["plane_deg"]
    figures = {
        "Dice of the ascending aorta": f"{found['ascending_aorta_dice']:.2f}",
        "hinge-point circle to the annulus disc": "no circle" if centre is None else f"{centre:.1f} mm, {angle:.0f}°",
        **_read(found),
        "area of the annulus": _area(found),
        "confidence of the points": {
            k: "not found" if v is None else f"{v:.2f}" for k, v in found["landmarks"].items()
        },
        "command": _command(f"real_scan --model {model}", quality=_unless("standard", found["quality"])),
    }
    return {"The real demonstration scan, agreement with TotalSegmentator, n=1": figures}


def _read(found: Mapping[str, Any]) -> dict[str, str]:
    """Points beside those that were read by eye; nothing in figures of before there were any."""
    told = {
        kind: ", ".join(f"{k} {'not found' if mm is None else f'{mm:.1f} mm'}" for k, mm in found[key].items())
        for kind, key in (("hinge points", "hinge_read_mm"), ("ostia", "ostia_read_mm"))
        if key in found
    }
    figures = {f"{kind} to those read by eye (by a developer, once)": text for kind, text in told.items()}
    if "circle_read_mm" in found:
        circle, angle = found["circle_read_mm"], found["plane_read_deg"]
        text = "no circle" if circle is None else f"{circle:.1f} mm, {angle:.0f}°"
        figures["the hinge points' circle to that of the points read"] = text
    return figures


def _area(found: Mapping[str, Any]) -> str:
    """The annulus beside the reference's."""
    area, reference = found["annulus_mm2"], found["annulus_reference_mm2"]
    if area is None:
        return "not measured"
    return f"{area:.0f} mm², {100 * (area / reference - 1):+.0f} % of the reference's {reference:.0f} mm²"


def robustness_figures(file: Path, model: str) -> Group:
    """What one changed condition at a time does, and what leaving the least sure points out does.

    Args:
        file: ``robustness.json`` of ``recipes.benchmarks.robustness``.
        model: name of the published weights, for the command.
    """
    from recipes.benchmarks.robustness import title
    from recipes.benchmarks.robustness_cases import CONDITIONS, SPACING_MM, STRENGTH, UNCHANGED

    result = json.loads(file.read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}
    for setting in result["settings"]:
        asked = {name: setting["points"][name] for name in POINTS if setting["points"][name]["asked"]}
        told = [
            f"{name} {_mm(p['median_mm'])}, {p['within']:.0%}, confidence {p['confidence']:.2f}"
            for name, p in asked.items()
        ]
        told += [f"Dice of {name} {v:.2f}" for name, v in setting["dice_pooled"].items() if v is not None]
        figures[title(setting)] = "; ".join(told)
    for name, s in result["selective"].items():
        every, kept = s["all"]["within"], s["kept"]["within"]
        if every is not None and kept is not None:
            figures[f"{name}: all, and the surest {s['share']:.0%}"] = f"{every:.0%} and {kept:.0%} within 4 mm"
    about = result["about"]
    count = about["patients"]
    changed = list(dict.fromkeys(setting["condition"] for setting in result["settings"]))
    figures["command"] = _command(
        f"robustness --model {model} --n {count} --out FOLDER",
        conditions=_unless([*CONDITIONS], [name for name in changed if name != UNCHANGED.condition]),
        strength=_unless(STRENGTH, about["strength"]),
        spacing=_unless(SPACING_MM, about["spacing_mm"]),
        quality=_unless("standard", about["quality"]),
    )
    return {f"{count} held-out digital patients under one changed condition: median, within 4 mm": figures}


def _rate(share: float) -> str:
    """A share in percent, with a decimal where it would be rounded to all of them."""
    return f"{share:.1%}" if 0.995 <= share < 1.0 else f"{share:.0%}"


def _mm(value: float | None) -> str:
    return "missed" if value is None else f"{value:.1f} mm"


def _unless(default: Any, value: Any) -> str:
    """The words of an option, none where it is the default."""
    if value == default:
        return ""
    return " ".join(map(_word, value)) if isinstance(value, list) else _word(value)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _command(start: str, **options: str) -> str:
    """The command of a benchmark, with the options that have words."""
    words = [f"--{name} {value}" for name, value in options.items() if value]
    return f"`{' '.join(['python -m recipes.benchmarks.' + start, *words])}`"
