"""A prediction and the folder it is saved in."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.errors import DataError, OutputError, UnknownNameError
from cardiac_ct_fm.label_io import label_values
from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.result import RESULT_FILES, Landmark, Measurement, Prediction
from cardiac_ct_fm.volume_io import Volume

HEART = anatomy.HEADS["heart"].classes


@pytest.fixture
def prediction(demo_volume: Volume) -> Prediction:
    heart = np.zeros(demo_volume.grid.shape, np.uint8)
    heart[30:60, 40:70, 50:80] = anatomy.HEART_LABELS["Aorta"]
    heart[10:20, 40:70, 50:80] = anatomy.HEART_LABELS["LV"]
    calc = np.zeros_like(heart)
    calc[35:38, 45:48, 55:58] = 1
    vein = np.zeros_like(heart)
    vein[80:82, 5, 5] = 2
    return Prediction(
        demo_volume,
        {"RCC": Landmark("RCC", True, (1.0, 2.0, 3.0), 0.9), "LCC": Landmark.missing("LCC", 0.05)},
        {"heart": heart, "calc": calc, "veins": vein},
        {"heart": HEART, "calc": ("Calc",), "veins": ("SVC", "IVC")},
        {
            "annulus_area_mm2": Measurement("annulus_area_mm2", 486.1, "mm2", uncertainty=20.0),
            "lca_height_mm": Measurement("lca_height_mm", None, "mm", "LCA was not found"),
        },
        {"weights": {"sha256": "abc"}},
        ["a warning"],
    )


def test_points_label_maps_and_measurements_are_reached_by_name(prediction: Prediction) -> None:
    assert prediction.landmarks["RCC"].ras_mm == (1, 2, 3)
    assert prediction.segmentation("heart").sum() > 0
    assert prediction.measurements["annulus_area_mm2"].value == 486.1
    assert prediction.mask("LV").sum() == 10 * 30 * 30 and prediction.mask("IVC").sum() == 2
    with pytest.raises(UnknownNameError, match="coronaries"):
        prediction.segmentation("coronaries")
    with pytest.raises(UnknownNameError, match="Did you mean 'Aorta'"):
        prediction.mask("Aort")


def test_the_folder_holds_what_the_documentation_promises(prediction: Prediction, tmp_path: Path) -> None:
    folder = prediction.write_files(tmp_path / "out" / "ct")
    names = {p.name for p in folder.iterdir()}
    assert names == set(RESULT_FILES) - {"planning.mrk.json", "preview.png", "report.html"}

    image = nib.load(folder / "segmentation.nii.gz")
    labels = np.asarray(image.dataobj)
    assert labels.shape == prediction.grid.shape
    np.testing.assert_array_equal(image.affine, prediction.volume.affine)
    assert labels[40, 60, 70] == 6 and labels[15, 60, 70] == 3
    assert labels[36, 46, 56] == 8, "calcium lies on top of the aorta"
    assert labels[81, 5, 5] == 11

    table = {"1": "Myo", "2": "LA", "3": "LV", "4": "RA", "5": "RV", "6": "Aorta", "7": "PA", "8": "Calc"}
    table |= {"10": "SVC", "11": "IVC"}
    assert json.loads((folder / "segmentation.json").read_text()) == {"labels": table}
    assert json.loads(image.header.extensions[0].get_content()) == {"labels": table}

    for name in ("landmarks.json", "landmarks.mrk.json", "landmarks.mps"):
        read = read_landmarks(folder / name, ["RCC", "LCC"])
        assert read["RCC"].ras_mm == (1, 2, 3) and not read["LCC"].found
    rows = json.loads((folder / "measurements.json").read_text())["measurements"]
    assert rows[0]["value"] == 486.1 and rows[0]["unit"] == "mm2" and rows[0]["status"] == "ok"
    assert rows[1]["value"] is None and rows[1]["status"] == "LCA was not found"
    run = json.loads((folder / "run.json").read_text())
    assert run["weights"] == {"sha256": "abc"} and run["warnings"] == ["a warning"]
    assert run["classes"] == {"heart": list(HEART), "calc": ["Calc"], "veins": ["SVC", "IVC"]}
    assert run["input"]["shape"] == [120, 126, 164] and run["input"]["orientation"] == "LPS"


def test_saving_writes_all_that_the_command_line_writes(prediction: Prediction, tmp_path: Path) -> None:
    for name in ("report.html", "preview.png", "planning.mrk.json"):
        (tmp_path / name).write_text("of an older run")
    (tmp_path / "mine.txt").write_text("stays")
    prediction.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*RESULT_FILES, "mine.txt"}
    assert not [p for p in tmp_path.iterdir() if p.read_bytes() == b"of an older run"]


def test_pictures_and_reports_join_in(prediction: Prediction, tmp_path: Path) -> None:
    def preview(what: Prediction, folder: Path) -> None:
        assert (folder / "measurements.json").exists()
        (folder / "preview.png").write_bytes(bytes(len(what.landmarks)))

    folder = prediction.write_files(tmp_path / "ct", [preview])
    assert (folder / "preview.png").stat().st_size == 2
    prediction.write_files(tmp_path / "ct")
    assert not (folder / "preview.png").exists(), "an older run's picture does not stay beside newer results"


def test_a_failure_on_the_way_writes_nothing(prediction: Prediction, tmp_path: Path) -> None:
    def fails(what: Prediction, folder: Path) -> None:
        raise OutputError("no ink")

    with pytest.raises(OutputError, match="no ink"):
        prediction.write_files(tmp_path / "ct", [fails])
    assert not list(tmp_path.iterdir())
    prediction.write_files(tmp_path / "ct")
    before = {p.name: p.read_bytes() for p in (tmp_path / "ct").iterdir()}
    prediction.landmarks.clear()
    with pytest.raises(OutputError, match="no ink"):
        prediction.write_files(tmp_path / "ct", [fails])
    assert {p.name: p.read_bytes() for p in (tmp_path / "ct").iterdir()} == before


def test_a_prediction_of_points_only_has_no_segmentation(demo_volume: Volume, tmp_path: Path) -> None:
    folder = Prediction(demo_volume, {"RCC": Landmark.missing("RCC")}).write_files(tmp_path / "ct")
    assert not (folder / "segmentation.nii.gz").exists() and (folder / "landmarks.json").exists()


def test_a_structure_keeps_its_value_whichever_heads_are_there() -> None:
    assert label_values({"calc": ("Calc",)}) == {("calc", "Calc"): 8}
    everything = label_values({"own": ("a", "b"), "heart": HEART})
    assert everything["heart", "Myo"] == 1 and everything["own", "a"] == 10 and everything["own", "b"] == 11
    with pytest.raises(DataError, match="255"):
        label_values({"own": tuple(map(str, range(250)))})


def test_a_measurement_without_a_number_needs_a_reason() -> None:
    with pytest.raises(DataError, match="must say why"):
        Measurement("a_mm", None, "mm")
    with pytest.raises(DataError, match="what is unknown is None"):
        Measurement("a_mm", float("nan"), "mm")
    with pytest.raises(UnknownNameError, match="unit"):
        Measurement("a_mm", 1.0, "furlong")
