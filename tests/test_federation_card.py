"""The command in the card of a federation's weights: it makes the same settings again and tells no folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from cardiac_ct_fm.errors import ConfigError
from recipes.federated_distillation.__main__ import _parser
from recipes.federated_distillation.export import command
from recipes.federated_distillation.options import settings_from
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.settings import Settings

FOLDER = Path("home") / "lead" / "weights" / "cardiac_swin_tiny.synthetic"

EXPERIMENTS: tuple[dict[str, Any], ...] = (
    {"locations": ("site-1",)},
    {"locations": ("ukhd", "lmu"), "holdings": ("ukhd=heart,hps", "lmu=heart,ms"), "round_timeout_s": 60},
    {"locations": ("site-1", "site-3"), "task": "ms", "method": "fedavg", "output_seg": False, "local": True},
    {"locations": ("site-3",), "tags": ("two words", "it's"), "dp_noise": 0.1, "dp_delta": 1e-6, "stage": "teach"},
    PRESETS["paper"] | {"rounds": 3, "quorum": 0},
    PRESETS["published"] | {"ckpt": str(FOLDER), "lr": 3e-5},
    PRESETS["published"] | {"ckpt": "", "test_locations": ()},
    PRESETS["demo"] | {"test_on_global_updates": False},
    *PRESETS.values(),
)


@pytest.mark.parametrize("raw", EXPERIMENTS)
def test_the_command_of_a_card_makes_the_same_settings_again(raw: dict[str, Any]) -> None:
    settings = Settings(**raw)
    words = shlex.split(command(settings, "teach-hps"))
    assert words[:4] == ["python", "-m", "recipes.federated_distillation", "run"]
    args = _parser().parse_args(words[3:])
    assert settings_from(args, stage="test") == settings.replace(ckpt=Path(settings.ckpt).name, stage="test")
    assert args.step == "teach-hps"


@pytest.mark.parametrize("raw", EXPERIMENTS)
def test_the_command_of_a_card_tells_no_folder(raw: dict[str, Any]) -> None:
    told = command(Settings(**raw))
    assert "--out" not in told and "--kit" not in told and "/" not in told and "lead" not in told


def test_the_command_names_only_what_differs_from_the_nearest_preset() -> None:
    settings = Settings(**(PRESETS["published"] | {"seed": 4}))
    assert command(settings) == "python -m recipes.federated_distillation run --preset published --seed 4"
    plain = Settings(locations=("ukhd", "lmu"), rounds=3)
    assert command(plain) == "python -m recipes.federated_distillation run --locations ukhd lmu --rounds 3"


@pytest.mark.parametrize("ckpt", ["org/repo@rev", "org/repo", "hf:org/repo@refs/pr/1", "registry:cardiac_swin_tiny"])
def test_the_command_names_a_checkpoint_on_the_hub_whole_and_one_on_a_disk_by_its_name(
    ckpt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"--ckpt {ckpt}" in command(Settings(locations=("lmu",), ckpt=ckpt))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "mine").mkdir(parents=True)
    for place in ("weights/mine", "./weights/mine", str(tmp_path / "weights" / "mine"), "~/gone/mine", "a/b/mine"):
        assert command(Settings(locations=("lmu",), ckpt=place)).endswith("--ckpt mine")


@pytest.mark.parametrize("tag", ["--seed", "-x"])
def test_a_tag_that_no_command_can_name_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match=f"tags has '{tag}', which a command takes for an option"):
        Settings(locations=("lmu",), tags=("fine", tag))
