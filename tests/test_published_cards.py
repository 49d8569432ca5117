"""The cards of the published weights are what the present code writes, and their figures say whose they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.model_card import model_card
from cardiac_ct_fm.registry import ASSETS, model_info
from cardiac_ct_fm.training.digital import held_out_patients
from recipes.card_figures import patients

PUBLISHED = [path.parent for root in (ASSETS, ROOT / "weights") for path in sorted(root.glob(f"*/{MANIFEST}"))]


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_card_is_what_its_configuration_and_registry_say(folder: Path) -> None:
    config, info = ModelConfig.load(folder / "config.json"), ModelInfo.from_manifest(folder / MANIFEST)
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(config, info)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_commands_of_a_card_load_its_weights(folder: Path) -> None:
    groups = ModelInfo.from_manifest(folder / MANIFEST).metrics.values()
    named = {name for group in groups for name in re.findall(r"--model ([\w.]+)", group.get("command", ""))}
    made = {group["command"] for group in groups if "recipes.export_weights" in group.get("command", "")}
    assert named and made
    for name in named - {re.findall(r"--model ([\w.]+)", command)[0] for command in made}:
        info = model_info(name)
        assert f"{info.name}.{info.tag}" == folder.name


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_held_out_figures_name_their_patients_as_the_recipe_does(folder: Path) -> None:
    groups = ModelInfo.from_manifest(folder / MANIFEST).metrics
    commands = {title: group["command"] for title, group in groups.items() if "command" in group}
    held_out = {title: command for title, command in commands.items() if "recipes.benchmarks.heldout" in command}
    assert held_out
    for title, command in held_out.items():
        option, value = re.findall(r"(--n|--cohort) ([\d,/-]+)", command)[0]
        chosen = held_out_patients(f"0-{int(value) - 1}" if option == "--n" else value)
        told, whose = patients(f"site{site}-{seed}" if site else f"digital-{seed}" for site, seed in chosen)
        assert told == f"{option} {value}"
        assert title == f"{len(chosen)} held-out digital patients {whose}, misses counted as failures"
