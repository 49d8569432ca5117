"""What a comparison found: one table per task with quartiles, success rates and intervals, and paired tests.

The groups are the paper's: held-out patients of sites that took part in training with the label, and of other sites.
A point that was not found is infinitely far; intervals resample patients; p-values are Wilcoxon's, corrected by Holm
over all tests; a method is called better only where the median difference points the same way as the ranks. A local
network is tested on its own site; on other sites all of them count, every one for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.training.statistics import (
    LEVEL,
    SUCCESS_MM,
    PairedTest,
    holm,
    interval,
    mean,
    median,
    paired_test,
    quantile,
    success,
)
from recipes.federated_distillation.comparison import START, Comparison
from recipes.federated_distillation.plan import Step, make_plan
from recipes.federated_distillation.settings import METHODS, NETWORKS, POINT_TASKS
from recipes.federated_distillation.sites import labels_of_sites

FloatArray = npt.NDArray[np.float64]

GROUPS = ("training sites", "other sites")

TITLES = {
    (START, "swin_unetr"): "Swin, as it began",
    (START, "unet"): "UNet, as it began",
    ("local", "unet"): "UNet, local",
    ("local", "swin_unetr"): "Swin, local",
    ("teach", "unet"): "FedUNet, one per task (the teachers)",
    ("teach", "swin_unetr"): "FedSwin, one per task (the teachers)",
    ("fedavg", "unet"): "FedUNet, all heads",
    ("fedavg", "swin_unetr"): "FedSwin, all heads",
    ("condist", "unet"): "FedConDist-UNet",
    ("condist", "swin_unetr"): "FedConDist-Swin",
    ("kd", "unet"): "FedKD-UNet",
    ("kd", "swin_unetr"): "FedKD-Swin",
}
"""Rows in the order of the paper's table, under its names."""

QUESTIONS = (
    ("Does distillation help the transformer?", "FedKD-Swin", "FedSwin, all heads"),
    ("Does distillation help the U-Net?", "FedKD-UNet", "FedUNet, all heads"),
    ("Is the distilled transformer better than its teachers?", "FedKD-Swin", "FedUNet, one per task (the teachers)"),
    ("Is the distilled transformer better than its teachers?", "FedKD-Swin", "FedSwin, one per task (the teachers)"),
    ("Is distillation better than conditional distillation?", "FedKD-Swin", "FedConDist-Swin"),
    ("Is a federated transformer better than local ones?", "FedSwin, all heads", "Swin, local"),
    ("Is a federated U-Net better than local ones?", "FedUNet, all heads", "UNet, local"),
    ("Is the distilled transformer better than the distilled U-Net?", "FedKD-Swin", "FedKD-UNet"),
)
"""Pairs that are tested, first against second."""

QUESTIONS_FROM_WEIGHTS = (
    ("Is the distilled transformer better than local ones?", "FedKD-Swin", "Swin, local"),
    ("Is the distilled transformer better than what it began with?", "FedKD-Swin", "Swin, as it began"),
    ("Is the federated transformer better than what it began with?", "FedSwin, all heads", "Swin, as it began"),
    ("Is the distilled U-Net better than what it began with?", "FedKD-UNet", "UNet, as it began"),
)
"""Pairs that are tested too where networks went on from a checkpoint. Every test more costs the others: Holm's
correction counts them all."""

Values = dict[str, list[float]]
"""Patient → values; NaN not asked, inf not found."""


@dataclass
class Column:
    """One method on one task and group.

    Attributes:
        values: patient → all structures (of all networks, for local ones).
    """

    values: Values = field(default_factory=dict)

    @property
    def table(self) -> FloatArray:
        """(patients, values), NaN where there are fewer."""
        width = max((len(v) for v in self.values.values()), default=0)
        rows = [[*self.values[p], *[np.nan] * (width - len(self.values[p]))] for p in sorted(self.values)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), width)

    def per_patient(self, names: Sequence[str], points: bool) -> FloatArray:
        """One value per patient (N,): median error in mm, or mean Dice; NaN where nothing was asked."""
        rows = [np.array(self.values.get(name, [np.nan]), dtype=np.float64) for name in names]
        return np.array([float((median if points else mean)(row)) for row in rows])


def collect(comparison: Comparison) -> dict[str, dict[tuple[str, str], Column]]:
    """Title → (task, group) → values, of everything that was tested."""
    found: dict[str, dict[tuple[str, str], Column]] = {}
    seen: set[tuple[str, str]] = set()
    labels = labels_of_sites(comparison.settings)
    for network in NETWORKS:
        for method in METHODS:
            settings = comparison.experiment(method, network)
            training = [step for step in make_plan(settings, labels) if step.kind == "train"]
            tested = [(("teach", settings.teacher_type) if s.stage == "teach" else (method, network), s, s.name)
                      for s in training]  # fmt: skip
            if method == "fedavg":
                tested.append(((START, network), training[-1], START))
            for kind, step, name in tested:
                scores, title = comparison.scores(settings, name), TITLES.get(kind)
                if scores is None or title is None or (title, name) in seen:  # both students have the same teachers
                    continue
                seen.add((title, name))
                _add(found.setdefault(title, {}), step, scores, comparison, labels)
    return {title: found[title] for title in TITLES.values() if title in found}


def _add(
    cells: dict[tuple[str, str], Column],
    step: Step,
    scores: dict[str, dict[str, dict[str, Any]]],
    comparison: Comparison,
    labels: Any,
) -> None:
    """Put one network's errors where they belong."""
    for head in set(step.heads).intersection(POINT_TASKS):
        if not any(head in labels[site] for site in step.sites):
            continue  # a local network that never saw this label
        for site, patients in scores.items():
            trains = site in comparison.settings.locations and head in labels[site]
            if trains and site not in step.sites:
                continue  # another site's local network: it counts at other sites
            place = (head, GROUPS[0] if trains else GROUPS[1])
            for patient, heads in patients.items():
                for kind, figures in heads.get(head, {}).items():
                    lost = np.inf if kind == "points" else 0.0
                    asked = [figures.get(name, np.nan) for name in HEADS[head].classes]
                    values = cells.setdefault(place, Column()).values.setdefault(patient, [])
                    values.extend(lost if v is None else float(v) for v in asked)


def figures(column: Column, points: bool) -> dict[str, Any]:
    """Patients, values, quartiles, the median's interval and, for points, missing ones and success rates."""
    table = column.table
    flat = table.ravel()
    asked = flat[~np.isnan(flat)]
    result: dict[str, Any] = {"patients": len(table), "values": len(asked)}
    for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        result[name] = _finite(float(quantile(flat, share)))
    ends = interval(table, median)
    result["interval"] = None if ends is None else [_finite(e) for e in ends]
    if points:
        result["missing"] = int(np.isinf(asked).sum())
        result["success"] = {f"{r:g}": float(success(r)(flat)) for r in SUCCESS_MM}
    return result


def compare(comparison: Comparison) -> dict[str, Any]:
    """All figures and tests as plain data.

    Returns:
        ``figures``: task → group → title → :func:`figures`; ``tests``: one per question, task and group, with
        ``better``: the method that it speaks for, None where p after Holm is above 0.05 or the median difference does
        not point the way of the ranks (:class:`.statistics.PairedTest`).
    """
    found = collect(comparison)
    questions = QUESTIONS + (QUESTIONS_FROM_WEIGHTS if comparison.settings.ckpt else ())
    result: dict[str, Any] = {"figures": {}, "tests": []}
    for task in POINT_TASKS:
        points = HEADS[task].kind == "landmarks"
        for group in GROUPS:
            cells = {title: columns[task, group] for title, columns in found.items() if (task, group) in columns}
            result["figures"].setdefault(task, {})[group] = {t: figures(c, points) for t, c in cells.items()}
            for question, first, second in questions:
                if first in cells and second in cells:
                    names = sorted(cells[first].values)
                    test = paired_test(*(cells[t].per_patient(names, points) for t in (first, second)))
                    facts = {"question": question, "first": first, "second": second, "task": task, "group": group}
                    result["tests"].append(facts | _plain(test))
    for facts, p in zip(result["tests"], holm([t["p"] for t in result["tests"]]), strict=True):
        ahead = -facts["direction"] if HEADS[facts["task"]].kind == "landmarks" else facts["direction"]
        shown = p <= 1 - LEVEL and ahead != 0
        facts |= {"p_holm": p, "better": facts["first" if ahead > 0 else "second"] if shown else None}
    return result


def _plain(test: PairedTest) -> dict[str, Any]:
    """A test as JSON; what is infinite is the text ``inf`` or ``-inf``."""
    ends = test.interval and [_signed(end) for end in test.interval]
    return test.to_dict() | {
        "median_difference": _signed(test.difference),
        "interval": ends,
        "direction": test.direction,
    }


def markdown(result: dict[str, Any]) -> str:
    """The tables for people."""
    lines: list[str] = []
    for task, groups in result["figures"].items():
        points = HEADS[task].kind == "landmarks"
        unit = "mm" if points else "Dice"
        for group, rows in groups.items():
            if not rows:
                continue
            few = next(iter(rows.values()))
            lines += [f"**{task}, {unit}, {group}** ({few['patients']} patients)", ""]
            rates = [f"≤ {r:g} mm" for r in SUCCESS_MM] if points else []
            head = ["", "Q25 / median / Q75", "95 % of the median", *(["missing"] if points else []), *rates]
            lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
            for title, row in rows.items():
                quartiles = " / ".join(_text(row[q]) for q in ("q25", "median", "q75"))
                ends = "–" if row["interval"] is None else "…".join(_text(e) for e in row["interval"])
                cells = [title, quartiles, ends]
                if points:
                    cells += [f"{row['missing']}/{row['values']}"]
                    cells += [f"{v:.0%}" for v in row["success"].values()]
                lines.append("| " + " | ".join(cells) + " |")
            lines.append("")
    lines += [
        "| Question | Task, sites | Patients | Median difference (95 %) | p | p (Holm) | Better |",
        "|---|---|---|---|---|---|---|",
    ]
    for test in result["tests"]:
        ends = "–" if test["interval"] is None else "…".join(_text(e, "+") for e in test["interval"])
        middle = "–" if test["median_difference"] is None else _text(test["median_difference"], "+")
        lines.append(
            f"| {test['question']} | {test['task']}, {test['group']} | {test['pairs']} | {middle} ({ends}) | "
            f"{_chance(test['p'])} | {_chance(test['p_holm'])} | {test['better'] or 'not shown'} |"
        )
    return "\n".join(lines) + "\n"


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _signed(value: float | None) -> float | str | None:
    return value if value is None or np.isfinite(value) else str(value)


def _text(value: float | str | None, sign: str = "") -> str:
    """A figure; None is infinitely far."""
    return f"{float('inf' if value is None else value):{sign}.2f}".replace("inf", "∞")


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
