"""The federation without sites or engine: settings, plan, averaging, messages, privacy, figures, doubt."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cardiac_ct_fm.errors import ConfigError, DataError, UnknownNameError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark
from recipes.federated_distillation import options
from recipes.federated_distillation.__main__ import main
from recipes.federated_distillation.aggregation import MaskedAverage, UpdateRefusedError, part_of
from recipes.federated_distillation.messages import Reply, reply_from
from recipes.federated_distillation.plan import final_step, make_plan
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.privacy import epsilon, privatise
from recipes.federated_distillation.pseudo_labels import agreement, consensus, map_weight, point_weight
from recipes.federated_distillation.scoring import dice, distances, pool, summary
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import PAPER_SITES, digital_site, labels_of_sites

EIGHT = tuple(PAPER_SITES)
RNG = np.random.default_rng(0)


def plan_of(**changes: object) -> list:
    settings = Settings(**({"locations": EIGHT, "size": "smoke"} | changes))  # type: ignore[arg-type]
    return make_plan(settings, labels_of_sites(settings))


def test_distillation_teaches_at_label_holders_labels_everywhere_and_distils() -> None:
    plan = plan_of()
    assert [s.name for s in plan][:5] == ["teach-hps", "teach-ms", "teach-calc", "label", "distil"]
    sites = {s.name: s.sites for s in plan}
    assert sites["teach-hps"] == tuple(f"site-{i}" for i in (1, 2, 3, 4, 6, 7, 8))
    assert sites["teach-ms"] == ("site-1", "site-3", "site-7")
    assert sites["teach-calc"] == ("site-1", "site-2", "site-6")
    assert sites["label"] == sites["distil"] == EIGHT
    assert final_step(plan).heads == ("heart", "hps", "ms", "calc")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "hp"}, "task is 'hp'. Did you mean 'hps'"),
        ({"method": "fedprox"}, "Choose one of: kd, condist, fedavg, local"),
        ({"task": "ms", "method": "kd"}, "--task kd"),
        ({"locations": ("site-9",)}, "no site called 'site-9'"),
        ({"locations": ("site-5",)}, "No chosen site holds labels of 'hps'"),
        ({"locations": ("site-4",), "task": "ms", "method": "fedavg"}, "add one of site-1, site-3, site-7"),
        ({"locations": ()}, "locations is empty"),
        ({"patches": 20}, "takes 16, 24, 32 or 0"),
        ({"patches": 72, "size": "tiny"}, "patches is 72"),
        ({"patches": 64, "size": "base", "model_type": "unetr"}, "made for 96 voxels"),
        ({"finetune": True}, "give --ckpt"),
        ({"mode": "test"}, "give --ckpt"),
        ({"quorum": 9}, "quorum is 9 but 8 sites"),
        ({"test_ratio": 1.0}, "test_ratio is 1.0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"task": "hps", "method": "fedavg", "condition_on_seg": True}, "choose one"),
        ({"exp_name": "../up"}, "exp_name"),
        ({"looks": ("root", "hart")}, "looks is 'hart'. Did you mean 'heart'"),
        ({"looks": ("heart",)}, "add root"),
        ({"teacher_rounds": -1}, "teacher_rounds is -1"),
        ({"test_locations": ("site-12",)}, "no site called 'site-12'"),
        ({"holdings": ("ukhd:heart",)}, "must be written as name=heart,hps"),
        ({"holdings": ("site-1=heart,valve",)}, "'valve'"),
        ({"seed": -1}, "seed is -1"),
        ({"task": "hps", "method": "condist"}, "choose --method fedavg or local"),
    ],
)
def test_bad_settings_are_refused_before_any_round_with_value_and_choices(changes: dict, said: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=said.replace("(", r"\(")):
        plan_of(**changes)


def test_command_line_names_the_mistake_and_ends_with_usage_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--local", "--preset", "smoke", "--task", "valve"]) == 2
    assert "task is 'valve'" in capsys.readouterr().err


def test_every_setting_has_a_described_option_and_the_research_codes_spelling_works() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    options.add_options(parser)
    assert set(options.descriptions()) == set(Settings.__dataclass_fields__)
    old = "--task 1 --locations site-1 site-3 --mode train --num_rounds 3 --epochs 2 --batch_size 4 --batch_maxnum 7 "
    old += "--test_ratio 0.3 --test_on_global_updates --test_on_local_updates --exp_name e1 --tags a b "
    old += "--ckpt c.safetensors --finetune --no-output_seg --condition_on_seg --patches 64 --model_type nnunet --local"
    found = options.settings_from(parser.parse_args(old.split()))
    assert (found.task, found.model_type, found.rounds, found.epochs, found.batch_size) == ("hps", "unet", 3, 2, 4)
    assert (found.batch_maxnum, found.test_ratio, found.exp_name, found.tags) == (7, 0.3, "e1", ("a", "b"))
    assert found.test_on_global_updates and found.test_on_local_updates and found.finetune and found.local
    assert (found.ckpt, found.condition_on_seg, found.output_seg, found.patches) == ("c.safetensors", True, False, 64)


def test_the_readmes_table_of_flags_is_that_of_the_command_line() -> None:
    import argparse
    import re
    from pathlib import Path

    parser = argparse.ArgumentParser()
    options.add_options(parser)
    text = (Path(options.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`--.*?`) \| (`--.*?`) \|", text, re.MULTILINE)
    assert len(rows) == 19, "every flag of the research code has its row"
    for old, new in rows:
        for flag in re.findall(r"--[\w-]+", old + new):
            assert flag in parser._option_string_actions, f"{flag} of the README is no option"


def test_spheres_of_points_weigh_more_than_background_and_segmentations_do_not() -> None:
    import torch

    from cardiac_ct_fm.training.losses import POINT_WEIGHT
    from recipes.federated_distillation.objectives import point_weights

    weights = point_weights("hps", torch.zeros(1, 6, 2, 2, 2))
    assert weights is not None and weights.tolist() == [1.0, *[POINT_WEIGHT] * 5]
    assert point_weights("calc", torch.zeros(1, 2, 2, 2, 2)) is None


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_can_be_planned_and_survive_json(preset: str) -> None:
    settings = Settings(**PRESETS[preset])
    assert make_plan(settings, labels_of_sites(settings))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_masked_average_equals_a_few_lines_of_reference_on_random_tensors() -> None:
    shapes = {"backbone.w": (3, 4), "heads.hps.weight": (6, 3), "heads.ms.weight": (3,), "coarse.hps.0.bias": (2,)}
    model = {k: RNG.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    counts = [{"trunk": 5.0, "hps": 3.0}, {"trunk": 2.0, "hps": 2.0, "ms": 1.5}, {"trunk": 9.0}]
    updates = [{k: RNG.normal(size=s).astype(np.float32) for k, s in shapes.items() if part_of(k) in c} for c in counts]
    for equal in (False, True):
        average = MaskedAverage(model, equal)
        for site, (update, count) in enumerate(zip(updates, counts, strict=True)):
            average.add(str(site), update, count)
        for name, value in average.apply_to_model().items():
            own = [
                (1.0 if equal else c[part_of(name)], u[name]) for c, u in zip(counts, updates, strict=True) if name in u
            ]
            expected = model[name] + sum(w * u for w, u in own) / sum(w for w, _ in own)
            np.testing.assert_allclose(value, expected, atol=1e-6)


def test_a_head_that_nobody_trained_stays_as_it_is() -> None:
    model = {"heads.ms.weight": np.ones(3, np.float32), "backbone.w": np.ones(2, np.float32)}
    average = MaskedAverage(model)
    average.add("a", {"backbone.w": np.ones(2, np.float32)}, {"trunk": 4})
    after = average.apply_to_model()
    assert (after["heads.ms.weight"] == 1).all() and (after["backbone.w"] == 2).all()


@pytest.mark.parametrize(
    ("changes", "counts", "reason"),
    [
        ({"backbone.w": np.array([1, np.nan], np.float32)}, {"trunk": 1}, "not finite"),
        ({"backbone.w": np.ones(2, np.float32)}, {"trunk": math.inf}, "not finite"),
        ({"backbone.w": np.ones(3, np.float32)}, {"trunk": 1}, "wrong architecture"),
        ({"backbone.v": np.ones(2, np.float32)}, {"trunk": 1}, "wrong architecture"),
        ({"heads.ms.weight": np.ones(3, np.float32)}, {"trunk": 1}, "no data"),
        ({}, {"trunk": 1}, "no data"),
    ],
)
def test_an_unusable_update_is_refused_whole(changes: dict, counts: dict, reason: str) -> None:
    model = {"backbone.w": np.zeros(2, np.float32), "heads.ms.weight": np.zeros(3, np.float32)}
    average = MaskedAverage(model)
    with pytest.raises(UpdateRefusedError) as refused:
        average.add("a", changes, counts)
    assert refused.value.reason == reason
    assert all((v == 0).all() for v in average.apply_to_model().values())


@pytest.mark.parametrize(
    "reply",
    [
        Reply("a", "s", 0, left_out="could not read /data/Doe_Jane/ct.nii.gz"),
        Reply("a", "s", 0, metrics={"hps": {"loss": "Doe"}}),
        Reply("a", "s", 0, metrics={"hps": {"file": 1.0}}),
        Reply("a", "s", 0, metrics={"hps": {"points": {"/data/Doe_Jane": [1.0]}}}),
        Reply("a", "s", 0, metrics={"hps": {"points": {"Doe": [1.0]}}}),
        Reply("a", "s", 0, metrics={"hps": {"points": {"RCC": ["Doe"]}}}),
        Reply("a", "s", 0, metrics={"Doe^Jane": {"loss": 1.0}}),
        Reply("a", "s", 0, metrics={"all": {"points": {"RCC": [1.0]}}}),
        Reply("a", "s", 0, counts={"/data/Doe_Jane": 1.0}),
        Reply("a", "s", 0, counts={"trunk": "Doe"}),  # type: ignore[dict-item]
        Reply("a", "s", 0, metrics=["Doe"]),  # type: ignore[arg-type]
        Reply("a", "s", 0, counts=["Doe"]),  # type: ignore[arg-type]
    ],
)
def test_a_reply_cannot_carry_text_of_a_site(reply: Reply) -> None:
    with pytest.raises(DataError):
        reply.facts()


def test_an_answer_that_is_no_reply_is_refused() -> None:
    said = json.loads(Reply("a", "s", 0).facts())
    for wrong in ({"metrics": []}, {"metrics": {"hps": 1.0}}, {"counts": None}):
        with pytest.raises(DataError):
            reply_from(json.dumps(said | wrong), {})
    with pytest.raises(DataError, match="must be arrays"):
        reply_from(json.dumps(said), {"backbone.w": "Doe"})  # type: ignore[dict-item]


def test_a_reply_survives_the_wire() -> None:
    reply = Reply("a", "s", 3, "", {"trunk": 2.0}, {"hps": {"points": {"RCC": [1.5, None]}, "loss": 0.5}})
    assert reply_from(reply.facts(), {}) == reply


def test_noise_has_the_stated_size_and_updates_the_stated_norm() -> None:
    changes = {"a": np.full(5000, 3.0, np.float32), "b": np.full(5000, -4.0, np.float32)}
    clipped = privatise(changes, 2.0, 0.0, np.random.default_rng(0))
    assert math.isclose(math.sqrt(sum((v**2).sum() for v in clipped.values())), 2.0, rel_tol=1e-4)
    noisy = privatise({k: v * 0 for k, v in changes.items()}, 2.0, 0.5, np.random.default_rng(0))
    assert np.concatenate(list(noisy.values())).std() == pytest.approx(1.0, rel=0.03)


def test_accountant_gives_the_gaussian_mechanisms_known_bound() -> None:
    # min over real orders of k·a·4/(2σ²) + log(1/δ)/(a-1) is  c + 2·sqrt(c·log(1/δ))  with  c = 2k/σ².
    for sigma, updates in ((4.0, 10), (20.0, 100)):
        c = 2 * updates / sigma**2
        exact = c + 2 * math.sqrt(c * math.log(1e5))
        assert exact <= epsilon(sigma, updates, 1e-5) <= exact * 1.01
    assert epsilon(0.0, 1, 1e-5) == math.inf and epsilon(1.0, 0, 1e-5) == 0


def test_missing_points_are_failures_and_quantiles_know_them() -> None:
    figures = summary([1.0, 2.0, None, None], "points")
    assert (figures["n"], figures["missing"], figures["within_2_mm"]) == (4, 2, 0.5)
    assert (figures["q25"], figures["median"], figures["q75"]) == (1.75, None, None)
    assert summary([2.0, None], "points")["median"] is None and summary([2.0, 3.0], "points")["median"] == 2.5
    assert summary([], "points") == {"n": 0}


def test_a_missing_prediction_never_shifts_another_points_error() -> None:
    grid = Grid.centred(np.zeros(3), 1.0, (40, 40, 40))
    truth = {"RCC": Landmark("RCC", True, (0, 0, 0), 1.0), "LCC": Landmark("LCC", True, (10, 0, 0), 1.0)}
    found = {"RCC": Landmark.missing("RCC"), "LCC": Landmark("LCC", True, (10, 3, 4), 1.0)}
    assert distances(found, truth, grid) == {"RCC": None, "LCC": 5.0}


def test_dice_of_empty_masks_is_defined() -> None:
    import torch

    empty, some = torch.zeros(2, 2, 2), torch.ones(2, 2, 2)
    assert dice(empty, empty, ["Calc"]) == {"Calc": 1.0}
    assert dice(some, empty, ["Calc"]) == dice(empty, some, ["Calc"]) == {"Calc": 0.0}


def test_figures_of_a_site_are_sorted_so_that_no_order_tells_of_a_patient() -> None:
    one = {"hps": {"points": {"RCC": 3.0}}}
    two = {"hps": {"points": {"RCC": None}}}
    three = {"hps": {"points": {"RCC": 1.0}}}
    assert pool([one, two, three]) == {"hps": {"points": {"RCC": [1.0, 3.0, None]}}}


def test_doubted_points_lose_weight_and_incomplete_answers_are_dropped() -> None:
    def answer(x: float) -> dict[str, Landmark]:
        return {"MS1": Landmark("MS1", True, (x, 0, 0), 1.0), "MS2": Landmark("MS2", True, (x, 9, 0), 1.0)}

    settings = Settings(locations=EIGHT)
    drop, keep = settings.replace(pseudo_labels="drop"), settings.replace(pseudo_labels="keep")
    points, spread = consensus([answer(-1), answer(1)], ("MS1", "MS2"))
    assert points["MS1"].ras_mm == (0, 0, 0) and spread["MS1"] == 1.0
    sure, unsure = point_weight(points, spread, settings), point_weight(points, dict.fromkeys(spread, 5.0), settings)
    assert 1 > sure > 0.5 > unsure > 0
    assert point_weight(points, spread, drop) == 1 and point_weight(points, dict.fromkeys(spread, 5.0), drop) == 0
    lost = [{**answer(0), "MS2": Landmark.missing("MS2")}] * 2
    points, spread = consensus(lost, ("MS1", "MS2"))
    assert point_weight(points, spread, settings) == point_weight(points, spread, drop) == 0
    assert point_weight(points, spread, keep) == 1


def test_segmentations_are_doubted_by_disagreement() -> None:
    full, none = np.ones((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)
    settings = Settings(locations=EIGHT)
    assert agreement([full, full], full) == agreement([none, none], none) == 1
    assert agreement([full, none], full) == 0.5
    assert map_weight(0.3, settings) == 0.3 and map_weight(0.3, settings.replace(pseudo_labels="drop")) == 0


def test_splits_are_by_patient_fixed_and_keep_labelled_scans_on_both_sides() -> None:
    settings = Settings(locations=EIGHT, scans=10, labelled=5)
    first, again = digital_site("site-1", settings), digital_site("site-1", settings)
    held = {s.patient for s in first.held_out}
    assert held == {s.patient for s in again.held_out} and not held & {s.patient for s in first.training}
    assert len(held) == 2 and any("hps" in s.labels for s in first.held_out)
    other = digital_site("site-1", settings.replace(seed=1))
    assert held != {s.patient for s in other.held_out}
    everyone = [
        s.patient for n in EIGHT for s in (*digital_site(n, settings).training, *digital_site(n, settings).held_out)
    ]
    assert len(everyone) == len(set(everyone)), "no patient is at two sites"
