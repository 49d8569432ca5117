"""Where published weights lie: in the package, in a clone's ``weights/``; and what a package without them says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from small_models import small_model

import cardiac_ct_fm as ccf
from cardiac_ct_fm.registry import ASSETS, ELSEWHERE, MANIFEST, MODELS_VARIABLE, clone_weights

NAME = "large.shared"
KEPT = ("*.pyc", "__pycache__", "elsewhere", "*.safetensors")
"""The copies of the package below know of no weights but those of this test."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights with one model."""
    root = tmp_path_factory.mktemp("published") / "weights"
    ccf.export_pretrained(small_model(name="large"), root, tag="shared", description="for a test", default=True)
    return root


def package(root: Path, published: Path) -> Path:
    """The package alone, as a wheel installs it, which describes the model."""
    shutil.copytree(ROOT / "cardiac_ct_fm", root / "cardiac_ct_fm", ignore=shutil.ignore_patterns(*KEPT))
    elsewhere = root / "cardiac_ct_fm" / "assets" / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(published / NAME / MANIFEST, elsewhere / f"{NAME}.json")
    return root


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Path:
    """An installed package beside a stranger's ``weights/``, which holds such a model by chance."""
    root = package(tmp_path_factory.mktemp("site-packages"), published)
    shutil.copytree(published, root / "weights")
    (root / "pyproject.toml").write_text('[project]\nname = "someone-else"\n')
    return root


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Path:
    """The package in a clone that holds the weights."""
    root = package(tmp_path_factory.mktemp("clone"), published)
    shutil.copytree(published, root / "weights")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line of the package in ``root``, started in another folder."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", MODELS_VARIABLE)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root.parent,
        env={**inherited, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def told(root: Path, command: str, **environment: str) -> dict[str, Any]:
    """What ``models`` or ``info`` says of the model."""
    rows = json.loads(run(root, "-m", "cardiac_ct_fm", *command.split(), "--json", **environment).stdout)
    (row,) = (row for row in ([rows] if isinstance(rows, dict) else rows) if row["full_name"] == NAME)
    return dict(row)


LOAD = """
import cardiac_ct_fm as ccf

model = ccf.from_pretrained("large")
print(ccf.list_models("large*", pretrained=True), model.weight_files.verified, model.weight_files.config)
"""


def test_a_clone_loads_what_lies_in_its_weights_from_any_folder(clone: Path) -> None:
    done = run(clone, "-c", LOAD)
    assert done.stdout.strip() == f"['{NAME}'] True {clone / 'weights' / NAME / 'config.json'}", done.stderr
    assert told(clone, "models")["pretrained"]
    assert told(clone, "info large")["folder"] == str(clone / "weights" / NAME)


def test_an_installed_package_says_what_there_is_and_where(installed: Path) -> None:
    assert not told(installed, "models")["pretrained"]
    listing = " ".join(run(installed, "-m", "cardiac_ct_fm", "models").stdout.split())
    assert f"Not here: {NAME}, its" in listing
    known = told(installed, "info large")
    assert (known["folder"], known["description"]) == (None, "for a test")
    page = " ".join(run(installed, "-m", "cardiac_ct_fm", "info", NAME).stdout.split())
    assert "yes, but not here" in page
    assert known["files"]["model.safetensors"]["sha256"] in page
    doctor = " ".join(run(installed, "-m", "cardiac_ct_fm", "doctor").stdout.split())
    assert f"{NAME} not here: its" in doctor


@pytest.mark.parametrize("name", ["large", NAME])
def test_an_installed_package_refuses_to_load_it_and_names_the_ways_out(name: str, installed: Path) -> None:
    code = f"from cardiac_ct_fm.weights import resolve\nresolve({name!r})"
    refused = run(installed, "-c", code).stderr
    assert f"WeightsError: {NAME} is not here" in refused
    for way in ("a clone", "pip install -e", f"{MODELS_VARIABLE}=CLONE/weights"):
        assert way in refused


def test_the_variable_brings_the_weights_of_a_clone_to_an_installed_package(installed: Path, clone: Path) -> None:
    done = run(installed, "-c", LOAD, **{MODELS_VARIABLE: str(clone / "weights")})
    assert str(clone / "weights" / NAME) in done.stdout, done.stderr
    assert told(installed, "models", **{MODELS_VARIABLE: str(clone / "weights")})["pretrained"]


def test_a_clone_that_is_reached_through_a_link_describes_its_weights(clone: Path, tmp_path: Path) -> None:
    link = tmp_path / "linked"
    link.symlink_to(clone)
    description = clone / "cardiac_ct_fm" / "assets" / "elsewhere" / f"{NAME}.json"
    before = description.read_bytes()
    description.unlink()
    code = "from pathlib import Path\nfrom recipes.export_weights import described\n"
    code += f"described(Path('linked/weights/{NAME}'))"
    done = run(link, "-c", code, PYTHONPATH=os.pathsep.join(map(str, (link, ROOT))))
    assert done.returncode == 0, done.stderr
    assert description.read_bytes() == before


def test_a_description_that_is_damaged_concerns_its_own_model_alone(published: Path, tmp_path: Path) -> None:
    root = package(tmp_path / "package", published)
    (root / "cardiac_ct_fm" / "assets" / "elsewhere" / "broken.shared.json").write_text("{}")
    code = (
        "from cardiac_ct_fm.registry import absent_models, damaged_models, known_names, model_info\n"
        f"print(list(absent_models()), list(damaged_models()), model_info('{NAME}').tag, '{NAME}' in known_names())\n"
        "model_info('broken')"
    )
    done = run(root, "-c", code)
    assert done.stdout.strip() == f"['{NAME}'] ['broken.shared'] shared True", done.stderr
    assert "WeightsError: " in done.stderr and "broken.shared.json is not a description of weights" in done.stderr


def test_a_strangers_project_beside_the_package_is_no_clone(installed: Path, clone: Path) -> None:
    code = "from cardiac_ct_fm.registry import clone_weights; print(clone_weights())"
    assert run(installed, "-c", code).stdout.strip() == "None"
    assert run(clone, "-c", code).stdout.strip() == str(clone / "weights")


def test_all_weights_of_this_repository_are_described_in_the_package() -> None:
    folder = clone_weights()
    assert folder == ROOT / "weights"
    here = {path.parent.name: path.read_bytes() for path in folder.glob(f"*/{MANIFEST}")}
    assert {path.stem: path.read_bytes() for path in ELSEWHERE.glob("*.json")} == here


def test_no_file_of_published_weights_needs_large_file_storage() -> None:
    files = [path for root in (ASSETS, ROOT / "weights") for path in root.rglob("*") if path.is_file()]
    assert [path.name for path in files if path.stat().st_size >= 16_000_000] == []
