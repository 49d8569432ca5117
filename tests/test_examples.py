"""The examples run as they are printed, and stay short."""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from labelled_patients import write_patients
from tiny_finder import save_finder

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


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_finder(tmp_path_factory.mktemp("models") / "finder")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert f"python examples/{path.name}" in text


def test_predict_and_its_results_as_a_table(
    finder: Path, demo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_of("predict")(str(demo_path), str(tmp_path), str(finder))
    assert "everything, with picture and report" in capsys.readouterr().out
    main_of("read_report")(str(tmp_path))
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["scan"] == "ct_cropped"
    assert float(row["LV_volume_ml"]) > 0
    assert row["annulus_area_mm2"] == "" or float(row["annulus_area_mm2"]) > 0


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
