"""Published thresholds that a heart team looks at, held against the measurements. Never advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cardiac_ct_fm.result import Measurement

State = Literal["met", "borderline", "intermediate", "not met", "not judged"]

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
        state: ``borderline`` when the answer turns within one standard deviation of a value, which takes a known
            one; ``intermediate`` when a value lies between two thresholds; ``not judged`` when a value that is missing
            or ``low_confidence`` could still decide, or a point lies on the wrong side of the annulus, so that it or
            the plane is wrong.
        values: the values that were used, in words.
        source: where the rule was read.
        doubtful: whether it is not judged because a value is there and ``low_confidence``.
        uses: names of the measurements that were used.
    """

    title: str
    rule: str
    state: State
    values: str
    source: str
    doubtful: bool = False
    uses: tuple[str, ...] = ()


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
        state = _ranked(score, low=1200.0, high=2000.0, met_above=True)
        text = f"Agatston score {_known(score, 0)}; intermediate means: of a woman it would be met"
        rule = "2000 in men, 1200 in women"
        flags.append(Flag("Severe stenosis by calcium", rule, state, text, ESC, _weak(score), (score.name,)))
    return flags


def _weak(row: Measurement) -> bool:
    """Whether a person has to look before anything is judged by the value."""
    return row.status == "low_confidence"


def _known(row: Measurement, digits: int) -> str:
    """The value, with its standard deviation where there is one."""
    doubt = "" if row.uncertainty is None else f" ± {row.uncertainty:.{digits}f}"
    return f"{row.value:.{digits}f}{doubt}"


def _below(
    measurements: Mapping[str, Measurement], title: str, rule: str, limits: Mapping[str, float], source: str
) -> Flag:
    """A rule that is met when every value lies below its limit, so that one sure value above its own rules it out."""
    texts, used = [], []
    certain = possible = known = True
    for name, limit in limits.items():
        row = measurements.get(name)
        if row is None or row.value is None:
            texts.append("a value is missing")
            known = False
            continue
        if row.value < 0.0:
            return _impossible(title, rule, row, source)
        sd = row.uncertainty or 0.0
        used.append(row)
        texts.append(f"{_known(row, 1)} mm")
        if _weak(row):
            known = False
            continue
        certain &= row.value + sd < limit
        possible &= row.value - sd < limit
    state: State = "not met" if not possible else "not judged" if not known else "met" if certain else "borderline"
    weak = state == "not judged" and any(_weak(row) for row in used)
    names = tuple(row.name for row in used)
    return Flag(title, rule, state, ", ".join(dict.fromkeys(texts)), source, weak, names)


def _impossible(title: str, rule: str, row: Measurement, source: str) -> Flag:
    """A height or length below 0: its point lies on the wrong side of the annulus plane, so nothing is judged by it."""
    why = str(row.details.get("message") or "The point lies on the wrong side of the annulus plane; check the points.")
    return Flag(title, rule, "not judged", f"{_known(row, 1)} mm: {why}", source, True, (row.name,))


def _ranked(row: Measurement, low: float, high: float, met_above: bool) -> State:
    """A sure value held against two thresholds: on the far side of both, between them, or too close to one to say."""
    assert row.value is not None
    if _weak(row):
        return "not judged"
    if row.uncertainty and min(abs(row.value - low), abs(row.value - high)) <= row.uncertainty:
        return "borderline"
    if met_above:
        return "met" if row.value >= high else "intermediate" if row.value >= low else "not met"
    return "met" if row.value < low else "intermediate" if row.value <= high else "not met"


def _septum(measurements: Mapping[str, Measurement]) -> Flag:
    """Length of the membranous septum: short below 3 mm, long above 6 mm."""
    title, rule = "Pacemaker after TAVI", "membranous septum shorter than 3 mm (high), 3–6 mm (intermediate)"
    row = measurements.get("membranous_septum_length_mm")
    if row is None or row.value is None:
        return Flag(title, rule, "not judged", "a value is missing", HOKKEN)
    if row.value < 0.0:
        return _impossible(title, rule, row, HOKKEN)
    group = ": short" if row.value < 3.0 else ": intermediate" if row.value <= 6.0 else ": long"
    state = _ranked(row, low=3.0, high=6.0, met_above=False)
    text = f"{_known(row, 1)} mm{'' if _weak(row) else group}"
    return Flag(title, rule, state, text, HOKKEN, _weak(row), (row.name,))
