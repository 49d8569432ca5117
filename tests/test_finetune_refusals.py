"""Fine-tuning that is killed and goes on, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import files_in, run
from labelled_patients import SIZE, listing, rows, save
from safetensors.torch import load_file
from small_trunk import RESULTS, SETTINGS, contents, head_of, same, trunk

import cardiac_ct_fm as ccf
from cardiac_ct_fm.training.finetune import FinetuneResult, finetune

ROOT = Path(__file__).parent.parent

# ---- killed and resumed


PARTS = ("head", "decoder", "all")


@pytest.fixture(scope="module")
def killed(data_list: Path, trunk_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Per part a folder ``whole`` and one ``killed``, which SIGKILL hit again and again, each time a little later."""
    folder, script = tmp_path_factory.mktemp("killed"), Path(__file__).parent / "killed_training.py"
    (folder / "tmp").mkdir()
    here = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [sys.executable, str(script), str(trunk_folder), str(data_list), str(folder), *PARTS],
        cwd=ROOT, capture_output=True, text=True, check=False, env=here,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(int(kills) >= 6 for kills in done.stdout.split()), done.stdout
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_training_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(part: str, killed: Path) -> None:
    whole, resumed = killed / part / "whole", killed / part / "killed"
    assert files_in(resumed) == files_in(whole)
    (weights,) = (p.relative_to(whole) for p in whole.rglob("*.safetensors"))
    first, second = load_file(whole / weights), load_file(resumed / weights)
    assert first.keys() == second.keys()
    assert max(float((first[k] - second[k]).abs().max()) for k in first) <= 1e-6

    def history(folder: Path) -> list[list[str]]:
        with (folder / "history.csv").open(newline="") as file:
            return [[v for k, v in row.items() if k != "seconds"] for row in csv.DictReader(file)]

    assert history(resumed) == history(whole)
    assert not list((killed / "tmp").glob("cardiac-ct-fm-*")), "a kill leaves nothing outside of the folder"


def test_a_training_with_other_settings_neither_goes_on_with_a_killed_ones_state_nor_harms_it(
    trained: tuple[FinetuneResult, Path], data_list: Path, tmp_path: Path
) -> None:
    def stop(what: str, done: int, steps: int, left: float | None) -> None:
        if what == "epoch 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(trunk(), data_list, "ventricle", out=tmp_path, settings=SETTINGS, progress=stop)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / ".part-one.txt").write_text("somebody else's")
    before = contents(tmp_path)
    assert {"state.safetensors", ".features"} <= {Path(name).parts[0] for name in before}
    with pytest.raises(ccf.UsageError, match="another model, other data or other settings"):
        finetune(trunk(), data_list, "ventricle", out=tmp_path, settings=dataclasses.replace(SETTINGS, lr=0.5))
    assert contents(tmp_path) == before, "a refusal costs nothing of what it protects"
    steps: list[str] = []
    went_on = finetune(
        trunk(), data_list, "ventricle", out=tmp_path, settings=SETTINGS, progress=lambda what, *_: steps.append(what)
    )
    assert "epoch 1" not in steps
    assert same(head_of(went_on), head_of(trained[0]))
    assert sorted(contents(tmp_path)) == sorted([*RESULTS, "notes/.part-one.txt"])


def test_a_damaged_state_is_told_and_left_where_it_is(data_list: Path, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(ccf.WeightsError, match=r"state\.safetensors"):
        finetune(trunk(), data_list, "ventricle", out=tmp_path, settings=SETTINGS)
    assert contents(tmp_path) == {"state.safetensors": b"half a file"}


# ---- bad input


def bad_input(case: str, labelled: Path, tmp_path: Path, trunk_folder: Path) -> tuple[list[Any], str]:
    """Arguments of a command that has to be refused, and what it says."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    head, model, extra = "ventricle", trunk_folder, []
    entries, more = rows(labelled), {}
    if case == "image without label":
        entries, says = rows(labelled, label=None), "has an image but no label"
    elif case == "label values outside the classes":
        labels = save(tmp_path / "values.nii.gz", np.full((SIZE,) * 3, 3, np.uint8), np.eye(4))
        import nibabel as nib

        scan = nib.load(labelled / "p0" / "ct.nii.gz")
        save(labels, np.full((SIZE,) * 3, 3, np.uint8), scan.affine)
        entries, says = rows(labelled, label=str(labels)), "holds the value 3; head 'ventricle' has 1 class"
    elif case == "label on another grid":
        labels = save(tmp_path / "grid.nii.gz", np.zeros((SIZE,) * 3, np.uint8), affine)
        entries, says = rows(labelled, label=str(labels)), "lies on another grid than"
    elif case == "label that is no image":
        (tmp_path / "text.nii.gz").write_text("no image")
        entries, says = rows(labelled, label=str(tmp_path / "text.nii.gz")), "text.nii.gz"
    elif case == "empty list":
        entries, says = [], "is empty"
    elif case == "no list":
        says = "cannot be read as a data list"
    elif case == "patient on both sides":
        more, says = {"validation": [{**rows(labelled)[0], "image": "p2/ct.nii.gz"}]}, "has patient p0 in training and"
    elif case == "head that exists":
        head, says = "heart", "has a head 'heart' already; choose another name"
    elif case == "class that another head has":
        extra, says = ["--classes", "Apex,LV"], "'heart' and 'ventricle' both have a class 'LV'"
    elif case == "head with a bad name":
        head, says = "my head", "must be a Python identifier"
    elif case == "look that is unknown":
        extra, says = ["--looks", "nowhere"], "choose among locate, heart, root, detail"
    elif case == "look that finds the heart":
        model, extra, says = "cardiac_swin_tiny", ["--looks", "locate"], "look 'locate' is for the head 'heart' alone"
    elif case == "patch that does not fit":
        extra, says = ["--patch", "15"], "needs a multiple of 8, for example 16"
    elif case == "points outside of the scan":
        points = json.loads((labelled / "p0" / "points.json").read_text())
        for point in points["landmarks"]:
            point["ras"] = [900.0, 0.0, 0.0]
            point["lps"] = [-900.0, 0.0, 0.0]
        (tmp_path / "far.json").write_text(json.dumps(points))
        entries = rows(labelled, label=str(tmp_path / "far.json"))
        head, extra = "hinges", ["--kind", "landmarks", "--classes", "RCC,LCC,NCC"]
        model, says = tmp_path / "bare", "lies outside of the scan"
        ccf.create_model(trunk().config, heads=["heart"]).save_pretrained(model)
    elif case == "pickle as weights":
        model = tmp_path / "pickled"
        trunk().save_pretrained(model)
        (model / "model.safetensors").unlink()
        torch.save({"x": torch.zeros(1)}, model / "pytorch_model.bin")
        says = "pytorch_model.bin"
    else:
        raise KeyError(case)
    name = tmp_path / "nothing.json" if case == "no list" else listing(labelled, entries, name="bad.json", **more)
    return ["finetune", name, "--head", head, "-o", tmp_path / "out", "-m", model, *extra], says


@pytest.mark.parametrize(
    "case",
    [
        "image without label", "label values outside the classes", "label on another grid", "label that is no image",
        "empty list", "no list", "patient on both sides", "head that exists", "head with a bad name",
        "class that another head has", "look that is unknown", "look that finds the heart", "patch that does not fit",
        "points outside of the scan", "pickle as weights",
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_nothing_is_written(
    case: str, labelled: Path, tmp_path: Path, trunk_folder: Path
) -> None:
    arguments, says = bad_input(case, labelled, tmp_path, trunk_folder)
    answer = run(*arguments, *([] if "--patch" in arguments else ["--patch", "16"]), "--windows", "1", "--epochs", "1")
    assert answer.code in (1, 2)
    assert says in answer.line
    assert not (tmp_path / "out").exists()


def test_a_bad_folder_is_noticed_before_the_list_is_read_and_the_model_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(ccf.OutputError, match="is a file, not a folder"):
        finetune("no-such-model", "nowhere.json", "mine", out=tmp_path / "file")


def test_a_head_for_another_trunk_is_refused_in_one_line(
    trained: tuple[FinetuneResult, Path], finder: Path, tmp_path: Path, labelled: Path
) -> None:
    result, _ = trained
    scan, out = labelled / "p0" / "ct.nii.gz", tmp_path / "out"
    answer = run("predict", scan, "-o", out, "-m", finder, "--head-file", result.path)
    assert answer.code == 1
    assert "was trained on the trunk of small with sha256" in answer.line
    assert not (tmp_path / "out").exists()
