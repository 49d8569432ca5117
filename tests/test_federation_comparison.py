"""The methods' table: groups, failures, intervals and pairs on made-up errors, and the whole way on digital sites."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.training.statistics import paired_test
from recipes.federated_distillation.__main__ import main
from recipes.federated_distillation.checkpoint import starting_parameters
from recipes.federated_distillation.comparison import Comparison
from recipes.federated_distillation.comparison_table import collect, compare, markdown
from recipes.federated_distillation.networks import LEARNING_RATE, learning_rate
from recipes.federated_distillation.plan import final_step, make_plan
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.trainee import initial_parameters

TABLE = Settings(**PRESETS["table"]).replace(locations=("site-1", "site-3"))


def points(*errors: float | None) -> dict[str, dict[str, dict[str, float | None]]]:
    """Errors of the six points of one patient."""
    return {"hps": {"points": dict(zip(("RCC", "LCC", "NCC", "RCA", "LCA"), errors, strict=False))}}


def write(comparison: Comparison, method: str, step: str, scores: dict) -> None:
    comparison.folder.mkdir(parents=True, exist_ok=True)
    name = comparison.experiment(method, "unet").exp_name
    (comparison.folder / f"{name}.{step}.json").write_text(json.dumps(scores))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Three patients at a training site and two at another, for a federated and for two local U-Nets."""
    made = Comparison(TABLE, tmp_path, print)
    federated = {
        "site-1": {"a": points(1.0, 2.0), "b": points(3.0, None), "c": points(1.5)},
        "site-8": {"d": points(2.0), "e": points(4.0)},
    }
    own = {"site-1": {"a": points(2.0, 4.0), "b": points(6.0, 7.0), "c": points(None)}}
    write(made, "fedavg", "fedavg", federated)
    write(made, "local", "local-site-1", own | {"site-3": {"x": points(99.0)}, "site-8": {"d": points(5.0)}})
    write(made, "local", "local-site-3", {"site-1": {"a": points(99.0)}, "site-8": {"d": points(7.0)}})
    return made


def test_sites_that_trained_with_a_label_are_one_group_and_all_others_another(comparison: Comparison) -> None:
    columns = collect(comparison)["FedUNet, all heads"]
    assert sorted(columns["hps", "training sites"].values) == ["a", "b", "c"]
    assert sorted(columns["hps", "other sites"].values) == ["d", "e"]
    assert ("ms", "training sites") not in columns, "nothing was tested there"


def test_a_local_network_is_tested_at_home_and_every_one_of_them_at_other_sites(comparison: Comparison) -> None:
    columns = collect(comparison)["UNet, local"]
    assert sorted(columns["hps", "training sites"].values) == ["a", "b", "c"], "not at another training site"
    found = [v for v in columns["hps", "other sites"].values["d"] if not math.isnan(v)]
    assert found == [5.0, 7.0]


def test_missing_points_are_failures_in_rates_and_quartiles(comparison: Comparison) -> None:
    figures = compare(comparison)["figures"]["hps"]["training sites"]
    federated = figures["FedUNet, all heads"]
    assert (federated["patients"], federated["values"], federated["missing"]) == (3, 5, 1)
    assert federated["success"] == {"2": 0.6, "2.5": 0.6, "3": 0.8, "4": 0.8}
    assert federated["median"] == 2.0 and federated["interval"][0] >= 1.0
    assert figures["UNet, local"]["q75"] == 7.0 and figures["UNet, local"]["missing"] == 1


def test_questions_are_answered_on_pairs_of_the_same_patients(comparison: Comparison) -> None:
    tests = compare(comparison)["tests"]
    one = next(t for t in tests if t["group"] == "training sites")
    assert (one["first"], one["second"], one["pairs"]) == ("FedUNet, all heads", "UNet, local", 3)
    # Patients' medians: 1.5, ∞ (3 and a missing one), 1.5 against 3, 6.5, ∞.
    assert one["median_difference"] == -1.5
    assert all(t["p"] <= t["p_holm"] <= 1 for t in tests)
    text = markdown(compare(comparison))
    assert "| FedUNet, all heads | 1.50 / 2.00 / 3.00 |" in text and "1/5" in text


def one_test(tmp_path: Path, federated: list[float | None], own: list[float | None]) -> tuple[dict, str]:
    """The test of a federated against a local U-Net on one point of many patients, and its line in the table."""
    comparison = Comparison(TABLE, tmp_path, print)
    for method, step, errors in (("fedavg", "fedavg", federated), ("local", "local-site-1", own)):
        scores = {f"patient{i}": points(e) for i, e in enumerate(errors)}
        write(comparison, method, step, {"site-1": scores})
    result = json.loads(json.dumps(compare(comparison), allow_nan=False))
    return result["tests"][0], markdown(result).splitlines()[-1]


def test_where_failures_decide_the_table_says_which_way(tmp_path: Path) -> None:
    near: list[float | None] = [1.0 + i / 100 for i in range(12)]
    test, line = one_test(tmp_path / "better", near, [None] * 12)
    assert test["better"] == test["first"] == "FedUNet, all heads"
    assert "| -∞ (-∞…-∞) | < 0.001 | < 0.001 | FedUNet, all heads |" in line
    test, line = one_test(tmp_path / "worse", [None] * 12, near)
    assert test["better"] == test["second"]
    assert "| +∞ (+∞…+∞) |" in line


def test_no_method_is_called_better_where_the_median_difference_says_nothing(tmp_path: Path) -> None:
    lost: list[float | None] = [None] * 21
    test, line = one_test(tmp_path, [*[1.0] * 10, *lost[10:]], lost)
    assert (test["median_difference"], test["direction"], test["better"]) == (0.0, 0, None)
    assert test["p_holm"] < 0.01
    assert line.endswith("not shown |")


def test_as_many_failures_of_one_as_of_the_other_have_no_median_difference() -> None:
    found = paired_test(np.array([1.0, math.inf]), np.array([math.inf, 1.0]))
    assert (found.difference, found.interval) == (None, (-math.inf, math.inf))
    assert paired_test(np.array([1.0, 2.0, 3.0]), np.full(3, math.inf)).difference == -math.inf


def test_only_digital_sites_are_compared_because_real_ones_send_no_single_patient(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --local"):
        Comparison(TABLE.replace(local=False), tmp_path, print)
    with pytest.raises(ConfigError, match="task is 'hps'"):
        Comparison(TABLE.replace(task="hps", method="fedavg", output_seg=False), tmp_path, print)


def test_a_comparison_trains_tests_tables_and_lends_its_teachers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "compare --preset table --locations site-1 site-3 --scans 3 --labelled 2 --test-locations site-1 site-8 "
    command += (
        f"--rounds 1 --epochs 1 --teacher-rounds 1 --uncertainty-samples 1 --exp-name t --methods kd --out {tmp_path}"
    )
    assert main(command.split()) == 0
    shown = capsys.readouterr()
    assert "FedKD-UNet" in shown.out and "FedKD-Swin" in shown.out and "the teachers" in shown.out
    assert shown.err.count("teach-hps  round 1/1 finished") == 1, "the second network takes the first one's teachers"
    server = tmp_path / "server"
    one, two = (server / f"t-kd-{n}" / "teach-ms.safetensors" for n in ("unet", "swin-unetr"))
    assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "comparison" / "t" / "table.md").read_text() in shown.out
    assert main(command.split()) == 0
    assert "round" not in capsys.readouterr().err, "a finished comparison only prints its table"


def begun(tmp_path: Path, **changes: object) -> Settings:
    """The table's settings, beginning at a transformer's weights that no seed of the settings gives."""
    settings = TABLE.replace(method="fedavg", model_type="swin_unetr", stage="distil", **changes)
    step = final_step(make_plan(settings, labels_of_sites(settings)))
    start = {k: torch.from_numpy(v) for k, v in initial_parameters(step, 5).items()}
    save_file(start, tmp_path / "start.safetensors")
    return settings.replace(ckpt=str(tmp_path / "start.safetensors"), lr=1e-4)


def test_a_network_that_cannot_begin_at_the_checkpoint_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    comparison = Comparison(begun(tmp_path), tmp_path, print)
    with pytest.raises(ConfigError, match="is not a cardiac_unet"):
        comparison.run(networks=("swin_unetr", "unet"))
    assert not (tmp_path / "server").exists()
    with pytest.raises(ConfigError, match="mode is 'test'"):
        Comparison(begun(tmp_path).replace(mode="test"), tmp_path, print)


@pytest.mark.parametrize("kind", ["swin_unetr", "unet"])
def test_teachers_of_the_checkpoints_architecture_begin_there_too(kind: str, tmp_path: Path) -> None:
    settings = begun(tmp_path).replace(method="kd", teacher_type=kind)
    teacher = next(s for s in make_plan(settings, labels_of_sites(settings)) if s.name == "teach-ms")
    start = starting_parameters(settings, teacher)
    given = load_file(tmp_path / "start.safetensors")
    taken = [name for name in start if name in given and np.array_equal(start[name], given[name].numpy())]
    nothing = initial_parameters(teacher, settings.seed)
    if kind == "swin_unetr":
        assert sorted(taken) == sorted(start), "trunk and head"
        assert learning_rate(settings, teacher.network) == 1e-4
    else:
        assert learning_rate(settings, teacher.network) == LEARNING_RATE["dynunet"], (
            "the chosen one is the checkpoint's"
        )
        assert all(np.array_equal(start[name], nothing[name]) for name in start)


def test_teachers_that_see_the_heart_have_another_trunk_and_begin_from_nothing(tmp_path: Path) -> None:
    settings = begun(tmp_path).replace(method="kd", teacher_type="swin_unetr", condition_on_seg=True)
    teacher = next(s for s in make_plan(settings, labels_of_sites(settings)) if s.name == "teach-ms")
    nothing = initial_parameters(teacher, settings.seed)
    assert all(np.array_equal(v, nothing[name]) for name, v in starting_parameters(settings, teacher).items())
    assert learning_rate(settings, teacher.network) == LEARNING_RATE["swin_unetr"]


def test_a_comparison_from_a_checkpoint_says_how_good_that_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = begun(tmp_path).ckpt
    command = "compare --preset table --locations site-1 --test-locations site-1 --scans 3 --labelled 2 --rounds 1 "
    command += f"--epochs 1 --exp-name t --methods fedavg --model-type swin_unetr --ckpt {ckpt} --out {tmp_path}"
    assert main(command.split()) == 0
    shown = capsys.readouterr().out
    assert "| Swin, as it began |" in shown and "| FedSwin, all heads |" in shown
    assert "Is the federated transformer better than what it began with?" in shown
    other = initial_parameters(final_step(make_plan(TABLE, labels_of_sites(TABLE))), 6)
    save_file({k: torch.from_numpy(v) for k, v in other.items()}, ckpt)
    assert main(command.split()) != 0, "the same name, other weights"
    assert "holds other weights than those that" in capsys.readouterr().err
