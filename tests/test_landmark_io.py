"""Points with names, and their three file formats."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark, read_landmarks, write_landmarks, write_mitk, write_slicer

FORMATS: dict[str, Callable[..., None]] = {
    "landmarks.json": write_landmarks,
    "landmarks.mrk.json": write_slicer,
    "landmarks.mps": write_mitk,
}

points = st.none() | st.tuples(*[st.floats(-900, 900).map(lambda v: round(v, 3) + 0.0)] * 3)


def expected_points(positions: list[tuple[float, float, float] | None]) -> list[Landmark]:
    return [
        Landmark.missing(name, 0.2) if p is None else Landmark(name, True, p, 0.75)
        for name, p in zip(anatomy.LANDMARKS, positions, strict=True)
    ]


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=15)
@given(st.lists(points, min_size=len(anatomy.LANDMARKS), max_size=len(anatomy.LANDMARKS)))
def test_every_point_comes_back_under_its_name_and_missing_ones_stay_missing(
    tmp_path_factory: pytest.TempPathFactory, name: str, positions: list[tuple[float, float, float] | None]
) -> None:
    path = tmp_path_factory.mktemp("points") / name
    written = expected_points(positions)
    FORMATS[name](path, written)
    read = read_landmarks(path)
    assert list(read) == list(anatomy.LANDMARKS)
    for before in written:
        after = read[before.name]
        assert after.found == before.found
        if before.ras_mm is None:
            assert after.ras_mm is None
        else:
            np.testing.assert_allclose(after.ras_mm, before.ras_mm, atol=1e-6)


def test_our_json_lists_every_expected_point_in_three_coordinate_systems(tmp_path: Path) -> None:
    grid = Grid((10, 10, 10), np.diag([-0.5, 0.5, 2.0, 1.0]))
    found = [Landmark("RCC", True, (-1, 2, 4), 0.93), Landmark.missing("LCC", 0.11)]
    write_landmarks(tmp_path / "l.json", found, grid)
    content = json.loads((tmp_path / "l.json").read_text())
    assert content["coordinate_system"] == "RAS" and content["unit"] == "mm"
    assert content["landmarks"] == [
        {"name": "RCC", "found": True, "ras": [-1, 2, 4], "lps": [1, -2, 4], "voxel": [2, 4, 2], "confidence": 0.93},
        {"name": "LCC", "found": False, "ras": None, "lps": None, "voxel": None, "confidence": 0.11},
    ]


def test_slicer_gets_lps_and_undefined_points_without_a_position(tmp_path: Path) -> None:
    write_slicer(tmp_path / "l.mrk.json", [Landmark("RCC", True, (-1, 2, 4), 0.9), Landmark.missing("LCC")])
    markup = json.loads((tmp_path / "l.mrk.json").read_text())["markups"][0]
    assert markup["type"] == "Fiducial" and markup["coordinateSystem"] == "LPS"
    first, second = markup["controlPoints"]
    assert first["label"] == "RCC" and first["position"] == [1, -2, 4] and first["positionStatus"] == "defined"
    assert second["label"] == "LCC" and "position" not in second and second["positionStatus"] == "undefined"


def test_a_file_edited_in_slicer_is_understood(tmp_path: Path) -> None:
    def control(label: str, position: object, status: str = "defined") -> dict[str, object]:
        return {"label": label, "position": position, "positionStatus": status}

    markup = {
        "coordinateSystem": "RAS",
        "controlPoints": [
            control("ACC", [1.0, 2.0, 3.0]),
            control("rcc ", [4.0, 5.0, 6.0]),
            control("LCC", "", "undefined"),
            control("apex", [0.0, 0.0, 0.0]),
        ],
    }
    path = tmp_path / "edited.mrk.json"
    path.write_text(json.dumps({"markups": [markup]}))
    read = read_landmarks(path)
    assert read["NCC"].ras_mm == (1, 2, 3) and read["RCC"].ras_mm == (4, 5, 6)
    assert not read["LCC"].found and not read["MS2"].found
    assert read["apex"].found and list(read)[-1] == "apex"
    markup["coordinateSystem"] = "LPS"
    path.write_text(json.dumps({"markups": [markup]}))
    assert read_landmarks(path)["NCC"].ras_mm == (-1, -2, 3)


def test_only_points_that_a_person_moved_in_slicer_become_certain(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.mrk.json"
    unsure = [Landmark(name, True, (1.2345, -2, 3), 0.2) for name in ("RCC", "LCC", "NCC", "RCA")]
    write_slicer(path, [*unsure, Landmark.missing("LCA", 0.05), Landmark.missing("MS1", 0.05)])
    content = json.loads(path.read_text())
    _, moved, renamed, confirmed, placed, _ = content["markups"][0]["controlPoints"]
    moved["position"][0] += 0.02
    renamed["label"] = "ACC"
    confirmed["description"] = "checked"
    placed |= {"position": [0, 0, 0], "positionStatus": "defined"}
    path.write_text(json.dumps(content))
    confidence = {name: point.confidence for name, point in read_landmarks(path).items()}
    assert confidence == {"RCC": 0.2, "LCC": 1, "NCC": 0.2, "RCA": 1, "LCA": 1, "MS1": 0.05, "MS2": 0}


def test_mitk_points_that_lie_where_they_were_predicted_keep_their_confidence(tmp_path: Path) -> None:
    predicted = {name: Landmark(name, True, (1, 2, 3), 0.2) for name in ("RCC", "LCC")}
    write_mitk(tmp_path / "l.mps", [predicted["RCC"], Landmark("LCC", True, (1, 2, 3.02), 0.2)])
    read = read_landmarks(tmp_path / "l.mps", predicted=predicted)
    assert (read["RCC"].confidence, read["LCC"].confidence) == (0.2, 1)


def test_mitk_points_keep_their_ids_when_others_are_missing_and_names_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "l.mps"
    write_mitk(path, [Landmark.missing("RCC"), Landmark("LCC", True, (-1, -2, 3), 0.9)])
    tree = ET.parse(path)
    (point,) = tree.getroot().iter("point")
    assert [point.findtext(tag) for tag in ("id", "x", "y", "z")] == ["1", "1.0", "2.0", "3.0"]
    read = read_landmarks(without_names(path))
    assert read["LCC"].ras_mm == (-1, -2, 3) and not read["RCC"].found


def without_names(path: Path) -> Path:
    """As MITK does when it saves."""
    tree = ET.parse(path)
    for point in tree.getroot().iter("point"):
        point.remove(point.find("name"))
    tree.write(path)
    return path


def test_mitk_ids_tell_the_vocabularys_points_whatever_was_predicted(tmp_path: Path) -> None:
    septum = [Landmark("MS1", True, (1, 2, 3), 0.9), Landmark("MS2", True, (4, 5, 6), 0.9)]
    write_mitk(tmp_path / "l.mps", septum)
    without_names(tmp_path / "l.mps")
    for names in (anatomy.LANDMARKS, ("MS1", "MS2")):
        read = read_landmarks(tmp_path / "l.mps", names)
        assert {p.name: p.ras_mm for p in read.values() if p.found} == {"MS1": (1, 2, 3), "MS2": (4, 5, 6)}


def test_mitk_ids_tell_ones_own_points_only_together_with_the_prediction(tmp_path: Path) -> None:
    points = [Landmark.missing("Base"), Landmark("NCC", True, (1, 2, 3), 0.9), Landmark("Apex", True, (4, 5, 6), 0.9)]
    write_mitk(tmp_path / "l.mps", points)
    write_landmarks(tmp_path / "landmarks.json", points)
    assert read_landmarks(tmp_path / "l.mps")["Apex"].ras_mm == (4, 5, 6)
    without_names(tmp_path / "l.mps")
    read = read_landmarks(tmp_path / "l.mps", predicted=read_landmarks(tmp_path / "landmarks.json"))
    assert {p.name: p.ras_mm for p in read.values() if p.found} == {"NCC": (1, 2, 3), "Apex": (4, 5, 6)}
    for names in (anatomy.LANDMARKS, ("Apex", "Base")):
        with pytest.raises(DataError, match=r"id 8 has no name.* tell only RCC, .* MS2; give it a <name>"):
            read_landmarks(tmp_path / "l.mps", names)


def test_points_that_were_moved_or_placed_in_our_json_are_certain(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.json"
    names = ("RCC", "LCC", "NCC")
    predicted = {name: Landmark(name, True, (1, 2, 3), 0.2) for name in names} | {"RCA": Landmark.missing("RCA", 0.1)}
    write_landmarks(path, predicted.values())
    content = json.loads(path.read_text())
    same, moved, doubted, placed = content["landmarks"]
    moved |= {"ras": [1, 2, 3.02], "lps": [-1, -2, 3.02]}
    doubted |= {"ras": [1, 2, 9], "lps": None, "confidence": 0.5}
    placed |= {"found": True, "ras": [7, 8, 9]}
    path.write_text(json.dumps(content))
    read = read_landmarks(path, predicted=predicted)
    assert [read[name].confidence for name in (*names, "RCA")] == [0.2, 1, 0.5, 1]
    assert same["confidence"] == 0.2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "no json", "is no landmark file"),
        ("a.json", "{}", r"is no landmark file \(it has no entry 'markups'\)\. Give landmarks\.json"),
        ("a.json", "[1]", r"is no landmark file \(its entries have another form\)"),
        ("a.mps", "<point><id>1</id>", "is no landmark file"),
        ("a.mps", "<point_set_file><point><id>1</id><x>a</x></point></point_set_file>", "is no landmark file"),
        ("a.json", '{"coordinate_system": "LPS", "unit": "mm", "landmarks": []}', "must be RAS"),
        ("a.json", '{"coordinate_system": "RAS", "unit": "cm", "landmarks": []}', "unit mm"),
        (
            "a.json",
            '{"coordinate_system": "RAS", "unit": "mm", "landmarks": [{"name": "RCC", "found": true, '
            '"ras": [1, 2, 3], "lps": [-1, -2, 8], "confidence": 1}]}',
            "RCC has ras .* and lps .* 5.0 mm apart",
        ),
        (
            "a.json",
            '{"coordinate_system": "RAS", "unit": "mm", "landmarks": [{"name": "RCC", "found": false, '
            '"ras": [7, 8, 9], "lps": null, "confidence": 0}]}',
            r'RCC has "found": false, "ras": \[7, 8, 9\], "lps": null: make found true',
        ),
        (
            "a.json",
            '{"coordinate_system": "RAS", "unit": "mm", "landmarks": [{"name": "RCC", "found": true, '
            '"ras": null, "lps": null, "confidence": 1}]}',
            'RCC has "found": true, "ras": null, "lps": null: .* give ras or lps',
        ),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}', "IJK"),
        ("a.mrk.json", '{"markups": [{"coordinateUnits": "cm", "controlPoints": []}]}', "must be mm"),
        (
            "a.mrk.json",
            '{"markups": [{"controlPoints": [{"label": "NCC", "position": [0, 0, 1]}, '
            '{"label": "ACC", "position": [0, 0, 2]}]}]}',
            "names NCC twice",
        ),
    ],
)
def test_what_is_no_landmark_file_is_refused_with_its_name(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        read_landmarks(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", ["ras", "lps"])
def test_an_edited_point_may_keep_either_frame_alone(tmp_path: Path, kept: str) -> None:
    row = {"name": "RCC", "found": True, "confidence": 1, kept: [1, 2, 3] if kept == "ras" else [-1, -2, 3]}
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps({"coordinate_system": "RAS", "unit": "mm", "landmarks": [row]}))
    assert read_landmarks(path)["RCC"].ras_mm == (1, 2, 3)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_landmarks(tmp_path / "none.mps")


def test_a_landmark_cannot_be_half_found() -> None:
    for broken in (
        lambda: Landmark("RCC", True, None, 0.5),
        lambda: Landmark("RCC", False, (0, 0, 0), 0.5),
        lambda: Landmark("RCC", True, (0, float("nan"), 0), 0.5),
        lambda: Landmark("RCC", True, (0, 0, 0), 1.5),
    ):
        with pytest.raises(DataError, match="RCC"):
            broken()
