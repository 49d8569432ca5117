"""What a configuration refuses, and how heads and looks are kept in step."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_models import small_model
from small_trunk import SETTINGS, trunk

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.config import HeadConfig, LookConfig, ModelConfig
from cardiac_ct_fm.registry import architecture
from cardiac_ct_fm.training.finetune import finetune

TINY = architecture("cardiac_swin_tiny")
CORONARIES = HeadConfig.builtin("coronaries")
NAMESAKE = HeadConfig("other", "segmentation", ("Apex", "LV"))


def looks_of(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    return {look.name: look.heads for look in config.looks}


# ---- one name, one class


def test_two_heads_cannot_share_a_class_because_one_would_hide_the_others_results() -> None:
    says = r"'heart' and 'other' both have a class 'LV'.*another name in 'other', or load the model without 'heart'"
    with pytest.raises(ccf.ConfigError, match=says):
        TINY.with_head(NAMESAKE)
    with pytest.raises(ccf.ConfigError, match=says):
        ModelConfig(heads=(HeadConfig.builtin("heart"), NAMESAKE), looks=())
    with pytest.raises(ccf.ConfigError, match="'hps' and 'hinges' both have a class 'RCC'"):
        TINY.with_head(HeadConfig("hinges", "landmarks", HINGE_POINTS))


def test_a_point_and_a_structure_may_share_a_name() -> None:
    assert TINY.with_head(HeadConfig("sinuses", "segmentation", HINGE_POINTS)).head("sinuses").classes == HINGE_POINTS


def test_a_head_with_a_known_class_is_refused_before_it_is_put_on_loaded_or_trained(
    tmp_path: Path, data_list: Path
) -> None:
    model = small_model()
    with pytest.raises(ccf.UsageError, match="both have a class 'LV'"):
        model.add_head("other", ["LV"])
    bare = ccf.create_model(model.config.replace(looks=()), heads=["hps"])
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if k in bare.state_dict()}, strict=True)
    bare.add_head("other", ["LV"])
    path = bare.save_head("other", tmp_path / "other.safetensors")
    with pytest.raises(ccf.UsageError, match="both have a class 'LV'"):
        model.load_head(path)
    assert list(model.heads) == [h.name for h in model.config.heads] == ["heart", "hps"]

    def step(*_: object) -> None:
        pytest.fail("nothing is read or trained")

    with pytest.raises(ccf.UsageError, match="both have a class 'LV'"):
        finetune(trunk(), data_list, "other", classes=["LV"], settings=SETTINGS, progress=step)


# ---- heads and looks


@pytest.mark.parametrize(
    ("spacing_mm", "window"),
    [(0.0, 32), (-1.0, 32), (math.nan, 32), (math.inf, 32), (1.0, 0), (1.0, -32), (1.0, 64.0), (1.0, True)],
)
def test_a_look_without_a_size_is_refused(spacing_mm: float, window: Any) -> None:
    with pytest.raises(ccf.ConfigError, match=r"look 'root' has a window of .* give sizes above 0"):
        LookConfig("root", spacing_mm, window, ("hps",))


def test_a_look_has_one_of_the_known_names_and_no_other_look_has_it() -> None:
    name: Any = "whole"
    with pytest.raises(ccf.ConfigError, match="cannot be called 'whole'; choose locate, heart, root, detail"):
        LookConfig(name, 1.0, 32, ("hps",))
    with pytest.raises(ccf.ConfigError, match=r"looks \['locate', 'heart', 'root', 'root'\] repeat a name"):
        TINY.replace(looks=(*TINY.looks, TINY.look("root")))


def test_a_look_of_a_head_that_is_not_there_and_a_head_without_a_look_are_refused() -> None:
    with pytest.raises(ccf.ConfigError, match=r"heads \['heart'\], but looks read \['calc', 'hps', 'ms'\]"):
        TINY.replace(heads=(HeadConfig.builtin("heart"),))
    with pytest.raises(ccf.ConfigError, match=r"no look but locate reads \['coronaries'\]; with_heads keeps both"):
        TINY.replace(heads=(*TINY.heads, CORONARIES))
    locate, *others = TINY.looks
    with pytest.raises(ccf.ConfigError, match=r"no look but locate reads \['coronaries'\]"):
        TINY.replace(
            heads=(*TINY.heads, CORONARIES),
            looks=(dataclasses.replace(locate, heads=("heart", "coronaries")), *others),
        )
    raw = TINY.to_dict()
    del raw["looks"][2]
    with pytest.raises(ccf.ConfigError, match=r"no look but locate reads \['calc'\]"):
        ModelConfig.from_dict(raw)


def test_heads_that_a_network_is_made_with_are_read_from_its_looks() -> None:
    model = ccf.create_model("cardiac_swin_tiny", heads=["heart", "coronaries", "hps"])
    assert list(model.heads) == [h.name for h in model.config.heads] == ["heart", "coronaries", "hps"]
    assert looks_of(model.config) == {
        "locate": ("heart",),
        "heart": ("heart", "hps", "coronaries"),
        "root": ("heart", "hps", "coronaries"),
    }
    points = ccf.create_model("cardiac_swin_tiny", heads=["hps"])
    assert looks_of(points.config) == {"locate": (), "heart": ("hps",), "root": ("hps",)}
    points.add_head("heart", HeadConfig.builtin("heart").classes)
    assert looks_of(points.config)["locate"] == ("heart",)


def test_a_head_that_is_not_loaded_stands_in_no_look(tmp_path: Path) -> None:
    whole = ccf.create_model("cardiac_swin_tiny", seed=0)
    whole.add_head("coronaries", CORONARIES.classes, looks=["detail"])
    head = whole.save_head("coronaries", tmp_path / "coronaries.safetensors")
    whole.save_pretrained(tmp_path / "model")
    assert looks_of(ccf.from_pretrained(tmp_path / "model").config)["detail"] == ("coronaries",)
    part = ccf.from_pretrained(tmp_path / "model", heads=["heart"])
    assert looks_of(part.config) == {"locate": ("heart",), "heart": ("heart",), "root": ("heart",)}
    part.save_pretrained(tmp_path / "part")
    assert ccf.from_pretrained(tmp_path / "part").config == part.config
    again = ccf.from_pretrained(tmp_path / "model", heads=["heart", head])
    assert looks_of(again.config)["detail"] == ("coronaries",)


def test_a_file_whose_looks_list_heads_that_were_not_saved_is_read_without_them(tmp_path: Path) -> None:
    part = ccf.create_model("cardiac_swin_tiny", heads=["heart", "hps"], seed=0)
    part.save_pretrained(tmp_path)
    raw = part.config.to_dict()
    raw["looks"] = TINY.to_dict()["looks"]  # as they were written before looks followed the heads
    raw["looks"].append(raw["looks"][2] | {"name": "detail", "heads": ["coronaries"]})
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    (tmp_path / "registry.json").unlink()  # else the sha256 tells that the file is another one
    assert ccf.from_pretrained(tmp_path).config == part.config
