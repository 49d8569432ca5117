"""The command line as a whole: help, versions, what it imports, models and their check-up, and how it fails."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import files_in, run
from conftest import ROOT

import cardiac_ct_fm as ccf
from cardiac_ct_fm.commands.predict import predict
from cardiac_ct_fm.commands.train import evaluate, finetune
from cardiac_ct_fm.doctor import OPTIONAL, REQUIRED
from cardiac_ct_fm.process import usable_cpus

COMMANDS = ("predict", "measure", "doctor", "models", "info", "convert", "push", "finetune", "evaluate", "cohort")


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages in memory after a command."""
    code = (
        "import sys, io, contextlib\nfrom cardiac_ct_fm.cli import main\nnowhere = io.StringIO()\n"
        f"with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere): main({arguments!r})\n"
        "print(' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_version_answers_without_importing_anything() -> None:
    assert run("--version").out == f"cardiac-ct-fm {ccf.__version__}\n"
    assert not imported_by("--version") & {"typer", "rich", "numpy", "torch", "monai", "cardiac_ct_fm.commands"}


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("predict", "nowhere.nii.gz", "-o", "out")])
def test_help_and_refusals_import_no_network(arguments: tuple[str, ...]) -> None:
    assert not imported_by(*arguments) & {"torch", "monai", "scipy", "matplotlib"}


def test_help_names_every_command_and_every_command_explains_itself() -> None:
    top = run("--help")
    assert top.code == 0
    for command in COMMANDS:
        assert command in top.out
        page = run(command, "--help")
        assert page.code == 0
        assert "Usage: cardiac-ct-fm " + command in page.out
    assert "Not a medical device" in top.out


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--heads", "", "'' has an empty name; give names with commas between, like heart,hps."),
        ("--heads", "heart,,hps", "'heart,,hps' has an empty name"),
        ("--quality", "best", "Invalid value for '--quality': 'best' is not one of 'fast', 'standard', 'full'."),
    ],
)
def test_a_choice_that_is_none_is_refused_in_plain_words(option: str, value: str, says: str, tmp_path: Path) -> None:
    answer = run(
        "predict", ROOT / "examples/data/ts-aorta-cta/ct_cropped.nii.gz", option, value, "-o", tmp_path / "out"
    )
    assert answer.code == 2 and says in answer.line
    assert files_in(tmp_path) == []


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    answer = run()
    assert answer.code == 2
    assert "predict" in answer.out


def test_models_lists_architectures_and_info_tells_about_a_folder(finder: Path) -> None:
    listing = run("models", "cardiac_swin_*")
    assert listing.code == 0
    assert "cardiac_swin_base" in listing.out
    assert "cardiac_unet" not in listing.out
    rows = json.loads(run("models", "--json").out)
    assert {"cardiac_swin_tiny", "cardiac_unet_base"} <= {row["full_name"] for row in rows}
    page = run("info", finder)
    assert page.code == 0
    assert "sha256" in page.out
    assert run("info", "nobody").code == 2


def test_models_names_one_default_and_it_is_what_predict_uses(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ccf.export_pretrained(ccf.from_pretrained(finder), tmp_path, tag="test", description="for a test", default=True)
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", str(tmp_path))
    page = run("models").out
    assert "finder.test" in page
    told = " ".join(page.split())
    assert told.lower().count("default") == 1
    assert "The default: predict, finetune and evaluate use it without --model." in told
    row = page[page.index("cardiac_swin_tiny.synthetic") :]
    assert "The default" in row[: row.index("finder.test")]
    rows = json.loads(run("models", "--json").out)
    assert [row["full_name"] for row in rows if row["used_without_model"]] == ["cardiac_swin_tiny.synthetic"]
    assert {row["full_name"] for row in rows if row["default"]} >= {"cardiac_swin_tiny.synthetic", "finder.test"}
    assert json.loads(run("info", "cardiac_swin_tiny", "--json").out)["used_without_model"]
    assert not json.loads(run("info", "finder", "--json").out)["used_without_model"]
    explained = " ".join(run("models", "--help").out.replace("│", " ").split())
    assert '"used_without_model" marks the one' in explained and '"default" those' in explained
    for command in (predict, finetune, evaluate):
        meant = inspect.signature(command).parameters["model"].default
        assert ccf.model_info(meant).full_name == "cardiac_swin_tiny.synthetic"


def test_info_begins_with_limitations_and_figures_and_tells_trainings_in_one_line() -> None:
    known, page = ccf.model_info("cardiac_swin_tiny"), run("info", "cardiac_swin_tiny").out
    order = ["Limitations", *known.metrics, "Facts", "Provenance"]
    assert [line.strip() for line in page.splitlines() if line.strip() in order] == order
    assert known.provenance["limitations"][0].split(",")[0] in " ".join(page.split())
    runs = known.provenance["runs"]
    (line,) = (line for line in page.splitlines() if line.split()[:1] == ["trainings"])
    assert line.split()[1] == f"{len(runs)}," and runs[-1]["commit"] in line
    assert "--start-from" not in page
    assert "--start-from" in run("info", "cardiac_swin_tiny", "--json").out


def test_info_is_plain_text_and_its_commands_can_be_pasted(finder: Path, tmp_path: Path) -> None:
    command = "python -m recipes.benchmarks.heldout --model finder"
    figures = {"Held out": {"Dice": 0.5, "command": f"`{command}`"}, "alone": f"`{command} --n 1`"}
    model = ccf.from_pretrained(finder)
    limits = {"limitations": ["Turned cusps (`recipes.turned`).", "None."], "how": {"by": ["`recipes.how`"]}}
    model._set_config(model.config.replace(provenance=limits))
    made = ccf.export_pretrained(model, tmp_path, tag="test", description="See `README.md`.", metrics=figures)
    lines = [" ".join(line.split()) for line in run("info", made).out.splitlines()]
    assert "`" not in "".join(lines)
    wanted = ("finder.test See README.md.", f"command {command}", f"{command} --n 1", "how by recipes.how")
    for line in (*wanted, "1 Turned cusps (recipes.turned)."):
        assert line in lines
    assert f"`{command}`" in run("info", made, "--json").out


def test_weights_in_a_shared_folder_are_listed_and_verified(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ccf.export_pretrained(ccf.from_pretrained(finder), tmp_path, tag="test", description="for a test")
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", str(tmp_path))
    assert "finder.test" in run("models").out
    assert "sha256 verified" in next(line for line in run("doctor").out.splitlines() if "finder.test" in line)
    weights = tmp_path / "finder.test" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    answer = run("doctor")
    assert answer.code == 1
    assert "✗" in next(line for line in answer.out.splitlines() if "finder.test" in line)


def test_doctor_warns_of_each_named_folder_that_holds_no_weights_and_tells_the_way_out(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ccf.export_pretrained(ccf.from_pretrained(finder), tmp_path / "models", tag="test")
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.touch()
    named = [tmp_path / "models", tmp_path / "typo", empty, file, model]
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", os.pathsep.join(map(str, named)))
    answer = run("doctor", "--json")
    assert answer.code == 0
    findings = [f for f in json.loads(answer.out) if f["name"] == "CARDIAC_CT_FM_MODELS"]
    assert [f["verdict"] for f in findings] == ["ok", *["note"] * 4]
    assert findings[0]["text"] == f"1 in {named[0]}"
    reasons = ("does not exist", "holds no weights", "cannot be read (Not a directory)", "is a model itself")
    for folder, finding, reason in zip(named[1:], findings[1:], reasons, strict=True):
        assert finding["text"].startswith(f"{folder} {reason}")
    assert all("correct the variable or unset it" in f["text"] for f in findings[1:4])
    assert findings[4]["text"].endswith(f"name the folder above: {tmp_path / 'models'}")


def test_doctor_judges_each_model_of_a_named_folder_by_itself(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link whose target has too long a name cannot be looked into, whoever looks: as a folder of somebody else."""
    model = ccf.from_pretrained(finder)
    for tag in ("first", "second", "third"):
        ccf.export_pretrained(model, tmp_path, tag=tag)
    (tmp_path / "strange").symlink_to("x" * 300)
    (tmp_path / "finder.third" / "registry.json").write_text('{"name": "finder"}')
    (tmp_path / "notes.txt").touch()
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", str(tmp_path))
    findings = json.loads(run("doctor", "--json").out)
    (finding,) = (f for f in findings if f["name"] == "CARDIAC_CT_FM_MODELS")
    assert finding["verdict"] == "note"
    assert finding["text"].startswith(f"2 in {tmp_path}; damaged: finder.third; cannot be read: strange (")
    assert {f["name"]: f["verdict"] for f in findings if f["name"].startswith("finder.")} == {
        "finder.first": "ok",
        "finder.second": "ok",
        "finder.third": "problem",
    }
    (tmp_path / "strange").unlink()
    shutil.rmtree(tmp_path / "finder.third")
    (finding,) = (f for f in json.loads(run("doctor", "--json").out) if f["name"] == "CARDIAC_CT_FM_MODELS")
    assert (finding["verdict"], finding["text"]) == ("ok", f"2 in {tmp_path}")


def test_a_folder_of_damaged_weights_alone_is_not_fine(
    finder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ccf.export_pretrained(ccf.from_pretrained(finder), tmp_path, tag="test")
    (made / "registry.json").write_text("[]")
    monkeypatch.setenv("CARDIAC_CT_FM_MODELS", str(tmp_path))
    (finding,) = (f for f in json.loads(run("doctor", "--json").out) if f["name"] == "CARDIAC_CT_FM_MODELS")
    assert (finding["verdict"], finding["text"]) == ("note", f"0 in {tmp_path}; damaged: finder.test")


def test_doctor_as_json_has_a_verdict_on_everything() -> None:
    findings = json.loads(run("doctor", "--json").out)
    assert {"Software", "Hardware", "Weights"} == {f["group"] for f in findings}
    assert {f["verdict"] for f in findings} <= {"ok", "note", "problem"}
    assert next(f for f in findings if f["name"] == "torch")["verdict"] == "ok"


def test_doctor_looks_at_everything_that_can_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=;\[ ]", requirement)[0] for requirement in requirements}

    # Without typer and rich no command runs; without isal the standard library unpacks.
    assert set(REQUIRED) == names(project["dependencies"]) - {"typer", "rich", "isal"}
    extras = {extra: names(needs) for extra, needs in project["optional-dependencies"].items() if extra != "dev"}
    assert {extra: set(needs) for extra, needs in OPTIONAL.items()} == extras


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError("a fault\nof ours")

    monkeypatch.setattr("cardiac_ct_fm.registry.model_info", broken)
    answer = run("info", "cardiac_swin_tiny")
    assert answer.code == 1
    assert "ZeroDivisionError" in answer.line
    assert "--debug" in answer.line
    monkeypatch.setenv("CARDIAC_CT_FM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("info", "cardiac_swin_tiny")


def test_cores_are_counted_as_this_process_may_use_them() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
