"""Published thresholds that a heart team looks at, held against the measurements. Never advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cardiac_ct_fm.result import Measurement

State = Literal["met", "borderline", "not met", "not judged"]

REGISTRIES = (
    "Two global registries of coronary obstruction (60 patients with, 1381 without), JACC Cardiovasc Interv 2023, "
    "PMC9991077; cut-offs with areas under the curve of 0.71–0.85"
)
RIBEIRO = "Ribeiro et al., J Am Coll Cardiol 2013: the traditional limits"
HOKKEN = "Hokken et al., Erasmus MC (n = 653): new pacemaker in 30.3 % below 3 mm, 15.4 % at 3–6 mm, 6.3 % above 6 mm"
ESC = "ESC/EACTS guidelines 2021: severe aortic stenosis likely from 2000 (men) or 1200 (women)"


@dataclass(frozen=True)
class Flag:
    """One published rule and what the measurements say to it.

    Attributes:
        title: what it is about.
        rule: the threshold in words.
        state: ``borderline`` when a value lies within one standard deviation of its threshold; ``not judged`` when a
            value is missing.
        values: the values that were used, in words.
        source: where the rule was read.
        doubtful: whether a value that it rests on is ``low_confidence``.
    """

    title: str
    rule: str
    state: State
    values: str
    source: str
    doubtful: bool = False


def find_flags(measurements: Mapping[str, Measurement]) -> list[Flag]:
    """Every rule, in the order of the report; rules that do not apply to the scan are left out."""
    flags = []
    for side, height, sinus in (("left", 11.0, 31.0), ("right", 15.0, 29.0)):
        limits = {f"{'lca' if side == 'left' else 'rca'}_height_mm": height, "sinus_mean_diameter_mm": sinus}
        rule = f"ostium below {height:g} mm and sinus below {sinus:g} mm"
        flags.append(_below(measurements, f"Coronary obstruction, {side}", rule, limits, REGISTRIES))
    for side, key in (("left", "lca"), ("right", "rca")):
        limits = {f"{key}_height_mm": 12.0, "sinus_mean_diameter_mm": 30.0}
        rule = "ostium below 12 mm and sinus below 30 mm"
        flags.append(_below(measurements, f"Coronary obstruction, {side}, traditional", rule, limits, RIBEIRO))
    flags.append(_septum(measurements))
    score = measurements.get("calcium_agatston")
    if score is not None and score.value is not None:
        state: State = "met" if score.value >= 2000 else "borderline" if score.value >= 1200 else "not met"
        text = f"Agatston score {score.value:.0f}; borderline means: of a woman it would be met"
        flags.append(Flag("Severe stenosis by calcium", "2000 in men, 1200 in women", state, text, ESC))
    return flags


def _below(
    measurements: Mapping[str, Measurement], title: str, rule: str, limits: Mapping[str, float], source: str
) -> Flag:
    """A rule that is met when every value lies below its limit."""
    rows = [measurements.get(name) for name in limits]
    texts, certain, possible = [], True, True
    for row, limit in zip(rows, limits.values(), strict=True):
        if row is None or row.value is None:
            return Flag(title, rule, "not judged", "a value is missing", source)
        sd = row.uncertainty or 0.0
        texts.append(f"{row.value:.1f} ± {sd:.1f} mm")
        certain &= row.value + sd < limit
        possible &= row.value - sd < limit
    state: State = "met" if certain else "borderline" if possible else "not met"
    weak = any(row is not None and row.status == "low_confidence" for row in rows)
    return Flag(title, rule, state, ", ".join(texts), source, weak)


def _septum(measurements: Mapping[str, Measurement]) -> Flag:
    """Length of the membranous septum: short below 3 mm, long above 6 mm."""
    title, rule = "Pacemaker after TAVI", "membranous septum shorter than 3 mm (high), 3–6 mm (intermediate)"
    row = measurements.get("membranous_septum_length_mm")
    if row is None or row.value is None:
        return Flag(title, rule, "not judged", "a value is missing", HOKKEN)
    sd = row.uncertainty or 0.0
    group = "short" if row.value < 3.0 else "intermediate" if row.value <= 6.0 else "long"
    state: State = "met" if row.value + sd < 3.0 else "borderline" if row.value - sd < 6.0 else "not met"
    text = f"{row.value:.1f} ± {sd:.1f} mm: {group}"
    return Flag(title, rule, state, text, HOKKEN, row.status == "low_confidence")
