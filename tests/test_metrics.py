"""Scores and statistics: right on shapes with known answers, and no failure is ever lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.training import statistics
from cardiac_ct_fm.training.case_scores import Row
from cardiac_ct_fm.training.metrics import (
    Score,
    cldice,
    landmark_scores,
    plane_scores,
    segmentation_scores,
    surface_scores,
)
from cardiac_ct_fm.training.summary import summarise

HINGES = {"RCC": (12.0, 3.0, 0.5), "LCC": (-8.0, 9.0, 1.0), "NCC": (-3.0, -11.0, -2.0)}
small = st.floats(-20, 20, allow_nan=False)
vectors = st.tuples(small, small, small)
turns = st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))


def points(**at: tuple[float, float, float] | None) -> dict[str, Landmark]:
    return {n: Landmark.missing(n) if p is None else Landmark(n, True, p, 0.9) for n, p in at.items()}


def moved(
    at: dict[str, tuple[float, float, float]], turn: tuple[float, ...], shift: tuple[float, ...]
) -> dict[str, Landmark]:
    rotation = Rotation.from_euler("zyx", turn, degrees=True)
    return points(**{n: tuple(map(float, rotation.apply(p) + shift)) for n, p in at.items()})  # type: ignore[arg-type]


# --- points ---------------------------------------------------------------------------------------------------


@given(vectors, turns, vectors)
def test_distances_do_not_depend_on_where_the_patient_lies(
    error: tuple[float, ...], turn: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    wrong = {n: tuple(np.add(p, error)) for n, p in HINGES.items()}
    for score in landmark_scores("hps", tuple(HINGES), moved(HINGES, turn, shift), moved(wrong, turn, shift)):
        assert score.value == pytest.approx(float(np.linalg.norm(error)), abs=1e-9)


def test_a_point_that_is_not_found_is_a_failure_and_shifts_no_other() -> None:
    reference = points(**HINGES)
    predicted = points(RCC=None, LCC=HINGES["LCC"], NCC=HINGES["NCC"])
    by_name = {s.structure: s for s in landmark_scores("hps", tuple(HINGES), reference, predicted)}
    assert (by_name["RCC"].status, by_name["RCC"].value) == ("missed", None)
    assert by_name["LCC"].value == 0
    assert by_name["NCC"].value == 0


def test_a_point_that_the_scan_does_not_show_is_not_asked_for_but_must_not_be_invented() -> None:
    reference = points(RCC=None, LCC=None)
    predicted = points(RCC=(0.0, 0.0, 0.0), LCC=None)
    statuses = [s.status for s in landmark_scores("hps", ("RCC", "LCC"), reference, predicted)]
    assert statuses == ["invented", "absent"]


def test_exchanged_names_are_seen_as_such() -> None:
    swapped = points(RCC=HINGES["LCC"], LCC=HINGES["RCC"], NCC=HINGES["NCC"])
    scores = landmark_scores("hps", tuple(HINGES), points(**HINGES), swapped)
    assert [s.swapped for s in scores] == [True, True, False]


def test_a_reference_that_forgets_a_point_is_refused() -> None:
    with pytest.raises(DataError, match="lists no NCC"):
        landmark_scores("hps", tuple(HINGES), points(RCC=HINGES["RCC"], LCC=HINGES["LCC"]), {})


# --- the plane ------------------------------------------------------------------------------------------------


def plane(reference: dict[str, Landmark], predicted: dict[str, Landmark]) -> dict[str, float | None]:
    return {s.measure: s.value for s in plane_scores(reference, predicted)}


@given(st.floats(0, 90), turns, vectors)
@settings(max_examples=50)
def test_the_plane_angle_is_the_angle_it_was_tilted_by(
    tilt: float, turn: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    at = {n: np.array(p) for n, p in HINGES.items()}
    middle = np.mean(list(at.values()), axis=0)
    along = at["RCC"] - at["LCC"]
    rotation = Rotation.from_rotvec(np.radians(tilt) * along / np.linalg.norm(along))
    tilted = {n: tuple(map(float, rotation.apply(p - middle) + middle)) for n, p in at.items()}
    values = plane(moved(HINGES, turn, shift), moved(tilted, turn, shift))  # type: ignore[arg-type]
    assert values["plane_angle_deg"] == pytest.approx(tilt, abs=1e-4)
    assert values["plane_offset_mm"] == pytest.approx(0, abs=1e-6)
    assert values["circle_diameter_error_mm"] == pytest.approx(0, abs=1e-6)


@given(st.floats(-9, 9), turns)
def test_the_offset_is_the_distance_along_the_normal(lift: float, turn: tuple[float, ...]) -> None:
    a, b, c = (np.array(HINGES[n]) for n in ("RCC", "LCC", "NCC"))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal)
    lifted = {n: tuple(map(float, np.array(p) + lift * normal)) for n, p in HINGES.items()}
    values = plane(moved(HINGES, turn, (0, 0, 0)), moved(lifted, turn, (0, 0, 0)))  # type: ignore[arg-type]
    assert values["plane_offset_mm"] == pytest.approx(abs(lift), abs=1e-6)
    assert values["circle_centre_mm"] == pytest.approx(abs(lift), abs=1e-6)


@given(st.floats(0.8, 1.3))
def test_a_larger_annulus_has_a_larger_circle(factor: float) -> None:
    on_circle = {n: (10 * math.cos(a), 10 * math.sin(a), 0.0) for n, a in zip(HINGES, (0.0, 2.0, 4.5), strict=True)}
    scaled = {n: (factor * x, factor * y, 0.0) for n, (x, y, _) in on_circle.items()}
    values = plane(points(**on_circle), points(**scaled))
    assert values["circle_diameter_error_mm"] == pytest.approx(20 * (factor - 1), abs=1e-9)


def test_two_points_give_no_plane_and_that_counts() -> None:
    two = points(RCC=HINGES["RCC"], LCC=HINGES["LCC"], NCC=None)
    assert {s.status for s in plane_scores(points(**HINGES), two)} == {"missed"}
    assert plane_scores(two, points(**HINGES)) == []


# --- label maps -----------------------------------------------------------------------------------------------


def ball(
    radius_mm: float, spacing: tuple[float, float, float], shift_mm: float = 0.0, extent_mm: float = 22
) -> np.ndarray:
    x, y, z = (np.arange(int(2 * extent_mm / s)) * s - extent_mm for s in spacing)
    inside = (x[:, None, None] - shift_mm) ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2 <= radius_mm**2
    return np.asarray(inside)


def by_measure(reference: np.ndarray, predicted: np.ndarray, thin: bool = False) -> dict[str, tuple[float | None, str]]:
    scores = segmentation_scores("heart", "LV", reference, predicted, (1, 1, 1), thin=thin)
    return {s.measure: (s.value, s.status) for s in scores}


def test_two_shifted_balls_have_the_overlap_of_geometry() -> None:
    shift, radius = 5.0, 15.0
    lens = 1 - 1.5 * shift / (2 * radius) + 0.5 * (shift / (2 * radius)) ** 3
    measured = by_measure(ball(radius, (1, 1, 1)), ball(radius, (1, 1, 1), shift))
    assert measured["dice"][0] == pytest.approx(lens, abs=0.01)
    assert measured["reference_volume_mm3"][0] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.01)
    assert measured["hd95_mm"][0] == pytest.approx(0.95 * shift, abs=0.5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0)])
def test_surface_dice_asks_for_one_millimetre(spacing: tuple[float, float, float]) -> None:
    inner = ball(12, spacing, extent_mm=17)
    near, close = surface_scores(ball(12.5, spacing, extent_mm=17), inner, spacing)
    far, distance = surface_scores(ball(14.5, spacing, extent_mm=17), inner, spacing)
    assert near > 0.95
    assert far < 0.05
    assert close <= 1.5
    assert distance == pytest.approx(2.5, abs=0.8)
    assert surface_scores(inner, inner, spacing) == (1.0, 0.0)


def test_surfaces_that_end_at_the_border_of_the_scan_are_still_surfaces() -> None:
    block = np.ones((8, 8, 8), bool)
    assert surface_scores(block, block, (1, 1, 1)) == (1.0, 0.0)


def test_empty_masks_have_one_defined_meaning_each() -> None:
    full, empty = ball(5, (1, 1, 1)), np.zeros_like(ball(5, (1, 1, 1)))
    missed, invented, absent = by_measure(full, empty), by_measure(empty, full), by_measure(empty, empty)
    assert missed["dice"] == (0.0, "missed")
    assert missed["nsd"] == (0.0, "missed")
    assert missed["hd95_mm"] == (None, "missed")
    assert invented["dice"] == (0.0, "invented")
    assert absent["dice"] == (None, "absent")
    assert absent["volume_mm3"] == (0.0, "absent")


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(DataError, match="differ in shape"):
        segmentation_scores("heart", "LV", np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), (1, 1, 1))


def tube(radius: int, gap: bool = False) -> np.ndarray:
    mask = np.zeros((60, 15, 15), bool)
    y, z = np.mgrid[-7:8, -7:8]
    mask[5:55] = y**2 + z**2 <= radius**2
    if gap:
        mask[25:35] = False
    return mask


def test_a_thinner_tree_keeps_its_cldice_and_a_broken_one_does_not() -> None:
    thinner, broken = cldice(tube(2), tube(3)), cldice(tube(3, gap=True), tube(3))
    assert thinner > 0.95
    assert broken < 0.93
    assert by_measure(tube(3), tube(2), thin=True)["cldice"][0] == pytest.approx(thinner, abs=0.03)


# --- pooling --------------------------------------------------------------------------------------------------

tables = st.lists(
    st.lists(st.one_of(st.floats(0, 30), st.just(math.inf), st.just(math.nan)), min_size=3, max_size=3),
    min_size=1,
    max_size=12,
).map(np.array)


@given(tables)
@settings(deadline=None)
def test_a_failure_is_worse_than_any_error(table: np.ndarray) -> None:
    asked = table[~np.isnan(table)]
    if not len(asked):
        assert math.isnan(statistics.median(table.reshape(-1)))
        return
    rate = float(statistics.success(4.0)(table.reshape(-1)))
    assert rate == pytest.approx(np.mean(asked <= 4.0))
    large = np.where(np.isinf(asked), 1e6, asked)
    median, expected = float(statistics.median(table.reshape(-1))), float(np.median(large))
    assert median == pytest.approx(expected) if expected < 100 else math.isinf(median)


def test_quantiles_of_one_number_per_case_are_numpy_s() -> None:
    values = np.random.default_rng(0).normal(3, 1, (4, 31))
    np.testing.assert_allclose(statistics.quantile(values, 0.25), np.quantile(values, 0.25, axis=-1))


def test_intervals_cover_the_true_median_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        ends = statistics.interval(rng.normal(2, 1, (25, 1)), statistics.median, resamples=400, seed=trial)
        assert ends is not None
        covered += ends[0] <= 2 <= ends[1]
    assert 0.87 <= covered / 100 <= 0.99


def test_patients_are_resampled_and_not_their_points() -> None:
    one_value_each = np.repeat(np.random.default_rng(2).normal(0, 1, (30, 1)), 20, axis=1)
    wide = statistics.interval(one_value_each, statistics.mean)
    apart = statistics.interval(one_value_each.reshape(-1, 1), statistics.mean)
    assert wide is not None and apart is not None
    assert wide[1] - wide[0] > 3 * (apart[1] - apart[0])


def test_one_patient_has_no_interval() -> None:
    assert statistics.interval(np.ones((1, 3)), statistics.mean) is None


def test_a_paired_test_counts_a_failure_as_the_largest_difference() -> None:
    rng = np.random.default_rng(3)
    good = rng.normal(1.0, 0.2, 30)
    failing = good.copy()
    failing[:12] = math.inf
    result = statistics.paired_test(failing, good)
    assert result.p < 0.01
    assert result.difference == 0
    assert statistics.paired_test(good, good).p == 1.0
    both = np.where(np.arange(30) < 5, math.inf, good)
    assert statistics.paired_test(both, both).pairs == 30


def test_paired_differences_have_an_interval_around_the_shift() -> None:
    rng = np.random.default_rng(4)
    first = rng.normal(0, 1, 60)
    result = statistics.paired_test(first + 0.5 + rng.normal(0, 0.1, 60), first)
    assert result.interval is not None
    low, high = result.interval
    assert low is not None and high is not None
    assert low < 0.5 < high
    assert result.p < 1e-6


def test_patients_that_were_asked_of_one_model_only_are_left_out() -> None:
    assert statistics.paired_test(np.array([1.0, math.nan]), np.array([2.0, 3.0])).pairs == 1
    assert statistics.paired_test(np.array([math.nan]), np.array([1.0])).pairs == 0


def test_holm_is_the_textbook_s() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_never_makes_a_result_more_certain(p: list[float]) -> None:
    corrected = statistics.holm(p)
    assert all(0 <= a <= b <= 1 for a, b in zip(p, corrected, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= 0)


def test_bland_altman_finds_bias_and_limits() -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(100, 900, 400)
    agreement = statistics.bland_altman(truth, truth + 20 + rng.normal(0, 10, 400))
    assert agreement["bias"] == pytest.approx(20, abs=1.5)
    assert agreement["upper"] == pytest.approx(20 + 19.6, abs=3)
    assert statistics.bland_altman(truth[:1], truth[:1])["lower"] is None


def test_scans_without_calcium_do_not_narrow_the_agreement_of_its_volume() -> None:
    def rows(case: str, reference: float, measured: float) -> list[Row]:
        values = {"reference_volume_mm3": reference, "volume_mm3": measured}
        return [Row(case, case, "", Score("calc", "Calc", m, v, "mm3", "ok")) for m, v in values.items()]

    some = [row for i, error in enumerate((-30.0, 10.0, 50.0)) for row in rows(f"a{i}", 200.0, 200.0 + error)]
    none = [row for i in range(20) for row in rows(f"b{i}", 0.0, 0.0)]
    found = summarise([*some, *none])["volumes"]["Calc"]
    assert found["n"] == 3 and found["none_and_none_found"] == 20
    assert found["upper"] == pytest.approx(10 + 1.96 * 40)


def test_auroc_is_one_when_every_wrong_answer_is_less_sure() -> None:
    sure = np.array([0.9, 0.8, 0.3, 0.2])
    wrong = np.array([False, False, True, True])
    assert statistics.auroc(sure, wrong) == 1.0
    assert statistics.auroc(1 - sure, wrong) == 0.0
    assert statistics.auroc(np.ones(4), wrong) == 0.5
    assert statistics.auroc(sure, np.zeros(4, bool)) is None


def test_the_interval_of_an_auroc_is_wide_where_few_answers_are_wrong() -> None:
    rng = np.random.default_rng(3)
    patients = [f"p{i // 3}" for i in range(600)]
    sure = rng.random(600)

    def width(share: float) -> float:
        wrong = rng.random(600) < share
        ends = statistics.auroc_interval(sure, wrong, patients, resamples=400)
        whole = statistics.auroc(sure, wrong)
        assert ends is not None and whole is not None and ends[0] <= whole <= ends[1]
        return ends[1] - ends[0]

    assert width(0.02) > 2 * width(0.3)


def test_an_auroc_of_one_patient_s_errors_has_no_interval() -> None:
    wrong = np.array([True, True, False, False])
    assert statistics.auroc_interval(np.array([0.1, 0.3, 0.2, 0.4]), wrong, ["a", "a", "b", "c"]) is None


def test_resampled_aurocs_of_single_scans_are_those_of_the_rank_sum() -> None:
    """Without any tie among patients each resample is the AUROC of the drawn answers."""
    rng = np.random.default_rng(5)
    sure, wrong = np.round(rng.random(40), 1), rng.random(40) < 0.4
    ends = statistics.auroc_interval(sure, wrong, [str(i) for i in range(40)], resamples=50, seed=1)
    order = np.unique([str(i) for i in range(40)], return_inverse=True)[1]
    inverse = np.argsort(order)
    drawn = np.random.default_rng(1)
    picks = [inverse[drawn.integers(40, size=40)] for _ in range(50)]
    values = [statistics.auroc(sure[k], wrong[k]) for k in picks]
    assert ends == pytest.approx(tuple(np.quantile([v for v in values if v is not None], [0.025, 0.975])))
