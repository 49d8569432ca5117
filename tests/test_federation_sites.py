"""What a site makes of its data: lists that it takes, who is held out, several scans of a patient, unusable scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from federation_sites import SUBJECTS, quick, write_site

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark, write_landmarks
from cardiac_ct_fm.training.data_list import DataList, Entry, write_data_list
from recipes.federated_distillation.local_training import LocalRound
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.objectives import labelled_loss
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.pseudo_labels import UNKNOWN, PseudoLabels, pseudo_file
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import Site, folder_site, labels_of_sites
from recipes.federated_distillation.trainee import initial_parameters


def listed(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A data list whose files are there, though empty: a site reads images and label maps only when it needs them."""
    for row in rows:
        for key in ("image", "heart", "calc", "coronaries"):
            if key in row:
                (path.parent / row[key]).parent.mkdir(parents=True, exist_ok=True)
                (path.parent / row[key]).touch()
    path.write_text(json.dumps({"training": rows}), encoding="utf-8")
    return path


def patients(numbers: range) -> list[dict[str, Any]]:
    return [{"image": f"{i}/ct.nii.gz", "heart": f"{i}/heart.nii.gz", "patient": f"p{i}"} for i in numbers]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "is no data list"),
        ('{"training": []}', "is empty"),
        ('{"training": [{"image": "gone.nii.gz", "heart": "gone.nii.gz"}]}', "does not exist"),
        ('{"training": [{"img": "ct.nii.gz"}]}', "has no image"),
    ],
)
def test_data_lists_that_cannot_be_used_are_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        folder_site("site-a", path, quick(), tmp_path)


def test_the_packages_own_data_lists_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = patients(range(2))
    rows[0] |= {"patient": 12, "site": "x", "coronaries": "0/coronaries.nii.gz", "age": 80}
    listed(tmp_path / "list.json", rows)
    files = {"heart": tmp_path / "1/heart.nii.gz", "valve": tmp_path / "1/heart.nii.gz"}
    points = tmp_path / "points.json"
    write_landmarks(points, [Landmark("MS1", True, (0, 0, 0), 1.0), Landmark("RCC", True, (9, 0, 0), 1.0)])
    own = Entry(tmp_path / "1/ct.nii.gz", "p1", "x", files, points, ("heart", "ms"))
    (first, _), (second,) = (
        [*site.training, *site.held_out]
        for site in (
            folder_site("a", tmp_path / "list.json", quick(), tmp_path / "work"),
            folder_site("b", _written(tmp_path / "own.json", own), quick(), tmp_path / "work"),
        )
    )
    assert (first.patient, first.labels) == ("12", {"heart", "coronaries"})
    assert second.labels == {"heart", "ms"}, "the hinge point is in the file, but not labelled by an expert"
    assert "no head for valve" in caplog.text


def _written(path: Path, entry: Entry) -> Path:
    write_data_list(path, DataList(training=(entry,)))
    return path


def test_scans_of_one_patient_stay_on_one_side(tmp_path: Path) -> None:
    twice = [*patients(range(5)), *(row | {"image": f"{row['patient']}-late.nii.gz"} for row in patients(range(5)))]
    site = folder_site("site-a", listed(tmp_path / "list.json", twice), quick(), tmp_path)
    held = {s.patient for s in site.held_out}
    assert len(site.held_out) == 2 * len(held) > 0
    assert held.isdisjoint(s.patient for s in site.training)


def test_a_patient_who_was_held_out_is_never_trained_on(tmp_path: Path) -> None:
    settings = quick(test_ratio=0.2)

    def sides(rows: list[dict[str, Any]], work: Path) -> tuple[set[str], set[str]]:
        site = folder_site("site-a", listed(tmp_path / "list.json", rows), settings, work)
        return {s.patient for s in site.training}, {s.patient for s in site.held_out}

    training, held = sides(patients(range(20)), tmp_path / "drawn")
    assert len(held) == 4
    for number in range(20, 32):
        shutil.copytree(tmp_path / "drawn", tmp_path / f"with-{number}")
        new = patients(range(number, number + 1))
        now_training, now_held = sides([*patients(range(20)), *new], tmp_path / f"with-{number}")
        assert training <= now_training
        assert held <= now_held
    for row in (half := patients(range(10))):
        row["calc"] = f"{row['patient']}-calc.nii.gz"
    sides(half, tmp_path / "drawn")  # ten have left, ten were labelled further
    now_training, now_held = sides(patients(range(40)), tmp_path / "drawn")
    assert training <= now_training
    assert held <= now_held
    assert len(now_held) == 8, "the share is kept by those who came"
    assert "p1" not in (tmp_path / "drawn" / "split-0-0.2.json").read_text(), "only hashes are written"


def two_scans(folder: Path) -> list[dict[str, Any]]:
    """Two scans of one patient that differ: nearly everything is 0 HU in one and 500 in the other."""
    rows = []
    for value in (0, 500):
        place = folder / str(value)
        place.mkdir(parents=True)
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = -46.0
        voxels = np.full((24, 24, 24), value, np.int16)
        voxels[0] = -1000
        nib.save(nib.Nifti1Image(voxels, affine), place / "ct.nii.gz")
        write_landmarks(place / "points.json", [Landmark(n, True, (0, 0, 0), 1.0) for n in ("RCC", "LCC", "NCC")])
        rows.append({"image": f"{value}/ct.nii.gz", "patient": "0001", "landmarks": f"{value}/points.json"})
    (folder / "list.json").write_text(json.dumps({"training": rows}))
    return rows


def test_two_scans_of_one_patient_are_never_mixed_up(tmp_path: Path) -> None:
    two_scans(tmp_path)
    settings = quick(variants=1)
    site = folder_site("site-a", tmp_path / "list.json", settings, tmp_path)
    plan = make_plan(settings, labels_of_sites(settings))
    scans = [*site.training, *site.held_out]
    work = LocalRound(settings, "site-a", plan[0], 0, scans)
    means = [float(work._windows(scan, 0)[0].image.mean()) for scan in scans for _ in range(2)]
    assert means[0] == means[1] < means[2] == means[3]

    worker = SiteWorker(Site("site-a", scans, []), settings, plan, tmp_path / "work")
    for scan, weight in zip(scans, (0.25, 0.75), strict=True):
        PseudoLabels({"hps": weight}).save(pseudo_file(worker.work, scan))
    assert [worker._pseudo_labels()[scan.key].weight["hps"] for scan in scans] == [0.25, 0.75]

    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
    moved = folder_site("site-a", tmp_path.with_name("elsewhere") / "list.json", settings, tmp_path)
    assert [s.key for s in (*moved.training, *moved.held_out)] == [s.key for s in scans]


def answer(lists: Path, settings: Settings, work: Path, kind: str) -> Reply:
    """What a site answers to the first order of a kind."""
    plan = make_plan(settings, labels_of_sites(settings))
    step = next(s for s in plan if s.kind == kind)
    worker = SiteWorker(folder_site("site-a", lists, settings, work), settings, plan, work)
    return worker.handle(Order(step.name, kind, 0, {"model": initial_parameters(plan[0], 0)}))


def test_a_scan_that_cannot_be_read_costs_no_other_scan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = write_site(tmp_path / "data", SUBJECTS["site-a"])
    settings = quick(locations=("site-a",), rounds=1)
    site = folder_site("site-a", lists, settings, tmp_path)
    assert (len(site.training), len(site.held_out)) == (2, 1)
    whole = answer(lists, settings, tmp_path, "test").metrics["hps"]["points"]

    one, two, held = (scan.image for scan in (*site.training, *site.held_out))  # type: ignore[attr-defined]
    kept = two.read_bytes()
    one.write_bytes(b"no image")
    two.write_bytes(b"no image")
    assert answer(lists, settings, tmp_path, "train").left_out == "no data"
    two.write_bytes(kept)
    reply = answer(lists, settings, tmp_path, "train")
    assert (reply.left_out, reply.counts) == ("", {"trunk": 1.0, "hps": 1.0})
    held.write_bytes(b"no image")
    reply = answer(lists, settings, tmp_path, "test")
    assert reply.metrics["hps"]["points"] == {name: [None] for name in whole}, "every point of it is a failure"
    assert "A scan is left out" in caplog.text
    assert "A held-out scan counts as failed" in caplog.text


def test_a_held_out_scan_without_a_root_is_a_failure_and_one_with_unreadable_points_no_scan(tmp_path: Path) -> None:
    row = two_scans(tmp_path)[0]
    points = [Landmark("MS1", True, (0, 0, 0), 1.0), Landmark("MS2", True, (5, 0, 0), 1.0)]
    write_landmarks(tmp_path / "septum.json", points)
    (tmp_path / "broken.json").write_text("not points")
    rows = [row | {"landmarks": "septum.json"}, {"image": "500/ct.nii.gz", "landmarks": "broken.json"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": rows}))
    settings = quick(task="ms", holdings=("site-a=ms",), locations=("site-a",), test_ratio=0.9)
    reply = answer(tmp_path / "list.json", settings, tmp_path / "work", "test")
    assert reply.metrics["ms"] == {"points": {"MS1": [None], "MS2": [None]}}


def test_nothing_is_learned_where_a_pseudo_label_says_nothing() -> None:
    from recipes.federated_distillation.examples import Example

    window = Grid.centred((0, 0, 0), 1.0, (8, 8, 8))
    full = PseudoLabels({"calc": 1.0}, {}, {"calc": np.ones((8, 8, 8), np.uint8)}, window)
    beside = full.target("calc", Grid.centred((5, 0, 0), 1.0, (8, 8, 8)))
    assert beside is not None
    assert (beside[:3] == 1).all() and (beside[3:] == UNKNOWN).all()
    assert full.target("calc", Grid.centred((20, 0, 0), 1.0, (8, 8, 8))) is None

    logits = [torch.zeros((1, 2, n, n, n), requires_grad=True) for n in (8, 4)]
    example = Example(torch.zeros(1, 8, 8, 8), {"calc": beside}, {"calc": 1.0}, frozenset(), beside, ("calc",))
    loss, _ = labelled_loss({"calc": logits}, [example])
    assert loss is not None
    loss.backward()
    for level, known in zip(logits, (3, 2), strict=True):
        assert level.grad is not None
        assert (level.grad[:, :, :known] != 0).all()
        assert (level.grad[:, :, known:] == 0).all()


def test_the_loss_is_taken_in_full_precision_whatever_the_networks() -> None:
    from recipes.federated_distillation.examples import Example

    target = torch.zeros((8, 8, 8), dtype=torch.uint8)
    target[2:5, 2:5, 2:5] = 3
    example = Example(torch.zeros(1, 8, 8, 8), {"hps": target}, {"hps": 1.0}, frozenset(), target, ("hps",))
    logits = torch.randn((1, 6, 8, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    half, _ = labelled_loss({"hps": [logits]}, [example])
    full, _ = labelled_loss({"hps": [logits.float()]}, [example])
    assert half is not None and half.dtype == torch.float32
    assert half == full
