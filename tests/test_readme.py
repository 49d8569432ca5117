"""The README tells the truth about names: commands, options, files, modules and public functions exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import run
from conftest import ROOT

import cardiac_ct_fm as ccf

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


@pytest.mark.parametrize("target", ["demo", "test", "check", "format"])
def test_make_has_the_targets_that_are_named(target: str) -> None:
    assert f"make {target}" in TEXT
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)


def test_every_pinned_version_belongs_to_something_that_is_installed_with_it() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", pin) for pin in pins)
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(pins)


def test_the_continuous_integration_runs_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert "make test" in script
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o100
