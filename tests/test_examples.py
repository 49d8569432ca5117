"""The examples run as they are printed, and stay short."""

from __future__ import annotations

import csv
import functools
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from analytic_solids import Pose, RootPhantom, hinge_points, landmarks, render
from conftest import ROOT
from labelled_patients import write_patients

from cardiac_ct_fm.outputs import write_outputs
from cardiac_ct_fm.planning import PlanningOptions
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.training.settings import FinetuneSettings

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_LINES = 60


def main_of(name: str) -> Callable[..., None]:
    """The ``main`` of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., None] = module.main
    return main


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert f"python examples/{path.name}" in text


@pytest.mark.parametrize(("name", "given"), [("predict", ["no.nii.gz", "out"]), ("features", ["no.nii.gz"])])
def test_an_example_says_in_one_line_what_is_wrong(name: str, given: list[str], tmp_path: Path) -> None:
    command, here = (
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *given],
        {**os.environ, "PYTHONPATH": str(ROOT)},
    )
    done = subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("no.nii.gz does not exist") and "Traceback" not in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_without_arguments_says_in_one_sentence_what_it_needs(path: Path) -> None:
    command, here = [sys.executable, str(path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=here, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    assert "Traceback" not in done.stderr
    assert re.search(r"^Needs [^.]+\.$", done.stderr, re.MULTILINE)
    assert f"python examples/{path.name} " in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_takes_the_arguments_that_it_shows(path: Path) -> None:
    shown = re.search(rf"python examples/{path.name} ([^>\n]*)", path.read_text(encoding="utf-8"))
    assert shown is not None
    inspect.signature(main_of(path.stem)).bind(*shown[1].split())


def test_predict_and_its_results_as_a_table(
    finder: Path, demo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_of("predict")(str(demo_path), str(tmp_path), str(finder))
    assert "everything, with picture and report" in capsys.readouterr().out
    main_of("read_report")(str(tmp_path))
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["scan"] == "ct_cropped"
    assert float(row["LV_volume_ml"]) > 0
    folder = tmp_path / "ct_cropped"
    written = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["measurements"]
    expected = {m["name"]: "" if m["value"] is None else str(round(m["value"], 2)) for m in written}
    asked = [name for name in row if f"{name} status" in row]
    assert len(asked) == 5
    assert {name: row[name] for name in asked} == {name: expected[name] for name in asked}


def test_the_table_shows_what_was_measured_and_leaves_empty_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A root of known size in which the right coronary artery was not found."""
    root, pose = RootPhantom(), Pose(np.eye(3), np.zeros(3))
    scan = render(root.inside(), pose, 1.5, half_extent=45, middle=(0, 0, 28))
    points = hinge_points(pose, root.annulus, root.annulus, start_deg=80.0) | {"LCA": np.array([-13.0, 8.0, 12.0])}
    write_outputs(Prediction(scan, landmarks(points)), tmp_path / "patient", PlanningOptions(samples=8))
    main_of("read_report")(str(tmp_path))
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["annulus_area_mm2"]) == pytest.approx(np.pi * root.annulus**2, rel=0.02)
    assert float(row["lca_height_mm"]) == pytest.approx(12.0, abs=0.5)
    assert (row["annulus_area_mm2 status"], row["lca_height_mm status"]) == ("ok", "ok")
    assert (row["rca_height_mm"], row["rca_height_mm status"]) == ("", "not_found")


def test_features_prints_the_pyramid(finder: Path, demo_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("features")(str(demo_path), str(finder))
    printed = capsys.readouterr().out
    assert "one vector per scan" in printed
    assert "stride (2, 2, 2)" in printed


def test_a_head_is_fine_tuned_and_used(
    finder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_patients(tmp_path / "patients")
    scan = data.parent / "p2" / "ct.nii.gz"
    small = functools.partial(FinetuneSettings, looks=("heart",), windows=1)
    head, trunks = main_of("finetune_head"), main_of("compare_trunks")
    for example in (head, trunks):
        monkeypatch.setitem(example.__globals__, "FinetuneSettings", lambda **own: small(**{**own, "patch": 32}))
    head(str(data), "ventricle", str(tmp_path / "out"), str(scan), str(finder), "1")
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "ventricle.safetensors").exists()
    assert "Ventricle: " in printed
    trunks(str(data), "ventricle", str(finder), "random:cardiac_unet_small", epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(finder), "random:cardiac_unet_small"]
    assert all("best validation Dice 0." in line for line in lines)


def test_an_empty_folder_of_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no complete results"):
        main_of("read_report")(str(tmp_path))
