"""The sinotubular junction as a ring on the wall, level or leaning; sinuses beside the annulus's axis are followed."""

from __future__ import annotations

import numpy as np
import pytest

from cardiac_ct_fm.planning.contours import RAY_ANGLES
from cardiac_ct_fm.planning.junction import find_junction
from recipes.benchmarks.planning_cases import with_true_landmarks

PATIENT = 28
"""Not one of those (2000–2039) on which the search was tuned."""

LEVELS = np.arange(-2.0, 46.0)
ANNULUS, TUBE, DEPTH = 12.5, 14.0, 4.0


def root(
    ends_mm: float, lean_mm: float = 0.0, toward: float = 0.0, narrowing: float = 0.0, noise: float = 0.0, seed: int = 0
):
    """Levels, radii and diameters of a root whose sinuses end on a ring that leans by ``lean_mm`` at its edge."""
    end = ends_mm + lean_mm * np.cos(RAY_ANGLES - toward)
    share = np.clip(LEVELS[:, None] / end[None, :], 0.0, 1.0)
    base = ANNULUS + (TUBE - ANNULUS) * share - narrowing * np.maximum(LEVELS[:, None] - end, 0.0)
    radii = base + DEPTH * np.sin(np.pi * share)
    radii = radii + np.random.default_rng(seed).normal(0.0, noise, radii.shape)
    above = LEVELS >= 0.0
    return LEVELS[above], radii[above], 2.0 * np.sqrt((radii[above] ** 2).mean(axis=1))


@pytest.mark.parametrize("ends", [18.0, 21.5, 25.0])
def test_level_ring_is_found(ends):
    s, radii, diameter = root(ends, noise=0.1)
    found = find_junction(s, radii, diameter, ends / 2.0)
    assert found.s_mm == pytest.approx(ends, abs=0.5)
    assert found.lean_mm < 1.5


@pytest.mark.parametrize("toward", [0.0, 2.0, 4.0])
def test_leaning_ring_is_found_at_its_middle(toward):
    s, radii, diameter = root(21.0, lean_mm=5.0, toward=toward, noise=0.1)
    found = find_junction(s, radii, diameter, 10.5)
    assert found.s_mm == pytest.approx(21.0, abs=0.7)
    assert found.lean_mm == pytest.approx(5.0, abs=1.5)
    assert found.kind == "kink"


def test_an_aorta_that_goes_on_narrowing_does_not_move_it():
    s, radii, diameter = root(21.0, narrowing=0.1)
    assert find_junction(s, radii, diameter, 10.5).s_mm == pytest.approx(21.0, abs=0.5)


@pytest.mark.parametrize("cut", [17.0, 18.0, 19.0, 20.0, 21.0, 22.0])
@pytest.mark.parametrize(("beyond", "lean"), [(1.0, 0.0), (3.0, 0.0), (3.0, 3.0)])
def test_a_line_that_ends_in_the_sinuses_has_no_junction(cut, beyond, lean):
    ends = min(cut + beyond, 25.0)
    for seed in range(10):
        s, radii, diameter = root(ends, lean, noise=0.1, seed=seed)
        short = s <= cut
        assert find_junction(s[short], radii[short], diameter[short], ends / 2.0) is None
        assert find_junction(s, radii, diameter, ends / 2.0).s_mm == pytest.approx(ends, abs=1.5)


def test_sinuses_of_a_leaning_aorta_are_followed():
    """In this patient the section above the valve, sought over the annulus, lies beside the middle of the aorta."""
    rows = {row["name"]: row for row in with_true_landmarks(PATIENT)}
    for name in ("sinus_mean_diameter_mm", "sinus_max_diameter_mm", "stj_mean_diameter_mm"):
        assert rows[name]["value"] == pytest.approx(rows[name]["truth"], abs=1.5)
