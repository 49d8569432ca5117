"""Data lists: what is read, what is refused, and that no patient is on both sides of a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.training.data_list import DataList, Entry, read_data_list, split_by_patient, write_data_list
from cardiac_ct_fm.training.scans import list_source


def folder_with(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_decathlon_list_is_read_with_its_classes(tmp_path: Path) -> None:
    folder_with(tmp_path, "a.nii.gz", "a_label.nii.gz", "b.nii.gz", "b_label.nii.gz", "c.nii.gz")
    content = {
        "labels": {"0": "background", "1": "Coronary"},
        "training": [{"image": "a.nii.gz", "label": "a_label.nii.gz"}],
        "validation": [{"image": "b.nii.gz", "label": "b_label.nii.gz", "patient": "B", "site": "s"}],
        "test": ["c.nii.gz"],
    }
    data = read_data_list(written(tmp_path, content))
    assert data.classes_of("coronaries") == ("Coronary",)
    assert data.training[0].label_of("coronaries") == tmp_path.resolve() / "a_label.nii.gz"
    assert (data.validation[0].patient, data.validation[0].site) == ("B", "s")
    assert data.test[0].label_of("coronaries") is None


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "unlabelled", "1": "LV", "2": "RV"},
        {"2": "RV", "1": "LV"},
        ["background", "LV", "RV"],
        ["LV", "RV"],
    ],
)
def test_class_names_are_those_of_the_values_from_one_on(labels: Any, tmp_path: Path) -> None:
    folder_with(tmp_path, "a.nii.gz", "l.nii.gz")
    content = {"labels": labels, "training": [{"image": "a.nii.gz", "label": "l.nii.gz"}]}
    assert read_data_list(written(tmp_path, content)).classes_of("ventricles") == ("LV", "RV")


def test_labels_of_several_heads_are_told_apart(tmp_path: Path) -> None:
    folder_with(tmp_path, "p/ct.nii.gz", "p/heart.nii.gz", "p/calc.nii.gz", "p/points.mps")
    row = {"image": "p/ct.nii.gz", "heart": "p/heart.nii.gz", "calc": "p/calc.nii.gz", "landmarks": "p/points.mps"}
    content = {"labels": {"heart": ["background", "Myo"], "calc": ["Calc"]}, "training": [{**row, "comment": "old"}]}
    data = read_data_list(written(tmp_path, content))
    entry = data.training[0]
    assert data.classes_of("heart") == ("Myo",)
    assert data.classes_of("calc") == ("Calc",)
    assert entry.label_of("calc") == tmp_path.resolve() / "p/calc.nii.gz"
    assert entry.label_of("hps", points=True) == tmp_path.resolve() / "p/points.mps"
    assert entry.label_of("hps") is None
    assert set(entry.labels) == {"heart", "calc"}


def test_labels_of_an_entry_say_of_which_heads_its_points_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_with(tmp_path, "ct.nii.gz", "points.json", "calc.nii.gz")
    row = {"image": "ct.nii.gz", "landmarks": "points.json", "calc": "calc.nii.gz", "labels": ["hps"]}
    entries = read_data_list(written(tmp_path, {"training": [row]})).training
    assert entries[0].label_of("hps", points=True) is not None
    assert entries[0].label_of("ms", points=True) is None
    assert entries[0].label_of("calc") is not None
    assert "labels leave out calc, which count: they have keys" in caplog.text
    with pytest.raises(DataError, match=r"no label of ms; .* calc, landmarks, and an entry's 'labels' says of which"):
        list_source(entries, [HeadConfig.builtin("ms")])


def test_labels_of_an_entry_say_of_which_head_a_plain_label_is(tmp_path: Path) -> None:
    folder_with(tmp_path, "ct.nii.gz", "label.nii.gz")
    row = {"image": "ct.nii.gz", "label": "label.nii.gz", "labels": ["fat"]}
    (entry,) = read_data_list(written(tmp_path, {"training": [row]})).training
    assert entry.label_of("fat") is not None
    assert entry.label_of("calc") is None


def test_a_list_that_cohort_wrote_before_it_named_the_maps_keeps_them(tmp_path: Path) -> None:
    folder_with(tmp_path, "ct.nii.gz", "heart.nii.gz", "coronaries.nii.gz", "points.json")
    row = {"image": "ct.nii.gz", "heart": "heart.nii.gz", "labels": ["hps"]}
    row |= {"coronaries": "coronaries.nii.gz", "landmarks": "points.json"}
    (entry,) = read_data_list(written(tmp_path, {"training": [row]})).training
    assert entry.label_of("heart") and entry.label_of("coronaries") and entry.label_of("hps", points=True)
    assert entry.label_of("ms", points=True) is None


def test_a_head_in_labels_that_the_entry_has_no_label_of_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, "ct.nii.gz", "coronaries.nii.gz", "points.json")

    def read(names: list[str], **more: str) -> None:
        row = {"image": "ct.nii.gz", "coronaries": "coronaries.nii.gz", "labels": names, **more}
        read_data_list(written(tmp_path, {"labels": {"apex": ["Apex"], "fat": ["Fat"]}, "training": [row]}))

    read(["coronaries", "hps", "apex"], landmarks="points.json")
    for names in (["coronary"], ["hps"], ["coronaries", "calc"]):
        with pytest.raises(
            DataError, match=rf"training\[0\]: labels names '{names[-1]}', but the entry has labels of coronaries; "
        ):
            read(names)
    with pytest.raises(DataError, match="names 'calc'"):
        read(["hps", "calc"], landmarks="points.json")


def test_what_is_written_is_read_again_by_us_and_by_monai(tmp_path: Path) -> None:
    folder_with(tmp_path, "d/a.nii.gz", "d/l.nii.gz", "d/b.nii.gz", "d/m.nii.gz")
    entry = Entry(tmp_path / "d/a.nii.gz", "A", "s1", {"label": tmp_path / "d/l.nii.gz"})
    other = Entry(tmp_path / "d/b.nii.gz", "B", "", {"label": tmp_path / "d/m.nii.gz"})
    data = DataList((entry,), (other,), classes={"label": ("Coronary",)}, name="mine")
    path = tmp_path / "lists" / "datalist.json"
    write_data_list(path, data)
    again = read_data_list(path)
    assert again.training[0].patient == "A"
    assert again.training[0].image.samefile(entry.image)
    assert again.classes == data.classes

    from monai.data import load_decathlon_datalist

    theirs = load_decathlon_datalist(path, data_list_key="training")
    assert Path(theirs[0]["image"]).samefile(entry.image)
    assert Path(theirs[0]["label"]).samefile(tmp_path / "d/l.nii.gz")


REFUSED: dict[str, tuple[Any, str]] = {
    "not a list": ([1, 2], "no data list"),
    "no sections": ({"images": []}, r'needs a list called training or test\. .*\[{"image": "1/ct\.nii\.gz"'),
    "empty": ({"training": []}, "is empty"),
    "no image": ({"training": [{"label": "l.nii.gz"}]}, r"training\[0\] has no image"),
    "no label": ({"training": [{"image": "a.nii.gz"}]}, "has an image but no label"),
    "missing file": ({"training": [{"image": "a.nii.gz", "label": "x.nii.gz"}]}, "x.nii.gz, which does not exist"),
    "twice": (
        {"training": [{"image": "a.nii.gz", "label": "l.nii.gz"}, {"image": "a.nii.gz", "label": "l.nii.gz"}]},
        "twice",
    ),
    "patient on both sides": (
        {
            "training": [{"image": "a.nii.gz", "label": "l.nii.gz", "patient": "P1"}],
            "validation": [{"image": "b.nii.gz", "label": "l.nii.gz", "patient": "P1"}],
        },
        "patient P1 in training and in validation",
    ),
    "class named twice": ({"labels": ["a", "a"], "training": []}, "each once"),
    "values with a gap": ({"labels": {"0": "background", "2": "a"}, "training": []}, "follow each other from 1"),
    "values that begin later": ({"labels": {"5": "LV", "6": "RV"}, "training": []}, r"values \[5, 6\].*from 1"),
    "labels of an entry": ({"training": [{"image": "a.nii.gz", "labels": "hps"}]}, "list of head names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_list_that_does_not_do_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    folder_with(tmp_path, "a.nii.gz", "b.nii.gz", "l.nii.gz")
    content, says = REFUSED[case]
    with pytest.raises(DataError, match=says) as caught:
        read_data_list(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_data_list(folder_with(tmp_path, "datalist.json") / "datalist.json")


patients = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from(["north", "south"])), min_size=1, max_size=30
)


@given(patients, st.floats(0.05, 0.9), st.integers(0, 3))
def test_no_patient_is_in_training_and_validation(rows: list[tuple[str, str]], share: float, seed: int) -> None:
    entries = [Entry(Path(f"{i}.nii"), patient, site) for i, (patient, site) in enumerate(rows)]
    if len({e.patient for e in entries}) < 2:
        with pytest.raises(DataError, match="cannot be split"):
            split_by_patient(entries, share, seed)
        return
    training, validation = split_by_patient(entries, share, seed)
    assert training and validation
    assert {e.patient for e in training}.isdisjoint(e.patient for e in validation)
    assert sorted([*training, *validation], key=lambda e: e.image) == sorted(entries, key=lambda e: e.image)
    backwards = split_by_patient(entries[::-1], share, seed)
    if len({e.patient for e in entries}) == len({(e.patient, e.site) for e in entries}):
        assert {e.patient for e in backwards[1]} == {e.patient for e in validation}


def test_every_site_keeps_its_share() -> None:
    entries = [Entry(Path(f"{s}{i}.nii"), f"{s}{i}", s) for s in ("north", "south") for i in range(20)]
    _, validation = split_by_patient(entries, 0.25, seed=1)
    assert len(validation) == 10
    assert 4 <= sum(e.site == "north" for e in validation) <= 6


def test_a_share_of_nothing_sets_nobody_aside() -> None:
    entries = [Entry(Path("a.nii"), "a")]
    assert split_by_patient(entries, 0) == (tuple(entries), ())
    with pytest.raises(DataError, match="validation share"):
        split_by_patient(entries, 1.0)
