"""What ± claims: the truth lies within it as often as it says, and a flag that hangs on it is not called firmly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cardiac_ct_fm.planning import PlanningOptions
from cardiac_ct_fm.planning.annulus import Points
from cardiac_ct_fm.planning.flags import find_flags
from cardiac_ct_fm.planning.measured import CALCIUM_MM3, LEAST_MM, least_sd
from cardiac_ct_fm.planning.options import NETWORK_CONFIDENCE
from cardiac_ct_fm.planning.planes import Finding
from cardiac_ct_fm.planning.sheet import Sheet
from recipes.benchmarks.planning import markdown, summary, write
from recipes.benchmarks.planning_doubt import (
    CALCIUM,
    DIAMETERS,
    amount_and_share,
    coverage,
    made,
    per_cusp,
    read,
    root_mean_square,
)

ROWS = Path(__file__).parent.parent / "docs" / "planning" / "true.csv"
HALF = {"threshold_kind": "fixed", "extent": "half"}


@pytest.fixture(scope="module")
def rows():
    return read(ROWS)


def entered(name, value, sd, details=None):
    sheet = Sheet(Points(), PlanningOptions())
    sheet.put(name, value, sd, uses=(), details=details)
    sheet.close(Finding("not_asked", "Only one value is entered in this test."))
    return sheet.finished()


def test_no_standard_deviation_is_below_the_errors_that_were_measured():
    row = entered("sinus_mean_diameter_mm", 30.2, 0.3)["sinus_mean_diameter_mm"]
    assert (row.uncertainty, row.details["scan_sd"]) == (1.6, 0.3)
    wide = entered("stj_mean_diameter_mm", 28.0, 2.5)["stj_mean_diameter_mm"]
    assert wide.uncertainty == 2.5 and "scan_sd" not in wide.details
    assert entered("calcium_valve_mm3", 0.0, 0.0, HALF)["calcium_valve_mm3"].uncertainty == 15.0
    assert entered("annulus_min_diameter_mm", 22.0, None)["annulus_min_diameter_mm"].uncertainty is None


def test_an_area_has_the_standard_deviation_of_its_diameter():
    step = np.pi / 4.0 * ((30.0 + 1e-3) ** 2 - 30.0**2) / 1e-3
    assert least_sd("sinus_area_mm2", np.pi / 4.0 * 30.0**2, {}) == pytest.approx(1.6 * step, rel=1e-3)
    assert least_sd("sinus_height_mm", 12.0, {}) == least_sd("calcium_agatston", 900.0, HALF) == 0.0


def test_a_sinus_just_above_its_limit_does_not_rule_obstruction_out():
    measured = entered("sinus_mean_diameter_mm", 30.2, 0.3) | {
        "lca_height_mm": entered("lca_height_mm", 9.0, 0.5)["lca_height_mm"]
    }
    flags = {flag.title: flag.state for flag in find_flags(measured)}
    assert flags["Coronary obstruction, left, traditional"] == "borderline"  # sinus below 30 mm


@pytest.mark.parametrize("title", [*DIAMETERS, *CALCIUM])
def test_what_is_told_was_fitted_on_half_of_the_patients_and_holds_on_the_other(rows, title):
    even, odd = ([row for row in rows if row["seed"] % 2 == half] for half in (0, 1))
    if title in DIAMETERS:
        names = DIAMETERS[title]
        fitted = root_mean_square(made(even, names))
        assert [LEAST_MM[name] for name in names] == pytest.approx([fitted] * len(names), abs=0.06)
    else:
        kind, rule = CALCIUM[title]
        names = per_cusp(kind)
        assert CALCIUM_MM3[rule] == pytest.approx(amount_and_share(made(even, names)), rel=0.04, abs=0.5)
    within, nearly_all = coverage(odd, names)
    assert within >= 0.63 and nearly_all >= 0.80
    alone = coverage(odd, names, "scan_sd")
    assert alone[0] < within and alone[1] < nearly_all


def row(value, truth, sd, name="sinus_mean_diameter_mm"):
    return {"seed": 0, "name": name, "truth": truth, "value": value, "sd": sd, "scan_sd": sd, "asked": True}


def test_the_table_tells_how_often_the_truth_lies_within_one_and_two_standard_deviations(tmp_path):
    some = [
        row(30.4, 30.0, 0.5),
        row(30.9, 30.0, 0.5),
        row(33.0, 30.0, 0.5),
        row(30.0, 30.0, 0.5),
        row(None, 30.0, None),
    ]
    (entry,) = summary(some, "true")
    assert entry["within_1_and_1.96_sd"] == (0.5, 0.75)
    assert "| 50 %, 75 % |" in markdown([entry])[-1]
    wrapped = row(179.0, -179.0, 3.0, "carm_three_cusp_lao_deg")
    assert coverage([wrapped], (wrapped["name"],)) == (1.0, 1.0)
    assert "100 %" not in markdown(summary([wrapped], "true"))[-1]  # right by construction, which tells nothing


def test_rows_are_read_as_they_were_written(tmp_path):
    some = [
        {**row(v, 30.0, 0.5), "status": "ok", "reason": None, "slice_mm": 1.0, "blood_hu": 300} for v in (30.5, None)
    ]
    write(some, "true", 1, tmp_path, "sources test")
    assert read(tmp_path / "true.csv") == some


def distances(confidence, people):
    """Between two people's points, or of one from the truth: median and quartiles, mm."""
    drawn = np.random.default_rng(0).normal(0.0, PlanningOptions().landmark_sd(confidence), (2, 20_000, 3))
    return np.quantile(np.linalg.norm(drawn[0] - people * drawn[1], axis=-1), [0.5, 0.25, 0.75])


def test_two_sure_points_lie_as_far_apart_as_two_observers():
    assert distances(1.0, people=True) == pytest.approx([2.0, 1.3, 2.8], abs=0.2)  # Astudillo et al. 2020


def test_a_point_as_sure_as_the_networks_is_as_far_off_as_the_networks():
    assert distances(NETWORK_CONFIDENCE, people=False)[0] == pytest.approx(1.95, abs=0.05)  # docs/heldout_tiny.txt
    assert PlanningOptions().landmark_sd(0.2) > 2.0
