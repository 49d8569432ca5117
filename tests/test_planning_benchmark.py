"""The benchmark of the measurements: what its rows are kept under, and what its table calls passed."""

from __future__ import annotations

import pytest
import torch

from recipes.benchmarks.planning import (
    REPOSITORY,
    SOURCES,
    collect,
    finished,
    markdown,
    sources_id,
    summary,
    weights_id,
)


def row(name, truth, value, seed=0):
    return {"seed": seed, "name": name, "truth": truth, "value": value, "sd": None, "asked": True}


def patient(seed):
    return [row("annulus_area_mm2", 400.0, 404.0, seed)]


def test_an_interrupted_last_line_is_cut_off_and_made_again(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = collect(range(3), file, patient)
    file.write_bytes(file.read_bytes()[:-20])
    assert sorted(finished(file)) == [0, 1]
    made = []
    assert collect(range(3), file, lambda seed: made.append(seed) or patient(seed)) == rows
    assert made == [2]
    assert sorted(finished(file)) == [0, 1, 2]


def test_rows_are_named_by_every_tensor_of_the_model():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    before = weights_id(model)
    assert weights_id(model) == before
    with torch.no_grad():
        model[1].running_mean[0] += 1.0
    assert weights_id(model) != before


@pytest.mark.parametrize("kind", ["true", "predicted"])
@pytest.mark.parametrize(
    "path",
    [
        "cardiac_ct_fm/planning/extent.py",
        "cardiac_ct_fm/cohort/root.py",
        "cardiac_ct_fm/result.py",
        "cardiac_ct_fm/assets/cohort/templates.npz",
        "recipes/benchmarks/planning_cases.py",
    ],
)
def test_rows_are_named_by_every_file_that_makes_them(tmp_path, kind, path):
    for source in {p for pattern in SOURCES[kind] for p in REPOSITORY.glob(pattern)}:
        copy = tmp_path / source.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    before = sources_id(kind, tmp_path)
    assert before == sources_id(kind)
    (tmp_path / "cardiac_ct_fm" / "unrelated.txt").write_text("words", encoding="utf-8")
    assert sources_id(kind, tmp_path) == before
    with (tmp_path / path).open("ab") as stream:
        stream.write(b"\n")
    assert sources_id(kind, tmp_path) != before


def test_what_true_points_make_right_is_not_called_passed():
    rows = [row("lca_height_mm", 12.0, 12.0)]
    given, tested = (summary(rows, kind)[0] for kind in ("true", "predicted"))
    assert (given["by_construction"], given["met"]) == (True, None)
    assert (tested["by_construction"], tested["met"]) == (False, True)
    assert "by construction" in markdown([given])[-1] and "✓" not in markdown([given])[-1]
    assert "✓" in markdown([tested])[-1]


def test_calcium_where_there_is_none_is_counted_apart():
    name = "calcium_ncc_mm3"
    rows = [row(name, 100.0, 95.0), row(name, 0.0, 0.0), row(name, 0.0, 80.0), row(name, 4.0, 9.0)]
    (entry,) = summary(rows, "true")
    assert (entry["asked"], entry["median"]) == (1, 5.0)
    assert entry["calcium_where_none"] == {"cusps": 3, "false": 1, "largest_mm3": 80.0}
    assert "1 of 3, up to 80 mm³" in markdown([entry])[-1]


def test_a_missed_value_moves_the_median_but_not_the_bias_of_those_made():
    rows = [row("annulus_area_mm2", 400.0, v) for v in (404.0, None, None)]
    (entry,) = summary(rows, "true")
    assert (entry["missed"], entry["made"], entry["median"], entry["bias"]) == (2, 1, None, 1.0)
