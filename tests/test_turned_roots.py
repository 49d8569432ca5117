"""Roots unlike published ones: every other patient of a training, the same each time, and still a root."""

from __future__ import annotations

import numpy as np
import pytest

from cardiac_ct_fm.anatomy import HINGE_POINTS, OSTIA
from cardiac_ct_fm.cohort.patient import draw_patient
from recipes import turned_roots
from recipes.turned_roots import CUSP_LIMIT_DEG, HINGE_LIMIT_MM, SINUS_OF, TURN_DEG


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Drawn and unusual root of 200 patients, without what is rendered around them."""
    monkeypatch.setattr(turned_roots, "case_of", lambda patient, seed: patient)
    return [(draw_patient(seed).root, turned_roots.turned_roots(seed).root) for seed in range(200)]


def test_every_other_root_is_unusual_and_within_its_limits(roots: list[tuple]) -> None:
    unusual = [(old, new) for old, new in roots if old.cusp_deg != new.cusp_deg]
    assert 80 < len(unusual) < 120
    turns = np.array([[new.cusp_deg[n] - old.cusp_deg[n] for n in HINGE_POINTS] for old, new in unusual])
    lifts = np.array([[new.hinge_z_mm[n] - old.hinge_z_mm[n] for n in HINGE_POINTS] for old, new in unusual])
    assert 0.5 * TURN_DEG < np.abs(turns).max() <= TURN_DEG + CUSP_LIMIT_DEG
    assert 0.8 * HINGE_LIMIT_MM < np.abs(lifts).max() <= HINGE_LIMIT_MM
    assert np.abs(np.corrcoef(lifts.T)[0, 1:]).max() < 0.4, "each hinge point has a height of its own"
    assert 4 < (turns - turns.mean(1, keepdims=True)).std() < 9, "each cusp turns on its own, too"


def test_ostia_and_septum_go_with_their_cusps(roots: list[tuple]) -> None:
    for old, new in roots:
        turn = {name: new.cusp_deg[name] - old.cusp_deg[name] for name in HINGE_POINTS}
        assert new.septum_deg - old.septum_deg == pytest.approx((turn["RCC"] + turn["NCC"]) / 2)
        for name in OSTIA:
            cusp = SINUS_OF[name]
            assert abs(new.ostium_deg[name] - old.ostium_deg[name] - turn[cusp]) <= 30 + 1e-6
            rise = new.ostium_height_mm[name] - old.ostium_height_mm[name]
            assert rise == pytest.approx(max(0.0, new.hinge_z_mm[cusp] - old.hinge_z_mm[cusp]))
