"""``torch.hub`` in a process of its own, outside the repository: list, help, load, and the same logits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hub_client import logits_digest
from small_models import small_config, small_model

import cardiac_ct_fm as ccf
from cardiac_ct_fm.config import LookConfig
from hubconf import dependencies

ROOT = Path(__file__).parent.parent
ENTRIES = [
    "cardiac_ct_fm", "cardiac_ct_fm_features", "cardiac_ct_fm_predictor", "cardiac_swin_small", "cardiac_swin_tiny",
]  # fmt: skip

SCRIPT = """
import json, sys, torch

downloaded, tests = sys.argv[1:]
name = "org/cardiac-ct-fm:main"
reply = {"list": torch.hub.list(name, trust_repo=True, verbose=False)}
reply["help"] = {entry: torch.hub.help(name, entry, trust_repo=True) for entry in reply["list"]}
from_name = torch.hub.load(name, "cardiac_ct_fm", weights="small", trust_repo=True, verbose=False)
from_folder = torch.hub.load(downloaded, "cardiac_ct_fm", weights="small.first", heads=["hps"], source="local")
by_entry = torch.hub.load(downloaded, "cardiac_swin_small", heads=["hps"], source="local")
features = torch.hub.load(downloaded, "cardiac_ct_fm_features", weights="small", source="local")
predictor = torch.hub.load(downloaded, "cardiac_ct_fm_predictor", weights="small", source="local")
sys.path.append(tests)
from hub_client import logits_digest
import cardiac_ct_fm

reply["package"] = cardiac_ct_fm.__file__
reply["logits"] = logits_digest(from_name)
reply["heads"] = [list(from_folder.heads), list(by_entry.heads), list(features.heads)]
reply["by_entry"] = by_entry.weight_files.source
with torch.no_grad():
    maps = features.forward_intermediates(torch.zeros(1, 1, 32, 32, 32))
reply["pyramid"] = [list(value.shape) for value in maps]
reply["predictor"] = type(predictor).__name__
reply["loaded"] = sorted({module.split(".")[0] for module in sys.modules})
print(json.dumps(reply))
"""


@pytest.fixture(scope="module")
def reply(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process says that finds the repository where ``torch.hub`` unpacks a download."""
    home = tmp_path_factory.mktemp("torch")
    downloaded = home / "hub" / "org_cardiac-ct-fm_main"
    shutil.copytree(ROOT / "cardiac_ct_fm", downloaded / "cardiac_ct_fm", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("hubconf.py", "pyproject.toml"):
        shutil.copy(ROOT / file, downloaded)
    weights = downloaded / "weights"
    locate = LookConfig("locate", 4.0, 32, ("heart",))
    root = LookConfig("root", 1.0, 32, ("heart", "hps"))
    config = small_config().replace(looks=(locate, *small_config().looks, root))  # what a predictor needs
    ccf.export_pretrained(ccf.create_model(config, seed=0).eval(), weights, tag="first")
    ccf.export_pretrained(small_model(name="cardiac_swin_small"), weights, tag="second", default=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(downloaded), str(ROOT / "tests")],
        cwd=home,
        env={**environment, "TORCH_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**answer, "downloaded": str(downloaded), "weights": str(weights)}


def test_only_the_entries_are_listed_each_with_help(reply: dict[str, Any]) -> None:
    assert sorted(reply["list"]) == ENTRIES
    for entry in ENTRIES:
        assert "Example:" in reply["help"][entry]
        assert "weights:" in reply["help"][entry] or "with these weights" in reply["help"][entry]


def test_the_package_comes_from_the_downloaded_repository(reply: dict[str, Any]) -> None:
    assert reply["package"].startswith(reply["downloaded"])


def test_logits_are_those_of_from_pretrained_to_the_bit(reply: dict[str, Any]) -> None:
    assert reply["logits"] == logits_digest(ccf.from_pretrained(Path(reply["weights"]) / "small.first"))


def test_published_weights_have_entries_of_their_own(reply: dict[str, Any]) -> None:
    assert reply["by_entry"] == "cardiac_swin_small.second"


def test_heads_can_be_chosen_and_features_come_without_any(reply: dict[str, Any]) -> None:
    assert reply["heads"] == [["hps"], ["hps"], []]
    assert reply["pyramid"] == [[1, 8, 16, 16, 16], [1, 16, 8, 8, 8], [1, 32, 4, 4, 4]]


def test_the_dependencies_are_what_the_entries_load(reply: dict[str, Any]) -> None:
    """Of the package's own; isal is not needed where it is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", entry)[0].replace("-", "_") for entry in project["dependencies"]]
    modules = {"connected_components_3d": "cc3d"}
    needed = {modules.get(name, name) for name in names} & set(reply["loaded"]) - {"isal"}
    assert sorted(dependencies) == sorted(needed)


def test_the_predictor_entry_gives_a_predictor(reply: dict[str, Any]) -> None:
    assert reply["predictor"] == "Predictor"
