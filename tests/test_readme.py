"""The README tells the truth about names: commands, options, files, modules and public functions exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from shutil import which

import pytest
from command_line import run
from conftest import ROOT

import cardiac_ct_fm as ccf
from cardiac_ct_fm.training.data_list import read_data_list

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.S)


def test_every_link_inside_the_repository_leads_somewhere() -> None:
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert links
    assert [target for target in links if not (ROOT / target).exists()] == []


def test_every_command_that_is_shown_has_the_options_that_are_shown() -> None:
    shown = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
    calls = [line.split("#")[0].split() for line in shown if line.startswith("cardiac-ct-fm ")]
    assert {"predict", "finetune", "evaluate", "doctor"} <= {call[1] for call in calls}
    for call in calls:
        page = run(call[1], "--help").out
        for option in (word for word in call if word.startswith("-")):
            assert re.search(rf"{re.escape(option)}\b", page), f"{call[1]} has no {option}"


def test_every_public_name_in_python_examples_exists() -> None:
    code = "\n".join(block for kind, block in BLOCKS if kind == "python")
    names = set(re.findall(r"\bccf\.(\w+)", code))
    assert names
    assert names <= set(ccf.__all__)
    model = ccf.create_model("cardiac_unet_small", heads=["hps"])
    for name in set(re.findall(r"\bmodel\.(\w+)\(", code)):
        assert hasattr(model, name), name


def test_the_house_is_described_as_it_stands() -> None:
    (plan,) = (block for kind, block in BLOCKS if block.startswith("cardiac_ct_fm/\n"))
    rows = [line for line in plan.splitlines() if line.startswith("  ")]
    named = {word.rstrip("/") for row in rows for word in re.split(r"\s{3,}", row.strip())[0].split()}
    package = ROOT / "cardiac_ct_fm"
    there = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == there - {"__init__", "__main__"}


@pytest.mark.parametrize("target", ["demo", "extras", "test", "check", "format"])
def test_make_has_the_targets_that_are_named(target: str) -> None:
    assert f"make {target}" in TEXT
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.skipif(which("make") is None, reason="no make is installed")
def test_make_adds_an_extra_with_the_pinned_versions(tmp_path: Path) -> None:
    command = ["make", "-n", "extras", "EXTRAS=train", f"VENV={tmp_path / 'venv'}"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '-c constraints.txt -e ".[train]"' in plan


def test_an_extra_is_advised_so_that_torch_stays() -> None:
    advice = str(ccf.MissingExtraError("Training", "train"))
    assert f'pip install "cardiac-ct-fm[train]" "torch=={metadata.version("torch")}"' in advice
    assert "make extras EXTRAS=train" in advice
    shown = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if "pip install" in line]
    assert [line for line in shown if re.search("train|federated", line) and "-c constraints.txt" not in line] == []


def test_a_head_of_ones_own_begins_with_what_it_needs() -> None:
    (steps,) = (block for kind, block in BLOCKS if kind == "bash" and "cardiac-ct-fm finetune" in block)
    assert steps.index("EXTRAS=train") < steps.index("cardiac-ct-fm finetune")


def test_evaluate_finds_test_scans_in_the_data_list_that_is_shown(tmp_path: Path) -> None:
    (shown,) = (block for kind, block in BLOCKS if kind == "json")
    for name in re.findall(r'"([^"]+\.nii\.gz)"', shown):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "datalist.json").write_text(shown)
    listed = read_data_list(tmp_path / "datalist.json")
    assert listed.training and listed.test


def test_python_that_needs_no_scan_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (block for kind, block in BLOCKS if kind == "python" and "ccf.from_pretrained" in block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cardiac_ct_fm.exchange.find_spec", lambda name: None)  # without the extra onnx
    exec(code, {"ccf": ccf})
    assert (tmp_path / "bundle").is_dir()


def test_every_pinned_version_belongs_to_something_that_is_installed_with_it() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", pin) for pin in pins)
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(pins)


def test_every_package_that_is_asked_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split(r"[<>=;\[ ]", requirement)[0].lower() for requirement in asked}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert names - {pin.split("==")[0] for pin in pins} == set()


def test_the_oldest_python_is_the_same_wherever_it_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = project["project"]["requires-python"].removeprefix(">=")
    recipe = (ROOT / "recipes" / "federated_distillation" / "README.md").read_text(encoding="utf-8")
    assert project["tool"]["mypy"]["python_version"] == oldest
    assert project["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert set(re.findall(r"Python (?:≥ )?(3\.\d+)", TEXT + recipe)) == {oldest}
    assert f"on Python {oldest} and" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_continuous_integration_runs_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert "make test" in script
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o100
