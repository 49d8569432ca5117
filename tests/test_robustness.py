"""Robustness curves: a condition changes what it says and nothing else, runs go on, figures are those of the scores."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import files_in
from scipy import ndimage

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.errors import DataError, UsageError
from cardiac_ct_fm.guidance import CHAMBERS
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.process import ALLOCATOR_VARIABLE
from cardiac_ct_fm.training.case_scores import Row
from cardiac_ct_fm.training.metrics import Score
from cardiac_ct_fm.training.scans import LabelledScan
from recipes.benchmarks.robustness import main, markdown, measure
from recipes.benchmarks.robustness_cases import CONDITIONS, UNCHANGED, Setting, case_under, scan, settings
from recipes.benchmarks.robustness_numbers import (
    calibration,
    flat,
    selective,
    setting_figures,
    spearman,
    summarised,
    tracking,
)

SPACING_MM = 4.0


@pytest.fixture(scope="module")
def unchanged() -> LabelledScan:
    return scan(0, UNCHANGED, spacing_mm=SPACING_MM)


def taken(condition: str, level: float, spacing_mm: float = SPACING_MM) -> LabelledScan:
    return scan(0, Setting(condition, level), spacing_mm=spacing_mm)


def case_of(condition: str, level: float = 1.0, seed: int = 0):
    return case_under(seed, Setting(condition, level), 0.7, 1.0)


def inside(labelled: LabelledScan, structure: str) -> np.ndarray:
    return ndimage.binary_erosion(labelled.label_maps["heart"] == HEART_LABELS[structure])


def points(labelled: LabelledScan) -> dict[str, np.ndarray]:
    own = [p for head in labelled.landmarks.values() for p in head.values()]
    return {p.name: np.array(p.ras_mm) for p in own if p.found}


def difference(a: LabelledScan, b: LabelledScan) -> np.ndarray:
    return a.volume.data.astype(float) - b.volume.data


def test_noise_is_multiplied_and_nothing_else_changes(unchanged) -> None:
    np.testing.assert_array_equal(taken("noise", 1.0).volume.data, unchanged.volume.data)
    clean, own, louder = (taken("noise", level, 2.0) for level in (0.0, 1.0, 4.0))
    blood = inside(own, "LV")
    assert difference(own, clean)[blood].std() > 3.0
    assert difference(louder, clean)[blood].std() / difference(own, clean)[blood].std() == pytest.approx(4.0, rel=0.02)
    np.testing.assert_array_equal(louder.label_maps["heart"], own.label_maps["heart"])


@pytest.mark.parametrize("wanted", CONDITIONS["contrast"].levels)
def test_the_aorta_has_the_wanted_hu(wanted: float) -> None:
    case = case_of("contrast", wanted)
    assert case.heart.patient.blood["Aorta"] == pytest.approx(wanted)
    assert case.heart.patient.tissue["myo"] <= case.heart.patient.blood["LV"] - 60 + 1e-9
    seen = taken("contrast", wanted)
    # what the scanner does: cupping up to 8 HU, offset up to 6 HU, scale up to 1.4 % at this strength, hardening
    assert np.median(seen.volume.data[inside(seen, "Aorta")]) == pytest.approx(wanted, rel=0.05, abs=20)


def test_voxels_have_the_wanted_size_in_the_same_place(unchanged) -> None:
    coarse = taken("spacing", 5.0)
    assert coarse.volume.grid.spacing == pytest.approx((5.0, 5.0, 5.0))
    np.testing.assert_allclose(coarse.volume.grid.centre_ras, unchanged.volume.grid.centre_ras)
    np.testing.assert_allclose(coarse.volume.grid.extent_mm, unchanged.volume.grid.extent_mm, atol=5.0)
    for name, at in points(unchanged).items():
        np.testing.assert_allclose(points(coarse)[name], at)
    scanner = case_under(5, Setting("spacing", 0.5), 0.7, 0.5).scanner
    assert scanner.pixel_mm <= 0.5 and scanner.slice_mm <= 0.5
    assert case_under(5, UNCHANGED, 0.7, 1.0).scanner.slice_mm == 1.0


@pytest.mark.parametrize(("condition", "still", "moving"), [("rotation", 2, 0), ("tilt", 0, 2)])
def test_a_turned_scan_has_an_oblique_affine_and_its_points_turn_along(unchanged, condition, still, moving) -> None:
    turned = taken(condition, 30.0)
    before, after = unchanged.volume.affine, turned.volume.affine
    np.testing.assert_allclose(after[:3, still], before[:3, still], atol=1e-9)
    along = before[:3, moving] @ after[:3, moving] / SPACING_MM**2
    assert np.degrees(np.arccos(along)) == pytest.approx(30.0)
    assert np.linalg.det(after[:3, :3]) == pytest.approx(SPACING_MM**3)
    np.testing.assert_array_equal(turned.volume.data, unchanged.volume.data)
    assert points(turned).keys() == points(unchanged).keys()
    for name, at in points(unchanged).items():
        assert np.linalg.norm(points(turned)[name] - at) > 0.1
        np.testing.assert_allclose(turned.volume.grid.voxel(points(turned)[name]), unchanged.volume.grid.voxel(at))


@pytest.mark.parametrize("condition", ["below", "above"])
def test_a_cut_scan_misses_the_wanted_share_of_the_heart(unchanged, condition: str) -> None:
    def volume(labelled: LabelledScan) -> int:
        return int(np.isin(labelled.label_maps["heart"], [HEART_LABELS[c] for c in CHAMBERS]).sum())

    for percent in (15.0, 45.0):
        cut = taken(condition, percent)
        missing = 100 * (1 - volume(cut) / volume(unchanged))
        assert percent <= missing < percent + 9
        assert cut.volume.data.shape == cut.label_maps["calc"].shape
        corner = cut.volume.grid.world((3, 4, 5))
        i, j, k = np.rint(unchanged.volume.grid.voxel(corner)).astype(int)
        assert cut.volume.data[3, 4, 5] == unchanged.volume.data[i, j, k]
        for name, at in points(cut).items():
            np.testing.assert_allclose(at, points(unchanged)[name])
        assert points(cut).keys() == {n for n, at in points(unchanged).items() if cut.volume.grid.contains(at)}
    heights = [at[2] for at in points(unchanged).values()]
    none = taken(condition, 99.0)
    assert not points(none), f"points at {heights} lie beyond what is left"


def test_a_stent_and_a_lead_are_there_only_where_they_are_asked_for() -> None:
    assert len(case_of("leads").heart.implants.leads) == 1
    assert len(case_of("stent").heart.implants.stents) == 1
    assert case_of("stent").heart.implants.leads == ()
    for seed in (0, 7):  # patient 7 is drawn with a lead
        own = case_of("unchanged", seed=seed).heart.implants
        assert (own.stents, own.leads) == ((), ())
    a, b = (taken(name, 1.0, 2.0).volume.data.astype(float) for name in ("leads", "unchanged"))
    assert (a - b).max() > 500
    assert np.abs(a - b).mean() < 3


def test_a_stent_lies_in_a_coronary_artery() -> None:
    heart = case_of("stent").heart
    (stent,) = heart.implants.stents
    away = [torch.cdist(stent.line, artery.line).min(dim=1).values.max() for artery in heart.coronaries]
    assert float(min(away)) < 3.0


def test_a_bicuspid_valve_changes_the_valve_and_no_landmark_beyond_it(unchanged) -> None:
    joined, free = case_of("bicuspid"), case_of("unchanged")
    assert joined.heart.patient.root.fused and not free.heart.patient.root.fused
    for name, at in free.heart.landmarks.items():
        assert float((joined.heart.landmarks[name] - at).norm()) < 2.0
    change = np.abs(difference(taken("bicuspid", 1.0), unchanged))
    where = unchanged.volume.grid.world(np.argwhere(change > 40))
    assert len(where)
    root = np.mean([points(unchanged)[n] for n in ("RCC", "LCC", "NCC")], axis=0)
    assert np.median(np.linalg.norm(where - root, axis=1)) < 25.0


def test_a_damaged_cache_is_told_and_a_whole_one_gives_the_same_scan(tmp_path: Path) -> None:
    setting = Setting("noise", 3.0)
    first = scan(0, setting, spacing_mm=SPACING_MM, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    again = scan(0, setting, spacing_mm=SPACING_MM, cache=tmp_path)
    assert file.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.volume.data, first.volume.data)
    np.testing.assert_array_equal(again.label_maps["heart"], first.label_maps["heart"])
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="remove it and it is rendered again"):
        scan(0, setting, spacing_mm=SPACING_MM, cache=tmp_path)


def test_an_interrupted_run_goes_on_with_the_scans_that_are_missing(finder: Path, tmp_path: Path) -> None:
    predictor, chosen = Predictor(finder), settings(["rotation"])[:2]
    how = {"spacing_mm": SPACING_MM, "quality": "fast"}
    whole = measure(predictor, chosen, 2, tmp_path, **how)
    cases = sorted(tmp_path.rglob("*.csv"))
    assert len(cases) == 4
    before = {path: path.stat().st_mtime_ns for path in cases}
    cases[1].unlink()
    assert measure(predictor, chosen, 2, tmp_path, **how) == whole
    after = {path: path.stat().st_mtime_ns for path in cases}
    assert [path for path in cases if after[path] != before[path]] == [cases[1]]


def test_finished_scans_that_were_seen_in_other_looks_are_not_taken(finder: Path, tmp_path: Path) -> None:
    predictor, how = Predictor(finder), {"spacing_mm": SPACING_MM, "quality": "fast"}
    measure(predictor, [UNCHANGED], 1, tmp_path, **how)
    config = predictor.model.config
    smaller = tuple(replace(look, spacing_mm=look.spacing_mm / 2) for look in config.looks)
    predictor.model._set_config(config.replace(looks=smaller))
    with pytest.raises(UsageError, match="same weights and other looks; remove the folder"):
        measure(predictor, [UNCHANGED], 1, tmp_path, **how)


def point(name: str, error: float | None, confidence: float, status: str = "ok", patient: str = "a") -> Row:
    score = Score("hps", name, "error_mm", error, "mm", status, confidence)  # type: ignore[arg-type]
    return Row(patient, patient, "", score)


def test_calibration_counts_right_points_per_bin() -> None:
    rows = [
        point("RCC", 1.0, 0.85),
        point("LCC", 3.9, 0.83),
        point("NCC", 4.1, 0.81),
        point("RCA", 9.0, 0.45),
        point("LCA", None, 0.42, "invented"),
        point("RCC", None, 0.0, "missed"),
        point("LCC", None, 0.0, "absent"),
        point("NCC", 0.5, 1.0),
    ]
    low, high, top = calibration(rows)
    assert (low["from"], low["points"], low["within"]) == (0.4, 2, 0.0)
    assert (high["from"], high["points"], high["within"]) == (0.8, 3, pytest.approx(2 / 3))
    assert high["confidence"] == pytest.approx(0.83)
    assert (top["to"], top["points"], top["within"]) == (1.0, 1, 1.0)


def test_the_surest_points_are_kept_and_missed_ones_are_the_least_sure() -> None:
    errors = (1.0, 2.0, 1.5, 8.0, None)
    sure = (0.9, 0.8, 0.7, 0.2, 0.0)
    rows = [
        point("RCC", e, c, "missed" if e is None else "ok", f"patient {c}") for e, c in zip(errors, sure, strict=True)
    ]
    result = selective(rows, ("RCC",))
    assert result["points"] == 5
    assert result["all"] == {"median_mm": 2.0, "mean_mm": 3.125, "within": 0.6}
    assert result["kept"] == {"median_mm": 1.75, "mean_mm": 3.125, "within": 0.75}
    assert selective(rows, ("RCC",), 0.6)["kept"]["within"] == 1.0
    assert selective(rows[::-1], ("RCC",)) == result
    assert selective([], ("RCC",))["kept"]["median_mm"] is None


def test_confidence_that_falls_with_rising_errors_is_seen_as_such() -> None:
    def figures(condition: str, level: float, error: float | None, confidence: float) -> dict:
        rows = [point(name, error, confidence, "missed" if error is None else "ok") for name in ("RCC", "LCC", "NCC")]
        return setting_figures(Setting(condition, level), rows)

    honest = [figures("noise", 2, 1.0, 0.9), figures("noise", 3, 5.0, 0.6), figures("noise", 4, None, 0.0)]
    assert honest[2]["points"]["hinge points"]["median_mm"] is None
    assert honest[2]["points"]["hinge points"]["within"] == 0.0
    assert honest[2]["points"]["ostia"] == {
        "asked": 0, "found": 0, "invented": 0, "median_mm": None, "within": None, "confidence": None,
    }  # fmt: skip
    assert tracking(honest, "hinge points")["median_error"] == pytest.approx(-1.0)
    blind = [figures("noise", 2, 1.0, 0.5), figures("noise", 3, 5.0, 0.6), figures("noise", 4, 9.0, 0.7)]
    assert tracking(blind, "hinge points")["median_error"] == pytest.approx(1.0)
    assert tracking(blind, "ostia") == {"settings": 0, "median_error": None, "failures": None}
    assert spearman([0.5, 0.5, 0.5], [1.0, 2.0, 3.0]) is None


def test_points_that_a_model_does_not_give_are_not_counted_as_not_shown() -> None:
    rows = {UNCHANGED: [point("RCC", 1.0, 0.9), point("LCC", 9.0, 0.2), point("NCC", None, 0.0, "absent")]}
    about = {"model": "m", "weights": "w", "patients": 1, "strength": 0.7, "quality": "fast"}
    table = markdown({"about": about, **summarised(rows), "rows": flat(rows)})
    (line,) = (line for line in table if line.startswith("| Unchanged |") and "°" not in line and "mm" in line)
    assert line == "| Unchanged | 5.0 mm, 50 %, 0.55 | – | – | – | 0 of 2 | 1, 0 |"


def test_the_command_writes_tables_and_pictures_and_draws_them_again(finder, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv(ALLOCATOR_VARIABLE, "system")
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(finder), "--n", "1", "--spacing", "5", "--quality", "fast", "--out", "figures"]
    main([*options, "--conditions", "above", "leads"])
    assert files_in(tmp_path / "figures") == ["calibration.png", "robustness.json", "robustness.md", "robustness.png"]
    result = json.loads((tmp_path / "figures" / "robustness.json").read_text(encoding="utf-8"))
    names = [f["name"] for f in result["settings"]]
    assert names == ["unchanged", "above-15", "above-30", "above-45", "leads"]
    assert {row["setting"] for row in result["rows"]} == set(names)
    table = (tmp_path / "figures" / "robustness.md").read_text(encoding="utf-8")
    for words in (
        "Unchanged",
        "Cut off from above, 45 % of the heart missing",
        "Pacemaker lead",
        "the surest 80 %",
        "`evaluate` leaves missed ones out",
    ):
        assert words in table
    assert table in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()}
    assert all(before[n].startswith(b"\x89PNG") for n in ("robustness.png", "calibration.png"))
    for name in ("robustness.md", "robustness.png", "calibration.png"):
        (tmp_path / "figures" / name).unlink()
    main(["--out", "figures", "--again"])
    after = {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()}
    assert after == before


def test_the_conditions_are_those_of_the_issue() -> None:
    levels = {name: condition.levels for name, condition in CONDITIONS.items()}
    assert max(levels["noise"]) == 4 and (min(levels["spacing"]), max(levels["spacing"])) == (0.5, 5)
    assert (min(levels["contrast"]), max(levels["contrast"])) == (100, 800) and max(levels["rotation"]) == 45
    names = [setting.name for setting in settings(CONDITIONS)]
    assert len(names) == len(set(names)) and names[0] == "unchanged"
    assert settings([]) == [UNCHANGED]
