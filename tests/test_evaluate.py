"""Evaluation through the whole predictor: failures count, stopped runs go on, two models are compared fairly."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import files_in, run
from labelled_patients import write_patients
from tiny_finder import save_finder

import cardiac_ct_fm as ccf
from cardiac_ct_fm.cohort.identity import cohort_sha256
from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.training.case_scores import Row, read_rows
from cardiac_ct_fm.training.comparison import compare
from cardiac_ct_fm.training.data_list import read_data_list
from cardiac_ct_fm.training.digital import digital_source
from cardiac_ct_fm.training.evaluate import evaluate
from cardiac_ct_fm.training.metrics import Score
from cardiac_ct_fm.training.scans import ScanSource, list_source

PATIENTS, SPACING_MM, SHAPE = "0-2", 4.0, (40, 40, 40)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ScanSource:
    """Three coarse digital patients."""
    cache = tmp_path_factory.mktemp("scans")
    return digital_source(PATIENTS, strength=0.5, spacing_mm=SPACING_MM, shape=SHAPE, cache=cache)


@pytest.fixture(scope="module")
def evaluated(data: ScanSource, finder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "figures"
    evaluate(finder, data, out, heads=["heart", "hps"], quality="fast")
    return out


def dice_of(rows: list[Row], structure: str) -> dict[str, float]:
    return {r.case: r.score.value for r in rows if (r.score.structure, r.score.measure) == (structure, "dice")}


def test_scores_are_those_of_the_users_prediction(data: ScanSource, finder: Path, evaluated: Path) -> None:
    key = data.keys[0]
    scan = data.load(key)
    pred = Predictor(finder)(scan.volume, heads=["heart", "hps"], quality="fast", measure=False)
    ours, truth = pred.mask("LV"), scan.label_maps["heart"] == 3
    expected = 2 * (ours & truth).sum() / (ours.sum() + truth.sum())
    assert dice_of(read_rows(evaluated / "scores.csv"), "LV")[key] == pytest.approx(float(expected))
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["scans"] == summary["patients"] == 3
    assert summary["landmarks"]["RCC"]["asked"] == 3


def test_every_case_has_its_table_and_all_have_one_picture(data: ScanSource, evaluated: Path) -> None:
    cases = [f"cases/{key}.csv" for key in data.keys]
    assert files_in(evaluated) == sorted(
        ["boxes.png", "cases", *cases, "evaluation.json", "scores.csv", "summary.json"]
    )
    assert (evaluated / "boxes.png").read_bytes().startswith(b"\x89PNG")
    with (evaluated / "scores.csv").open(newline="") as file:
        assert {row["case"] for row in csv.DictReader(file)} == set(data.keys)


def test_a_stopped_evaluation_goes_on_with_the_cases_that_are_missing(
    data: ScanSource, finder: Path, evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated, tmp_path / "out")
    (tmp_path / "out" / "cases" / f"{data.keys[1]}.csv").unlink()
    (tmp_path / "out" / "summary.json").unlink()
    loaded: list[str] = []

    def load(key: str) -> object:
        loaded.append(key)
        return data.load(key)

    again = ScanSource(data.name, data.keys, load, data.facts)  # type: ignore[arg-type]
    evaluate(finder, again, tmp_path / "out", heads=["heart", "hps"], quality="fast")
    assert loaded == [data.keys[1]]
    for name in ("scores.csv", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == (evaluated / name).read_bytes()


def test_another_model_or_quality_is_not_mixed_into_a_folder(
    data: ScanSource, finder: Path, evaluated: Path, tmp_path: Path
) -> None:
    before = {p: (evaluated / p).read_bytes() for p in files_in(evaluated) if (evaluated / p).is_file()}
    with pytest.raises(ccf.UsageError, match="holds an evaluation with another quality"):
        evaluate(finder, data, evaluated, heads=["heart", "hps"])
    other = ccf.from_pretrained(finder)
    next(other.heads["hps"].parameters()).data.add_(1.0)
    with pytest.raises(ccf.UsageError, match="another weights_sha256"):
        evaluate(other, data, evaluated, heads=["heart", "hps"], quality="fast")
    assert {p: (evaluated / p).read_bytes() for p in before} == before


def test_scores_on_other_data_or_with_other_looks_are_not_taken_for_these(
    data: ScanSource, finder: Path, evaluated: Path, tmp_path: Path
) -> None:
    chosen = {"heads": ["heart", "hps"], "quality": "fast"}
    sharper = digital_source(PATIENTS, strength=1.0, spacing_mm=SPACING_MM, shape=SHAPE)
    with pytest.raises(ccf.UsageError, match=r"another data\.strength;"):
        evaluate(finder, sharper, evaluated, **chosen)
    coarser = digital_source(PATIENTS, strength=0.5, spacing_mm=5.0, shape=(40, 40, 32))
    with pytest.raises(ccf.UsageError, match=r"another data\.shape and data\.spacing_mm;"):
        evaluate(finder, coarser, evaluated, **chosen)
    note = json.loads((evaluated / "evaluation.json").read_text())
    note["data"]["cohort"] = 64 * "0"
    (tmp_path / "evaluation.json").write_text(json.dumps(note))
    with pytest.raises(ccf.UsageError, match=r"another data\.cohort;"):
        evaluate(finder, data, tmp_path, **chosen)
    model = ccf.from_pretrained(finder)
    wider = dataclasses.replace(model.config.intensity, high_hu=model.config.intensity.high_hu + 100)
    model._set_config(model.config.replace(intensity=wider))
    with pytest.raises(ccf.UsageError, match="another config;"):
        evaluate(model, data, evaluated, **chosen)


def test_only_scans_that_were_added_or_changed_are_measured_again(finder: Path, tmp_path: Path) -> None:
    listed = read_data_list(write_patients(tmp_path / "patients"))
    heads = [HeadConfig("hps", "landmarks", ("RCC", "LCC", "NCC"))]
    points = [dataclasses.replace(e, labels={}, landmarks=e.image.parent / "points.json") for e in listed.training]
    loaded: list[str] = []

    def measured(count: int) -> list[float | None]:
        source = list_source(points[:count], heads)
        loaded.clear()
        counted = dataclasses.replace(source, load=lambda key: loaded.append(key) or source.load(key))  # type: ignore[func-returns-value]
        found = evaluate(finder, counted, tmp_path / "out", heads=["hps"], quality="fast").rows
        return [
            r.score.value for r in found if (r.case, r.score.structure, r.score.measure) == ("p0", "RCC", "error_mm")
        ]

    first = measured(1)
    assert (measured(2), loaded) == (first, ["p1"]), "a scan was added"
    file = points[0].landmarks
    assert file is not None
    moved = json.loads(file.read_text())
    for point in moved["landmarks"]:
        point["ras"][2] += 20.0
        point["lps"][2] += 20.0
    file.write_text(json.dumps(moved))
    assert measured(1) != first
    assert loaded == ["p0"]
    measured(2)
    assert not loaded


def test_a_scan_in_which_no_heart_is_found_counts_as_missed_and_is_named(data: ScanSource, tmp_path: Path) -> None:
    blind = save_finder(tmp_path / "blind", finds_heart=False)
    summary = evaluate(blind, data, heads=["heart", "hps"], quality="fast").summary
    assert sorted(summary["failed"]) == sorted(data.keys)
    assert "shows no heart" in summary["failed"][data.keys[0]]
    assert summary["landmarks"]["RCC"]["detection_rate"] == 0.0
    assert summary["landmarks"]["RCC"]["median"] is None, "more than half failed"
    assert summary["segmentation"]["LV"]["dice"]["median"] == 0.0


def test_a_cohort_with_another_source_is_another_and_its_kept_scans_are_not_taken(tmp_path: Path) -> None:
    """In a copy of the package with one more comment in one module."""
    package = tmp_path / "cardiac_ct_fm"
    left_out = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.png", "*.jpg")
    shutil.copytree(Path(ccf.__file__).parent, package, ignore=left_out)

    def identity() -> str:
        ask = "from cardiac_ct_fm.cohort.identity import cohort_sha256; print(cohort_sha256())"
        return subprocess.check_output([sys.executable, "-c", ask], cwd=tmp_path, env=environment, text=True).strip()

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert identity() == cohort_sha256()
    with (package / "cohort" / "valve.py").open("a") as file:
        file.write("# changed\n")
    changed = identity()
    assert changed != cohort_sha256()
    small = {"strength": 0.0, "spacing_mm": 8.0, "shape": (16, 16, 16), "cache": tmp_path / "scans"}
    source = digital_source("0", **small)  # type: ignore[arg-type]
    assert source.facts["cohort"] == cohort_sha256()
    source.load(source.keys[0])
    (kept,) = small["cache"].iterdir()
    kept.rename(kept.with_name(kept.name.replace(cohort_sha256()[:12], changed[:12]))).write_bytes(b"another cohort's")
    source.load(source.keys[0])
    assert kept.exists()


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_kept_scan_that_was_cut_off_is_refused(kept: int, tmp_path: Path) -> None:
    source = digital_source("0", strength=0.0, spacing_mm=8.0, shape=(16, 16, 16), cache=tmp_path)
    source.load(source.keys[0])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="is damaged"):
        source.load(source.keys[0])


def test_a_head_that_the_model_has_not_is_refused_before_a_scan_is_read(data: ScanSource, finder: Path) -> None:
    with pytest.raises(ccf.ConfigError, match="has no head 'coronaries'"):
        evaluate(finder, data, heads=["coronaries"])
    with pytest.raises(ccf.UsageError, match="holds no scans"):
        evaluate(finder, ScanSource("nothing", (), data.load))


def test_a_bad_folder_is_noticed_before_the_model_is_loaded(data: ScanSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(ccf.OutputError, match="is a file, not a folder"):
        evaluate("no-such-model", data, tmp_path / "file" / "figures")


def test_a_data_list_is_read_for_the_heads_that_it_labels(tmp_path: Path) -> None:
    listed = read_data_list(write_patients(tmp_path / "patients"))
    source = list_source(listed.training, [HeadConfig("ventricle", "segmentation", ("Ventricle",))])
    scan = source.load(source.keys[0])
    assert scan.label_maps.keys() == {"ventricle"}
    assert set(np.unique(scan.label_maps["ventricle"])) == {0, 1}


# ---- two models


def rows(values: list[float | None], measure: str = "dice", structure: str = "LV") -> list[Row]:
    return [
        Row(
            f"case{i}",
            f"patient{i}",
            "",
            Score("heart", structure, measure, value, "ratio", "ok" if value else "missed"),
        )
        for i, value in enumerate(values)
    ]


def test_a_model_that_is_better_in_every_patient_is_called_better() -> None:
    rng = np.random.default_rng(0)
    good = list(rng.uniform(0.8, 0.9, 20))
    bad = [v - 0.1 - 0.01 * i / 20 for i, v in enumerate(good)]
    (test,) = compare(rows(good), rows(bad), ("a", "b"))["tests"]
    assert test["better"] == "a"
    assert test["pairs"] == 20
    assert test["interval"][0] <= test["median_difference"] <= test["interval"][1]
    assert test["median_difference"] == pytest.approx(0.105, abs=0.006)
    (turned,) = compare(rows(bad), rows(good), ("b", "a"))["tests"]
    assert (turned["better"], turned["median_difference"]) == ("a", pytest.approx(-test["median_difference"]))


def test_smaller_errors_and_larger_overlaps_are_better() -> None:
    near, far = [1.0 + i / 100 for i in range(12)], [2.0 + i / 50 for i in range(12)]
    (test,) = compare(rows(near, "error_mm", "RCC"), rows(far, "error_mm", "RCC"), ("near", "far"))["tests"]
    assert test["better"] == "near"
    failing: list[float | None] = [*near[:4], *[None] * 8]
    (test,) = compare(rows(failing, "error_mm", "RCC"), rows(far, "error_mm", "RCC"), ("failing", "far"))["tests"]
    assert test["first_median"] is None
    assert test["better"] != "failing"


def test_equal_models_and_many_questions_prove_nothing() -> None:
    values = [0.8 + i / 100 for i in range(10)]
    (same,) = compare(rows(values), rows(values), ("a", "b"))["tests"]
    assert (same["better"], same["p_holm"]) == (None, 1.0)
    one, other = rows(values), rows([v + 0.01 for v in values])
    for number in range(30):
        one, other = one + rows(values, structure=f"S{number}"), other + rows(values, structure=f"S{number}")
    tests = compare(one, other, ("a", "b"))["tests"]
    assert tests[0]["p"] < 0.05 < tests[0]["p_holm"]
    assert tests[0]["better"] is None


def test_many_tiny_wins_against_fewer_huge_ones_name_no_winner() -> None:
    """The ranks speak for the second model, the median for the first."""
    tiny, huge = [0.001 + i / 1e5 for i in range(55)], [0.2 + i / 1e3 for i in range(45)]
    first, second = rows([0.7] * 100), rows([*(0.7 - d for d in tiny), *(0.7 + d for d in huge)])
    (test,) = compare(first, second, ("a", "b"))["tests"]
    assert test["p_holm"] < 0.01
    assert test["median_difference"] > 0
    assert test["better"] is None
    agreeing = rows([*(0.7 - d for d in tiny[:45]), *(0.7 + d for d in [*huge, *huge[:10]])])
    (test,) = compare(first, agreeing, ("a", "b"))["tests"]
    assert test["better"] == "b"


def test_two_models_of_one_name_are_told_apart() -> None:
    good, bad = [0.8 + i / 1000 for i in range(20)], [0.6 + i / 500 for i in range(20)]
    found = compare(rows(bad), rows(good), ("mine", "mine"))
    assert found["models"] == ["mine (first)", "mine (second)"]
    assert found["tests"][0]["better"] == "mine (second)"


def test_models_without_a_shared_patient_are_not_compared() -> None:
    with pytest.raises(ccf.DataError, match="share no scored patient"):
        compare(rows([0.5]), [], ("a", "b"))


def test_the_command_line_compares_two_models(finder: Path, tmp_path: Path) -> None:
    other = ccf.from_pretrained(finder)
    other.save_pretrained(tmp_path / "other")
    folder = write_patients(tmp_path / "patients").parent
    listed = json.loads((folder / "datalist.json").read_text())
    entries = [
        {"image": e["image"], "landmarks": e["image"].replace("ct.nii.gz", "points.json")} for e in listed["training"]
    ]
    (folder / "test.json").write_text(json.dumps({"test": entries}))
    answer = run(
        "evaluate", folder / "test.json", "-o", tmp_path / "out", "-m", finder, "--against", tmp_path / "other",
        "--heads", "hps", "--quality", "fast", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    tests = json.loads(answer.out)["comparison"]["tests"]
    assert {t["structure"] for t in tests} >= {"RCC", "LCC", "NCC", "RCA", "LCA"}
    assert all(t["better"] is None for t in tests), "the same weights twice"
    assert {"boxes.png", "comparison.json", "summary.json", "against/summary.json"} <= set(files_in(tmp_path / "out"))


@pytest.mark.parametrize(
    ("heads", "says"), [(["--heads", "heart"], "has no head 'heart'; it has other"), ([], "have no head in common")]
)
def test_a_rival_without_the_heads_is_refused_before_anything_is_computed(
    finder: Path, tmp_path: Path, heads: list[str], says: str
) -> None:
    config = ccf.from_pretrained(finder).config
    looks = tuple(dataclasses.replace(look, heads=("other",)) for look in config.looks)
    rival = config.replace(heads=(HeadConfig("other", "segmentation", ("Other",)),), looks=looks)
    ccf.create_model(rival, seed=0).save_pretrained(tmp_path / "rival")
    listed = write_patients(tmp_path / "patients")
    answer = run(
        "evaluate", listed, "--section", "training", "-o", tmp_path / "out", "-m", finder,
        "--against", tmp_path / "rival", *heads,
    )  # fmt: skip
    assert answer.code in (1, 2)
    assert says in answer.line
    assert not (tmp_path / "out").exists()
